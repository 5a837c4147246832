package graph_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/graph"
	"mix/internal/oracle"
)

// published are the keys of the config.json files of mistralai/Mixtral-8x7B-v0.1 and Mixtral-8x22B-v0.1
// that say something about the model.
const (
	published8x7B = `{"architectures": ["MixtralForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2,
		"hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336,
		"max_position_embeddings": 32768, "model_type": "mixtral", "num_attention_heads": 32, "num_experts_per_tok": 2,
		"num_hidden_layers": 32, "num_key_value_heads": 8, "num_local_experts": 8, "output_router_logits": false,
		"rms_norm_eps": 1e-05, "rope_theta": 1000000.0, "router_aux_loss_coef": 0.02, "sliding_window": null,
		"tie_word_embeddings": false, "torch_dtype": "bfloat16", "transformers_version": "4.36.0.dev0", "use_cache": true, "vocab_size": 32000}`
	published8x22B = `{"architectures": ["MixtralForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2,
		"hidden_act": "silu", "hidden_size": 6144, "initializer_range": 0.02, "intermediate_size": 16384,
		"max_position_embeddings": 65536, "model_type": "mixtral", "num_attention_heads": 48, "num_experts_per_tok": 2,
		"num_hidden_layers": 56, "num_key_value_heads": 8, "num_local_experts": 8, "output_router_logits": false,
		"rms_norm_eps": 1e-05, "rope_theta": 1000000, "router_aux_loss_coef": 0.001, "router_jitter_noise": 0.0, "sliding_window": null,
		"tie_word_embeddings": false, "torch_dtype": "bfloat16", "transformers_version": "4.38.0", "use_cache": true, "vocab_size": 32000}`
)

func TestPublishedConfigs(t *testing.T) {
	for name, text := range map[string]string{"mixtral-8x7b": published8x7B, "mixtral-8x22b": published8x22B} {
		c, err := graph.ParseConfig([]byte(text))
		require.NoError(t, err, name)
		require.Equal(t, graph.Presets[name], c, name)
	}
}

// TestBothKeyStyles reads one model as old and as new versions of transformers write it.
func TestBothKeyStyles(t *testing.T) {
	dirs := oracle.Open(t, "d_layouts").Checkpoints
	require.Len(t, dirs, 2)
	first, err := graph.LoadConfig(dirs[0])
	require.NoError(t, err)
	second, err := graph.LoadConfig(dirs[1])
	require.NoError(t, err)
	require.Equal(t, first, second)
	require.Equal(t, 8, first.HeadDim, "absent or null, it is hidden_size over heads")
}

// edited is the published config with some keys changed; nil removes one.
func edited(t testing.TB, edit map[string]any) []byte {
	var keys map[string]any
	require.NoError(t, json.Unmarshal([]byte(published8x7B), &keys))
	for k, v := range edit {
		if v == nil {
			delete(keys, k)
		} else {
			keys[k] = v
		}
	}
	b, err := json.Marshal(keys)
	require.NoError(t, err)
	return b
}

type keys = map[string]any

func TestConfigAccepts(t *testing.T) {
	tests := []struct {
		name string
		edit keys
		want func(c *graph.Config)
	}{
		{"a head width of its own", keys{"head_dim": 96}, func(c *graph.Config) { c.HeadDim = 96 }},
		{"a sliding window", keys{"sliding_window": 4096}, func(c *graph.Config) { c.Window = 4096 }},
		{"tied embeddings", keys{"tie_word_embeddings": true}, func(c *graph.Config) { c.TieEmbedding = true }},
		{"one expert of one", keys{"num_local_experts": 1, "num_experts_per_tok": 1}, func(c *graph.Config) { c.Experts, c.TopK = 1, 1 }},
		{"every expert", keys{"num_experts_per_tok": 8}, func(c *graph.Config) { c.TopK = 8 }},
		{"several ends", keys{"eos_token_id": []int{7, 2}}, func(c *graph.Config) { c.EOS = []int{7, 2} }},
		{"no ends", keys{"eos_token_id": nil, "bos_token_id": nil}, func(c *graph.Config) { c.BOS, c.EOS = -1, nil }},
		{"rope_parameters", keys{"rope_theta": nil, "rope_parameters": keys{"rope_theta": 5e5, "rope_type": "default"}}, func(c *graph.Config) { c.RopeTheta = 5e5 }},
		{"dtype", keys{"torch_dtype": nil, "dtype": "float16"}, func(c *graph.Config) { c.DType = "float16" }},
		{"no dtype", keys{"torch_dtype": nil}, func(c *graph.Config) { c.DType = "float32" }},
		{"unknown keys that are null", keys{"rope_scaling": json.RawMessage("null"), "unheard_of": json.RawMessage("null"), "quantization_config": json.RawMessage("null")}, func(*graph.Config) {}},
		{"keys that change nothing", keys{"_name_or_path": "x", "use_cache": false, "top_p": 0.3, "pad_token_id": 0}, func(*graph.Config) {}},
		{"defaults of transformers", keys{"num_key_value_heads": nil, "num_local_experts": nil, "num_experts_per_tok": nil, "max_position_embeddings": nil,
			"rope_theta": nil, "rms_norm_eps": nil, "router_aux_loss_coef": nil, "initializer_range": nil, "hidden_act": nil, "sliding_window": nil},
			func(c *graph.Config) { c.Context, c.AuxCoef = 131072, 0.001 }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := graph.Mixtral8x7B
			tt.want(&want)
			c, err := graph.ParseConfig(edited(t, tt.edit))
			require.NoError(t, err)
			require.Equal(t, want, c)
		})
	}
}

