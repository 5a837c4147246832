package composite

import (
	"fmt"
	"strings"

	. "github.com/gomlx/gomlx/core/graph"

	"mix/sharding/axis"
)

// Constrain notes the logical axes of x, one an axis of x, and returns x. On one device it means nothing;
// on a mesh the compiler splits x by the sharding rules of those axes. The gradient carries the same note.
func Constrain(x *Node, axes ...axis.Logical) *Node {
	if len(axes) != x.Rank() {
		panic(fmt.Errorf("constrain: %d axes %v for a tensor of shape %s", len(axes), axes, x.Shape()))
	}
	return constrain(x, note{axes: axes})
}

// ConstrainWeight notes that x is the weight at path, with those logical axes: on a mesh it lies as weights do, wherever it
// comes from, and its gradient as gradients do.
func ConstrainWeight(x *Node, path string, axes ...axis.Logical) *Node {
	return constrain(x, note{axes, path, "weights"})
}

// note is what is noted: axes, and of a weight or its gradient path and kind.
type note struct {
	axes       []axis.Logical
	path, kind string
}

func constrain(x *Node, n note) *Node {
	names := make([]string, len(n.axes))
	for i, a := range n.axes {
		names[i] = string(a)
	}
	as := attrs{{"axes", strings.Join(names, ",")}}
	if n.path != "" {
		as = append(as, [2]string{"kind", n.kind}, [2]string{"path", n.path})
	}
	return call(ConstrainName, as, []*Node{x}, n, func(in []*Node) []*Node {
		return []*Node{Identity(in[0])}
	})[0]
}

func constrainVJP(_, dys []*Node, state any) []*Node {
	n := state.(note)
	if n.path != "" {
		n.kind = "gradients"
	}
	return []*Node{constrain(dys[0], n)}
}
