package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"mix/graph"
	"mix/internal/cli"
	"mix/internal/demo"
	"mix/lower"
	"mix/lower/aot"
	"mix/lower/plugin"
	"mix/serve"
	"mix/sharding/ckpt"
)

// TestMain is also the worker, and the process of a mapping of --matrix.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == "--worker" || os.Args[1] == "--target") {
		main()
	}
	os.Exit(m.Run())
}

func compile(t *testing.T, args ...string) (code int, out, err string) {
	var o, e bytes.Buffer
	code = cli.Run(t.Context(), new(command), "compile", "", args, cli.IO{Out: &o, Err: &e}, vars)
	return code, o.String(), e.String()
}

func reported(t *testing.T, args ...string) (r aot.Report) {
	code, out, err := compile(t, append(args, "--json")...)
	require.Zero(t, code, err)
	require.NoError(t, json.Unmarshal([]byte(out), &r))
	return r
}

// TestServerLoadsIt compiles a server's decode step ahead; the server then compiles everything else only.
func TestServerLoadsIt(t *testing.T) {
	dir := t.TempDir()
	r := reported(t, "--preset", "demo", "--target", "cpu", "--program", "decode", "--batch", "2", "--seq-length", "64", "--prefill-chunk", "16", "--dtype", "f32", "--cache", dir)
	require.FileExists(t, r.Cached)
	require.Equal(t, dir, filepath.Dir(r.Cached))
	require.Positive(t, r.Cost.FLOPs)
	require.Positive(t, r.Memory.Arguments)
	require.True(t, r.Memory.Fits)
	require.Positive(t, r.Seconds.XLA)

	m, err := graph.ParseConfig(demo.Config())
	require.NoError(t, err)
	w, err := ckpt.OpenFS(demo.Files(), graph.Params(m), ckpt.Options{})
	require.NoError(t, err)
	defer w.Close()
	be, err := lower.New(t.Context(), lower.Options{CacheDir: dir})
	require.NoError(t, err)
	defer be.Finalize()
	programs := 0
	engine, err := serve.New(t.Context(), be, m, w, serve.Options{DType: dtypes.Float32, Compiling: func(string) func() {
		programs++
		return func() {}
	}})
	require.NoError(t, err)
	defer engine.Close()
	b, err := serve.NewBatcher(t.Context(), engine, serve.BatchOptions{Slots: 2, Chunk: 16, Block: 16, Context: 64}, nil)
	require.NoError(t, err)
	b.Close()
	files, err := filepath.Glob(filepath.Join(dir, "*.program"))
	require.NoError(t, err)
	require.Len(t, files, programs, "the decode step is the file that was there")
}

func TestStep(t *testing.T) {
	dump := t.TempDir()
	r := reported(t, "--preset", "demo", "--layers", "1", "--target", "cpu", "--seq-length", "16", "--batch", "2", "--global-batch-size", "4", "--no-keep", "--dump", dump)
	require.Contains(t, r.Settings, "--dtype f32 --seq-length 16 --batch 2 --global-batch-size 4")
	require.Empty(t, r.Cached)
	for _, pattern := range []string{"train_step.*.emit.mlir", "xla/*cpu_after_optimizations.txt"} {
		files, err := filepath.Glob(filepath.Join(dump, pattern))
		require.NoError(t, err)
		require.NotEmpty(t, files, pattern)
	}
	code, out, _ := compile(t, "--preset", "demo", "--layers", "1", "--target", "cpu", "--seq-length", "16", "--no-keep")
	require.Zero(t, code)
	require.Contains(t, out, "memory a device")
}

// TestWithoutAGPU compiles the programs of the published model, two layers of it.
func TestWithoutAGPU(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute: not in short mode")
	}
	if _, err := plugin.Find(plugin.CUDA); err != nil {
		t.Skip("needs the CUDA plugin, which the command installs: " + err.Error())
	}
	for _, target := range []string{"h100", "h200"} {
		for _, program := range []string{"decode", "prefill"} {
			t.Run(target+" "+program, func(t *testing.T) {
				r := reported(t, "--layers", "2", "--target", target, "--program", program, "--cache", t.TempDir())
				require.FileExists(t, r.Cached)
				require.True(t, r.Memory.Fits)
				require.NotEmpty(t, r.Kernels)
				require.Greater(t, r.Memory.Arguments, int64(2*2*8*3*4096*14336), "the experts, in bfloat16")
			})
		}
	}
}

// TestDefaultsAreTheTrainers holds what is no flag here to the presets of cmd/train.
func TestDefaultsAreTheTrainers(t *testing.T) {
	for name := range graph.Presets {
		b, err := os.ReadFile(filepath.Join("..", "train", "presets", name+".yaml"))
		require.NoError(t, err)
		var p map[string]any
		require.NoError(t, yaml.Unmarshal(b, &p))
		require.Equal(t, "bf16", p["dtype"])
		require.EqualValues(t, 4096, p["seq-length"])
		require.EqualValues(t, 1, p["micro-batch-size"])
		require.Equal(t, 1e-2, p["moe-aux-loss-coeff"])
		require.Equal(t, "megatron", p["moe-aux-loss-type"])
	}
}

func TestRefuses(t *testing.T) {
	for _, tt := range []struct {
		args string
		code int
		want string
	}{
		{"--target tpu", 2, `--target must be one of "cpu","h100","h200"`},
		{"--program serve", 2, "--program must be one of"},
		{"--matrix --target cpu", 2, "want a GPU"},
		{"--matrix --only mistral", 2, "no mapping has all words of --only"},
		{"--preset demo --target cpu --rounds 0", 2, "--rounds is 0, want at least 1"},
		{"--preset demo --target cpu --dtype f16", 2, `dtype "f16", want f32 or bf16`},
		{"--preset demo --target cpu --layers -1", 2, "-1"},
		{"--preset demo --target cpu --batch -3", 2, "--batch is -3, want at least 1"},
		{"--preset demo --target cpu --mesh data", 2, "mesh"},
		{"--preset demo --target cpu --global-batch-size 3 --batch 2", 1, "global batch size is 3, want a multiple of the micro-batch size, 2"},
		{"--preset demo --target cpu --program decode --seq-length 100000", 1, "context 100000"},
	} {
		code, out, err := compile(t, strings.Fields(tt.args)...)
		require.Equal(t, tt.code, code, "%s: %s", tt.args, err)
		require.Empty(t, out, tt.args)
		require.Contains(t, err, tt.want, tt.args)
		require.Equal(t, 1, strings.Count(err, "\n"), tt.args)
	}
}
