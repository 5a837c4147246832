package ckpt

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gomlx/compute/dtypes"

	"mix/sharding/axis"
)

// matchMegatron is match for Megatron's files. Copies of a weight that several files hold are noted as
// replicas of the first.
func matchMegatron(s *megatronSource, params []axis.Param) (m *matched, problems []error) {
	m = &matched{layout: Megatron, extents: map[string][]*extent{}, uses: map[string]string{}}
	if len(s.problems) > 0 { // what the places hold is not known
		return m, nil
	}
	sizes, err := sizesOf(params)
	if err == nil {
		err = agree(params)
	}
	if err == nil {
		err = Grid{s.grid.Tensor, 1, s.grid.Expert}.check(sizes) // stages may differ in their layers
	}
	if err != nil {
		return m, []error{err}
	}
	byPath := pathsOf(params)
	firsts, err := s.stages(sizes[axis.Layers])
	if err != nil {
		return m, []error{err}
	}
	perType := map[dtypes.DType]int64{}
	seen := map[string]*extent{}
	for _, r := range s.ranks {
		for c, chunk := range r.chunks {
			p := r.place
			p.first, p.layers = firsts[p.pipeline][c].from, firsts[p.pipeline][c].n
			p.head = p.head && c == 0
			p.tail = p.tail && c == len(r.chunks)-1
			b := boxer{sizes: sizes, byPath: byPath, place: p}
			problems = append(problems, m.chunk(r.file, chunk, b, seen, perType)...)
		}
	}
	m.count(perType)
	return m, problems
}

// layersOf is the layers of one chunk.
type layersOf struct{ from, n int }

// stages counts the layers that every chunk of every stage holds, and numbers them: all stages' first chunks
// come before the second ones.
func (s *megatronSource) stages(layers int) (list [][]layersOf, err error) {
	list = make([][]layersOf, s.grid.Pipeline)
	chunks := 0
	for _, r := range s.ranks {
		if r.place.tensor > 0 || r.place.expert > 0 {
			continue
		}
		chunks = len(r.chunks)
		for _, chunk := range r.chunks {
			n := 0
			for _, t := range chunk {
				_, l, _ := findMegatron(t.Name)
				n = max(n, l+1)
			}
			list[r.place.pipeline] = append(list[r.place.pipeline], layersOf{n: n})
		}
	}
	for _, r := range s.ranks {
		if len(r.chunks) != chunks {
			return nil, fmt.Errorf("%s: %d models, want %d as in other files", r.file.name, len(r.chunks), chunks)
		}
	}
	total := 0
	for c := range chunks {
		for p := range list {
			list[p][c].from = total
			total += list[p][c].n
		}
	}
	if total != layers {
		return nil, fmt.Errorf("%w: the stages of the pipeline have %d layers, the model has %d", ErrShape, total, layers)
	}
	return list, nil
}

// chunk places the tensors of one part of the model, and says which it lacks.
func (m *matched) chunk(f *File, infos []Info, b boxer, seen map[string]*extent, perType map[dtypes.DType]int64) (problems []error) {
	wrong := func(err error) { problems = append(problems, fmt.Errorf("%s: %w", f.name, err)) }
	have := map[string]bool{}
	for _, t := range infos {
		r, l, e := findMegatron(t.Name)
		reason := megatronReason(t.Name)
		switch {
		case r == nil && reason != "":
		case r == nil:
			wrong(fmt.Errorf("%w %s: Megatron's Mixtral has none of that name", ErrExtra, quote(t.Name)))
			continue
		case r.tied(b.byPath):
			reason = tied
		case !r.at(b.place) || e >= b.experts() || l >= b.layers:
			wrong(fmt.Errorf("%w %s: another part of the grid has it", ErrExtra, quote(t.Name)))
			continue
		}
		if reason != "" {
			m.ignored = append(m.ignored, Ignored{inFile(f, t.Name), reason})
			continue
		}
		key := spell(r.name, l, e)
		if have[key] {
			wrong(fmt.Errorf("%w %s: it is there under another name too", ErrExtra, quote(t.Name)))
			continue
		}
		have[key] = true
		at := b.at(l, e)
		boxes := r.boxes(at)
		if err := t.check(r.shape(at, boxes)); err != nil {
			wrong(err)
			continue
		}
		m.boxes(f, t, boxes, seen, perType)
	}
	for i := range megatronRows {
		r := &megatronRows[i]
		if !r.at(b.place) || r.tied(b.byPath) {
			continue
		}
		for l, e := range numbers(r, b.layers, b.experts()) {
			if name := spell(r.name, l, e); !have[name] && !slices.ContainsFunc(infos, func(t Info) bool { return t.Name == name }) {
				wrong(fmt.Errorf("%w %s", ErrMissing, quote(name)))
			}
		}
	}
	return problems
}

// inFile is the name of a tensor where several files have one of that name.
func inFile(f *File, name string) string { return f.name + ": " + name }

// boxes notes where the boxes of a tensor lie, one after another.
func (m *matched) boxes(f *File, t Info, boxes []axis.Piece, seen map[string]*extent, perType map[dtypes.DType]int64) {
	at := t.Offset
	var names []string
	for _, q := range boxes {
		x := &extent{file: f, info: t, at: at, offset: q.Offset, size: q.Size}
		n := int64(q.Elements() * bytesOf(t.DType))
		at += n
		if !slices.Contains(names, q.Path) {
			names = append(names, q.Path)
		}
		key := fmt.Sprint(q.Path, q.Offset, q.Size)
		if first := seen[key]; first != nil {
			m.replicas = append(m.replicas, replica{q.Path, first, x})
			continue
		}
		seen[key] = x
		m.extents[q.Path] = append(m.extents[q.Path], x)
		perType[t.DType] += n
	}
	if len(names) > 0 {
		m.uses[inFile(f, t.Name)] = strings.Join(names, " + ")
	}
}
