package lower

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"mix/internal/knob"

	gx "github.com/gomlx/gomlx/core/graph"
	"github.com/stretchr/testify/require"
)

func TestParseConfig(t *testing.T) {
	for _, tt := range []struct {
		config string
		want   Options // beside Progress
		err    string
	}{
		{"", Options{}, ""},
		{"cpu", Options{Platform: "cpu"}, ""},
		{"cpu,devices=8,verify", Options{Platform: "cpu", Devices: 8, Verify: true}, ""},
		{"cuda,plugin=a/b.so,nocache,dump=d", Options{Platform: "cuda", PluginPath: "a/b.so", NoCache: true, DumpDir: "d"}, ""},
		{"cache=c", Options{CacheDir: "c"}, ""},
		{"cpu,devices=0", Options{}, `devices "0", want a number from 1`},
		{"tpu", Options{}, `unknown option "tpu"`},
		{"devices=2,cpu", Options{}, `unknown option "cpu"`},
	} {
		t.Run(tt.config, func(t *testing.T) {
			o, err := ParseConfig(tt.config)
			if tt.err != "" {
				require.ErrorContains(t, err, tt.err)
				return
			}
			require.NoError(t, err)
			o.Progress = nil
			require.Equal(t, tt.want, o)
		})
	}
}

func TestUnknownPassesAreRefused(t *testing.T) {
	_, err := New(Options{Skip: []string{"no_such_pass"}})
	require.ErrorContains(t, err, `no pass "no_such_pass"`)
}

// TestDumpsAndDiffs compiles a program with dead code under all the instruments.
func TestDumpsAndDiffs(t *testing.T) {
	dir, shown := t.TempDir(), new(bytes.Buffer)
	o := Options{NoCache: true, DiffTo: shown, Progress: os.Stderr}.WithKnobs(knob.Values{Dump: dir, Diff: []string{"dce"}, Verify: true})
	b, err := New(o)
	require.NoError(t, err)
	defer b.Finalize()
	for range 2 {
		compiled(t, b, "dead", ProgramOptions{}, func(g *gx.Graph) []*gx.Node {
			x := gx.Parameter(g, "x", f32(2))
			gx.Exp(x)
			return []*gx.Node{gx.Neg(x)}
		})
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	for i := range files {
		files[i] = filepath.Base(files[i])
	}
	require.Equal(t, []string{"dead-2.00.trace.mlir", "dead-2.01.dce.mlir", "dead-2.02.emit.mlir",
		"dead.00.trace.mlir", "dead.01.dce.mlir", "dead.02.emit.mlir"}, files)
	want := "dead: pass dce\n-     %0 = \"stablehlo.exponential\"(%arg0) : (tensor<2xf32>) -> tensor<2xf32>\n"
	require.Equal(t, want+want, shown.String())
}

func TestDiff(t *testing.T) {
	for _, tt := range []struct{ name, before, after, want string }{
		{"equal", "a\nb\n", "a\nb\n", ""},
		{"numbers alone", "%0 = x\n%1 = y %0\n", "%3 = x\n%arg4 = y %3#1\n", ""},
		{"a line gone", "a\nb\nc\n", "a\nc\n", "- b\n"},
		{"a line more", "a\nc\n", "a\nb\nc\n", "+ b\n"},
		{"a line changed", "a\nb\nc\n", "a\nB\nc\n", "- b\n+ B\n"},
		{"two places", "a\nb\nc\nd\ne\n", "a\nc\nX\nd\n", "- b\n+ X\n- e\n"},
		{"nothing in common", "a\n", "b\n", "- a\n+ b\n"},
	} {
		t.Run(tt.name, func(t *testing.T) { require.Equal(t, tt.want, diff(tt.before, tt.after)) })
	}
}
