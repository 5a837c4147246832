package train

import (
	"fmt"

	. "github.com/gomlx/gomlx/core/graph"

	"mix/graph/composite"
)

// AdamW are the constants of the optimizer.
type AdamW struct {
	Beta1, Beta2, Eps float64
	WeightDecay       float64
	Clip              float64 // largest global norm of the gradient, 0 for any
}

// Validate names the first value that is out of bounds.
func (a AdamW) Validate() error {
	switch {
	case !(a.Beta1 >= 0 && a.Beta1 < 1) || !(a.Beta2 >= 0 && a.Beta2 < 1):
		return fmt.Errorf("betas are %g and %g, want at least 0 and below 1", a.Beta1, a.Beta2)
	case !(a.Eps > 0):
		return fmt.Errorf("epsilon is %g, want a positive number", a.Eps)
	case !(a.WeightDecay >= 0):
		return fmt.Errorf("weight decay is %g, want at least 0", a.WeightDecay)
	case !(a.Clip >= 0):
		return fmt.Errorf("largest gradient norm is %g, want at least 0", a.Clip)
	}
	return nil
}

// update is one step of AdamW on one weight, or none where good, [] bool, is false. The others are float32 of one shape.
//
//	m ← β₁m + (1-β₁)g    v ← β₂v + (1-β₂)g²
//	w ← w - lr·(λw + (m/bias₁) / (√(v/bias₂) + ε))
//
// The weight is computed from the new moments as they were computed once: a compiler that computed them again from the old
// ones for the weight alone would have to copy those first, as they are updated in place.
//
// Source: Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2.
func (a AdamW) update(w, g, m, v *Node, r rates, good *Node, decayed bool) (w2, m2, v2 *Node) {
	k := func(x float64) *Node { return Const(w.Graph(), float32(x)) }
	m2 = Where(good, Add(Mul(k(a.Beta1), m), Mul(k(1-a.Beta1), g)), m)
	v2 = Where(good, Add(Mul(k(a.Beta2), v), Mul(k(1-a.Beta2), Mul(g, g))), v)
	once := composite.Once(m2, v2)
	m2, v2 = once[0], once[1]
	step := Div(Div(m2, r.bias1), Add(Sqrt(Div(v2, r.bias2)), k(a.Eps)))
	if decayed {
		step = Add(step, Mul(k(a.WeightDecay), w))
	}
	return Where(good, Sub(w, Mul(r.lr, step)), w), m2, v2
}

// clip scales gradients so that their global norm is at most a.Clip. norm is that before, [] float32.
func (a AdamW) clip(grads []*Node) (clipped []*Node, norm *Node) {
	var square *Node // []
	for _, g := range grads {
		s := ReduceAllSum(Mul(g, g))
		if square == nil {
			square = s
		} else {
			square = Add(square, s)
		}
	}
	norm = Sqrt(square)
	if a.Clip == 0 {
		return grads, norm
	}
	most := Const(norm.Graph(), float32(a.Clip))
	scale := Min(Div(most, Add(norm, Const(norm.Graph(), float32(1e-6)))), Const(norm.Graph(), float32(1))) // []
	for _, g := range grads {
		clipped = append(clipped, Mul(g, scale))
	}
	return clipped, norm
}
