package sharding

import (
	"slices"

	"mix/sharding/axis"
)

// Box is the part of a tensor that a holder has: a device, or a file.
type Box struct {
	Holder  int // number of the device or file
	Replica int // number among the holders of this box, from 0 in the order of Holder
	Offset  []int
	Size    []int
}

// Elements is the number of elements of the box.
func (b Box) Elements() int { return axis.Count(b.Size) }

// Layout is where one tensor lives.
type Layout struct {
	Dims  []int
	Boxes []Box // that of device d at index d, where it comes from Lay
}

// Lay is the layout of a tensor of dims over the devices of a mesh.
func Lay(spec Spec, m Mesh, dims []int) (Layout, error) {
	boxes, err := Boxes(spec, m, dims)
	return Layout{Dims: slices.Clone(dims), Boxes: boxes}, err
}

// Boxes is the box of every device, in the order of devices. Devices that differ only in mesh axes which do
// not split the tensor hold the same box, as replicas.
func Boxes(spec Spec, m Mesh, dims []int) ([]Box, error) {
	local, err := spec.Local(m, dims)
	if err != nil {
		return nil, err
	}
	used := spec.Axes()
	var rest []axis.Mesh
	for _, a := range axis.Meshes {
		if !slices.Contains(used, a) {
			rest = append(rest, a)
		}
	}
	boxes := make([]Box, m.Devices())
	for d := range boxes {
		b := Box{Holder: d, Replica: m.Coord(d, rest...), Offset: make([]int, len(dims)), Size: slices.Clone(local)}
		for i, n := range local {
			b.Offset[i] = m.Coord(d, spec[i]...) * n
		}
		boxes[d] = b
	}
	return boxes, nil
}
