package ckpt

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"mix/sharding/axis"
)

// Megatron is the layout of the older checkpoints of Megatron-LM's core models: a .pt file for every part of
// a grid of tensor, pipeline and expert parallelism.
const Megatron = "megatron"

// Grid is the sizes of Megatron's three ways to split a model, at least 1 each.
type Grid struct {
	Tensor   int `json:"tensor"`
	Pipeline int `json:"pipeline"`
	Expert   int `json:"expert"`
}

// check says whether a model of the given sizes divides over the grid as Megatron divides it.
func (g Grid) check(sizes map[axis.Logical]int) error {
	for _, s := range []struct {
		name  string
		over  int
		split []axis.Logical
	}{
		{"tensor", g.Tensor, []axis.Logical{axis.Heads, axis.KVHeads, axis.FFN}},
		{"pipeline", g.Pipeline, []axis.Logical{axis.Layers}},
		{"expert", g.Expert, []axis.Logical{axis.Experts}},
	} {
		if s.over < 1 {
			return fmt.Errorf("%s parallel size %d, want at least 1", s.name, s.over)
		}
		for _, a := range s.split {
			if sizes[a]%s.over != 0 {
				return fmt.Errorf("axis %q of %d does not divide over the %s parallel size %d", a, sizes[a], s.name, s.over)
			}
		}
	}
	return nil
}

// place is a part of the grid.
type place struct {
	Grid
	tensor, pipeline, expert int // from 0
	first, layers            int // decoder layers that it holds
	head                     bool
	tail                     bool // it holds what comes before the layers, or after them
}

// folder is the name of the place's folder: sizes of 1 are left out of it.
func (p place) folder() string {
	s := fmt.Sprintf("mp_rank_%02d", p.tensor)
	if p.Pipeline > 1 {
		s += fmt.Sprintf("_%03d", p.pipeline)
	}
	if p.Expert > 1 {
		s += fmt.Sprintf("_%03d", p.expert)
	}
	return s
}

// places are the parts of the grid that hold equal shares of the layers, in the order of their folders.
func (g Grid) places(layers int) (list []place) {
	n := layers / g.Pipeline
	for t := range g.Tensor {
		for p := range g.Pipeline {
			for e := range g.Expert {
				list = append(list, place{g, t, p, e, p * n, n, p == 0, p == g.Pipeline-1})
			}
		}
	}
	return list
}

// vocabMultiple is what Megatron pads the vocabulary to a multiple of, times the tensor parallel size.
const vocabMultiple = 128

// paddedVocab is the rows of the embedding with those that pad it.
func (g Grid) paddedVocab(vocab int) int {
	n := vocabMultiple * g.Tensor
	return (vocab + n - 1) / n * n
}

// megatronRow is one kind of tensor in Megatron's files.
type megatronRow struct {
	name  string   // {l} is a layer counted in the place, {e} an expert counted in the place
	other []string // names that other versions give it
	head  bool     // only at the head of the pipeline
	tail  bool     // only at its tail
	// boxes are the parts of weights that fill the tensor one after another, for a layer and an expert of
	// the whole model; padded rows follow after them.
	boxes func(b boxer) []axis.Piece
	// padded says that the first axis is the vocabulary, filled up.
	padded bool
	// wide is the size of the last axis, "" for a tensor of one axis.
	wide func(b boxer) int
}

