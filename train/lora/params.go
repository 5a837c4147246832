package lora

import (
	"fmt"
	"math"
	"slices"

	"mix/graph"
	"mix/sharding/axis"
)

// target is one kind of linear layer of the model.
type target struct {
	name   string // in PEFT's target_modules
	module string // within a decoder layer; {e} is an expert
	path   string // of the weight
	lead   int    // leading axes of the weight that number its matrices
	in     int    // trailing axes of the weight that are a matrix's input
}

// targets lists the linear layers of Mixtral in the order of use. w1 is the gate, w3 goes up, w2 comes down.
// Source: transformers 4, models/mixtral/modeling_mixtral.py.
var targets = []target{
	{"q_proj", "self_attn.q_proj", "layers/attn/query", 1, 1},
	{"k_proj", "self_attn.k_proj", "layers/attn/key", 1, 1},
	{"v_proj", "self_attn.v_proj", "layers/attn/value", 1, 1},
	{"o_proj", "self_attn.o_proj", "layers/attn/out", 1, 2},
	{"gate", "block_sparse_moe.gate", "layers/moe/router", 1, 1},
	{"w1", "block_sparse_moe.experts.{e}.w1", "layers/moe/gate", 2, 1},
	{"w3", "block_sparse_moe.experts.{e}.w3", "layers/moe/up", 2, 1},
	{"w2", "block_sparse_moe.experts.{e}.w2", "layers/moe/down", 2, 1},
}

func names() (list []string) {
	for _, t := range targets {
		list = append(list, t.name)
	}
	return list
}

// pair is the adapters of one weight.
type pair struct {
	target
	base axis.Param // lead axes, out axes, in axes
	a    axis.Param // lead axes, r, in axes
	b    axis.Param // lead axes, out axes, r
}

// rows counts the axes that number rows of the weight: all but the input's.
func (p pair) rows() int { return len(p.base.Dims) - p.in }

// inputs and outputs are the sizes of one matrix.
func (p pair) inputs() int  { return axis.Count(p.base.Dims[p.rows():]) }
func (p pair) outputs() int { return axis.Count(p.base.Dims[p.lead:p.rows()]) }

// Params is the catalogue of the adapters, in the order of use, "a" before "b". For the weight
// "layers/attn/query" [L, H, A, D] they are "lora/layers/attn/query/a" [L, r, D] and
// "lora/layers/attn/query/b" [L, H, A, r]; for "layers/moe/down" [L, E, D, F] they are [L, E, r, F] and
// [L, E, D, r].
func Params(c graph.Config, o Options) ([]axis.Param, error) {
	ps, err := pairs(c, o)
	if err != nil {
		return nil, err
	}
	var list []axis.Param
	for _, p := range ps {
		list = append(list, p.a, p.b)
	}
	return list, nil
}

// pairs lists the adapters of a model.
func pairs(c graph.Config, o Options) ([]pair, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("lora: %w", err)
	}
	var list []pair
	for _, t := range o.chosen() {
		p, err := t.of(c)
		if err != nil {
			return nil, err
		}
		a, b := graph.AdapterPaths(t.path)
		rows := p.rows()
		p.a = axis.Param{Path: a, Axes: slices.Concat(p.base.Axes[:t.lead], []axis.Logical{axis.Rank}, p.base.Axes[rows:]),
			Dims: slices.Concat(p.base.Dims[:t.lead], []int{o.Rank}, p.base.Dims[rows:])}
		p.b = axis.Param{Path: b, Axes: slices.Concat(p.base.Axes[:rows], []axis.Logical{axis.Rank}),
			Dims: slices.Concat(p.base.Dims[:rows], []int{o.Rank})}
		list = append(list, p)
	}
	return list, nil
}

// of finds the target's weight in the model's catalogue.
func (t target) of(c graph.Config) (pair, error) {
	p, err := axis.Find(graph.Params(c), t.path)
	if err != nil {
		return pair{}, fmt.Errorf("lora: target %s: %w", t.name, err)
	}
	return pair{target: t, base: p}, nil
}

// Init fills dst with the initial values of piece q of an adapter: uniform in ±1/√in for A, as PEFT, zero
// for B, so that the adapted model begins as the base. A value depends on Options.Seed, Param and position
// in the Param alone, so every layout and every sharding starts alike.
//
// Source: PEFT, tuners/lora/layer.py, reset_lora_parameters: kaiming_uniform_ with a = √5.
func Init(c graph.Config, o Options, q axis.Piece, dst []float32) error {
	ps, err := pairs(c, o)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(ps, func(p pair) bool { return p.a.Path == q.Path || p.b.Path == q.Path })
	if i < 0 {
		return fmt.Errorf("lora: init: no adapter %q", q.Path)
	}
	p := ps[i].b
	if p.Path != q.Path {
		p = ps[i].a
	}
	bound := 1 / math.Sqrt(float64(ps[i].inputs()))
	draw := func(key, index uint64) float64 { return bound * (2*graph.Uniform(key, index) - 1) }
	if p.Path == ps[i].b.Path {
		draw = func(uint64, uint64) float64 { return 0 }
	}
	if err := graph.Fill(p, q, o.Seed, dst, draw); err != nil {
		return fmt.Errorf("lora: %w", err)
	}
	return nil
}
