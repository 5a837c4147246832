package ckpt

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"

	"mix/sharding/axis"
	"mix/sharding/ckpt/torchfile"
)

// argInt is the first of the fields of Megatron's settings that is there and not None.
func argInt(args *torchfile.Object, names ...string) (n int, ok bool, err error) {
	v, name := arg(args, names...)
	switch v := v.(type) {
	case nil:
		return 0, false, nil
	case int64:
		if v == int64(int32(v)) {
			return int(v), true, nil
		}
	}
	return 0, false, fmt.Errorf("args have %s = %s, want an integer", name, torchfile.Show(v))
}

func argFloat(args *torchfile.Object, names ...string) (x float64, ok bool, err error) {
	v, name := arg(args, names...)
	switch v := v.(type) {
	case nil:
		return 0, false, nil
	case int64:
		return float64(v), true, nil
	case float64:
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			return v, true, nil
		}
	}
	return 0, false, fmt.Errorf("args have %s = %s, want a number", name, torchfile.Show(v))
}

func argBool(args *torchfile.Object, names ...string) bool {
	v, _ := arg(args, names...)
	return v == true
}

func arg(args *torchfile.Object, names ...string) (v any, name string) {
	if args == nil {
		return nil, ""
	}
	for _, name := range names {
		if v, ok := args.Field(name); ok && v != nil {
			return v, name
		}
	}
	return nil, ""
}

// mixtrals are the settings that say what is computed with weights of Mixtral's names and shapes, and what Mixtral has
// them at. A model of others would be read without a word and be wrong.
var mixtrals = []struct {
	name string
	want any
}{
	{"swiglu", true}, {"normalization", "RMSNorm"}, {"apply_layernorm_1p", false}, {"position_embedding_type", "rope"}, {"rotary_percent", 1.0},
	{"rotary_interleaved", false}, {"use_rope_scaling", false}, {"moe_router_pre_softmax", false}, {"moe_router_score_function", "softmax"},
	{"moe_apply_probs_on_input", false},
}

// isMixtral refuses settings of another model. Those that are absent or None are Mixtral's.
func isMixtral(args *torchfile.Object) error {
	for _, x := range mixtrals {
		v, _ := arg(args, x.name)
		if n, ok := v.(int64); ok {
			v = float64(n)
		}
		if v != nil && v != x.want {
			return fmt.Errorf("args have %s = %s, a Mixtral %s", x.name, torchfile.Show(v), torchfile.Show(x.want))
		}
	}
	return nil
}

// What Megatron's settings leave out, or have under names of its own.
const (
	// defaultTheta is the base of Mixtral's rotary frequencies. Older files do not say it, and the default of
	// Megatron itself, 10000, is no published Mixtral's.
	defaultTheta = 1e6
	configFile   = "config.json"
)

// megatronConfig is the text of a config.json for the model that a checkpoint of Megatron says it holds.
//
// Fields that the settings leave out are an error, but for these: the rotary base is 1e6, the epsilon 1e-5,
// the vocabulary is the padded one, key/value heads are as many as heads unless groups are in use, a head is
// hidden size over heads wide.
func megatronConfig(args *torchfile.Object, dtype string) ([]byte, error) {
	c := map[string]any{"architectures": []string{"MixtralForCausalLM"}, "model_type": "mixtral", "hidden_act": "silu", "torch_dtype": dtype,
		"tie_word_embeddings": !argBool(args, "untie_embeddings_and_output_weights")}
	if _, name := arg(args, "untie_embeddings_and_output_weights"); name == "" {
		c["tie_word_embeddings"] = false
	}
	for _, x := range []struct {
		key   string
		must  bool
		names []string
	}{
		{"vocab_size", true, []string{"vocab_size", "padded_vocab_size"}},
		{"hidden_size", true, []string{"hidden_size"}},
		{"intermediate_size", true, []string{"moe_ffn_hidden_size", "ffn_hidden_size"}},
		{"num_hidden_layers", true, []string{"num_layers"}},
		{"num_attention_heads", true, []string{"num_attention_heads"}},
		{"num_key_value_heads", false, []string{"num_query_groups"}},
		{"head_dim", false, []string{"kv_channels"}},
		{"num_local_experts", true, []string{"num_experts"}},
		{"num_experts_per_tok", false, []string{"moe_router_topk"}},
		{"max_position_embeddings", false, []string{"max_position_embeddings", "seq_length"}},
	} {
		n, ok, err := argInt(args, x.names...)
		switch {
		case err != nil:
			return nil, err
		case ok:
			c[x.key] = n
		case x.must:
			return nil, fmt.Errorf("args lack %s: put the model's config.json into the checkpoint's folder", x.names[len(x.names)-1])
		}
	}
	if _, ok := c["num_key_value_heads"]; !ok || !argBool(args, "group_query_attention") {
		c["num_key_value_heads"] = c["num_attention_heads"]
	}
	for key, x := range map[string]struct {
		names  []string
		absent float64
	}{
		"rope_theta":           {[]string{"rotary_base"}, defaultTheta},
		"rms_norm_eps":         {[]string{"norm_epsilon", "layernorm_epsilon"}, 1e-5},
		"router_aux_loss_coef": {[]string{"moe_aux_loss_coeff"}, 0.02},
	} {
		v, ok, err := argFloat(args, x.names...)
		if err != nil {
			return nil, err
		}
		if !ok {
			v = x.absent
		}
		c[key] = v
	}
	b, err := json.MarshalIndent(c, "", "  ")
	return append(b, '\n'), err
}

