package hub

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	gohub "github.com/gomlx/go-huggingface/hub"
)

// place is where the files of a snapshot go.
type place interface {
	root() string                                      // folder of the snapshot
	has(ctx context.Context, f file) (bool, error)     // f is in place, or can be put there from what is here
	part(f file) string                                // where f grows
	lock(f file) string                                // file whose lock allows to write part(f)
	keep(f file) error                                 // part(f) is complete and checked: put it in place
	finish(revision string) error                      // all files are in place
	pending(files []file) (unique []file, bytes int64) // files to get, and the bytes still missing of them
}

// cache is huggingface_hub's cache of one repository at one commit.
type cache struct{ top, repo, commit string }

// newCache names the folders; it makes none.
func newCache(top, repo, commit string) cache {
	parts := append([]string{string(gohub.RepoTypeModel)}, strings.Split(repo, "/")...)
	return cache{top, strings.Join(parts, gohub.RepoIdSeparator), commit}
}

func (c cache) root() string       { return filepath.Join(c.top, c.repo, "snapshots", c.commit) }
func (c cache) blob(f file) string { return filepath.Join(c.top, c.repo, "blobs", f.etag) }
func (c cache) part(f file) string { return c.blob(f) + ".incomplete" }
func (c cache) lock(f file) string { return filepath.Join(c.top, ".locks", c.repo, f.etag+".lock") }
func (c cache) ref(r string) string {
	return filepath.Join(c.top, c.repo, "refs", filepath.FromSlash(r))
}

// has trusts names and lengths: a blob gets its name when its checksum is known to be right.
func (c cache) has(_ context.Context, f file) (bool, error) {
	if isFile(c.link(f), f.size) {
		return true, nil
	}
	if !isFile(c.blob(f), f.size) {
		return false, nil
	}
	return true, c.symlink(f)
}

func (c cache) keep(f file) error {
	if err := os.Rename(c.part(f), c.blob(f)); err != nil {
		return err
	}
	return c.symlink(f)
}

func (c cache) link(f file) string { return filepath.Join(c.root(), filepath.FromSlash(f.name)) }

// symlink makes the snapshot's name of a blob, relative so that the cache can be moved, and at once.
func (c cache) symlink(f file) error {
	link := c.link(f)
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		return err
	}
	to, err := filepath.Rel(filepath.Dir(link), c.blob(f))
	if err != nil {
		return err
	}
	return replace(link, func(temporary string) error { return os.Symlink(to, temporary) })
}

// finish notes which commit the revision is.
func (c cache) finish(revision string) error {
	if revision == c.commit {
		return nil
	}
	if b, err := os.ReadFile(c.ref(revision)); err == nil && string(b) == c.commit {
		return nil
	}
	return writeFile(c.ref(revision), c.commit)
}

// pending takes files of the same contents once.
func (c cache) pending(files []file) (unique []file, bytes int64) {
	seen := map[string]bool{}
	for _, f := range files {
		if !seen[f.etag] {
			seen[f.etag] = true
			unique = append(unique, f)
			bytes += missing(c.part(f), f)
		}
	}
	return unique, bytes
}

// missing is how many bytes of f the part file lacks.
func missing(part string, f file) int64 {
	if s, err := os.Stat(part); err == nil && s.Size() <= f.size {
		return f.size - s.Size()
	}
	return f.size
}

// isFile tells whether path is, or leads to, a file of that many bytes.
func isFile(path string, size int64) bool {
	s, err := os.Stat(path)
	return err == nil && s.Mode().IsRegular() && s.Size() == size
}

// writeFile writes a small file that appears whole or not at all.
func writeFile(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return replace(path, func(temporary string) error { return os.WriteFile(temporary, []byte(text), 0o644) })
}

// replace makes something under a name of its own and renames it to path.
func replace(path string, make func(temporary string) error) error {
	dir, err := os.MkdirTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	// A link is relative to its folder: what is made is made beside path, under the folder's name.
	temporary := dir + ".link"
	if err := make(temporary); err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		return errors.Join(err, ignoreMissing(os.Remove(temporary)))
	}
	return nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
