package lower

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/cpu"

	"mix/lower/target"
)

// cache keeps compiled programs in a folder, one file each, named by the hash of all that the
// machine code depends on. Entries are written under another name and renamed, so that a reader
// sees a whole one or none; those that fail their checksum are ignored and replaced. When the
// folder grows over its limit the entries unused longest go.
type cache struct {
	dir   string
	limit int64 // bytes
}

const (
	cacheMagic   = "mix program 1\n"
	cacheSuffix  = ".program"
	cacheDefault = 4 << 30
)

func openCache(dir string, limit int64) (*cache, error) {
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("no cache folder: %w", err)
		}
		dir = filepath.Join(base, "mix", "programs")
	}
	if limit == 0 {
		limit = cacheDefault
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	return &cache{dir, limit}, nil
}

// machine is what serialized machine code depends on beside the plugin. A GPU's is of the GPU, and may be compiled on
// another machine.
func machine(platform string) string {
	m := runtime.GOOS + "/" + runtime.GOARCH
	if platform != target.CPU {
		return m
	}
	return m + fmt.Sprintf(" %d %+v %+v", runtime.NumCPU(), cpu.X86, cpu.ARM64)
}

// cacheKey hashes the program with everything that decides what its compilation gives.
func cacheKey(text, plugin, platform string, options []byte) string {
	h := sha256.New()
	for _, s := range []string{cacheMagic, text, plugin, string(options), os.Getenv("XLA_FLAGS"), machine(platform)} {
		fmt.Fprintf(h, "%d:", len(s))
		h.Write([]byte(s))
	}
	return hex.EncodeToString(h.Sum(nil))
}

func (c *cache) path(key string) string { return filepath.Join(c.dir, key+cacheSuffix) }

// checksum is of the program and its key, so that an entry under another's name is damaged too.
func checksum(key string, program []byte) [sha256.Size]byte {
	return sha256.Sum256(slices.Concat([]byte(key), program))
}

// get returns the program stored under key, nil if there is none or it is damaged.
func (c *cache) get(key string) []byte {
	if c == nil {
		return nil
	}
	path := c.path(key)
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	body, ok := bytes.CutPrefix(b, []byte(cacheMagic))
	if !ok || len(body) < sha256.Size {
		return nil
	}
	sum, body := body[:sha256.Size], body[sha256.Size:]
	if got := checksum(key, body); !bytes.Equal(sum, got[:]) {
		return nil
	}
	now := time.Now()
	_ = os.Chtimes(path, now, now) // marks it used; without it the entry only goes earlier
	return body
}

// put stores a program, then makes room.
func (c *cache) put(key string, program []byte) error {
	f, err := os.CreateTemp(c.dir, key[:16]+".*.tmp")
	if err != nil {
		return err
	}
	sum := checksum(key, program)
	_, err = f.Write(slices.Concat([]byte(cacheMagic), sum[:], program))
	if err2 := f.Close(); err == nil {
		err = err2
	}
	if err == nil {
		err = os.Rename(f.Name(), c.path(key))
	}
	if err != nil {
		_ = os.Remove(f.Name()) // the first error is the one to tell
		return err
	}
	return c.trim()
}

// trim removes the entries unused longest until the folder is within its limit, and leftovers of
// writers that died.
func (c *cache) trim() error {
	files, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	var total int64
	var entries []fs.FileInfo
	for _, e := range files {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		if strings.HasSuffix(info.Name(), ".tmp") && time.Since(info.ModTime()) > time.Hour {
			_ = os.Remove(filepath.Join(c.dir, info.Name())) // another process may have been faster
			continue
		}
		if strings.HasSuffix(info.Name(), cacheSuffix) {
			total += info.Size()
			entries = append(entries, info)
		}
	}
	slices.SortFunc(entries, func(a, b fs.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	for _, e := range entries {
		if total <= c.limit {
			return nil
		}
		if err := os.Remove(filepath.Join(c.dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		total -= e.Size()
	}
	return nil
}
