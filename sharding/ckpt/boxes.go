package ckpt

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/gomlx/compute/dtypes"

	"mix/sharding"
	"mix/sharding/axis"
)

// Boxes is the layout of our own format: every tensor of a file is a box of one weight, under the weight's
// path with dots for slashes. What a device of a mesh holds is one file; devices that would hold the same as
// others have none. The index says which box is which, so a checkpoint fits any mesh, whatever it was written for.
const Boxes = "boxes"

// boxesFile is the index of our format.
//
//	{
//	  "format": "mix boxes",
//	  "version": 1,
//	  "mesh": "expert=2 tensor=2",
//	  "weights": [ {"path": …, "axes": […], "dims": […]}, … ],
//	  "boxes": [ {"file": …, "tensor": …, "weight": …, "offset": […], "size": […]}, … ]
//	}
const boxesFile = "boxes.json"

const (
	boxesFormat  = "mix boxes"
	boxesVersion = 1
)

// boxIndex is the text of boxesFile.
type boxIndex struct {
	Format  string      `json:"format"`
	Version int         `json:"version"`
	Mesh    string      `json:"mesh"` // that it was written for
	Weights []boxWeight `json:"weights"`
	Boxes   []boxEntry  `json:"boxes"`
}

// boxWeight is an axis.Param.
type boxWeight struct {
	Path string         `json:"path"`
	Axes []axis.Logical `json:"axes"`
	Dims []int          `json:"dims"`
}

// boxEntry is one tensor of a file.
type boxEntry struct {
	File   string `json:"file"`
	Tensor string `json:"tensor"`
	Weight string `json:"weight"`
	Offset []int  `json:"offset"`
	Size   []int  `json:"size"`
}

// text is the file. Every box is one line, for people and for version control.
func (x boxIndex) text() []byte {
	line := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			panic(err) // strings and lists of integers always have a text
		}
		return string(b)
	}
	lines := func(n int, at func(i int) any) string {
		list := make([]string, n)
		for i := range list {
			list[i] = "    " + line(at(i))
		}
		return "[\n" + strings.Join(list, ",\n") + "\n  ]"
	}
	return fmt.Appendf(nil, "{\n  \"format\": %s,\n  \"version\": %d,\n  \"mesh\": %s,\n  \"weights\": %s,\n  \"boxes\": %s\n}\n",
		line(x.Format), x.Version, line(x.Mesh), lines(len(x.Weights), func(i int) any { return x.Weights[i] }),
		lines(len(x.Boxes), func(i int) any { return x.Boxes[i] }))
}

// parseBoxes reads what text gives.
func parseBoxes(text []byte) (x boxIndex, err error) {
	r, err := newReader(text)
	if err != nil {
		return x, err
	}
	err = r.object(func(key string) error {
		field := map[string]any{"format": &x.Format, "version": &x.Version, "mesh": &x.Mesh, "weights": &x.Weights, "boxes": &x.Boxes}[key]
		if field == nil {
			return fmt.Errorf("unknown field %s", quote(key))
		}
		return wrap(r.dec.Decode(field), key)
	})
	switch {
	case err != nil:
		return x, err
	case x.Format != boxesFormat || x.Version != boxesVersion:
		return x, fmt.Errorf("format %s version %d, want %q version %d", quote(x.Format), x.Version, boxesFormat, boxesVersion)
	}
	for _, b := range x.Boxes {
		if !plainName(b.File) || !isWeightFile(b.File) {
			return x, fmt.Errorf("file %s, want the name of a safetensors file in the same folder", quote(b.File))
		}
	}
	return x, nil
}

// openBoxes opens the files that the index of a folder names.
func openBoxes(dir string) (s *source, x boxIndex) {
	s = &source{where: dir}
	open := inFolder(dir)
	r, err := open(boxesFile)
	if err != nil {
		s.problem(err)
		return s, x
	}
	defer r.close()
	if r.size() > maxHeader {
		s.problem(fmt.Errorf("%s: %w: %d bytes, want at most %d", boxesFile, ErrIndex, r.size(), maxHeader))
		return s, x
	}
	text, err := r.view(0, r.size())
	if err == nil {
		x, err = parseBoxes(text)
	}
	if err != nil {
		s.problem(fmt.Errorf("%s: %w: %w", boxesFile, ErrIndex, err))
		return s, x
	}
	names := map[string]bool{}
	for _, b := range x.Boxes {
		names[b.File] = true
	}
	for _, name := range sortedKeys(names) {
		r, err := open(name)
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%s names %s: %w", boxesFile, name, err)
		}
		if err != nil {
			s.problem(err)
			continue
		}
		s.add(name, r)
	}
	return s, x
}

