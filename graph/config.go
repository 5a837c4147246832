package graph

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// ErrConfig is wrapped by every refusal of a config.json or of a Config.
var ErrConfig = errors.New("config")

// Config holds every size of a Mixtral model.
type Config struct {
	Vocab        int // V token ids
	Width        int // D model width
	Hidden       int // F hidden width of an expert
	Layers       int // L decoder layers
	Heads        int // H query heads
	KVHeads      int // G key/value heads, dividing Heads
	HeadDim      int // A width of a head; even, need not be Width/Heads
	Experts      int // E experts
	TopK         int // K experts a token
	Context      int // longest sequence the model was made for, in tokens
	Window       int // sliding attention window in tokens, 0 for none
	RopeTheta    float64
	NormEps      float64
	TieEmbedding bool    // the head is the token table
	AuxCoef      float64 // weight of the load-balancing loss
	InitStd      float64 // standard deviation of freshly initialized matrices

	BOS   int    // token id, -1 where the file has none
	EOS   []int  // token ids, any of which ends a text; empty where the file has none
	DType string // the checkpoint's own: "float32", "bfloat16" or "float16"
}

// Mixtral8x7B and Mixtral8x22B are the published models.
// Source: config.json of mistralai/Mixtral-8x7B-v0.1 and mistralai/Mixtral-8x22B-v0.1.
var (
	Mixtral8x7B = Config{Vocab: 32000, Width: 4096, Hidden: 14336, Layers: 32, Heads: 32, KVHeads: 8, HeadDim: 128,
		Experts: 8, TopK: 2, Context: 32768, RopeTheta: 1e6, NormEps: 1e-5, AuxCoef: 0.02, InitStd: 0.02,
		BOS: 1, EOS: []int{2}, DType: "bfloat16"}
	Mixtral8x22B = Config{Vocab: 32000, Width: 6144, Hidden: 16384, Layers: 56, Heads: 48, KVHeads: 8, HeadDim: 128,
		Experts: 8, TopK: 2, Context: 65536, RopeTheta: 1e6, NormEps: 1e-5, AuxCoef: 0.001, InitStd: 0.02,
		BOS: 1, EOS: []int{2}, DType: "bfloat16"}
)

// Presets names the published models, as flags do.
var Presets = map[string]Config{"mixtral-8x7b": Mixtral8x7B, "mixtral-8x22b": Mixtral8x22B}

// file is config.json as Hugging Face writes it: the keys that this package reads.
type file struct {
	Vocab        int             `json:"vocab_size"`
	Width        int             `json:"hidden_size"`
	Hidden       int             `json:"intermediate_size"`
	Layers       int             `json:"num_hidden_layers"`
	Heads        int             `json:"num_attention_heads"`
	KVHeads      *int            `json:"num_key_value_heads"`
	HeadDim      *int            `json:"head_dim"`
	Experts      *int            `json:"num_local_experts"`
	TopK         *int            `json:"num_experts_per_tok"`
	Context      *int            `json:"max_position_embeddings"`
	Window       *int            `json:"sliding_window"`
	RopeTheta    *float64        `json:"rope_theta"`
	Rope         *rope           `json:"rope_parameters"`
	RopeScaling  *rope           `json:"rope_scaling"`
	NormEps      *float64        `json:"rms_norm_eps"`
	TieEmbedding bool            `json:"tie_word_embeddings"`
	AuxCoef      *float64        `json:"router_aux_loss_coef"`
	InitStd      *float64        `json:"initializer_range"`
	BOS          *int            `json:"bos_token_id"`
	EOS          json.RawMessage `json:"eos_token_id"`
	TorchDType   string          `json:"torch_dtype"`
	DType        string          `json:"dtype"`
	Type         string          `json:"model_type"`
	Activation   *string         `json:"hidden_act"`
	Bias         bool            `json:"attention_bias"`
	Quantization json.RawMessage `json:"quantization_config"`
}

