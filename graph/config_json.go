package graph

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// JSON is the config.json of the model, as Hugging Face transformers reads it and ParseConfig does. Keys
// that its versions spell differently are there in both spellings: rope_theta and rope_parameters,
// torch_dtype and dtype. It fails where Validate does.
// Source: transformers, models/mixtral/configuration_mixtral.py of 4.36 and of 5.
func (c Config) JSON() ([]byte, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	keys := map[string]any{
		"architectures":           []string{"MixtralForCausalLM"},
		"attention_dropout":       fraction(0),
		"bos_token_id":            nil,
		"dtype":                   c.DType,
		"eos_token_id":            nil,
		"head_dim":                c.HeadDim,
		"hidden_act":              "silu",
		"hidden_size":             c.Width,
		"initializer_range":       fraction(c.InitStd),
		"intermediate_size":       c.Hidden,
		"max_position_embeddings": c.Context,
		"model_type":              "mixtral",
		"num_attention_heads":     c.Heads,
		"num_experts_per_tok":     c.TopK,
		"num_hidden_layers":       c.Layers,
		"num_key_value_heads":     c.KVHeads,
		"num_local_experts":       c.Experts,
		"output_router_logits":    false,
		"rms_norm_eps":            fraction(c.NormEps),
		"rope_parameters":         map[string]any{"rope_theta": fraction(c.RopeTheta), "rope_type": "default"},
		"rope_theta":              fraction(c.RopeTheta),
		"router_aux_loss_coef":    fraction(c.AuxCoef),
		"router_jitter_noise":     fraction(0),
		"sliding_window":          nil,
		"tie_word_embeddings":     c.TieEmbedding,
		"torch_dtype":             c.DType,
		"use_cache":               true,
		"vocab_size":              c.Vocab,
	}
	if c.BOS >= 0 {
		keys["bos_token_id"] = c.BOS
	}
	switch len(c.EOS) {
	case 0:
	case 1:
		keys["eos_token_id"] = c.EOS[0]
	default:
		keys["eos_token_id"] = c.EOS
	}
	if c.Window > 0 {
		keys["sliding_window"] = c.Window
	}
	b, err := json.MarshalIndent(keys, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return append(b, '\n'), nil
}

// fraction is a number that Python reads as a float and never as an int, which newer versions of
// transformers refuse where they want a float.
type fraction float64

// MarshalJSON gives the shortest text that reads back as the same number.
func (f fraction) MarshalJSON() ([]byte, error) {
	s := strconv.FormatFloat(float64(f), 'g', -1, 64)
	if !strings.ContainsAny(s, ".e") {
		s += ".0"
	}
	return []byte(s), nil
}
