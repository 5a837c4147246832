package sharding

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/sharding/axis"
)

// param makes a tensor with axes such as "layers experts".
func param(path, text string, dims ...int) axis.Param {
	p := axis.Param{Path: path, Dims: dims}
	for name := range strings.FieldsSeq(text) {
		p.Axes = append(p.Axes, axis.Logical(name))
	}
	return p
}

func TestResolve(t *testing.T) {
	gate := param("layers/moe/gate", "layers experts ffn embed", 32, 8, 14336, 4096)
	query := param("layers/attn/query", "layers heads headdim embed", 32, 32, 128, 4096)
	key := param("layers/attn/key", "layers kv headdim embed", 32, 8, 128, 4096)
	route := param("layers/moe/router", "layers experts embed", 32, 8, 4096)
	scale := param("layers/moe/down/scale", "layers experts embed", 32, 8, 4096)
	residual := param("x", "batch seq embed", 16, 4096, 4096)
	queries := param("q", "batch heads seq headdim", 16, 32, 4096, 128)
	for _, tt := range []struct {
		name, preset string
		kind         Kind
		p            axis.Param
		mesh, want   string // want is the spec, or "error: " and a part of the message
	}{
		{"experts over EP, hidden width over TP", "ep+tp", Weights, gate, "expert=4 tensor=2", "[-, expert, tensor, -]"},
		{"layers over PP", "pp+ep+tp", Weights, gate, "pipe=2 expert=4 tensor=2", "[pipe, expert, tensor, -]"},
		{"a mesh axis of one device disappears", "pp+ep+tp", Weights, gate, "tensor=2", "[-, -, tensor, -]"},
		{"experts folded over EP and TP", "ep+tp+etp1", Weights, gate, "expert=4 tensor=2", "[-, expert+tensor, -, -]"},
		{"folding leaves attention alone", "ep+tp+etp1", Weights, query, "expert=4 tensor=2", "[-, tensor, -, -]"},
		{"the router is whole", "pp+ep", Weights, route, "pipe=4 expert=8", "[pipe, -, -]"},
		{"scales of experts are split", "pp+ep", Weights, scale, "pipe=4 expert=8", "[pipe, expert, -]"},
		{"key heads over TP", "tp", Weights, key, "tensor=8", "[-, tensor, -, -]"},
		{"fewer key heads than shards are whole", "tp", Weights, key, "tensor=16", "[-, -, -, -]"},
		{"key heads that shards straddle", "tp", Weights, key, "tensor=12", `error: layers/attn/key: axis "kv" of 8 does not divide over 12 shards [tensor]`},
		{"eight experts do not fit three ranks", "ep", Weights, gate, "expert=3", `error: layers/moe/gate: axis "experts" of 8 does not divide over 3 shards [expert]`},
		{"folded too far", "ep+tp+etp1", Weights, gate, "expert=8 tensor=2", `error: axis "experts" of 8 does not divide over 16 shards [expert tensor]`},
		{"layers that do not divide", "pp", Weights, query, "pipe=5", `error: layers/attn/query: axis "layers" of 32 does not divide over 5 shards [pipe]`},
		{"ZeRO-1 splits moments", "fsdp1", Moments, gate, "data=8", "[-, -, -, data]"},
		{"ZeRO-1 leaves gradients", "fsdp1", Gradients, gate, "data=8", "[-, -, -, -]"},
		{"ZeRO-2 splits gradients", "zero2", Gradients, gate, "data=8", "[-, -, -, data]"},
		{"ZeRO-2 leaves weights", "zero2", Weights, gate, "data=8", "[-, -, -, -]"},
		{"ZeRO-3 splits weights", "fsdp", Weights, gate, "data=8", "[-, -, -, data]"},
		{"dense moments over data and expert", "fsdp1+ep", Moments, query, "data=2 expert=8", "[-, -, -, data+expert]"},
		{"experts' moments over what their weights leave", "fsdp1+ep", Moments, gate, "data=2 expert=8", "[-, expert, -, data]"},
		{"batch over data and expert", "dp+ep", Activations, residual, "data=2 expert=8", "[data+expert, -, -]"},
		{"positions over TP between blocks", "dp+tp+sp", Activations, residual, "data=2 tensor=2", "[data, tensor, -]"},
		{"heads win over positions", "tp+sp", Activations, queries, "tensor=2", "[-, tensor, -, -]"},
		{"whole key heads keep positions whole", "tp+sp", Activations, param("k", "batch kv seq headdim", 16, 8, 4096, 128), "tensor=16", "[-, -, -, -]"},
		{"logits by vocabulary", "tp+sp", Activations, param("z", "batch seq vocab", 16, 4096, 32000), "tensor=8", "[-, -, tensor]"},
		{"a batch of one is served whole", "ep+whole", Activations, param("x", "batch seq embed", 1, 64, 4096), "expert=8", "[-, -, -]"},
		{"a batch that does not divide", "dp+ep", Activations, param("%1", "batch seq embed", 12, 128, 4096), "data=2 expert=4",
			`error: sharding: %1: axis "batch" of 12 does not divide over 8 shards [data expert]`},
		{"two axes want one mesh axis", "tp", Activations, param("y", "heads ffn", 32, 64), "tensor=2", `error: y: mesh axis tensor would split both "heads" and "ffn"`},
		{"an unknown axis", "tp", Weights, param("w", "color", 4), "tensor=2", `error: w: axis "color" has no sharding rule`},
		{"an empty axis", "tp", Weights, param("w", "vocab", 0), "tensor=2", `error: w: axis "vocab" has size 0`},
		{"a missing axis", "tp", Weights, param("w", "vocab", 4, 4), "tensor=2", "error: w: 1 axes [vocab] for 2 dimensions [4 4]"},
		{"an unknown kind", "tp", Kind(7), query, "tensor=2", "error: layers/attn/query: Kind(7)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := Preset(tt.preset)
			require.NoError(t, err)
			m := mesh(t, tt.mesh)
			spec, err := r.Resolve(tt.kind, tt.p, m)
			if want, fails := strings.CutPrefix(tt.want, "error: "); fails {
				require.ErrorIs(t, err, ErrRules)
				require.ErrorContains(t, err, want)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tt.want, spec.String())
		})
	}
}

