package gpu

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/graph"
	"mix/lower"
	"mix/lower/aot"
	"mix/lower/plugin"
	"mix/lower/target"
)

// optimizedStep is XLA's text of a training step for an H200, by the names of its values.
type optimizedStep struct {
	text  string
	types map[string]string
}

var (
	defined  = regexp.MustCompile(`(?m)^ +(?:ROOT )?%([\w.-]+) = (\([^=]*?\)|\S+) `)
	products = regexp.MustCompile(`(?m)^ +(?:ROOT )?%\S+ = (?:\(.*?\)|\S+) custom-call\((.*?)\), custom_call_target="__cublas.*$`)
	results  = regexp.MustCompile(`(?m)^ +ROOT %\S+ = \(.*?\) tuple\((.*?)\)`)
	comment  = regexp.MustCompile(`/\*.*?\*/`)
)

// typeOf is the type of an operand: a value, or one result of several.
func (s optimizedStep) typeOf(operand string) string {
	name, result, several := strings.Cut(strings.TrimPrefix(operand, "%"), "#")
	all := s.types[name]
	if !several {
		return all
	}
	parts := regexp.MustCompile(`\w+\[[^\]]*\]`).FindAllString(comment.ReplaceAllString(all, ""), -1)
	return parts[result[0]-'0']
}

// compiledStep compiles the step of two layers, narrower and with fewer tokens than those that are measured.
func compiledStep(t *testing.T) (s optimizedStep, c graph.Config) {
	if testing.Short() {
		t.Skip("takes half a minute: not in short mode")
	}
	j := Options{}.step(2, 2, 512)
	j.Model.Width, j.Model.Hidden, j.Model.Heads, j.Model.KVHeads, j.Model.Vocab = 1024, 2048, 8, 4, 4000
	e, _, err := j.Emit(t.Context(), lower.Options{Platform: target.CUDA})
	require.NoError(t, err)
	r := aot.Request{Program: e.Name, Text: e.Text, Options: e.Options, Devices: 1, Dump: t.TempDir()}
	r.Chip, err = target.LookupChip("h200")
	require.NoError(t, err)
	if r.Plugin, err = plugin.Find(target.CUDA); errors.Is(err, plugin.ErrNotFound) {
		t.Skip("needs the CUDA plugin, which cmd/compile installs: " + err.Error())
	}
	require.NoError(t, err)
	if r.Tools, err = plugin.EnsureTools(t.Context(), r.Plugin, plugin.Options{Platform: target.CUDA}); errors.Is(err, plugin.ErrDownload) {
		t.Skip("needs the tools of the CUDA plugin: " + err.Error())
	}
	require.NoError(t, err)
	self, err := os.Executable()
	require.NoError(t, err)
	r.Command = []string{self, "worker"}
	_, err = aot.Compile(t.Context(), r)
	require.NoError(t, err)
	files, err := filepath.Glob(filepath.Join(r.Dump, "*gpu_after_optimizations.txt"))
	require.NoError(t, err)
	require.Len(t, files, 1)
	text, err := os.ReadFile(files[0])
	require.NoError(t, err)
	s = optimizedStep{string(text), map[string]string{}}
	for _, m := range defined.FindAllStringSubmatch(s.text, -1) {
		s.types[m[1]] = m[2]
	}
	return s, j.Model
}

// TestStepForAGPU reads what XLA makes of a training step: only the router multiplies f32, exactly; weights and moments are
// updated by one kernel each, in place; nothing is added up by atomics.
func TestStepForAGPU(t *testing.T) {
	s, c := compiledStep(t)
	all := products.FindAllStringSubmatch(s.text, -1)
	routers := 0
	for _, m := range all {
		operands := strings.Split(comment.ReplaceAllString(m[1], ""), ", ")
		wide := 0
		for _, o := range operands[:2] {
			typ := s.typeOf(strings.TrimSpace(o))
			require.NotEmpty(t, typ, "%s in %s", o, m[0])
			if strings.HasPrefix(typ, "f32") {
				wide++
			}
		}
		if wide == 0 {
			continue
		}
		routers++
		require.Equal(t, 2, wide, m[0])
		require.Contains(t, m[0], `"operand_precision":["HIGHEST","HIGHEST"]`)
	}
	require.LessOrEqual(t, routers, 3*c.Layers, "more than the router's products and their gradients are of f32")
	require.GreaterOrEqual(t, len(all)-routers, 3*(4*c.Layers+1), "products of attention and of the head")

	entry := s.text[strings.Index(s.text, "\nENTRY"):]
	root := results.FindAllStringSubmatch(entry, -1)
	require.Len(t, root, 1)
	outs := strings.Split(comment.ReplaceAllString(root[0][1], ""), ", ")
	n := (len(outs) - 2) / 3 // metrics, weights, two moments of each, the count of updates
	require.Equal(t, 3*n+2, len(outs))
	base := func(i int) string {
		name, _, several := strings.Cut(strings.TrimSpace(outs[i]), "#")
		require.True(t, several, outs[i])
		return name
	}
	for i := 1; i <= n; i++ {
		require.Equal(t, []string{base(i), base(i)}, []string{base(n + i), base(2*n + i)}, "weight %d and its moments", i)
	}
	require.NotRegexp(t, `= f32\[\d+,[^ ]* copy\(`, entry, "a copy of a weight or moment")
	require.NotRegexp(t, `= f32\[[^ ]* scatter\(`, s.text, "sums of f32 by atomics")
}
