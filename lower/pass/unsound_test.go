package pass

import (
	"math/rand/v2"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/tools/txtar"

	"mix/internal/golden"
	"mix/lower/ir"
	"mix/lower/target"
)

var (
	aType      = regexp.MustCompile(`tensor<[^ >]*>`)
	aNumber    = regexp.MustCompile(`\b[0-9]+\b`)
	attributes = regexp.MustCompile(`\{[^{}\n]*(\{[^{}\n]*\})?[^{}\n]*\}`) // of one operation
	anEntry    = regexp.MustCompile(`[a-z_]+ = [^,{}]*`)
)

// unsound changes a few types, throughout, and numbers and entries of attributes, so that the text still
// parses and hardly anything fits together.
func unsound(r *rand.Rand, text string) string {
	any := func(of []string) string { return of[r.IntN(len(of))] }
	types := slices.Concat(aType.FindAllString(text, -1), []string{"tensor<*xf32>", "tensor<?x4xbf16>", "tensor<>", "tensor<f32>", "tensor<0xbf16>",
		"tensor<1x1xbf16>", "tensor<1x4xbf16>", "tensor<3x4x5xf32>", "tensor<9223372036854775807x4xbf16>", "tensor<99999999999999999999xf32>"})
	for range 1 + r.IntN(3) {
		switch r.IntN(3) {
		case 0:
			if all := aType.FindAllString(text, -1); len(all) > 0 {
				text = strings.ReplaceAll(text, any(all), any(types))
			}
		case 1:
			text = attributes.ReplaceAllStringFunc(text, func(as string) string {
				return aNumber.ReplaceAllStringFunc(as, func(n string) string {
					if r.IntN(4) > 0 {
						return n
					}
					return any([]string{"-1", "0", "1", "7", "9223372036854775807", "99999999999999999999", "x", ""})
				})
			})
		case 2:
			text = attributes.ReplaceAllStringFunc(text, func(as string) string {
				if all := anEntry.FindAllString(as, -1); len(all) > 0 && r.IntN(4) == 0 {
					as = strings.Replace(as, any(all), any([]string{"none = 1", `name = "mix.constrain"`, `name = "mix.routed_experts"`, "dot_dimension_numbers = 3"}), 1)
				}
				return as
			})
		}
	}
	return text
}

// TestUnsoundTextNeverPanics runs all passes, without the verifier before them, and the verifier itself
// on modules that do not fit together. Errors are in order.
func TestUnsoundTextNeverPanics(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	times := 100 // a section
	switch {
	case golden.Long():
		times = 500
	case testing.Short():
		times = 50
	}
	r, parsed, refused := rand.New(rand.NewPCG(5, 6)), 0, 0
	for _, file := range files {
		a, err := txtar.ParseFile(file)
		require.NoError(t, err)
		for _, section := range a.Files {
			for i := 0; section.Name != "context" && i < times; i++ {
				text := unsound(r, string(section.Data))
				require.NotPanics(t, func() {
					for _, platform := range target.Platforms() {
						m, err := ir.Parse(text)
						if err != nil {
							return
						}
						parsed++
						_ = ir.Verify(m)
						if _, err := Run(m, Context{Platform: platform}, All(), Hooks{}); err != nil {
							refused++
						} else {
							_ = m.String()
						}
					}
				}, "%s:\n%s", file, text)
			}
		}
	}
	t.Logf("%d modules parsed, %d refused", parsed, refused)
	require.Greater(t, parsed, 5000)
	require.Greater(t, refused, 500)
}
