package ckpt

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gomlx/compute/dtypes"

	"mix/sharding/axis"
)

// Plain is the layout of weights that Hugging Face has no names for: one tensor a weight, of its own shape,
// named by its path with dots for slashes. Reading it must be asked for.
const Plain = "plain"

// plainTensor is the name of a weight's tensor in the Plain layout.
func plainTensor(path string) string { return strings.ReplaceAll(path, "/", ".") }

// planPlain is plan for the Plain layout.
func planPlain(params []axis.Param) ([]planned, error) {
	var list []planned
	taken := map[string]string{}
	for _, p := range params {
		name := plainTensor(p.Path)
		if other, ok := taken[name]; ok {
			return nil, fmt.Errorf("weights %s and %s would both be tensor %s", other, p.Path, quote(name))
		}
		taken[name] = p.Path
		list = append(list, planned{name: name, shape: p.Dims, boxes: []axis.Piece{axis.Whole(p, dtypes.Float32)}})
	}
	return list, nil
}

// matchPlain is match for the Plain layout.
func matchPlain(s *source, params []axis.Param) (m *matched, problems []error) {
	m = &matched{layout: Plain, extents: map[string][]*extent{}, uses: map[string]string{}}
	wanted, perType := map[string]axis.Param{}, map[dtypes.DType]int64{}
	for _, p := range params {
		wanted[plainTensor(p.Path)] = p
	}
	present := maps.Clone(s.lost)
	if present == nil {
		present = map[string]bool{}
	}
	for _, f := range s.files {
		for _, t := range f.infos {
			p, ok := wanted[t.Name]
			present[t.Name] = true
			if !ok {
				problems = append(problems, fmt.Errorf("%s: %w %s: there is no such weight", f.name, ErrExtra, quote(t.Name)))
				continue
			}
			if err := t.check(p.Dims); err != nil {
				problems = append(problems, fmt.Errorf("%s: %w", f.name, err))
				continue
			}
			x := &extent{file: f, info: t, at: t.Offset, offset: make([]int, len(p.Dims)), size: slices.Clone(p.Dims)}
			m.extents[p.Path] = append(m.extents[p.Path], x)
			m.uses[t.Name] = p.Path
			perType[t.DType] += t.Bytes
		}
	}
	m.count(perType)
	for _, name := range sortedKeys(wanted) {
		if !present[name] {
			problems = append(problems, fmt.Errorf("%w %s", ErrMissing, quote(name)))
		}
	}
	return m, problems
}
