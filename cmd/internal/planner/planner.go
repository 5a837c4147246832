// Package planner tells the planner of package sharding about models.
package planner

import (
	"strings"

	"mix/graph"
	"mix/sharding"
	"mix/sharding/axis"
)

// Model is what the planner takes of a configuration: bfloat16 weights beside float32 gradients, moments and
// masters; the router is float32 and its own master. In serving there are weights alone.
func Model(c graph.Config, serve bool) sharding.Model {
	return sharding.Model{Layers: c.Layers, Width: c.Width, Heads: c.Heads, KVHeads: c.KVHeads, HeadDim: c.HeadDim, Hidden: c.Hidden,
		Experts: c.Experts, TopK: c.TopK, Vocab: c.Vocab, Params: graph.Params(c), Bytes: func(p axis.Param) sharding.Width {
			w := sharding.Width{Weight: 2, Gradient: 4, Moment: 12}
			if strings.HasSuffix(p.Path, "/router") {
				w = sharding.Width{Weight: 4, Gradient: 4, Moment: 8}
			}
			if serve {
				w.Gradient, w.Moment = 0, 0
			}
			return w
		}}
}
