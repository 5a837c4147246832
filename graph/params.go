package graph

import (
	"fmt"
	"hash/fnv"
	"math"

	"github.com/gomlx/compute/dtypes"

	"mix/sharding/axis"
)

// Paths of the catalogue. Matrices are [out, in].
const (
	pathEmbed     = "embed"             // [V, D]
	pathAttnNorm  = "layers/attn_norm"  // [L, D]
	pathQuery     = "layers/attn/query" // [L, H, A, D]
	pathKey       = "layers/attn/key"   // [L, G, A, D]
	pathValue     = "layers/attn/value" // [L, G, A, D]
	pathOut       = "layers/attn/out"   // [L, D, H, A]
	pathMoENorm   = "layers/moe_norm"   // [L, D]
	pathRouter    = "layers/moe/router" // [L, E, D]
	pathGate      = "layers/moe/gate"   // [L, E, F, D]
	pathUp        = "layers/moe/up"     // [L, E, F, D]
	pathDown      = "layers/moe/down"   // [L, E, D, F]
	pathFinalNorm = "final_norm"        // [D]
	pathHead      = "head"              // [V, D], absent when embeddings are tied
)

// Params is the catalogue of the model's weights, in the order of use. Initialization, sharding and
// checkpoints read it; the names and shapes of weights are written nowhere else.
func Params(c Config) []axis.Param {
	const (
		l, d, f, e = axis.Layers, axis.Embed, axis.FFN, axis.Experts
		h, g, a, v = axis.Heads, axis.KVHeads, axis.HeadDim, axis.Vocab
	)
	size := map[axis.Logical]int{l: c.Layers, d: c.Width, f: c.Hidden, e: c.Experts, h: c.Heads, g: c.KVHeads, a: c.HeadDim, v: c.Vocab}
	param := func(path string, axes ...axis.Logical) axis.Param {
		p := axis.Param{Path: path, Axes: axes}
		for _, x := range axes {
			p.Dims = append(p.Dims, size[x])
		}
		return p
	}
	ps := []axis.Param{
		param(pathEmbed, v, d),
		param(pathAttnNorm, l, d),
		param(pathQuery, l, h, a, d),
		param(pathKey, l, g, a, d),
		param(pathValue, l, g, a, d),
		param(pathOut, l, d, h, a),
		param(pathMoENorm, l, d),
		param(pathRouter, l, e, d),
		param(pathGate, l, e, f, d),
		param(pathUp, l, e, f, d),
		param(pathDown, l, e, d, f),
		param(pathFinalNorm, d),
	}
	if !c.TieEmbedding {
		ps = append(ps, param(pathHead, v, d))
	}
	return ps
}

// Layout is the physical form in which a program takes its weights.
type Layout int

const (
	// Stacked takes each Param whole and scans the layers: compile time does not grow with depth.
	Stacked Layout = iota
	// PerMatrix takes one argument a layer and one matrix an expert and unrolls the layers: on CPUs a slice of
	// a stacked weight is a copy of it, so decode reads twice the bytes in the Stacked form.
	PerMatrix
	// PerLayer takes one argument a layer, experts stacked, and unrolls the layers: in training the backward
	// pass keeps what the forward pass computed, and grouped products want an expert beside the next.
	PerLayer
)

// Layouts names the layouts, as flags and reports do.
var Layouts = map[string]Layout{"stacked": Stacked, "per-matrix": PerMatrix, "per-layer": PerLayer}

func (l Layout) String() string {
	for name, x := range Layouts {
		if x == l {
			return name
		}
	}
	return fmt.Sprintf("Layout(%d)", int(l))
}

// Pieces lists the arguments in which a program of layout l takes the weights, matrices and norms in
// dtype. The router stays in float32: near-ties between experts decide what is computed.
func Pieces(c Config, l Layout, dtype dtypes.DType) []axis.Piece {
	var qs []axis.Piece
	for _, p := range Params(c) {
		dt := dtype
		if p.Path == pathRouter {
			dt = dtypes.Float32
		}
		qs = append(qs, l.Pieces(p, dt)...)
	}
	return qs
}

// Pieces are the arguments in which a program of the layout takes one weight.
func (l Layout) Pieces(p axis.Param, dtype dtypes.DType) (qs []axis.Piece) {
	split := 0 // leading axes that become arguments of their own
	if l != Stacked && p.Axes[0] == axis.Layers {
		split = 1
		if l == PerMatrix && p.Axes[1] == axis.Experts && len(p.Axes) > 3 {
			split = 2
		}
	}
	for i := range axis.Count(p.Dims[:split]) {
		qs = append(qs, axis.Slice(p, dtype, axis.Unravel(i, p.Dims[:split])...))
	}
	return qs
}

// Init fills dst with the initial values of piece q: ones for norms, else normal with standard deviation
// Config.InitStd. A value depends on seed, Param and position in the Param alone, so every layout and
// every sharding starts from the same model.
func Init(c Config, q axis.Piece, seed uint64, dst []float32) error {
	p, err := axis.Find(Params(c), q.Path)
	if err != nil {
		return fmt.Errorf("init: %w", err)
	}
	draw := func(key, index uint64) float64 { return c.InitStd * normal(key, index) }
	if q.Path == pathAttnNorm || q.Path == pathMoENorm || q.Path == pathFinalNorm {
		draw = func(uint64, uint64) float64 { return 1 }
	}
	return Fill(p, q, seed, dst, draw)
}

// Fill fills dst with piece q of p by draw, which is given a key made of seed and path, and the element's
// number in p: a value depends on nothing else. dst has q.Elements() values.
func Fill(p axis.Param, q axis.Piece, seed uint64, dst []float32, draw func(key, index uint64) float64) error {
	if err := q.Check(p); err != nil {
		return fmt.Errorf("init: %w", err)
	}
	if len(dst) != q.Elements() {
		return fmt.Errorf("init: %s takes %d values, got room for %d", q.Name, q.Elements(), len(dst))
	}
	h := fnv.New64a()
	h.Write([]byte(p.Path))
	key := mix(seed ^ h.Sum64())
	last := len(q.Size) - 1
	row := q.Size[last]
	for i := range axis.Count(q.Size[:last]) {
		from := 0 // first element of the row in the Param
		for k, at := range axis.Unravel(i, q.Size[:last]) {
			from = (from + q.Offset[k] + at) * p.Dims[k+1]
		}
		from += q.Offset[last]
		for j := range row {
			dst[i*row+j] = float32(draw(key, uint64(from+j)))
		}
	}
	return nil
}

// normal is a standard normal variate, a function of key and index alone (Box and Muller 1958).
func normal(key, index uint64) float64 {
	a, b := mix(key+2*index), mix(key+2*index+1)
	u := (float64(a>>11) + 0.5) / (1 << 53)
	v := float64(b>>11) / (1 << 53)
	return math.Sqrt(-2*math.Log(u)) * math.Cos(2*math.Pi*v)
}

// Uniform is a uniform variate in [0, 1), a function of key and index alone.
func Uniform(key, index uint64) float64 { return float64(mix(key+index)>>11) / (1 << 53) }

// mix is the output function of SplitMix64.
// Source: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators".
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
