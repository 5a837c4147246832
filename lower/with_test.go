package lower

import (
	"strings"
	"testing"

	"mix/lower/ir"

	"github.com/gomlx/compute"
	gx "github.com/gomlx/gomlx/core/graph"
	"github.com/stretchr/testify/require"
)

// TestOptionsBelongToOneProgram builds two programs of one name at the same time, one of which donates.
func TestOptionsBelongToOneProgram(t *testing.T) {
	b := testBackend(t)
	donating := b.With(ProgramOptions{Donate: map[string]int{"cache": 1}})
	require.Equal(t, b.Name(), donating.Name())
	var programs []*Program
	graphs := []*gx.Graph{gx.NewGraph(donating, "same"), gx.NewGraph(b, "same"), gx.NewGraph(donating, "same")}
	outs := make([][]*gx.Node, len(graphs))
	for i, g := range graphs {
		outs[i] = update(g)
	}
	for i, g := range graphs {
		require.NoError(t, g.Compile(outs[i]...))
		p, err := ProgramOf(g.Executable())
		require.NoError(t, err)
		programs = append(programs, p)
	}
	for i, donates := range []bool{true, false, true} {
		cache := upload(t, b, make([]float32, 32), 8, 4)
		outs, err := programs[i].Run(cache, upload(t, b, []float32{1, 2, 3, 4}, 1, 4), upload(t, b, []int32{0}))
		require.NoError(t, err)
		require.NoError(t, outs[1].Wait())
		require.Equal(t, donates, cache.Wait() != nil, "program %d", i)
	}
}

// TestOptionsEndWithTheirProgram builds a program after another of its name came to nothing.
func TestOptionsEndWithTheirProgram(t *testing.T) {
	b := testBackend(t)
	_, err := compileGraph(b, "again", ProgramOptions{Donate: map[string]int{"cache": 1}}, func(*gx.Graph) []*gx.Node { panic(compute.ErrNotImplemented) })
	require.ErrorIs(t, err, compute.ErrNotImplemented)
	p := compiled(t, b, "again", ProgramOptions{}, update)
	require.Nil(t, p.e.aliases)
}

func TestLowererWithOptions(t *testing.T) {
	l, err := NewLowerer(Options{Verify: true})
	require.NoError(t, err)
	marks := func(be compute.Backend) int {
		g := gx.NewGraph(be, "update")
		require.NoError(t, g.Compile(update(g)...))
		x, err := ListingOf(g.Executable())
		require.NoError(t, err)
		_, err = ir.Parse(x.Text)
		require.NoError(t, err)
		return strings.Count(x.Text, "tf.aliasing_output = 1 : i32")
	}
	require.Equal(t, 1, marks(l.With(ProgramOptions{Donate: map[string]int{"cache": 1}})))
	require.Equal(t, 0, marks(l))
}