func TestPresets(t *testing.T) {
	for _, tt := range []struct{ name, text, mesh, want, err string }{
		{"canonical order", "tp+ep pp", "pipe=2 expert=2 tensor=2", "pp+ep+tp", ""},
		{"derived", "", "pipe=2 expert=2", "pp+ep", ""},
		{"one device", "", "", "none", ""},
		{"ZeRO says dp", "dp+pp+fsdp2", "pipe=2 data=2", "pp+fsdp2", ""},
		{"an alias", "zero1", "data=2", "fsdp1", ""},
		{"an unknown word", "tp+cp", "tensor=2", "", `preset "tp+cp" has "cp", want pp, dp, fsdp1`},
		{"a word twice", "tp+tp", "tensor=2", "", `has tp twice`},
		{"two stages of ZeRO", "zero1+zero3", "data=2", "", "has fsdp1 and fsdp3, want one"},
		{"positions need tensor parallelism", "sp", "", "", "has sp without tp"},
		{"folding needs both", "ep+etp1", "expert=2", "", "has etp1 without tp"},
		{"an idle axis", "pp", "pipe=2 data=4", "", "preset pp does not use data=4 of mesh pipe=2 data=4"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := For(tt.text, mesh(t, tt.mesh))
			if tt.err != "" {
				require.ErrorIs(t, err, ErrRules)
				require.ErrorContains(t, err, tt.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tt.want, r.String())
		})
	}
	require.Len(t, Parts(), len(parts))
	r, err := Preset("pp+ep")
	require.NoError(t, err)
	require.True(t, r.Has("pp"))
	require.False(t, r.Has("p"))
}

func TestSpecText(t *testing.T) {
	for _, text := range []string{"[]", "[-]", "[data+expert, -, tensor]"} {
		s, err := ParseSpec(text)
		require.NoError(t, err)
		require.Equal(t, text, s.String())
	}
	for text, want := range map[string]string{
		"data": "want e.g.", "[node]": `mesh axis "node"`, "[data, -, data]": "mesh axis data twice", "[,]": `mesh axis ""`,
	} {
		_, err := ParseSpec(text)
		require.ErrorIs(t, err, ErrRules)
		require.ErrorContains(t, err, want)
	}
}

func FuzzResolve(f *testing.F) {
	f.Add("pp+ep+tp", "pipe=2 expert=2", "layers experts ffn", 4, 8, 16, 0)
	f.Add("fsdp3+sp+tp", "tensor=2 data=2", "batch seq embed", 4, -8, 16, 2)
	f.Fuzz(func(t *testing.T, preset, meshText, axes string, a, b, c, kind int) {
		r, err := Preset(preset)
		if err != nil {
			return
		}
		m, err := ParseMesh(meshText)
		if err != nil || m.Devices() > 64 {
			return
		}
		p := param("w", axes, a, b, c)
		spec, err := r.Resolve(Kind(kind), p, m)
		if err != nil {
			require.ErrorIs(t, err, ErrRules)
			return
		}
		again, err := ParseSpec(spec.String())
		require.NoError(t, err)
		require.Equal(t, spec.String(), again.String())
		_, err = Boxes(spec, m, p.Dims)
		require.NoError(t, err)
	})
}