// megatronRows lists every tensor of a Mixtral in Megatron's core models once. All matrices are [out, in].
//
// The attention's input is normalised inside of linear_qkv and the experts' before the router. linear_qkv
// holds, for every key/value head, the query heads that share it, then the key, then the value; linear_fc1
// holds what a place has of the gate, then what it has of the up projection.
// Source: Megatron-LM, core/models/gpt and tools/checkpoint (schema_core.py, loader_mixtral_hf.py, saver_base.py).
var megatronRows = []megatronRow{
	{name: "embedding.word_embeddings.weight", head: true, padded: true, wide: boxer.width, boxes: vocabRows("embed")},
	{name: mlayer + "self_attention.linear_qkv.layer_norm_weight", other: []string{mlayer + "input_layernorm.weight"}, boxes: inLayer("layers/attn_norm")},
	{name: mlayer + "self_attention.linear_qkv.weight", wide: boxer.width, boxes: groups},
	{name: mlayer + "self_attention.linear_proj.weight", wide: boxer.heads, boxes: shared("layers/attn/out", axis.Heads)},
	{name: mlayer + "pre_mlp_layernorm.weight", other: []string{mlayer + "mlp.linear_fc1.layer_norm_weight"}, boxes: inLayer("layers/moe_norm")},
	{name: mlayer + "mlp.router.weight", wide: boxer.width, boxes: inLayer("layers/moe/router")},
	{name: mexpert + "linear_fc1.weight", other: []string{mlayer + "mlp.experts.linear_fc1.weight{e}"}, wide: boxer.width,
		boxes: shared("layers/moe/gate", axis.FFN, "layers/moe/up")},
	{name: mexpert + "linear_fc2.weight", other: []string{mlayer + "mlp.experts.linear_fc2.weight{e}"}, wide: boxer.hidden,
		boxes: shared("layers/moe/down", axis.FFN)},
	{name: "decoder.final_layernorm.weight", tail: true, boxes: inLayer("final_norm")},
	{name: "output_layer.weight", tail: true, padded: true, wide: boxer.width, boxes: vocabRows(head)},
}

const (
	mlayer  = "decoder.layers.{l}."
	mexpert = mlayer + "mlp.experts.local_experts.{e}."
)

// megatronIgnored are the tensors and values that hold no weight, by the end of their names.
var megatronIgnored = []struct{ suffix, reason string }{
	{"._extra_state", "scales of low-precision arithmetic, not weights"},
	{"rotary_pos_emb.inv_freq", rotary},
	{"rotary_emb.inv_freq", rotary},
}

func (r *megatronRow) perLayer() bool  { return strings.Contains(r.name, "{l}") }
func (r *megatronRow) perExpert() bool { return strings.Contains(r.name, "{e}") }

// at says whether a place holds such a tensor.
func (r *megatronRow) at(p place) bool { return (!r.head || p.head) && (!r.tail || p.tail) }

// spell puts the numbers into a name.
func spell(name string, l, e int) string {
	return strings.NewReplacer("{l}", strconv.Itoa(l), "{e}", strconv.Itoa(e)).Replace(name)
}

// findMegatron returns the row for a name and the layer and expert in it as they are counted there, -1 where absent.
func findMegatron(name string) (r *megatronRow, l, e int) {
	l, e = -1, -1
	pattern := name
	number := func(prefix, mark string, to *int) {
		_, rest, found := strings.Cut(pattern, prefix)
		digits := rest
		if i := strings.IndexByte(rest, '.'); i >= 0 {
			digits = rest[:i]
		}
		if n, err := strconv.Atoi(digits); found && err == nil && n >= 0 && strconv.Itoa(n) == digits {
			*to = n
			pattern = strings.TrimSuffix(pattern, rest) + mark + strings.TrimPrefix(rest, digits)
		}
	}
	number("decoder.layers.", "{l}", &l)
	number("mlp.experts.local_experts.", "{e}", &e)
	if e < 0 {
		number("mlp.experts.linear_fc1.weight", "{e}", &e)
	}
	if e < 0 {
		number("mlp.experts.linear_fc2.weight", "{e}", &e)
	}
	i := slices.IndexFunc(megatronRows, func(r megatronRow) bool { return r.name == pattern || slices.Contains(r.other, pattern) })
	if i < 0 || megatronRows[i].perLayer() != (l >= 0) || megatronRows[i].perExpert() != (e >= 0) {
		return nil, -1, -1
	}
	return &megatronRows[i], l, e
}

// boxer makes the boxes of one tensor: the model's sizes, the place, and layer and expert of the model.
type boxer struct {
	sizes  map[axis.Logical]int
	byPath map[string]axis.Param
	place
	l, e int
}

