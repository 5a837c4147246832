package ckpt

import (
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"

	"mix/sharding/axis"
)

// The two ways in which Hugging Face stores the experts of Mixtral.
const (
	Hub   = "hub"   // one tensor a matrix and expert, as published
	Fused = "fused" // all experts of a layer in two tensors, as transformers 5 holds and may save them
)

// row is one kind of tensor of a Hugging Face Mixtral checkpoint.
type row struct {
	layout string   // Hub or Fused; "" is both
	name   string   // {l} is a layer, {e} an expert
	shape  string   // axes of the model, outermost first; a*b is two of them merged into one of the tensor
	paths  []string // the weights in it; several follow one another along the axis before the last
	ignore string   // why it holds no weight, if it holds none
}

const (
	prefix  = "model." // absent from files of the bare decoder, which has no head
	layer   = prefix + "layers.{l}."
	experts = layer + "block_sparse_moe.experts.{e}."
	head    = "head" // path of the weight that a tied checkpoint does without

	rotary = "the rotary frequencies follow from rope_theta"
	tied   = "the embeddings are tied: the head is " + prefix + "embed_tokens.weight"
)

// mixtral lists every tensor of a Hugging Face Mixtral checkpoint once, in both layouts. All matrices
// are [out, in], as ours.
//
// w1, w2, w3 are named for what they do, here and nowhere else: the expert computes
// w2(silu(w1·x) * (w3·x)), so w1 is the gate, w3 goes up, w2 comes down.
// Source: transformers, models/mixtral/modular_mixtral.py, and the names of Mixtral-8x7B-v0.1 as published.
var mixtral = []row{
	{"", prefix + "embed_tokens.weight", "vocab embed", one("embed"), ""},
	{"", layer + "input_layernorm.weight", "embed", one("layers/attn_norm"), ""},
	{"", layer + "self_attn.q_proj.weight", "heads*headdim embed", one("layers/attn/query"), ""},
	{"", layer + "self_attn.k_proj.weight", "kv*headdim embed", one("layers/attn/key"), ""},
	{"", layer + "self_attn.v_proj.weight", "kv*headdim embed", one("layers/attn/value"), ""},
	{"", layer + "self_attn.o_proj.weight", "embed heads*headdim", one("layers/attn/out"), ""},
	{"", layer + "post_attention_layernorm.weight", "embed", one("layers/moe_norm"), ""},
	{Hub, layer + "block_sparse_moe.gate.weight", "experts embed", one("layers/moe/router"), ""},
	{Hub, experts + "w1.weight", "ffn embed", one("layers/moe/gate"), ""},
	{Hub, experts + "w3.weight", "ffn embed", one("layers/moe/up"), ""},
	{Hub, experts + "w2.weight", "embed ffn", one("layers/moe/down"), ""},
	{Fused, layer + "mlp.gate.weight", "experts embed", one("layers/moe/router"), ""},
	{Fused, layer + "mlp.experts.gate_up_proj", "experts ffn embed", []string{"layers/moe/gate", "layers/moe/up"}, ""},
	{Fused, layer + "mlp.experts.down_proj", "experts embed ffn", one("layers/moe/down"), ""},
	{"", prefix + "norm.weight", "embed", one("final_norm"), ""},
	{"", "lm_head.weight", "vocab embed", one(head), ""},
	{"", layer + "self_attn.rotary_emb.inv_freq", "", nil, rotary},
	{"", prefix + "rotary_emb.inv_freq", "", nil, rotary},
}

func one(path string) []string { return []string{path} }

// find returns the row for a tensor's full name and the layer and expert in it, -1 where absent.
// Numbers are as Hugging Face writes them: no sign, no leading zero.
func find(name string) (r *row, l, e int) {
	parts := strings.Split(name, ".")
	l, e = -1, -1
	for i := 1; i < len(parts); i++ {
		n, err := strconv.Atoi(parts[i])
		if err != nil || n < 0 || strconv.Itoa(n) != parts[i] {
			continue
		}
		switch {
		case parts[i-1] == "layers" && l < 0:
			l, parts[i] = n, "{l}"
		case parts[i-1] == "experts" && e < 0:
			e, parts[i] = n, "{e}"
		}
	}
	name = strings.Join(parts, ".")
	i := slices.IndexFunc(mixtral, func(r row) bool { return r.name == name })
	if i < 0 || mixtral[i].perLayer() != (l >= 0) || mixtral[i].perExpert() != (e >= 0) {
		return nil, -1, -1
	}
	return &mixtral[i], l, e
}

// full is the published name of a tensor: files of the bare decoder leave out the prefix.
func full(name string, bare bool) string {
	if bare && !strings.HasPrefix(name, "lm_head.") {
		return prefix + name
	}
	return name
}

