package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// indexFile names the files that hold the tensors of a checkpoint.
const indexFile = "model.safetensors.index.json"

// offline finds the snapshot among what is here. No listing says which files there should be; those that a
// checkpoint's index names must be.
func (s *Snapshot) offline(_ context.Context, o Options) error {
	label := o.Repo + "@" + o.Revision
	s.Path = o.To
	if o.To == "" {
		c := newCache(o.Cache, o.Repo, o.Revision)
		if !isSHA1.MatchString(o.Revision) {
			b, err := os.ReadFile(c.ref(o.Revision))
			if err != nil {
				return fmt.Errorf("%s: %w: download it with the network first: %v", label, ErrOffline, err)
			}
			if c.commit = strings.TrimSpace(string(b)); !isSHA1.MatchString(c.commit) {
				return fmt.Errorf("%s: %w: %s does not hold a commit", label, ErrOffline, c.ref(o.Revision))
			}
		}
		s.Commit, s.Path = c.commit, c.root()
	}
	choose := newChooser(o)
	here := map[string]bool{}
	err := filepath.WalkDir(s.Path, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(s.Path, path)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(rel)
		if d.IsDir() && (name == ".cache" || name == ".git") {
			return fs.SkipDir
		}
		if d.IsDir() || !choose.wants(name) {
			return nil
		}
		info, err := os.Stat(path) // of what a link leads to
		if err != nil {
			return err
		}
		here[name] = true
		s.Files++
		s.Bytes += info.Size()
		return nil
	})
	if err == nil && s.Files == 0 {
		err = errors.New("no file is chosen by the patterns")
	}
	if err == nil && here[indexFile] {
		err = complete(s.Path, here, choose)
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %s: %v", label, ErrOffline, s.Path, err)
	}
	return nil
}

// complete checks that the files that the index names, and the patterns choose, are here.
func complete(folder string, here map[string]bool, choose chooser) error {
	b, err := os.ReadFile(filepath.Join(folder, indexFile))
	if err != nil {
		return err
	}
	var index struct {
		Files map[string]string `json:"weight_map"`
	}
	if err := json.Unmarshal(b, &index); err != nil {
		return fmt.Errorf("%s: %v", indexFile, err)
	}
	absent := map[string]bool{}
	first := ""
	for _, name := range index.Files {
		if choose.wants(name) && !here[name] {
			absent[name] = true
			if first == "" || name < first {
				first = name
			}
		}
	}
	if len(absent) > 0 {
		return fmt.Errorf("%s and %d more files of %s are not here", first, len(absent)-1, indexFile)
	}
	return nil
}
