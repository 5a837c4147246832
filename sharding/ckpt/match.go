package ckpt

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gomlx/compute/dtypes"

	"mix/sharding/axis"
)

// Ignored is a tensor that no weight needs, and the reason.
type Ignored struct{ Name, Reason string }

// matched is the tensors of a checkpoint brought together with the catalogue.
type matched struct {
	layout  string
	extents map[string][]*extent // by path of the weight
	uses    map[string]string    // path of the weight by name of the tensor
	ignored []Ignored
	// replicas are copies of extents that other files hold, of which the first is read.
	replicas []replica
	bytes    int64 // of the tensors that are used
	dtype    dtypes.DType
}

// replica is a box that lies in the files twice.
type replica struct {
	path string
	a, b *extent
}

// match finds the home of every weight and the use of every tensor, or says what is wrong.
func match(s *source, params []axis.Param) (m *matched, problems []error) {
	m = &matched{extents: map[string][]*extent{}, uses: map[string]string{}}
	sizes, err := sizesOf(params)
	if err != nil {
		return m, []error{err}
	}
	if err := agree(params); err != nil {
		return m, []error{err}
	}
	byPath := pathsOf(params)
	bare := isBare(s)
	m.layout = layoutOf(s, bare)
	present, perType := map[string]bool{}, map[dtypes.DType]int64{}
	for name := range s.lost {
		present[name] = true // its file is the problem
	}
	for _, f := range s.files {
		for _, t := range f.infos {
			r, l, e := find(full(t.Name, bare))
			if err := fits(r, l, e, t, m.layout, sizes, byPath); err != nil {
				problems = append(problems, fmt.Errorf("%s: %w", f.name, err))
				present[t.Name] = true // it is there, if unfit; one problem is enough
				continue
			}
			present[t.Name] = true
			if reason := r.reason(byPath); reason != "" {
				m.ignored = append(m.ignored, Ignored{t.Name, reason})
				continue
			}
			for _, x := range r.extents(f, t, byPath, l, e) {
				m.extents[x.path] = append(m.extents[x.path], x.extent)
			}
			m.uses[t.Name] = use(r, l, e)
			perType[t.DType] += t.Bytes
		}
	}
	m.count(perType)
	return m, append(problems, missing(m.layout, bare, sizes, params, present)...)
}

// count sums up the bytes that tensors of each type have.
func (m *matched) count(perType map[dtypes.DType]int64) {
	for dtype, n := range perType {
		m.bytes += n
		if n > perType[m.dtype] || n == perType[m.dtype] && dtype < m.dtype {
			m.dtype = dtype
		}
	}
}

// reason says why the row's tensor is not used, "" if it is.
func (r *row) reason(params map[string]axis.Param) string {
	if _, ok := params[head]; !ok && slices.Contains(r.paths, head) {
		return tied
	}
	return r.ignore
}

// fits checks one tensor against its row and the sizes of the model.
func fits(r *row, l, e int, t Info, layout string, sizes map[axis.Logical]int, params map[string]axis.Param) error {
	switch {
	case r == nil:
		return fmt.Errorf("%w %s: Mixtral has none of that name", ErrExtra, quote(t.Name))
	case l >= sizes[axis.Layers]:
		return fmt.Errorf("%w %s: layer %d, the model has %d", ErrExtra, quote(t.Name), l, sizes[axis.Layers])
	case e >= sizes[axis.Experts]:
		return fmt.Errorf("%w %s: expert %d, the model has %d", ErrExtra, quote(t.Name), e, sizes[axis.Experts])
	case r.layout != "" && r.layout != layout:
		return fmt.Errorf("%w %s: of the %s layout in a checkpoint of the %s layout", ErrExtra, quote(t.Name), r.layout, layout)
	case r.reason(params) != "":
		return nil
	}
	for _, path := range r.paths {
		if _, ok := params[path]; !ok {
			return fmt.Errorf("%w %s: the model has no weight %s", ErrExtra, quote(t.Name), path)
		}
	}
	return t.check(r.dims(sizes))
}

// check says whether the tensor has the wanted shape and a type that is read.
func (t Info) check(want []int) error {
	if !slices.Equal(t.Shape, want) {
		return fmt.Errorf("%w: tensor %s is %s, want %v", ErrShape, quote(t.Name), shapeText(t.Shape), want)
	}
	if kernels[t.DType] == nil {
		return fmt.Errorf("%w: tensor %s is %s, want F32, BF16 or F16", ErrDType, quote(t.Name), t.Format)
	}
	return nil
}

// pathsOf is a catalogue by path.
func pathsOf(params []axis.Param) map[string]axis.Param {
	m := make(map[string]axis.Param, len(params))
	for _, p := range params {
		m[p.Path] = p
	}
	return m
}

// missing names the tensors that the catalogue wants and the checkpoint does not have.
func missing(layout string, bare bool, sizes map[axis.Logical]int, params []axis.Param, present map[string]bool) (problems []error) {
	known := map[string]bool{}
	wanted := map[string]bool{}
	for _, p := range params {
		wanted[p.Path] = true
	}
	for i := range mixtral {
		r := &mixtral[i]
		if r.layout != "" && r.layout != layout || !slices.ContainsFunc(r.paths, func(p string) bool { return wanted[p] }) {
			continue
		}
		for _, path := range r.paths {
			known[path] = true
		}
		for l, e := range numbers(r, sizes[axis.Layers], sizes[axis.Experts]) {
			if name := r.nameAt(l, e, bare); !present[name] {
				problems = append(problems, fmt.Errorf("%w %s", ErrMissing, quote(name)))
			}
		}
	}
	for _, p := range params {
		if !known[p.Path] {
			problems = append(problems, fmt.Errorf("%w: no tensor of a Hugging Face Mixtral holds weight %s", ErrMissing, p.Path))
		}
	}
	return problems
}

// isBare says whether the names lack their prefix.
func isBare(s *source) bool {
	bare := false
	for _, f := range s.files {
		for _, t := range f.infos {
			if strings.HasPrefix(t.Name, prefix) {
				return false
			}
			r, _, _ := find(full(t.Name, true))
			bare = bare || r != nil
		}
	}
	return bare
}

// layoutOf is the layout that more tensors follow, Hub if none decides.
func layoutOf(s *source, bare bool) string {
	count := map[string]int{}
	for _, f := range s.files {
		for _, t := range f.infos {
			if r, _, _ := find(full(t.Name, bare)); r != nil {
				count[r.layout]++
			}
		}
	}
	if count[Fused] > count[Hub] {
		return Fused
	}
	return Hub
}

// use is how a listing names the weights in a tensor.
func use(r *row, l, e int) string {
	var leading []int
	for _, at := range []int{l, e} {
		if at >= 0 {
			leading = append(leading, at)
		}
	}
	var names []string
	for _, path := range r.paths {
		names = append(names, axis.SliceName(path, leading...))
	}
	return strings.Join(names, " + ")
}
