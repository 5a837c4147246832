package ckpt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// Verify reads every file of a folder and compares it with the manifest. The error says everything that is
// wrong: a manifest that cannot be read, files that are missing or have another size or checksum, and files
// that could be taken for weights but are not listed.
func Verify(dir string) (Manifest, error) {
	m, err := ReadManifest(dir)
	if err != nil {
		return m, &Damage{dir, []error{err}}
	}
	errs := make([]error, len(m.Files))
	inParallel(len(m.Files), runtime.GOMAXPROCS(0), func(_, i int) error {
		errs[i] = m.Files[i].verify(dir)
		return nil // all are wanted
	})
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if errs = append(errs, m.strangers(dir)...); len(errs) > 0 {
		return m, &Damage{dir, errs}
	}
	return m, nil
}

// verify compares the file with what it was.
func (s Sum) verify(dir string) error {
	file := filepath.Join(dir, filepath.FromSlash(s.Name))
	st, err := os.Stat(file)
	if err != nil {
		return err
	}
	if st.Size() != s.Bytes { // before all of it is read in vain
		return fmt.Errorf("%s: %d bytes, want %d", file, st.Size(), s.Bytes)
	}
	got, err := sumFile(s.Name, file)
	if err != nil {
		return err
	}
	if got != s {
		return fmt.Errorf("%s: CRC-32C %s, want %s", file, got.CRC32C, s.CRC32C)
	}
	return nil
}

// strangers finds files in the manifest's folders that a reader would take for weights.
func (m Manifest) strangers(dir string) (errs []error) {
	listed, folders := map[string]bool{}, map[string]bool{".": true}
	for _, f := range m.Files {
		listed[f.Name] = true
		folders[path.Dir(f.Name)] = true
	}
	for _, folder := range sortedKeys(folders) {
		names, err := weightFiles(filepath.Join(dir, filepath.FromSlash(folder)))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		for _, name := range names {
			if name = path.Join(folder, name); !listed[name] {
				errs = append(errs, fmt.Errorf("%s: not in %s", filepath.Join(dir, filepath.FromSlash(name)), ManifestFile))
			}
		}
	}
	return errs
}

// Damage is the error of a folder that is not as its manifest says.
type Damage struct {
	Dir  string
	List []error // at least one
}

// Error is one line with all that is wrong.
func (d *Damage) Error() string {
	texts := make([]string, len(d.List))
	for i, err := range d.List {
		texts[i] = err.Error()
	}
	return fmt.Sprintf("%v: %s", ErrDamaged, strings.Join(texts, "; "))
}

// Unwrap gives errors.Is and errors.As every problem.
func (d *Damage) Unwrap() []error { return append([]error{ErrDamaged}, d.List...) }