// matchBoxes is match for our format.
func matchBoxes(s *source, x boxIndex, params []axis.Param) (m *matched, problems []error) {
	m = &matched{layout: Boxes, extents: map[string][]*extent{}, uses: map[string]string{}}
	wrong := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	byPath := pathsOf(params)
	for _, w := range x.Weights {
		p, ok := byPath[w.Path]
		switch {
		case !ok:
			wrong("%s: %w %s: the model has no such weight", boxesFile, ErrExtra, quote(w.Path))
		case !slices.Equal(w.Dims, p.Dims) || !slices.Equal(w.Axes, p.Axes):
			wrong("%s: %w: weight %s is %v %s, want %v %v", boxesFile, ErrShape, w.Path, w.Axes, shapeText(w.Dims), p.Axes, p.Dims)
		}
	}
	files := map[string]*File{}
	for _, f := range s.files {
		files[f.name] = f
	}
	perType, used := map[dtypes.DType]int64{}, map[string]bool{}
	for _, b := range x.Boxes {
		f, p := files[b.File], byPath[b.Weight]
		if f == nil || p.Path == "" {
			continue // said above, or when the file was opened
		}
		i, ok := f.byName[b.Tensor]
		if !ok {
			wrong("%s: %w %s, which %s names", b.File, ErrMissing, quote(b.Tensor), boxesFile)
			continue
		}
		t := f.infos[i]
		q := axis.Piece{Name: b.Tensor, Path: b.Weight, Offset: b.Offset, Size: b.Size, Shape: b.Size}
		if err := q.Check(p); err != nil {
			wrong("%s: %w", boxesFile, err)
			continue
		}
		if err := t.check(b.Size); err != nil {
			wrong("%s: %w", b.File, err)
			continue
		}
		if used[b.File+"/"+b.Tensor] {
			wrong("%s: tensor %s of %s is there twice", boxesFile, quote(b.Tensor), b.File)
			continue
		}
		used[b.File+"/"+b.Tensor] = true
		m.extents[p.Path] = append(m.extents[p.Path], &extent{file: f, info: t, at: t.Offset, offset: b.Offset, size: b.Size})
		m.uses[inFile(f, t.Name)] = p.Path
		perType[t.DType] += t.Bytes
	}
	for _, f := range s.files {
		for _, t := range f.infos {
			if !used[f.name+"/"+t.Name] && len(problems) == 0 {
				wrong("%s: %w %s is not in %s", f.name, ErrExtra, quote(t.Name), boxesFile)
			}
		}
	}
	m.count(perType)
	if len(problems) == 0 {
		problems = m.covered(params)
	}
	return m, problems
}

// covered says which weights the extents do not hold whole and once.
func (m *matched) covered(params []axis.Param) (problems []error) {
	for _, p := range params {
		from := layoutOfExtents(p, m.extents[p.Path])
		whole := sharding.Layout{Dims: p.Dims, Boxes: []sharding.Box{{Offset: make([]int, len(p.Dims)), Size: p.Dims}}}
		_, err := sharding.Plan(from, whole)
		held := 0
		for _, b := range from.Boxes {
			held += b.Elements()
		}
		if err == nil && held != p.Elements() {
			err = fmt.Errorf("%d elements for %d, some are there twice", held, p.Elements())
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("%w: weight %s: %w", ErrMissing, p.Path, err))
		}
	}
	return problems
}

// layoutOfExtents is where a weight lies; the holder of a box is the number of its extent.
func layoutOfExtents(p axis.Param, list []*extent) sharding.Layout {
	l := sharding.Layout{Dims: p.Dims}
	for i, x := range list {
		l.Boxes = append(l.Boxes, sharding.Box{Holder: i, Offset: x.offset, Size: x.size})
	}
	return l
}

// planBoxes deals the weights out to the devices of a mesh: for every device that holds a box which no device
// before it holds, its number and these boxes.
func planBoxes(params []axis.Param, mesh sharding.Mesh) (files []outputFile, x boxIndex, err error) {
	x = boxIndex{Format: boxesFormat, Version: boxesVersion, Mesh: mesh.String()}
	rules := sharding.Derive(mesh)
	perDevice := make([]outputFile, mesh.Devices())
	for _, p := range params {
		l, err := rules.Layout(sharding.Weights, p, mesh)
		if err != nil {
			return nil, x, err
		}
		x.Weights = append(x.Weights, boxWeight(p))
		for _, b := range l.Boxes {
			if b.Replica == 0 {
				f := &perDevice[b.Holder]
				f.name = fmt.Sprintf("device-%05d.safetensors", b.Holder)
				q := axis.Piece{Name: p.Path, Path: p.Path, Offset: b.Offset, Size: b.Size}
				f.tensors = append(f.tensors, planned{name: plainTensor(p.Path), shape: b.Size, boxes: []axis.Piece{q}})
				x.Boxes = append(x.Boxes, boxEntry{f.name, plainTensor(p.Path), p.Path, b.Offset, b.Size})
			}
		}
	}
	for _, f := range perDevice {
		if len(f.tensors) > 0 {
			files = append(files, f)
		}
	}
	return files, x, nil
}
