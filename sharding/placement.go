package sharding

import (
	"fmt"
	"slices"

	"mix/sharding/axis"
)

// Placement is where the pieces of a model's weights lie: a mesh, its rules, and the stages of a pipeline if the mesh
// has some. The zero Placement is one device.
type Placement struct {
	Mesh   Mesh
	Rules  Rules
	Circle *Circle // nil without a pipeline
}

// Place makes the placement of a model of so many layers. A pipeline has the given rounds, 0 is 1.
func Place(m Mesh, r Rules, layers, rounds int) (Placement, error) {
	p := Placement{Mesh: m, Rules: r}
	if stages := m.Size(axis.Pipe); stages > 1 {
		c, err := NewCircle(layers, stages, max(rounds, 1))
		if err != nil {
			return p, err
		}
		p.Circle = &c
	}
	return p, nil
}

// OneDevice tells that everything is whole in one place.
func (p Placement) OneDevice() bool { return p.Mesh.Devices() == 1 }

// View is a piece as a weight of its own: its axes and sizes in the program. of is its weight in the catalogue. In a
// pipeline the layers' axis is cut in three, so that the piece is one of all layers or has none.
func (p Placement) View(q axis.Piece, of axis.Param) (axis.Param, error) {
	if p.Circle != nil {
		return p.Circle.View(of)
	}
	drop := len(of.Axes) - len(q.Shape) // axes of one element, which the program does not have
	if drop < 0 {
		return of, fmt.Errorf("%w: piece %s of %d axes, its weight has %d", ErrRules, q.Name, len(q.Shape), len(of.Axes))
	}
	of.Axes, of.Dims = of.Axes[drop:], of.Dims[drop:]
	return of, nil
}

// Spec is where a piece lies as a tensor of that kind.
func (p Placement) Spec(k Kind, q axis.Piece, of axis.Param) (Spec, error) {
	if p.OneDevice() {
		return make(Spec, len(q.Shape)), nil
	}
	view, err := p.View(q, of)
	if err != nil {
		return nil, err
	}
	return p.Rules.Resolve(k, view, p.Mesh)
}

// Staged are pieces with the shapes that a program has them in: in a pipeline those of layers have three axes for them.
func (p Placement) Staged(pieces []axis.Piece, of func(path string) (axis.Param, error)) ([]axis.Piece, error) {
	if p.Circle == nil {
		return pieces, nil
	}
	out := slices.Clone(pieces)
	for i, q := range out {
		weight, err := of(q.Path)
		if err != nil {
			return nil, err
		}
		view, err := p.Circle.View(weight)
		if err != nil {
			return nil, err
		}
		out[i].Shape = view.Dims
	}
	return out, nil
}

// Parts are the boxes of a piece's weight which, one after the other, make up a device's box of the piece as the program
// has it: one, or on stages one for each round.
func (p Placement) Parts(q axis.Piece, box Box) (parts []axis.Piece) {
	part := q
	if p.Circle == nil || len(q.Shape) == len(q.Size) {
		lead := len(q.Size) - len(q.Shape)
		part.Shape, part.Offset, part.Size = box.Size, slices.Clone(q.Offset), slices.Clone(q.Size)
		for i := range q.Shape {
			part.Offset[lead+i] += box.Offset[i]
			part.Size[lead+i] = box.Size[i]
		}
		return []axis.Piece{part}
	}
	for i := range box.Size[0] { // [R, S, C, …] of [L, …]
		part.Offset = slices.Concat([]int{p.Circle.Layer(box.Offset[0]+i, box.Offset[1], box.Offset[2])}, box.Offset[3:])
		part.Size = slices.Concat([]int{box.Size[1] * box.Size[2]}, box.Size[3:])
		part.Shape = part.Size
		parts = append(parts, part)
	}
	return parts
}