type rope struct {
	Theta *float64 `json:"rope_theta"`
	Type  string   `json:"rope_type"`
	Old   string   `json:"type"`
}

// harmless lists the keys that do not change what the model computes at inference: names, versions,
// settings of the training run, and the generation defaults that old files carry.
var harmless = []string{"_name_or_path", "architectures", "attention_dropout", "auto_map", "transformers_version", "use_cache",
	"output_router_logits", "router_jitter_noise", "pad_token_id", "sep_token_id", "unk_token_id", "decoder_start_token_id",
	"return_dict", "output_hidden_states", "output_attentions", "torchscript", "use_bfloat16", "is_decoder", "is_encoder_decoder",
	"cross_attention_hidden_size", "add_cross_attention", "tie_encoder_decoder", "chunk_size_feed_forward", "finetuning_task",
	"id2label", "label2id", "problem_type", "task_specific_params", "tokenizer_class", "prefix", "max_length", "min_length",
	"do_sample", "early_stopping", "num_beams", "num_beam_groups", "diversity_penalty", "temperature", "top_k", "top_p",
	"typical_p", "repetition_penalty", "length_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids",
	"num_return_sequences", "output_scores", "return_dict_in_generate", "forced_bos_token_id", "forced_eos_token_id",
	"remove_invalid_values", "exponential_decay_length_penalty", "suppress_tokens", "begin_suppress_tokens", "tf_legacy_loss",
	"pruned_heads", "_attn_implementation_autoset", "attn_implementation", "unsloth_version", "unsloth_fixed", "model_max_length"}

// read lists the keys of file.
var read = func() (keys []string) {
	t := reflect.TypeFor[file]()
	for i := range t.NumField() {
		keys = append(keys, t.Field(i).Tag.Get("json"))
	}
	return keys
}()

