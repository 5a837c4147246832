package ckpt

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
)

// Names of files in a Hugging Face folder.
const (
	singleFile = "model.safetensors"
	indexFile  = "model.safetensors.index.json"
)

// parseIndex reads the index of a sharded checkpoint, {"metadata": …, "weight_map": {tensor: file}}.
// Files are plain names in the index's own folder.
func parseIndex(text []byte) (files map[string]string, err error) {
	r, err := newReader(text)
	if err != nil {
		return nil, err
	}
	err = r.object(func(key string) error {
		if key != "weight_map" {
			return r.skip()
		}
		files = map[string]string{}
		return r.object(func(tensor string) error {
			file, err := r.text()
			if err != nil {
				return wrap(err, tensor)
			}
			if !filepath.IsLocal(file) || strings.ContainsAny(file, "/\\:\x00") || file == "." || printable(file) != file {
				return fmt.Errorf("tensor %s: file %s, want a name in the same folder", quote(tensor), quote(file))
			}
			files[tensor] = file
			return nil
		})
	})
	if err == nil && files == nil {
		err = errors.New("no weight_map")
	}
	return files, err
}

// source is the files of a checkpoint and what is wrong with them so far.
type source struct {
	where    string
	files    []*File
	lost     map[string]bool // tensors that the index puts into files that cannot be read
	problems []error
}

// openSource opens model.safetensors or, without it, the files that the index names. Files that cannot
// be read become problems, and the others are there all the same.
func openSource(where string, open opener) *source {
	s := &source{where: where}
	switch single, err := open(singleFile); {
	case err == nil:
		s.add(singleFile, single)
		return s
	case !errors.Is(err, fs.ErrNotExist):
		s.problem(err)
		return s
	}
	r, err := open(indexFile)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("neither %s nor %s is there: %w", singleFile, indexFile, fs.ErrNotExist)
		}
		s.problem(err)
		return s
	}
	defer r.close()
	if r.size() > maxHeader {
		s.problem(fmt.Errorf("%s: %w: %d bytes, want at most %d", indexFile, ErrIndex, r.size(), maxHeader))
		return s
	}
	text, err := r.view(0, r.size())
	if err != nil {
		s.problem(fmt.Errorf("%s: %w", indexFile, err))
		return s
	}
	index, err := parseIndex(text)
	if err != nil {
		s.problem(fmt.Errorf("%s: %w: %w", indexFile, ErrIndex, err))
		return s
	}
	broken := map[string]bool{}
	names := map[string]bool{}
	for _, name := range index {
		names[name] = true
	}
	for _, name := range sortedKeys(names) {
		r, err := open(name)
		if err != nil {
			s.problem(fmt.Errorf("%s names %s: %w", indexFile, name, err))
			broken[name] = true
			continue
		}
		broken[name] = !s.add(name, r)
	}
	s.follow(index, broken)
	return s
}

func (s *source) problem(err error) { s.problems = append(s.problems, err) }

// add opens one file of the checkpoint and says whether its tensors are known.
func (s *source) add(name string, r region) bool {
	f, err := newFile(name, r)
	if err != nil {
		s.problem(err)
	}
	if f == nil {
		r.close()
		return false
	}
	s.files = append(s.files, f)
	return true
}

// follow checks that every tensor lies in the one file that the index names.
func (s *source) follow(index map[string]string, broken map[string]bool) {
	found := map[string]string{}
	for _, f := range s.files {
		for _, t := range f.infos {
			switch named, ok := index[t.Name]; {
			case !ok:
				s.problem(fmt.Errorf("%s: %w %s is not in %s", f.name, ErrExtra, quote(t.Name), indexFile))
			case named == f.name:
			case found[t.Name] != "" || s.holds(named, t.Name):
				s.problem(fmt.Errorf("%s: %w %s is in %s too", f.name, ErrExtra, quote(t.Name), named))
			default:
				s.problem(fmt.Errorf("%w: tensor %s is in %s, %s says %s", ErrIndex, quote(t.Name), f.name, indexFile, named))
			}
			found[t.Name] = f.name
		}
	}
	s.lost = map[string]bool{}
	for _, name := range sortedKeys(index) {
		switch {
		case found[name] != "":
		case broken[index[name]]:
			s.lost[name] = true
		default:
			s.problem(fmt.Errorf("%s: %w %s, which %s names", index[name], ErrMissing, quote(name), indexFile))
		}
	}
}

func (s *source) holds(file, tensor string) bool {
	for _, f := range s.files {
		if _, ok := f.byName[tensor]; ok && f.name == file {
			return true
		}
	}
	return false
}

func (s *source) close() error {
	var errs []error
	for _, f := range s.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
