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
	names := make([]string, len(axes))
	for i, a := range axes {
		names[i] = string(a)
	}
	as := attrs{{"axes", strings.Join(names, ",")}}
	return call(ConstrainName, as, []*Node{x}, axes, func(in []*Node) []*Node {
		return []*Node{Identity(in[0])}
	})[0]
}

// ConstrainWeight notes that x is the weight at path, with those logical axes: on a mesh it lies as weights do, wherever it
// comes from, and its gradient as gradients do.
func ConstrainWeight(x *Node, path string, axes ...axis.Logical) *Node {
	return constrainAs(x, weightNote{path, axes, "weights"})
}

// weightNote is the note of a weight or, by kind, of its gradient.
type weightNote struct {
	path string
	axes []axis.Logical
	kind string
}

func constrainAs(x *Node, note weightNote) *Node {
	names := make([]string, len(note.axes))
	for i, a := range note.axes {
		names[i] = string(a)
	}
	as := attrs{{"axes", strings.Join(names, ",")}, {"kind", note.kind}, {"path", note.path}}
	return call(ConstrainName, as, []*Node{x}, note, func(in []*Node) []*Node {
		return []*Node{Identity(in[0])}
	})[0]
}

func constrainVJP(_, dys []*Node, state any) []*Node {
	if note, ok := state.(weightNote); ok {
		note.kind = "gradients"
		return []*Node{constrainAs(dys[0], note)}
	}
	return []*Node{Constrain(dys[0], state.([]axis.Logical)...)}
}