// LoadConfig reads dir/config.json.
func LoadConfig(dir string) (Config, error) {
	path := filepath.Join(dir, "config.json")
	b, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	c, err := ParseConfig(b)
	if err != nil {
		return Config{}, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// ParseConfig reads a Hugging Face config.json of model_type "mixtral" and validates it. A key that
// may change the model and is not understood is an error that names it.
func ParseConfig(b []byte) (Config, error) {
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(b, &keys); err != nil {
		return Config{}, fmt.Errorf("%w: not a JSON object: %v", ErrConfig, err)
	}
	var f file
	if err := json.Unmarshal(b, &f); err != nil {
		return Config{}, wrongType(err)
	}
	if f.Type != "mixtral" {
		return Config{}, fmt.Errorf("%w: model_type is %q, want \"mixtral\"", ErrConfig, f.Type)
	}
	if err := unknown(keys, "", append(slices.Clone(harmless), read...)); err != nil {
		return Config{}, err
	}
	c := Config{Vocab: f.Vocab, Width: f.Width, Hidden: f.Hidden, Layers: f.Layers, Heads: f.Heads, TieEmbedding: f.TieEmbedding,
		KVHeads: or(f.KVHeads, 8), Experts: or(f.Experts, 8), TopK: or(f.TopK, 2), Context: or(f.Context, 4096*32),
		Window: or(f.Window, 0), NormEps: or(f.NormEps, 1e-5), AuxCoef: or(f.AuxCoef, 0.001), InitStd: or(f.InitStd, 0.02),
		BOS: or(f.BOS, -1), DType: f.DType}
	if c.DType == "" {
		c.DType = f.TorchDType
	}
	if c.DType == "" {
		c.DType = "float32"
	}
	if c.Heads > 0 {
		c.HeadDim = or(f.HeadDim, c.Width/c.Heads)
	}
	if f.HeadDim == nil && c.Heads > 0 && c.Width%c.Heads != 0 {
		return Config{}, fmt.Errorf("%w: hidden_size %d is not divisible by num_attention_heads %d and head_dim is absent",
			ErrConfig, c.Width, c.Heads)
	}
	var err error
	if c.EOS, err = eos(f.EOS); err != nil {
		return Config{}, err
	}
	if c.RopeTheta, err = theta(f, keys); err != nil {
		return Config{}, err
	}
	switch {
	case f.Activation != nil && *f.Activation != "silu":
		return Config{}, fmt.Errorf("%w: hidden_act is %q, want \"silu\"", ErrConfig, *f.Activation)
	case f.Bias:
		return Config{}, fmt.Errorf("%w: attention_bias is true, Mixtral has no biases", ErrConfig)
	case len(f.Quantization) > 0 && string(f.Quantization) != "null":
		return Config{}, fmt.Errorf("%w: quantization_config is set, want an unquantized checkpoint (float32, bfloat16 or float16)", ErrConfig)
	}
	return c, c.Validate()
}

// eos reads eos_token_id: a number, a list, or null or -1 for none.
func eos(raw json.RawMessage) ([]int, error) {
	var one int
	if len(raw) == 0 || string(raw) == "null" || json.Unmarshal(raw, &one) == nil && one == -1 {
		return nil, nil
	}
	if json.Unmarshal(raw, &one) == nil {
		return []int{one}, nil
	}
	var many []int
	if err := json.Unmarshal(raw, &many); err != nil || len(many) == 0 {
		return nil, fmt.Errorf("%w: eos_token_id is %s, want an id or a list of ids", ErrConfig, short(raw))
	}
	return many, nil
}

// theta reads the rotary base from either place and refuses every scaling.
func theta(f file, keys map[string]json.RawMessage) (float64, error) {
	t := 1e6
	if f.RopeTheta != nil {
		t = *f.RopeTheta
	}
	for _, r := range []struct {
		key string
		r   *rope
	}{{"rope_parameters", f.Rope}, {"rope_scaling", f.RopeScaling}} {
		if r.r == nil {
			continue
		}
		if r.r.Theta != nil {
			t = *r.r.Theta
		}
		for _, kind := range []string{r.r.Type, r.r.Old} {
			if kind != "" && kind != "default" {
				return 0, fmt.Errorf("%w: %s has type %q, want \"default\"", ErrConfig, r.key, kind)
			}
		}
		var inside map[string]json.RawMessage
		if err := json.Unmarshal(keys[r.key], &inside); err != nil {
			return 0, fmt.Errorf("%w: %s is not an object: %v", ErrConfig, r.key, err)
		}
		if err := unknown(inside, r.key+".", []string{"rope_theta", "rope_type", "type"}); err != nil {
			return 0, err
		}
	}
	return t, nil
}

// unknown refuses the first key that is not known and not null. prefix is where the keys are.
func unknown(keys map[string]json.RawMessage, prefix string, known []string) error {
	var bad []string
	for k, v := range keys {
		if !slices.Contains(known, k) && string(v) != "null" {
			bad = append(bad, fmt.Sprintf("%s%s = %s", prefix, strings.Trim(strconv.Quote(k), `"`), short(v)))
		}
	}
	if len(bad) > 0 {
		slices.Sort(bad)
		return fmt.Errorf("%w: unknown key that may change the model: %s", ErrConfig, bad[0])
	}
	return nil
}

// short is the beginning of a JSON value on one line.
func short(raw json.RawMessage) string {
	return fmt.Sprintf("%.60s", strings.Join(strings.Fields(string(raw)), " "))
}

// wrongType says which key has a value of another kind than wanted.
func wrongType(err error) error {
	var e *json.UnmarshalTypeError
	if !errors.As(err, &e) {
		return fmt.Errorf("%w: %v", ErrConfig, err)
	}
	want := map[reflect.Kind]string{reflect.Int: "an integer", reflect.Float64: "a number", reflect.Bool: "true or false",
		reflect.String: "text", reflect.Struct: "an object"}[e.Type.Kind()]
	return fmt.Errorf("%w: %s is a JSON %s, want %s", ErrConfig, e.Field, e.Value, want)
}

func or[T any](p *T, d T) T {
	if p == nil {
		return d
	}
	return *p
}

// Validate names the first value that is out of bounds or does not fit the others.
func (c Config) Validate() error {
	for _, s := range []struct {
		key        string
		value, max int
	}{{"vocab_size", c.Vocab, 1 << 24}, {"hidden_size", c.Width, 1 << 20}, {"intermediate_size", c.Hidden, 1 << 20},
		{"num_hidden_layers", c.Layers, 1 << 12}, {"num_attention_heads", c.Heads, 1 << 12}, {"num_key_value_heads", c.KVHeads, 1 << 12},
		{"head_dim", c.HeadDim, 1 << 14}, {"num_local_experts", c.Experts, 1 << 12}, {"num_experts_per_tok", c.TopK, 1 << 12},
		{"max_position_embeddings", c.Context, 1 << 24}} {
		if s.value < 1 || s.value > s.max {
			return fmt.Errorf("%w: %s is %d, want 1 to %d", ErrConfig, s.key, s.value, s.max)
		}
	}
	switch {
	case c.Heads%c.KVHeads != 0:
		return fmt.Errorf("%w: num_attention_heads %d is not divisible by num_key_value_heads %d", ErrConfig, c.Heads, c.KVHeads)
	case c.HeadDim%2 != 0:
		return fmt.Errorf("%w: head_dim is %d, want an even number for rotary pairs", ErrConfig, c.HeadDim)
	case c.TopK > c.Experts:
		return fmt.Errorf("%w: num_experts_per_tok %d is above num_local_experts %d", ErrConfig, c.TopK, c.Experts)
	case c.Window < 0 || c.Window > 1<<30:
		return fmt.Errorf("%w: sliding_window is %d, want null or 1 to %d", ErrConfig, c.Window, 1<<30)
	case !(c.RopeTheta > 0) || math.IsInf(c.RopeTheta, 0):
		return fmt.Errorf("%w: rope_theta is %g, want a positive number", ErrConfig, c.RopeTheta)
	case !(c.NormEps > 0) || c.NormEps >= 1:
		return fmt.Errorf("%w: rms_norm_eps is %g, want a number between 0 and 1", ErrConfig, c.NormEps)
	case c.BOS >= c.Vocab || c.BOS < -1:
		return fmt.Errorf("%w: bos_token_id is %d, want null, -1 or 0 to %d", ErrConfig, c.BOS, c.Vocab-1)
	case slices.ContainsFunc(c.EOS, func(id int) bool { return id < 0 || id >= c.Vocab }):
		return fmt.Errorf("%w: eos_token_id is %v, want ids of 0 to %d", ErrConfig, c.EOS, c.Vocab-1)
	case !(c.AuxCoef >= 0) || math.IsInf(c.AuxCoef, 0):
		return fmt.Errorf("%w: router_aux_loss_coef is %g, want at least 0", ErrConfig, c.AuxCoef)
	case !(c.InitStd >= 0) || math.IsInf(c.InitStd, 0):
		return fmt.Errorf("%w: initializer_range is %g, want at least 0", ErrConfig, c.InitStd)
	case float64(c.Layers)*float64(c.Experts)*float64(c.Hidden)*float64(c.Width) > 1<<50:
		return fmt.Errorf("%w: num_hidden_layers %d, num_local_experts %d, intermediate_size %d and hidden_size %d multiply to more than 2^50",
			ErrConfig, c.Layers, c.Experts, c.Hidden, c.Width)
	case c.DType != "float32" && c.DType != "bfloat16" && c.DType != "float16":
		return fmt.Errorf("%w: torch_dtype is %q, want float32, bfloat16 or float16", ErrConfig, c.DType)
	}
	return nil
}