// nameAt is the name of the row's tensor for a layer and an expert.
func (r *row) nameAt(l, e int, bare bool) string {
	name := strings.NewReplacer("{l}", strconv.Itoa(l), "{e}", strconv.Itoa(e)).Replace(r.name)
	if bare {
		return strings.TrimPrefix(name, prefix)
	}
	return name
}

// perLayer and perExpert say what the name is repeated over.
func (r *row) perLayer() bool  { return strings.Contains(r.name, "{l}") }
func (r *row) perExpert() bool { return strings.Contains(r.name, "{e}") }

// numbers lists the layers and experts of a row's tensors, of a format's table: one of -1 where the name is not repeated
// over them.
func numbers(r interface {
	perLayer() bool
	perExpert() bool
}, layers, experts int) iter.Seq2[int, int] {
	count := func(repeated bool, n int) (from, to int) {
		if repeated {
			return 0, n
		}
		return -1, 0
	}
	return func(yield func(l, e int) bool) {
		firstLayer, endLayer := count(r.perLayer(), layers)
		firstExpert, endExpert := count(r.perExpert(), experts)
		for l := firstLayer; l < endLayer; l++ {
			for e := firstExpert; e < endExpert; e++ {
				if !yield(l, e) {
					return
				}
			}
		}
	}
}

// dims is the shape that the row's tensor has in a model of the given sizes.
func (r *row) dims(sizes map[axis.Logical]int) []int {
	var dims []int
	for field := range strings.FieldsSeq(r.shape) {
		n := 1
		for name := range strings.SplitSeq(field, "*") {
			n *= sizes[axis.Logical(name)]
		}
		dims = append(dims, n)
	}
	if len(r.paths) > 1 {
		dims[len(dims)-2] *= len(r.paths)
	}
	return dims
}

// extents are the boxes of catalogue weights in the row's tensor for a layer and an expert: the box of
// paths[0] first, where there are several all of the first expert before those of the second.
func (r *row) extents(f *File, t Info, params map[string]axis.Param, l, e int) []placed {
	var list []placed
	at, width := t.Offset, bytesOf(t.DType)
	blocks := 1 // of one path's elements before the next path's
	if len(r.paths) > 1 {
		blocks = t.Shape[0]
	}
	for b := range blocks {
		for _, path := range r.paths {
			p := params[path]
			x := &extent{file: f, info: t, at: at, offset: make([]int, len(p.Dims)), size: slices.Clone(p.Dims)}
			n := 1
			for i, name := range p.Axes {
				switch {
				case name == axis.Layers:
					x.offset[i], x.size[i] = l, 1
				case name == axis.Experts && e >= 0:
					x.offset[i], x.size[i] = e, 1
				case name == axis.Experts && blocks > 1:
					x.offset[i], x.size[i] = b, 1
				}
				n *= x.size[i]
			}
			list = append(list, placed{path, x})
			at += int64(n * width)
		}
	}
	return list
}

// placed is an extent and the weight that it is a box of.
type placed struct {
	path string
	*extent
}

// sizesOf reads the size of every axis from the catalogue. It fails if two weights disagree.
func sizesOf(params []axis.Param) (map[axis.Logical]int, error) {
	sizes := map[axis.Logical]int{}
	for _, p := range params {
		if len(p.Axes) != len(p.Dims) {
			return nil, fmt.Errorf("weight %s: %d axes and %d dimensions", p.Path, len(p.Axes), len(p.Dims))
		}
		for i, name := range p.Axes {
			if have, ok := sizes[name]; ok && have != p.Dims[i] {
				return nil, fmt.Errorf("weight %s: axis %q is %d, and %d in another weight", p.Path, name, p.Dims[i], have)
			}
			sizes[name] = p.Dims[i]
		}
	}
	return sizes, nil
}

// agree checks that the catalogue orders the axes of its weights as the table does, without which their
// elements would be read in a wrong order.
func agree(params []axis.Param) error {
	for _, p := range params {
		for i := range mixtral {
			r := &mixtral[i]
			if !slices.Contains(r.paths, p.Path) {
				continue
			}
			var want []axis.Logical
			if r.perLayer() {
				want = append(want, axis.Layers)
			}
			if r.perExpert() {
				want = append(want, axis.Experts)
			}
			for name := range strings.FieldsFuncSeq(r.shape, func(c rune) bool { return c == ' ' || c == '*' }) {
				want = append(want, axis.Logical(name))
			}
			if !slices.Equal(p.Axes, want) {
				return fmt.Errorf("weight %s: axes %v, a checkpoint has them as %v", p.Path, p.Axes, want)
			}
		}
	}
	return nil
}