// ConfigText is the text of a checkpoint's config.json: the file, or for a checkpoint of Megatron without one
// what its own settings say.
func ConfigText(dir string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(dir, configFile))
	if err == nil {
		return b, nil
	}
	format, detected := Detect(dir)
	if detected != nil || format != Megatron {
		return nil, err
	}
	m := openMegatron(dir)
	defer m.close()
	if len(m.problems) > 0 {
		return nil, &Problems{Where: dir, List: m.problems}
	}
	dtype := "float32"
	switch {
	case argBool(m.args, "bf16"):
		dtype = "bfloat16"
	case argBool(m.args, "fp16"):
		dtype = "float16"
	}
	text, err := megatronConfig(m.args, dtype)
	if err != nil {
		return nil, fmt.Errorf("checkpoint %s: %w", dir, err)
	}
	return text, nil
}

// facts are what Megatron's settings want to know of a model beside the sizes of its weights.
type facts struct {
	Theta *float64 `json:"rope_theta"`
	Rope  *struct {
		Theta *float64 `json:"rope_theta"`
	} `json:"rope_parameters"`
	Eps     *float64 `json:"rms_norm_eps"`
	Context *int     `json:"max_position_embeddings"`
	TopK    *int     `json:"num_experts_per_tok"`
	Aux     *float64 `json:"router_aux_loss_coef"`
}

// megatronSettings are the args of a checkpoint: what Megatron compares with its own flags, and what it takes
// from a checkpoint when asked to (--use-checkpoint-args).
// Source: Megatron-LM, megatron/training/checkpointing.py, check_checkpoint_args and load_args_from_checkpoint.
func megatronSettings(sizes map[axis.Logical]int, g Grid, tiedHead bool, dtype string, config []byte) (*torchfile.Object, error) {
	var f facts
	if len(config) > 0 {
		if err := json.Unmarshal(config, &f); err != nil {
			return nil, fmt.Errorf("%s: %w", configFile, err)
		}
	}
	theta := or(f.Theta, defaultTheta)
	if f.Rope != nil {
		theta = or(f.Rope.Theta, theta)
	}
	context := or(f.Context, 32768)
	d := torchfile.DictOf(
		"num_layers", sizes[axis.Layers], "hidden_size", sizes[axis.Embed], "ffn_hidden_size", sizes[axis.FFN],
		"moe_ffn_hidden_size", sizes[axis.FFN], "num_attention_heads", sizes[axis.Heads],
		"group_query_attention", sizes[axis.KVHeads] != sizes[axis.Heads], "num_query_groups", sizes[axis.KVHeads],
		"kv_channels", sizes[axis.HeadDim], "seq_length", context, "max_position_embeddings", context,
		"vocab_size", sizes[axis.Vocab], "padded_vocab_size", g.paddedVocab(sizes[axis.Vocab]), "make_vocab_size_divisible_by", vocabMultiple,
		"position_embedding_type", "rope", "add_position_embedding", false, "use_rotary_position_embeddings", true,
		"rotary_base", theta, "rotary_percent", 1.0, "rotary_interleaved", false, "rotary_seq_len_interpolation_factor", nil,
		"normalization", "RMSNorm", "norm_epsilon", or(f.Eps, 1e-5), "apply_layernorm_1p", false, "qk_layernorm", false,
		"swiglu", true, "squared_relu", false, "add_bias_linear", false, "add_qkv_bias", false,
		"apply_query_key_layer_scaling", false, "attention_dropout", 0.0, "hidden_dropout", 0.0,
		"untie_embeddings_and_output_weights", !tiedHead,
		"num_experts", sizes[axis.Experts], "moe_router_topk", or(f.TopK, 2), "moe_layer_freq", 1, "moe_grouped_gemm", false,
		"moe_aux_loss_coeff", or(f.Aux, 0.01), "moe_router_load_balancing_type", "aux_loss", "moe_shared_expert_intermediate_size", nil,
		"tensor_model_parallel_size", g.Tensor, "pipeline_model_parallel_size", g.Pipeline, "expert_model_parallel_size", g.Expert,
		"expert_tensor_parallel_size", g.Tensor, "context_parallel_size", 1, "virtual_pipeline_model_parallel_size", nil,
		"transformer_impl", "transformer_engine", "tokenizer_type", nil, "tokenizer_model", nil, "vocab_file", nil,
		"bf16", dtype == "bfloat16", "fp16", dtype == "float16", "params_dtype", torchfile.Global{Module: "torch", Name: dtype},
		"use_mcore_models", true, "ckpt_format", "torch", "use_dist_ckpt", false, "iteration", 1,
		"consumed_train_samples", 0, "skipped_train_samples", 0, "consumed_valid_samples", 0, "data_parallel_size", 1, "world_size", g.Tensor*g.Pipeline*g.Expert,
	)
	return &torchfile.Object{Class: torchfile.Global{Module: "argparse", Name: "Namespace"}, Args: torchfile.Tuple{}, State: d}, nil
}

func or[T any](p *T, absent T) T {
	if p == nil {
		return absent
	}
	return *p
}
