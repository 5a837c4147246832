package aot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"mix/lower/pjrt"
	"mix/lower/plugin"
	"mix/lower/target"
)

// TestMain is also the worker, a good one or one that XLA ends.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 {
		switch os.Args[1] {
		case "work":
			if err := Work(os.Args[2]); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Exit(0)
		case "abort":
			fmt.Fprintln(os.Stderr, "I0000 00:00:1.1  9 a.cc:1] hello\nF0000 00:00:1.2  9 b.cc:7] Check failed: x == y \n*** stack")
			os.Exit(2)
		case "hang":
			time.Sleep(time.Minute)
		}
	}
	os.Exit(m.Run())
}

// request compiles text for a target, with the plugin that is here or can be installed.
func request(t *testing.T, chip string, devices int, text string) Request {
	c, err := target.LookupChip(chip)
	require.NoError(t, err)
	p, err := target.Lookup(c.Platform)
	require.NoError(t, err)
	options, err := pjrt.CompileOptions{Partitions: devices, Shardy: devices > 1, Overrides: p.Overrides}.Marshal()
	require.NoError(t, err)
	self, err := os.Executable()
	require.NoError(t, err)
	r := Request{Program: "test", Text: text, Options: options, Chip: c, Devices: devices, Command: []string{self, "work"}}
	o := plugin.Options{Platform: c.Platform}
	if c.Platform == target.CPU {
		r.Plugin, err = plugin.Ensure(t.Context(), o)
		require.NoError(t, err)
		return r
	}
	if r.Plugin, err = plugin.Find(c.Platform); errors.Is(err, plugin.ErrNotFound) {
		t.Skip("needs the CUDA plugin, which cmd/compile installs: " + err.Error())
	}
	require.NoError(t, err)
	if r.Tools, err = plugin.EnsureTools(t.Context(), r.Plugin, o); errors.Is(err, plugin.ErrDownload) {
		t.Skip("needs the tools of the CUDA plugin: " + err.Error())
	}
	require.NoError(t, err)
	return r
}

const productText = `module @product {
  func.func public @main(%x: tensor<64x32xf32>, %w: tensor<32x16xf32>) -> tensor<64x16xf32> {
    %0 = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0] : (tensor<64x32xf32>, tensor<32x16xf32>) -> tensor<64x16xf32>
    %1 = stablehlo.exponential %0 : tensor<64x16xf32>
    return %1 : tensor<64x16xf32>
  }
}
`

func TestCompile(t *testing.T) {
	for _, chip := range target.Chips() {
		t.Run(chip, func(t *testing.T) {
			r := request(t, chip, 1, productText)
			r.Dump = t.TempDir()
			x, err := Compile(t.Context(), r)
			require.NoError(t, err)
			require.NotEmpty(t, x.Executable)
			require.EqualValues(t, 4*(64*32+32*16), x.Memory.Argument)
			require.EqualValues(t, 4*64*16, x.Memory.Output)
			require.EqualValues(t, 2*64*32*16, x.Module.Cost().FLOPs)
			dumped, err := filepath.Glob(filepath.Join(r.Dump, "*after_optimizations.txt"))
			require.NoError(t, err)
			require.NotEmpty(t, dumped)
			if r.Chip.Platform == target.CUDA {
				require.NotEmpty(t, x.Kernels)
				for _, k := range x.Kernels {
					require.True(t, k.Assembled, k.Name)
					require.NotZero(t, k.Registers, k.Name)
				}
			}
		})
	}
}

// TestExecutableRuns loads on a CPU what the worker compiled.
func TestExecutableRuns(t *testing.T) {
	r := request(t, "cpu", 1, productText)
	x, err := Compile(t.Context(), r)
	require.NoError(t, err)
	p, err := pjrt.Load(r.Plugin)
	require.NoError(t, err)
	c, err := p.NewClient(pjrt.ClientOptions{Options: map[string]any{"cpu_device_count": 1}})
	require.NoError(t, err)
	defer c.Destroy()
	l, err := c.Deserialize(x.Executable, nil)
	require.NoError(t, err)
	defer l.Destroy()
	require.Equal(t, 1, l.NumOutputs)
}

func TestExchangesForManyDevices(t *testing.T) {
	text, err := os.ReadFile("testdata/exchanges.mlir")
	require.NoError(t, err)
	for _, chip := range []string{"cpu", "h200"} {
		t.Run(chip, func(t *testing.T) {
			x, err := Compile(t.Context(), request(t, chip, 8, string(text)))
			require.NoError(t, err)
			runs := map[string]int64{}
			for _, c := range x.Module.Collectives() {
				runs[c.Op] += c.Runs
			}
			require.Equal(t, map[string]int64{"all-to-all": 3, "all-gather": 1, "reduce-scatter": 1, "all-reduce": 1, "collective-permute": 1}, runs)
		})
	}
}

func TestWhatXLARefuses(t *testing.T) {
	_, err := Compile(t.Context(), request(t, "cpu", 1, "module {"))
	require.ErrorContains(t, err, `program "test"`)
	require.NotErrorIs(t, err, ErrAborted)

	r := request(t, "cpu", 1, productText)
	r.Command[1] = "abort"
	_, err = Compile(t.Context(), r)
	require.ErrorIs(t, err, ErrAborted)
	require.ErrorContains(t, err, "Check failed: x == y")
	require.NotContains(t, err.Error(), "\n")

	r.Command = nil
	_, err = Compile(t.Context(), r)
	require.ErrorContains(t, err, "no command")
}

func TestInterrupted(t *testing.T) {
	r := request(t, "cpu", 1, productText)
	r.Command[1] = "hang"
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := Compile(ctx, r)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestLastWords(t *testing.T) {
	for _, tt := range []struct{ log, want string }{
		{"hello\nF1126 00:00:00.5   9 shape.cc:1] Invalid opcode\nsignal: abort\n", "Invalid opcode"},
		{"x.cc:7 Check failed: a == b (1 vs. 2)\nmore", "Check failed: a == b (1 vs. 2)"},
		{"one\ntwo\n\n", "two"},
		{"", ""},
	} {
		require.Equal(t, tt.want, strings.TrimSpace(lastWords(tt.log)))
	}
}
