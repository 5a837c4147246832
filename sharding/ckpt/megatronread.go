package ckpt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"mix/sharding/ckpt/torchfile"
)

const (
	latestFile  = "latest_checkpointed_iteration.txt"
	megatronPt  = "model_optim_rng.pt"
	firstFolder = "iter_0000001"
)

var (
	iterationName = regexp.MustCompile(`^(iter_[0-9]{7}|release)$`)
	rankName      = regexp.MustCompile(`^mp_rank_[0-9]{2,}(_[0-9]{3}){0,2}$`)
)

// megatronFolder is the folder below dir whose folders are the parts of the grid, "" if dir is no checkpoint
// of Megatron: the iteration that latest_checkpointed_iteration.txt names, or the only one, or dir itself.
func megatronFolder(dir string) (string, error) {
	if text, err := os.ReadFile(filepath.Join(dir, latestFile)); err == nil {
		name := strings.TrimSpace(string(text))
		if n, err := strconv.ParseUint(name, 10, 32); err == nil {
			name = fmt.Sprintf("iter_%07d", n)
		}
		if !iterationName.MatchString(name) {
			return "", fmt.Errorf("%s: %w: %s, want a number or \"release\"", latestFile, ErrIndex, quote(string(text)))
		}
		return name, nil
	}
	list, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	found := ""
	for _, e := range list {
		switch {
		case rankName.MatchString(e.Name()):
			return ".", nil
		case iterationName.MatchString(e.Name()):
			if found != "" {
				return "", fmt.Errorf("%w: %s and %s, and no %s that names one", ErrIndex, found, e.Name(), latestFile)
			}
			found = e.Name()
		}
	}
	return found, nil
}

// rank is the file of a part of the grid.
type rank struct {
	file  *File
	place place
	// chunks are the tensors of the model in the file; where pipeline stages are interleaved there are several.
	chunks [][]Info
}

// megatronSource is a checkpoint's files and how they divide the model.
type megatronSource struct {
	*source
	grid  Grid
	args  *torchfile.Object
	ranks []rank // in the order of the grid's places
}

// openMegatron opens all files of a checkpoint. What is wrong with them becomes problems.
func openMegatron(dir string) *megatronSource {
	m := &megatronSource{source: &source{where: dir}, grid: Grid{1, 1, 1}}
	below, err := megatronFolder(dir)
	if err == nil && below == "" {
		err = fmt.Errorf("no folder mp_rank_00 or iter_0000001: %w", fs.ErrNotExist)
	}
	if err != nil {
		m.problem(err)
		return m
	}
	list, err := os.ReadDir(filepath.Join(dir, below))
	if err != nil {
		m.problem(err)
		return m
	}
	var names []string
	for _, e := range list {
		if rankName.MatchString(e.Name()) {
			names = append(names, e.Name())
		}
	}
	if len(names) == 0 {
		m.problem(fmt.Errorf("%s: no folder mp_rank_00: %w", below, fs.ErrNotExist))
		return m
	}
	for i, name := range names {
		if !m.add(dir, path.Join(below, name, megatronPt)) {
			return m
		}
		if i == 0 {
			if err := m.readGrid(name); err != nil {
				m.problem(fmt.Errorf("%s: %w", path.Join(below, name, megatronPt), err))
				return m
			}
		}
	}
	places := m.grid.places(0)
	for i, p := range places {
		if i >= len(names) || names[i] != p.folder() {
			m.problem(fmt.Errorf("%s: folders %s, want one for every part of the grid %d × %d × %d, such as %s",
				below, strings.Join(names, " "), m.grid.Tensor, m.grid.Pipeline, m.grid.Expert, p.folder()))
			return m
		}
		m.ranks[i].place = p
	}
	if len(names) != len(places) {
		m.problem(fmt.Errorf("%s: folder %s is outside of the grid %d × %d × %d", below, names[len(places)], m.grid.Tensor, m.grid.Pipeline, m.grid.Expert))
	}
	return m
}

// add opens one file.
func (m *megatronSource) add(dir, name string) bool {
	r, err := openPath(filepath.Join(dir, filepath.FromSlash(name)))
	if err != nil {
		m.problem(err)
		return false
	}
	f := &File{name: name, region: r, byName: map[string]int{}, metadata: map[string]string{}}
	m.files = append(m.files, f)
	chunks, args, err := readMegatronFile(f)
	if err != nil {
		m.problem(fmt.Errorf("%s: %w", name, err))
		return false
	}
	if m.args == nil {
		m.args = args
	}
	for _, chunk := range chunks {
		for _, t := range chunk {
			f.byName[t.Name] = len(f.infos)
			f.infos = append(f.infos, t)
		}
	}
	m.ranks = append(m.ranks, rank{file: f, chunks: chunks})
	return true
}

