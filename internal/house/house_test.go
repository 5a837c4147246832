// Package house holds the tests of the house itself: who imports whom, how long files are, what is
// documented. It has no code of its own.
package house

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/graph/composite"
	"mix/internal/knob"
	"mix/lower/pass"
)

// Lines of a file that are too many. Generated files have no limit.
const (
	tooLong     = 500
	tooLongMain = 100
)

func TestFilesAreShort(t *testing.T) {
	for path, text := range files(t, ".go") {
		if generated.Match(text) {
			continue
		}
		limit := tooLong
		if strings.HasPrefix(path, "cmd/") && filepath.Base(path) == "main.go" {
			limit = tooLongMain
		}
		if n := bytes.Count(text, []byte("\n")); n > limit {
			t.Errorf("%s has %d lines, at most %d: a file has one idea", path, n, limit)
		}
	}
}

func TestEveryPackageHasOneComment(t *testing.T) {
	comments := map[string][]string{}
	for path, text := range files(t, ".go") {
		if strings.HasSuffix(path, "_test.go") || bytes.Contains(text, []byte("//go:build ignore")) {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, text, parser.ParseComments|parser.PackageClauseOnly)
		require.NoError(t, err)
		dir := filepath.Dir(path)
		comments[dir] = append(comments[dir], documented(f, path)...)
	}
	for dir, found := range comments {
		if len(found) != 1 {
			t.Errorf("package %s has %d package comments, wanted one: %v", dir, len(found), found)
		}
	}
}

// documented gives path if the file has a package comment that says what the package is.
func documented(f *ast.File, path string) []string {
	if text := f.Doc.Text(); strings.HasPrefix(text, "Package "+f.Name.Name+" ") ||
		f.Name.Name == "main" && strings.HasPrefix(text, "Command ") {
		return []string{path}
	}
	return nil
}

func TestEveryPassHasItsFileAndGolden(t *testing.T) {
	for _, p := range pass.All() {
		for _, name := range []string{p.Name + ".go", "testdata/" + p.Name + ".txtar"} {
			require.FileExists(t, filepath.Join(root(t), "lower/pass", name))
		}
	}
}

// forms says what becomes of each composite of the model.
var forms = map[string]string{
	composite.GroupedGEMMName:           "rule",
	composite.GroupedOuterName:          "rule",
	composite.RouteName:                 "taken by the pass choose_experts on CUDA, else its body",
	composite.RoutedExpertsName:         "rule",
	composite.AttentionName:             "rule",
	composite.AttentionGradientName:     "rule",
	composite.PagedAttentionName:        "rule",
	composite.PutRowsName:               "body only",
	composite.ConstrainName:             "taken by the pass constrain",
	composite.ScanName:                  "laid on stages by the pass pipeline, written anew by store, else its body",
	composite.ScanGradientName:          "laid on stages by the pass pipeline, written anew by store, else its body",
	composite.LayerName:                 "called by the pass pipeline, else its body",
	composite.LayerGradientName:         "called by the pass pipeline, else its body",
	composite.RecomputeName:             "body only",
	composite.OnceName:                  "taken by the pass once on CUDA, else its body",
	composite.RoutedExpertsGradientName: "rule",
}

// madeByPasses are composites that the pass expert makes for later ones.
var madeByPasses = []string{"mix.grouped_pair", "mix.grouped_swiglu", "mix.grouped_swiglu_gradient"}

func TestCompositesAreKnownToPasses(t *testing.T) {
	rules := pass.Rules()
	for _, name := range composite.Names {
		require.NotEmpty(t, forms[name], "composite %s: write down what becomes of it", name)
		require.Equal(t, forms[name] == "rule", len(rules[name]) > 0, "composite %s", name)
	}
	for name := range rules {
		if !slices.Contains(madeByPasses, name) {
			require.Contains(t, composite.Names, name, "a rule for a composite that no model has")
		}
	}
}

func TestEveryKnobIsDocumented(t *testing.T) {
	var text []byte
	for path, b := range files(t, ".md") {
		if path == "BUILD.md" || strings.HasPrefix(path, "docs/") {
			text = append(text, b...)
		}
	}
	if text == nil {
		t.Skip("needs BUILD.md or docs")
	}
	for _, k := range knob.All() {
		require.Contains(t, string(text), k.Name, "switch not in BUILD.md or docs")
		require.NotEmpty(t, k.Meaning)
	}
}

// forbidden holds what no file of ours may say. The words are cut in two so that this file does not
// say them.
var forbidden = []struct{ words, why string }{
	{"py" + "pi.org", "registries are found by their clients, not named"},
	{"pythonhosted" + ".org", "registries are found by their clients, not named"},
	{"proxy.go" + "lang.org", "registries are found by their clients, not named"},
	{"sum.go" + "lang.org", "registries are found by their clients, not named"},
	{"/work" + "/", "a path of the machine it was written on"},
	{"/tm" + "p/", "a path of the machine it was written on"},
	{"TO" + "DO", "what is missing is not written down in code"},
	{"FIX" + "ME", "what is missing is not written down in code"},
}

func TestNothingForbiddenIsSaid(t *testing.T) {
	for _, ext := range []string{".go", ".md", ".sh", ".mod", ".py", ".yml", ".yaml"} {
		for path, text := range files(t, ext) {
			for _, f := range forbidden {
				if i := bytes.Index(text, []byte(f.words)); i >= 0 {
					t.Errorf("%s:%d says %q: %s", path, 1+bytes.Count(text[:i], []byte("\n")), f.words, f.why)
				}
			}
		}
	}
}

var generated = regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)

// root is the folder of go.mod.
func root(t *testing.T) string {
	dir, err := filepath.Abs("../..")
	require.NoError(t, err)
	require.FileExists(t, filepath.Join(dir, "go.mod"))
	return dir
}

// files reads all files of the repository with that extension, by path from the root.
func files(t *testing.T, ext string) map[string][]byte {
	all := map[string][]byte{}
	dir := root(t)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if d.Name() == ".git" {
				return fs.SkipDir
			}
			return nil
		}
		if filepath.Ext(path) != ext {
			return nil
		}
		all[filepath.ToSlash(rel)], err = os.ReadFile(path)
		return err
	})
	require.NoError(t, err)
	return all
}
