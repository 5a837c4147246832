package ckpt

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/gomlx/compute/dtypes"

	"mix/sharding"
	"mix/sharding/axis"
	"mix/sharding/ckpt/torchfile"
)

// outputFile is a file of tensors that a conversion writes.
type outputFile struct {
	name    string // in the target folder, with slashes
	tensors []planned
	parts   []outputPart // in the order of the file, without a gap
	bytes   int64
	copies  map[int][]copyOf // by number of the box among all boxes of the file
}

// outputPart is a stretch of a file: a tensor, or text.
type outputPart struct {
	at, bytes int64
	tensor    int // number in tensors, -1 for text
	box       int // number of the tensor's first box among all boxes of the file
	// text may depend on the IEEE CRC-32 of the tensors, in the order of the parts.
	text func(sums []uint32) []byte
}

// copyOf is what one extent gives to a box.
type copyOf struct {
	from *extent
	box  sharding.Copy
}

// add appends a part.
func (f *outputFile) add(p outputPart) {
	p.at = f.bytes
	f.bytes += p.bytes
	f.parts = append(f.parts, p)
}

// addTensor appends the elements of tensor i.
func (f *outputFile) addTensor(i int) {
	box := 0
	for _, t := range f.tensors[:i] {
		box += len(t.boxes)
	}
	f.add(outputPart{bytes: f.tensors[i].bytes(), tensor: i, box: box})
}

func (f *outputFile) addText(b []byte) {
	f.add(outputPart{bytes: int64(len(b)), tensor: -1, text: func([]uint32) []byte { return b }})
}

// laySafetensors lays the file out as safetensors, wider elements first as WriteFile does.
func (f *outputFile) laySafetensors() error {
	slices.SortStableFunc(f.tensors, func(a, b planned) int { return bytesOf(b.dtype) - bytesOf(a.dtype) })
	var list []Tensor
	for _, t := range f.tensors {
		list = append(list, Tensor{Name: t.name, DType: t.dtype, Shape: t.shape})
	}
	header, err := makeHeader(list, map[string]string{"format": "pt"})
	if err != nil {
		return fmt.Errorf("%s: %w", f.name, err)
	}
	f.addText(header)
	for i := range f.tensors {
		f.addTensor(i)
	}
	return nil
}

// layTorch lays the file out as Megatron's .pt.
func (f *outputFile) layTorch(args *torchfile.Object) error {
	model := &torchfile.Dict{}
	number := map[*torchfile.Tensor]int{}
	for i, t := range f.tensors {
		x := torchfile.NewTensor(t.dtype, t.shape...)
		number[x] = i
		if err := model.Set(t.name, x); err != nil {
			return err
		}
	}
	parts, err := torchfile.Plan(strings.TrimSuffix(path.Base(f.name), ".pt"), torchfile.DictOf("args", args, "checkpoint_version", 3.0, "iteration", 1,
		"num_floating_point_operations_so_far", 0, "model", model))
	if err != nil {
		return fmt.Errorf("%s: %w", f.name, err)
	}
	for _, p := range parts {
		if p.Tensor != nil {
			f.addTensor(number[p.Tensor])
			continue
		}
		f.add(outputPart{bytes: p.Bytes, tensor: -1, text: p.Text})
	}
	return nil
}

// planMegatron is the files of a grid.
func planMegatron(params []axis.Param, g Grid) (files []outputFile, err error) {
	sizes, err := sizesOf(params)
	if err == nil {
		err = agree(params)
	}
	if err == nil {
		err = g.check(sizes)
	}
	if err != nil {
		return nil, err
	}
	byPath := pathsOf(params)
	for _, p := range g.places(sizes[axis.Layers]) {
		f := outputFile{name: path.Join(firstFolder, p.folder(), megatronPt)}
		for i := range megatronRows {
			r := &megatronRows[i]
			if r.at(p) && !r.tied(byPath) {
				f.tensors = append(f.tensors, r.plan(boxer{sizes: sizes, byPath: byPath, place: p})...)
			}
		}
		files = append(files, f)
	}
	return files, nil
}

// plan lists a place's tensors of the row.
func (r *megatronRow) plan(b boxer) (list []planned) {
	for l, e := range numbers(r, b.layers, b.experts()) {
		at := b.at(l, e)
		boxes := r.boxes(at)
		t := planned{name: spell(r.name, l, e), shape: r.shape(at, boxes), boxes: boxes}
		if r.padded {
			t.boxes = append(t.boxes, r.padding(at, t)...)
		}
		list = append(list, t)
	}
	return list
}

// padding is the rows that are missing in a tensor of the vocabulary: the last token's, again and again.
func (r *megatronRow) padding(b boxer, t planned) (list []axis.Piece) {
	whole := r.boxes(boxer{sizes: b.sizes, byPath: b.byPath, place: place{Grid: Grid{1, 1, 1}}, l: b.l, e: b.e})[0]
	last := b.cut(whole, axis.Vocab, b.sizes[axis.Vocab]-1, 1)
	have := 0
	for _, q := range t.boxes {
		have += q.Elements()
	}
	for ; have < axis.Count(t.shape); have += last.Elements() {
		list = append(list, last)
	}
	return list
}

// typeFor is the type in which a converted weight is kept: the one that all of its parts have, else float32.
func (c *Checkpoint) typeFor(boxes []axis.Piece) dtypes.DType {
	found := dtypes.InvalidDType
	for _, q := range boxes {
		for _, x := range c.matched.extents[q.Path] {
			if found != dtypes.InvalidDType && found != x.info.DType {
				return dtypes.Float32
			}
			found = x.info.DType
		}
	}
	return found
}