// regionReader reads a region at positions.
type regionReader struct{ region }

func (r regionReader) ReadAt(b []byte, at int64) (n int, err error) {
	if at < 0 || at+int64(len(b)) > r.size() {
		return 0, fmt.Errorf("%w: bytes %d to %d of a file of %d", ErrTruncated, at, at+int64(len(b)), r.size())
	}
	v, err := r.view(at, int64(len(b)))
	return copy(b, v), err
}

// readMegatronFile reads the names of a file's tensors and the settings beside them.
func readMegatronFile(f *File) (chunks [][]Info, args *torchfile.Object, err error) {
	defer fault(f.name, &err)()
	t, err := torchfile.Parse(regionReader{f.region}, f.region.size())
	if err != nil {
		return nil, nil, err
	}
	root, ok := t.Root.(*torchfile.Dict)
	if !ok {
		return nil, nil, errors.New("holds no dictionary")
	}
	if v, ok := root.Get("args"); ok {
		args, _ = v.(*torchfile.Object)
	}
	for i := -1; ; i++ {
		key := "model"
		if i >= 0 {
			key = fmt.Sprintf("model%d", i)
		}
		v, ok := root.Get(key)
		if !ok && i < 0 {
			continue
		}
		if !ok {
			break
		}
		chunk, err := infosOf(key, v)
		if err != nil {
			return nil, nil, err
		}
		chunks = append(chunks, chunk)
		if i < 0 {
			break
		}
	}
	if len(chunks) == 0 {
		return nil, nil, errors.New(`no "model": not a file of Megatron's models`)
	}
	return chunks, args, nil
}

// infosOf lists the tensors of a state dictionary in its order; None and other settings are left out.
func infosOf(key string, v any) (list []Info, err error) {
	d, ok := v.(*torchfile.Dict)
	if !ok {
		return nil, fmt.Errorf("%s is no dictionary", key)
	}
	for i, k := range d.Keys {
		name, ok := k.(string)
		if !ok {
			return nil, fmt.Errorf("%s has the key %s, want names", key, torchfile.Show(k))
		}
		t, ok := d.Values[i].(*torchfile.Tensor)
		if !ok {
			if megatronReason(name) == "" {
				return nil, fmt.Errorf("%w %s: it is no tensor", ErrExtra, quote(name))
			}
			continue
		}
		if !t.RowMajor() {
			return nil, fmt.Errorf("%w: tensor %s has shape %s and strides %v, want it row-major", ErrShape, quote(name), shapeText(t.Shape), t.Stride)
		}
		f, ok := formatOf(t.DType)
		if !ok {
			return nil, fmt.Errorf("%w: tensor %s is %s", ErrDType, quote(name), t.DType)
		}
		list = append(list, Info{Name: name, Format: f.name, DType: t.DType, Shape: t.Shape, Offset: t.At(), Bytes: int64(t.Elements()) * int64(bytesOf(t.DType))})
	}
	return list, nil
}

func megatronReason(name string) string {
	for _, x := range megatronIgnored {
		if strings.HasSuffix(name, x.suffix) {
			return x.reason
		}
	}
	return ""
}

// readGrid takes the grid from the settings of the first file.
func (m *megatronSource) readGrid(folder string) error {
	for _, x := range []struct {
		to    *int
		names []string
	}{
		{&m.grid.Tensor, []string{"tensor_model_parallel_size"}},
		{&m.grid.Pipeline, []string{"pipeline_model_parallel_size"}},
		{&m.grid.Expert, []string{"expert_model_parallel_size"}},
	} {
		n, ok, err := argInt(m.args, x.names...)
		if err != nil {
			return err
		}
		if !ok && strings.Count(folder, "_") > 2 || ok && (n < 1 || n > 1<<12) {
			return fmt.Errorf("args have %s %d, want the sizes of the grid", x.names[0], n)
		}
		if ok {
			*x.to = n
		}
	}
	if m.grid.Tensor*m.grid.Pipeline*m.grid.Expert > 1<<14 {
		return fmt.Errorf("grid %d × %d × %d, want at most %d parts", m.grid.Tensor, m.grid.Pipeline, m.grid.Expert, 1<<14)
	}
	if n, ok, _ := argInt(m.args, "expert_tensor_parallel_size"); ok && n != m.grid.Tensor {
		return fmt.Errorf("expert_tensor_parallel_size %d, want tensor_model_parallel_size %d: other divisions of experts are not read", n, m.grid.Tensor)
	}
	return isMixtral(m.args)
}