func (b boxer) width() int  { return b.sizes[axis.Embed] }
func (b boxer) heads() int  { return b.sizes[axis.Heads] / b.Tensor * b.sizes[axis.HeadDim] }
func (b boxer) hidden() int { return b.sizes[axis.FFN] / b.Tensor }

// experts is how many the place holds of every layer.
func (b boxer) experts() int { return b.sizes[axis.Experts] / b.Expert }

// at is b for a layer and an expert as the place counts them, -1 for none.
func (b boxer) at(l, e int) boxer {
	b.l, b.e = b.first+l, -1
	if e >= 0 {
		b.e = b.expert*b.experts() + e
	}
	return b
}

// piece is all that a layer and an expert have of a weight.
func (b boxer) piece(path string) axis.Piece {
	p := b.byPath[path]
	q := axis.Piece{Name: path, Path: path, Offset: make([]int, len(p.Dims)), Size: slices.Clone(p.Dims)}
	for i, a := range p.Axes {
		switch {
		case a == axis.Layers:
			q.Offset[i], q.Size[i] = b.l, 1
		case a == axis.Experts && b.e >= 0:
			q.Offset[i], q.Size[i] = b.e, 1
		}
	}
	return q
}

// cut keeps [from, from+n) of an axis.
func (b boxer) cut(q axis.Piece, a axis.Logical, from, n int) axis.Piece {
	i := slices.Index(b.byPath[q.Path].Axes, a)
	q.Offset[i], q.Size[i] = from, n
	return q
}

// inLayer is a weight that every place of a layer has whole.
func inLayer(path string) func(b boxer) []axis.Piece {
	return func(b boxer) []axis.Piece { return []axis.Piece{b.piece(path)} }
}

// shared are weights of which every place has an equal share of an axis.
func shared(path string, a axis.Logical, more ...string) func(b boxer) []axis.Piece {
	return func(b boxer) (list []axis.Piece) {
		n := b.sizes[a] / b.Tensor
		for _, path := range append([]string{path}, more...) {
			list = append(list, b.cut(b.piece(path), a, b.tensor*n, n))
		}
		return list
	}
}

// groups are the key/value heads of a place, each after the query heads that share it.
func groups(b boxer) (list []axis.Piece) {
	n, ratio := b.sizes[axis.KVHeads]/b.Tensor, b.sizes[axis.Heads]/b.sizes[axis.KVHeads]
	for g := b.tensor * n; g < (b.tensor+1)*n; g++ {
		list = append(list, b.cut(b.piece("layers/attn/query"), axis.Heads, g*ratio, ratio),
			b.cut(b.piece("layers/attn/key"), axis.KVHeads, g, 1),
			b.cut(b.piece("layers/attn/value"), axis.KVHeads, g, 1))
	}
	return list
}

// vocabRows are the token ids of a place, without those that only pad it: perhaps none.
func vocabRows(path string) func(b boxer) []axis.Piece {
	return func(b boxer) []axis.Piece {
		n := b.paddedVocab(b.sizes[axis.Vocab]) / b.Tensor
		from := b.tensor * n
		if n = min(n, b.sizes[axis.Vocab]-from); n <= 0 {
			return nil
		}
		return []axis.Piece{b.cut(b.piece(path), axis.Vocab, from, n)}
	}
}

// shape is the tensor's, whose boxes are given. Rows that pad it count.
func (r *megatronRow) shape(b boxer, boxes []axis.Piece) []int {
	n := 0
	for _, q := range boxes {
		n += q.Elements()
	}
	if r.wide == nil {
		return []int{n}
	}
	wide := r.wide(b)
	if r.padded {
		return []int{b.paddedVocab(b.sizes[axis.Vocab]) / b.Tensor, wide}
	}
	return []int{n / wide, wide}
}

// tied says whether the row's tensor is one that a model of tied embeddings does without.
func (r *megatronRow) tied(params map[string]axis.Param) bool {
	_, ok := params[head]
	return !ok && r.name == "output_layer.weight"
}
