package hub

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// folder is a plain folder at one commit. What it is, huggingface_hub too writes beside it:
//
//	.cache/huggingface/download/FILE.metadata   commit, checksum and time, a line each
//	.cache/huggingface/download/FILE.lock
type folder struct{ dir, commit string }

func (d folder) root() string        { return d.dir }
func (d folder) path(f file) string  { return filepath.Join(d.dir, filepath.FromSlash(f.name)) }
func (d folder) lock(f file) string  { return d.beside(f) + ".lock" }
func (d folder) finish(string) error { return nil }
func (d folder) notes(f file) string { return d.beside(f) + ".metadata" }
func (d folder) beside(f file) string {
	return filepath.Join(d.dir, ".cache", "huggingface", "download", filepath.FromSlash(f.name))
}

// part's name holds the file's as a hash: two files of one folder may have the same contents.
func (d folder) part(f file) string {
	name := sha1.Sum([]byte(f.name))
	return filepath.Join(filepath.Dir(d.beside(f)), hex.EncodeToString(name[:8])+"."+f.etag+".incomplete")
}

// has trusts a note that is not older than the file. Without one it reads the file: a clone by git, or a
// copy, need not be downloaded again.
func (d folder) has(ctx context.Context, f file) (bool, error) {
	path := d.path(f)
	if !isFile(path, f.size) {
		return false, nil
	}
	s, err := os.Stat(path)
	if err != nil {
		return false, err
	}
	if b, err := os.ReadFile(d.notes(f)); err == nil {
		lines := strings.Split(string(b), "\n")
		if len(lines) >= 3 && lines[1] == f.etag {
			seconds, err := strconv.ParseFloat(lines[2], 64)
			// Clocks of file systems are coarse; a second is what huggingface_hub grants too.
			if err == nil && float64(s.ModTime().UnixNano())/1e9 <= seconds+1 {
				return true, nil
			}
		}
	}
	r, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer r.Close()
	sum := newSum(f)
	if _, err := io.Copy(sum, &canceled{ctx, r}); err != nil {
		return false, err
	}
	if hex.EncodeToString(sum.Sum(nil)) != f.etag {
		return false, nil
	}
	return true, d.note(f)
}

func (d folder) keep(f file) error {
	if err := os.MkdirAll(filepath.Dir(d.path(f)), 0o755); err != nil {
		return err
	}
	if err := os.Rename(d.part(f), d.path(f)); err != nil {
		return err
	}
	return d.note(f)
}

// note writes down what the file is. Git is told to leave the notes alone.
func (d folder) note(f file) error {
	ignore := filepath.Join(d.dir, ".cache", "huggingface", ".gitignore")
	if _, err := os.Stat(ignore); err != nil {
		if err := writeFile(ignore, "*"); err != nil {
			return err
		}
	}
	return writeFile(d.notes(f), fmt.Sprintf("%s\n%s\n%.6f\n", d.commit, f.etag, float64(time.Now().UnixNano())/1e9))
}

func (d folder) pending(files []file) (unique []file, bytes int64) {
	for _, f := range files {
		bytes += missing(d.part(f), f)
	}
	return files, bytes
}
