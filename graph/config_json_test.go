package graph_test

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/graph"
	"mix/internal/oracle"
)

func TestConfigJSONReadsBackAsItself(t *testing.T) {
	configs := map[string]graph.Config{"8x7B": graph.Mixtral8x7B, "8x22B": graph.Mixtral8x22B}
	edit := func(name string, f func(c *graph.Config)) {
		c := graph.Mixtral8x7B
		f(&c)
		configs[name] = c
	}
	edit("a window", func(c *graph.Config) { c.Window = 4096 })
	edit("tied", func(c *graph.Config) { c.TieEmbedding = true })
	edit("no begin and no end", func(c *graph.Config) { c.BOS, c.EOS = -1, nil })
	edit("several ends", func(c *graph.Config) { c.EOS = []int{2, 7} })
	edit("token 0", func(c *graph.Config) { c.BOS, c.EOS = 0, []int{0} })
	edit("a width of head of its own", func(c *graph.Config) { c.HeadDim = 96 })
	edit("no loss weight, no deviation", func(c *graph.Config) { c.AuxCoef, c.InitStd = 0, 0 })
	edit("a fraction that is long", func(c *graph.Config) { c.NormEps, c.RopeTheta = 1.0/3, 1e300/7 })
	edit("float16", func(c *graph.Config) { c.DType = "float16" })
	r := rand.New(rand.NewPCG(1, 2))
	for name, c := range configs {
		for range 20 {
			text, err := c.JSON()
			require.NoError(t, err, name)
			got, err := graph.ParseConfig(text)
			require.NoError(t, err, name)
			require.Equal(t, c, got, name)
			c.RopeTheta, c.NormEps, c.AuxCoef, c.InitStd = 1e6*r.ExpFloat64(), r.Float64(), r.Float64(), r.ExpFloat64()
		}
	}
}

func TestConfigJSONSaysWhatTransformersSays(t *testing.T) {
	for _, name := range oracle.Cases {
		for _, dir := range oracle.Open(t, name).Checkpoints {
			b, err := os.ReadFile(filepath.Join(dir, "config.json"))
			require.NoError(t, err)
			c, err := graph.ParseConfig(b)
			require.NoError(t, err)
			text, err := c.JSON()
			require.NoError(t, err)
			var want, got map[string]any
			require.NoError(t, json.Unmarshal(b, &want))
			require.NoError(t, json.Unmarshal(text, &got))
			for key, v := range want {
				switch {
				case key == "transformers_version":
					require.NotContains(t, got, key, "no version of it wrote this")
				case key == "head_dim" && v == nil:
					require.EqualValues(t, c.HeadDim, got[key], "what null stands for")
				case v == nil:
					require.Nil(t, got[key], key)
				default:
					require.Equal(t, v, got[key], "%s: %s", dir, key)
				}
			}
		}
	}
}

func TestConfigJSONWritesFloatsAsFloats(t *testing.T) {
	c := graph.Mixtral8x7B
	c.AuxCoef, c.RopeTheta = 1, 10000
	text, err := c.JSON()
	require.NoError(t, err)
	require.Contains(t, string(text), `"router_aux_loss_coef": 1.0,`)
	require.Contains(t, string(text), `"rope_theta": 10000.0`)
	require.Contains(t, string(text), `"hidden_size": 4096,`)
}

func TestConfigJSONRefusesWhatCannotBe(t *testing.T) {
	c := graph.Mixtral8x7B
	c.TopK = 9
	_, err := c.JSON()
	require.ErrorIs(t, err, graph.ErrConfig)
	require.ErrorContains(t, err, "num_experts_per_tok 9 is above")
}
