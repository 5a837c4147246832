package train

import (
	"fmt"
	"time"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"

	"mix/graph"
	"mix/lower"
)

// FLOPs is what a token of a sequence of s costs in training: forward and twice as much backward, two
// operations for a multiplication and its addition. Attention counts the half that causality leaves. What is
// recomputed does not count.
//
//	3·(2·(L·(2·H·A·D + 2·G·A·D + E·D + K·3·D·F) + V·D) + 2·s·H·A·L)
func FLOPs(c graph.Config, s int) float64 {
	d := float64(c.Width)
	attention := 2 * d * float64(c.HeadDim) * float64(c.Heads+c.KVHeads)
	experts := float64(c.TopK) * 3 * d * float64(c.Hidden)
	layer := attention + d*float64(c.Experts) + experts
	core := 2 * float64(s) * float64(c.Heads) * float64(c.HeadDim)
	return 3 * (float64(c.Layers)*(2*layer+core) + 2*d*float64(c.Vocab))
}

// Peak measures how many operations a second the devices of the mesh do together in a product of two large matrices of dtype:
// what MFU is a share of.
func Peak(be *lower.Backend, dtype dtypes.DType) (flops float64, err error) {
	n, repeats := 1024, 4
	if be.Platform() != "cpu" {
		n, repeats = 8192, 16
	}
	p, err := programs{be: be}.compile("matmul_peak", lower.ProgramOptions{}, func(g *Graph) []*Node {
		x := Parameter(g, "x", shapes.Make(dtype, n, n))
		return []*Node{Einsum("ij,kj->ik", x, x)}
	})
	if err != nil {
		return 0, err
	}
	defer p.Finalize()
	x, err := be.Make(fmt.Sprintf("matrix of %d x %d", n, n), shapes.Make(dtype, n, n), nil)
	if err != nil {
		return 0, err
	}
	defer x.Finalize()
	for range 4 { // the first warms up; the best of the others counts
		start := time.Now()
		for range repeats {
			outs, err := p.Run(x)
			if err != nil {
				return 0, err
			}
			err = outs[0].Wait()
			outs[0].Finalize()
			if err != nil {
				return 0, err
			}
		}
		each := float64(be.Mesh().Devices())
		flops = max(flops, each*2*float64(n)*float64(n)*float64(n)*float64(repeats)/time.Since(start).Seconds())
	}
	return flops, nil
}
