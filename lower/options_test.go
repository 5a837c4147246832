package lower

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mix/internal/knob"
	"mix/lower/plugin"
	"mix/lower/target"

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
		{"cuda,ordinal=3", Options{Platform: "cuda", Ordinal: 3}, ""},
		{"cuda,ordinal=-1", Options{}, `ordinal "-1", want a number from 0`},
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

// TestRefusedOptions holds both backends to the same checks.
func TestRefusedOptions(t *testing.T) {
	for _, tt := range []struct {
		name string
		o    Options
		want string
	}{
		{"a pass to skip that is none", Options{Skip: []string{"no_such_pass"}}, `no pass "no_such_pass"`},
		{"a pass to show that is none", Options{Diff: []string{"no_such_pass"}}, `no pass "no_such_pass"`},
		{"an unknown platform", Options{Platform: "tpu"}, `platform "tpu" is unknown, want one of cpu, cuda`},
		{"a negative number of devices", Options{Devices: -1}, "-1 devices on cpu"},
		{"devices made of a GPU", Options{Platform: "cuda", Devices: 2}, "2 devices on cuda"},
		{"the second CPU", Options{Ordinal: 1}, "device 1 on cpu"},
		{"more than all memory", Options{Platform: "cuda", MemoryFraction: 1.5}, "memory fraction 1.5 on cuda"},
		{"a part of the machine's memory", Options{MemoryFraction: 0.5}, "memory fraction 0.5 on cpu"},
		{"a negative ordinal", Options{Platform: "cuda", Ordinal: -1}, "device -1 on cuda"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := New(t.Context(), tt.o)
			require.ErrorContains(t, err, tt.want)
			_, err = NewLowerer(tt.o)
			require.ErrorContains(t, err, tt.want)
		})
	}
}

func TestClientOptions(t *testing.T) {
	require.Equal(t, map[string]any{"cpu_device_count": 1}, Options{Platform: "cpu"}.client())
	require.Equal(t, map[string]any{"cpu_device_count": 8}, Options{Platform: "cpu", Devices: 8}.client())
	for _, o := range []Options{{Platform: "cuda"}, {Platform: "cuda", Ordinal: 3, MemoryFraction: 0.5}} {
		o, err := o.check()
		require.NoError(t, err)
		fraction := float32(0.95)
		if o.Ordinal == 3 {
			fraction = 0.5
		}
		require.Equal(t, map[string]any{"visible_devices": []int64{int64(o.Ordinal)}, "memory_fraction": fraction}, o.client())
	}
}

// TestPlatformsHavePlugins holds the plugins to the one list of platforms.
func TestPlatformsHavePlugins(t *testing.T) {
	for _, p := range target.Platforms() {
		_, err := plugin.Find(p)
		require.NotErrorIs(t, err, plugin.ErrPlatform, p)
	}
}

// TestInstallationEndsWithItsContext asks for a plugin where none is and none may be installed any more.
func TestInstallationEndsWithItsContext(t *testing.T) {
	for _, v := range []string{"HOME", "XDG_CACHE_HOME"} {
		t.Setenv(v, t.TempDir())
	}
	t.Setenv(plugin.PathEnv, "")
	if _, err := plugin.Find(plugin.CPU); err == nil {
		t.Skip("needs a machine without a plugin for everybody")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := New(ctx, Options{NoCache: true})
	require.ErrorIs(t, err, context.Canceled)
}

// TestNoCacheFolder runs where the user has none, and refuses one that was asked for.
func TestNoCacheFolder(t *testing.T) {
	path, err := plugin.Ensure(t.Context(), plugin.Options{Progress: os.Stderr})
	require.NoError(t, err)
	t.Setenv("HOME", "")
	t.Setenv("XDG_CACHE_HOME", "")
	var log bytes.Buffer
	b, err := New(t.Context(), Options{PluginPath: path, Log: slog.New(slog.NewTextHandler(&log, nil))})
	require.NoError(t, err)
	defer b.Finalize()
	for range 2 {
		compiled(t, b, "kept nowhere", ProgramOptions{}, update)
	}
	require.Equal(t, 1, strings.Count(log.String(), "compiled programs are not kept"), log.String())
	require.Contains(t, log.String(), "level=WARN")

	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	_, err = New(t.Context(), Options{PluginPath: path, CacheDir: filepath.Join(file, "cache")})
	require.ErrorContains(t, err, "cache of compiled programs: mkdir "+file)
}

// TestLowererShowsDiffs has nowhere to show them but standard error unless told.
func TestLowererShowsDiffs(t *testing.T) {
	var shown bytes.Buffer
	l, err := NewLowerer(Options{Diff: []string{"dce"}, DiffTo: &shown})
	require.NoError(t, err)
	g := gx.NewGraph(l, "dead")
	x := gx.Parameter(g, "x", f32(2))
	gx.Exp(x)
	require.NoError(t, g.Compile(gx.Neg(x)))
	require.Contains(t, shown.String(), "dead: pass dce\n- ")
	l, err = NewLowerer(Options{Diff: []string{"dce"}})
	require.NoError(t, err)
	require.Same(t, os.Stderr, l.b.o.DiffTo)
}

// TestDumpsAndDiffs compiles a program with dead code under all the instruments.
func TestDumpsAndDiffs(t *testing.T) {
	dir, shown := t.TempDir(), new(bytes.Buffer)
	o := Options{NoCache: true, DiffTo: shown, Progress: os.Stderr}.WithKnobs(knob.Values{Dump: dir, Diff: []string{"dce"}, Verify: true})
	b, err := New(t.Context(), o)
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