func TestConfigRefuses(t *testing.T) {
	tests := []struct {
		name string
		edit keys
		want string
	}{
		{"another model", keys{"model_type": "mistral"}, `model_type is "mistral", want "mixtral"`},
		{"no model", keys{"model_type": nil}, `model_type is "", want "mixtral"`},
		{"heads not divisible by key heads", keys{"num_key_value_heads": 5}, "num_attention_heads 32 is not divisible by num_key_value_heads 5"},
		{"more key heads than heads", keys{"num_key_value_heads": 64}, "num_attention_heads 32 is not divisible by num_key_value_heads 64"},
		{"width not divisible by heads", keys{"num_attention_heads": 40}, "hidden_size 4096 is not divisible by num_attention_heads 40 and head_dim is absent"},
		{"an odd head", keys{"head_dim": 7}, "head_dim is 7, want an even number"},
		{"top-k above experts", keys{"num_experts_per_tok": 9}, "num_experts_per_tok 9 is above num_local_experts 8"},
		{"no experts", keys{"num_local_experts": 0}, "num_local_experts is 0, want 1 to 4096"},
		{"no choice", keys{"num_experts_per_tok": 0}, "num_experts_per_tok is 0, want 1 to 4096"},
		{"no heads", keys{"num_attention_heads": 0}, "num_attention_heads is 0, want 1 to 4096"},
		{"no key heads", keys{"num_key_value_heads": 0}, "num_key_value_heads is 0, want 1 to 4096"},
		{"missing width", keys{"hidden_size": nil}, "hidden_size is 0, want 1 to"},
		{"missing layers", keys{"num_hidden_layers": nil}, "num_hidden_layers is 0, want 1 to"},
		{"missing vocabulary", keys{"vocab_size": nil}, "vocab_size is 0, want 1 to"},
		{"a negative size", keys{"intermediate_size": -1}, "intermediate_size is -1, want 1 to"},
		{"a huge size", keys{"num_hidden_layers": 1 << 40}, "num_hidden_layers is 1099511627776, want 1 to 4096"},
		{"a number beyond integers", keys{"vocab_size": json.RawMessage("1e300")}, "vocab_size is a JSON number 1e300, want an integer"},
		{"a fraction", keys{"num_hidden_layers": 2.5}, "num_hidden_layers is a JSON number 2.5, want an integer"},
		{"text for a number", keys{"hidden_size": "4096"}, "hidden_size is a JSON string, want an integer"},
		{"a number for a switch", keys{"tie_word_embeddings": 1}, "tie_word_embeddings is a JSON number, want true or false"},
		{"text for the rotary base", keys{"rope_theta": "1e6"}, "rope_theta is a JSON string, want a number"},
		{"a negative window", keys{"sliding_window": -4}, "sliding_window is -4, want null or 1 to 1073741824"},
		{"no context", keys{"max_position_embeddings": 0}, "max_position_embeddings is 0, want 1 to"},
		{"a rotary base of zero", keys{"rope_theta": 0}, "rope_theta is 0, want a positive number"},
		{"a negative rotary base", keys{"rope_theta": -1e6}, "rope_theta is -1e+06, want a positive number"},
		{"an eps of zero", keys{"rms_norm_eps": 0}, "rms_norm_eps is 0, want a number between 0 and 1"},
		{"an eps of one", keys{"rms_norm_eps": 1}, "rms_norm_eps is 1, want a number between 0 and 1"},
		{"scaled positions", keys{"rope_scaling": keys{"type": "yarn", "factor": 4}}, `rope_scaling has type "yarn", want "default"`},
		{"scaled positions, newer", keys{"rope_parameters": keys{"rope_type": "linear", "factor": 2}}, `rope_parameters has type "linear", want "default"`},
		{"a list for an object", keys{"rope_parameters": []int{1}}, "rope_parameters is a JSON array, want an object"},
		{"a number for text", keys{"torch_dtype": 16}, "torch_dtype is a JSON number, want text"},
		{"an unknown key of the rotary parameters", keys{"rope_parameters": keys{"rope_type": "default", "partial_rotary_factor": 0.5}},
			"unknown key that may change the model: rope_parameters.partial_rotary_factor = 0.5"},
		{"sizes that multiply beyond all memory", keys{"head_dim": 128, "intermediate_size": 1 << 20, "hidden_size": 1 << 20, "num_local_experts": 1 << 12, "num_hidden_layers": 1 << 12},
			"num_hidden_layers 4096, num_local_experts 4096, intermediate_size 1048576 and hidden_size 1048576 multiply to more than 2^50"},
		{"quantization", keys{"quantization_config": keys{"quant_method": "awq"}}, "quantization_config is set, want an unquantized checkpoint"},
		{"another activation", keys{"hidden_act": "gelu"}, `hidden_act is "gelu", want "silu"`},
		{"biases", keys{"attention_bias": true}, "attention_bias is true"},
		{"an unknown key", keys{"partial_rotary_factor": 0.5}, "unknown key that may change the model: partial_rotary_factor = 0.5"},
		{"a begin beyond the vocabulary", keys{"bos_token_id": 32000}, "bos_token_id is 32000, want null, -1 or 0 to 31999"},
		{"a negative begin", keys{"bos_token_id": -5}, "bos_token_id is -5, want null, -1 or 0 to 31999"},
		{"an end that is text", keys{"eos_token_id": "two"}, `eos_token_id is "two", want an id or a list of ids`},
		{"an empty list of ends", keys{"eos_token_id": []int{}}, "eos_token_id is [], want an id or a list of ids"},
		{"a negative end", keys{"eos_token_id": -2}, "eos_token_id is [-2], want ids of 0 to 31999"},
		{"another dtype", keys{"torch_dtype": "int8"}, `torch_dtype is "int8", want float32, bfloat16 or float16`},
		{"a negative loss weight", keys{"router_aux_loss_coef": -1}, "router_aux_loss_coef is -1"},
		{"a negative deviation", keys{"initializer_range": -1}, "initializer_range is -1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := graph.ParseConfig(edited(t, tt.edit))
			require.ErrorIs(t, err, graph.ErrConfig)
			require.ErrorContains(t, err, tt.want)
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

func TestConfigRefusesText(t *testing.T) {
	for _, text := range []string{"", "null", "[]", "3", "{", `{"model_type": "mixtral"`, "\xff\xfe"} {
		_, err := graph.ParseConfig([]byte(text))
		require.ErrorIs(t, err, graph.ErrConfig, "%q", text)
	}
}

func TestLoadConfigNamesTheFile(t *testing.T) {
	dir := t.TempDir()
	_, err := graph.LoadConfig(dir)
	require.True(t, errors.Is(err, graph.ErrConfig) && errors.Is(err, os.ErrNotExist), "%v", err)
	path := filepath.Join(dir, "config.json")
	require.NoError(t, os.WriteFile(path, edited(t, keys{"num_experts_per_tok": 9}), 0o600))
	_, err = graph.LoadConfig(dir)
	require.ErrorContains(t, err, path+": config: num_experts_per_tok 9 is above")
}

// FuzzConfig takes any text: an answer that fits together, or an error of one line that is ErrConfig.
func FuzzConfig(f *testing.F) {
	f.Add([]byte(published8x7B))
	f.Add([]byte(published8x22B))
	f.Add(edited(f, keys{"rope_parameters": keys{"rope_theta": 1, "rope_type": "yarn"}, "eos_token_id": []int{1, 2}}))
	f.Add(edited(f, keys{"vocab_size": 1e30}))
	f.Add(edited(f, keys{"a\nb": "c\nd"}))
	f.Add([]byte(`{"model_type": "mixtral", "num_attention_heads": -1}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := graph.ParseConfig(text)
		if err != nil {
			require.ErrorIs(t, err, graph.ErrConfig)
			require.NotContains(t, err.Error(), "\n")
			return
		}
		require.NoError(t, c.Validate())
		require.NotEmpty(t, graph.Params(c))
	})
}
