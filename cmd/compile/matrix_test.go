package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/graph"
	"mix/lower/aot"
	"mix/lower/plugin"
	"mix/lower/target"
	"mix/sharding"
)

func h200(t *testing.T) target.Chip {
	chip, err := target.LookupChip("h200")
	require.NoError(t, err)
	return chip
}

// TestMappings are those that the planner calls feasible, each with flags that this command takes.
func TestMappings(t *testing.T) {
	all, err := mappings(h200(t))
	require.NoError(t, err)
	names := map[string]bool{}
	count := map[string]int{}
	for _, m := range all {
		require.False(t, names[m.name()], m.name())
		names[m.name()] = true
		count[m.preset+" "+m.program]++
		require.Positive(t, m.planned)
		require.LessOrEqual(t, m.planned, 141e9)
		require.Positive(t, m.work)
		require.Equal(t, m.devices, m.mesh.Devices())
		if m.program == "train" {
			i := strings.Index(m.name(), "--rules ")
			_, err := sharding.For(strings.Fields(m.name()[i+len("--rules "):])[0], m.mesh)
			require.NoError(t, err)
		}
	}
	for _, preset := range []string{"mixtral-8x7b", "mixtral-8x22b"} {
		require.Greater(t, count[preset+" train"], 50)
		require.Greater(t, count[preset+" decode"], 40)
		require.Equal(t, count[preset+" prefill"], count[preset+" decode"])
	}
}

func TestChosen(t *testing.T) {
	all, err := mappings(h200(t))
	require.NoError(t, err)
	c := &command{Only: []string{"mixtral-8x7b", "decode", "8", "tensor=8"}}
	some, err := c.chosen(all)
	require.NoError(t, err)
	require.Len(t, some, 1)
	require.Contains(t, some[0].name(), "mixtral-8x7b decode 8 ")
	c = &command{Sample: 5}
	some, err = c.chosen(all)
	require.NoError(t, err)
	require.Len(t, some, 5)
	c.Only = []string{"nothing"}
	_, err = c.chosen(all)
	require.ErrorContains(t, err, "no mapping")
	require.Equal(t, []int{1, 3, 5}, sample([]int{0, 1, 2, 3, 4, 5}, 3))
	require.Equal(t, []int{1, 2}, sample([]int{1, 2}, 7))
}

// TestServingWork: a device alone does what the model does, and a mesh splits it.
func TestServingWork(t *testing.T) {
	c := graph.Mixtral8x7B
	mesh := func(text string) sharding.Mesh {
		m, err := sharding.ParseMesh(text)
		require.NoError(t, err)
		return m
	}
	one := servingWork(c, mesh(""), true)
	// Twice the weights that compute for a token, 12.7 billion but for the table, and all keys.
	require.InDelta(t, 64*(2*12.75e9+4*4096*32*128*32), one, 0.01*one)
	require.Equal(t, one, servingWork(c, mesh("data=8"), true))
	require.Less(t, servingWork(c, mesh("expert=8"), true), one)
	require.InDelta(t, one/4, servingWork(c, mesh("tensor=4"), true), 0.01*one)
}

func TestProblems(t *testing.T) {
	m := mapping{work: 100, slack: 2}
	kernel := aot.Kernel{Ours: true, WGMMA: 3}
	for _, tt := range []struct {
		name string
		p    aot.Report
		want []string
	}{
		{"all is well", aot.Report{Memory: aot.Memory{Fits: true}, Cost: aot.Cost{FLOPs: 190}, Kernels: []aot.Kernel{kernel, {Spilled: 9}}}, nil},
		{"too large", aot.Report{Memory: aot.Memory{Total: 150e9}, Kernels: []aot.Kernel{kernel}}, []string{"150.0 GB do not fit"}},
		{"spills", aot.Report{Memory: aot.Memory{Fits: true}, Kernels: []aot.Kernel{{Ours: true, Spilled: 8}}}, []string{"8 bytes of registers spilled"}},
		{"dense", aot.Report{Memory: aot.Memory{Fits: true}, Cost: aot.Cost{FLOPs: 300}, Target: "h200"},
			[]string{"3.0 times the work that there is: experts are computed densely", "no kernel of ours"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var r result
			r.fill(m, tt.p)
			require.Equal(t, tt.want, r.Problems)
		})
	}
}

func TestResults(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.jsonl")
	known, err := readResults(path)
	require.NoError(t, err)
	require.Empty(t, known)
	want := result{Name: "a b", Target: "h200", Work: 0.5, Problems: []string{}}
	require.NoError(t, appendResult(path, want))
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteString(`{"name":"cut o`)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	known, err = readResults(path)
	require.NoError(t, err)
	require.Equal(t, map[string]result{"h200 a b": want}, known)
	require.NoError(t, os.WriteFile(path, []byte("{}\n"), 0o644))
	_, err = readResults(path)
	require.ErrorContains(t, err, "line 1 is no result")
}

// TestMatrixTakesWhatIsThere compiles nothing where all results are there.
func TestMatrixTakesWhatIsThere(t *testing.T) {
	if _, err := plugin.Find(plugin.CUDA); err != nil {
		t.Skip("needs the CUDA plugin, which the command installs: " + err.Error())
	}
	all, err := mappings(h200(t))
	require.NoError(t, err)
	some, err := (&command{Only: []string{"mixtral-8x7b", "8", "decode", "tensor=8"}}).chosen(all)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "m.jsonl")
	for _, m := range some {
		require.NoError(t, appendResult(path, result{Name: m.name(), Target: "h200", Preset: m.preset, Kernels: 77, Problems: []string{}}))
	}
	code, out, log := compile(t, "--matrix", "--results", path, "--only", "mixtral-8x7b,8,decode,tensor=8")
	require.Zero(t, code, log)
	require.Contains(t, out, "77")
	require.NotContains(t, log, " of ")
}

// TestMatrix compiles a mapping of the full model.
func TestMatrix(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute: not in short mode")
	}
	if _, err := plugin.Find(plugin.CUDA); err != nil {
		t.Skip("needs the CUDA plugin, which the command installs: " + err.Error())
	}
	path := filepath.Join(t.TempDir(), "m.jsonl")
	code, out, log := compile(t, "--matrix", "--json", "--results", path, "--sample", "1", "--only", "mixtral-8x7b,decode,8")
	require.Zero(t, code, "%s%s", out, log)
	var r struct{ Mappings []result }
	require.NoError(t, json.Unmarshal([]byte(out), &r))
	require.Len(t, r.Mappings, 1)
	require.Positive(t, r.Mappings[0].Kernels)
	require.Positive(t, r.Mappings[0].Memory.Total)
	known, err := readResults(path)
	require.NoError(t, err)
	require.Len(t, known, 1)
}
