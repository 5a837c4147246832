// Package golden compares text with files under testdata. Run go test -update to rewrite them, then
// read the diff: a golden change is a claim about the program, not a chore.
//
// It is for tests only, and it alone makes the flag -update. A test that keeps goldens of another
// kind asks Update.
package golden

import (
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
)

func init() {
	// A test binary may hold a package that makes the flag too, before or after this one would.
	if flag.Lookup("update") == nil {
		flag.Bool("update", false, "rewrite golden files")
	}
}

// Update tells whether goldens are to be rewritten. It is false before flags are parsed.
func Update() bool {
	f := flag.Lookup("update")
	return f != nil && f.Value.String() == "true"
}

// Run calls f with the sections of every file matching glob and compares the result with the last
// section, "out". Text before the first section says what the file shows. A glob that matches no
// file fails.
func Run(t *testing.T, glob string, f func(t *testing.T, in map[string]string) string) {
	t.Helper()
	files, err := filepath.Glob(glob)
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files match %s (%v)", glob, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			in := map[string]string{}
			for _, s := range ar.Files {
				in[s.Name] = string(s.Data)
			}
			got := f(t, in)
			switch {
			case t.Failed(): // its result means nothing
			case Update():
				if err := rewrite(file, ar, got); err != nil {
					t.Fatal(err)
				}
			case got != in["out"]:
				t.Errorf("%s, %s; -update rewrites it\n--- want\n%s--- got\n%s", file, firstDifference(got, in["out"]), in["out"], got)
			}
		})
	}
}

// rewrite puts out into the section of that name, which it adds if it is missing.
func rewrite(file string, ar *txtar.Archive, out string) error {
	n := len(ar.Files)
	if n == 0 || ar.Files[n-1].Name != "out" {
		ar.Files = append(ar.Files, txtar.File{Name: "out"})
		n++
	}
	ar.Files[n-1].Data = []byte(out)
	return os.WriteFile(file, txtar.Format(ar), 0o644)
}

// firstDifference names the first line that differs.
func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return "first difference in line " + strconv.Itoa(i+1) + " of out"
		}
	}
	return "one is the beginning of the other"
}
