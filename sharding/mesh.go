// Package sharding says where each slice of each tensor lives. It is arithmetic on names and integers: no
// device, no file, no program.
//
//	mesh ─┐
//	rules ┴→ Spec (mesh axes of every tensor axis) → boxes of every device → copies from layout to layout
//	stages → schedule of the pipeline          mappings → memory, traffic, time: the planner
package sharding

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"mix/sharding/axis"
)

// ErrMesh is wrapped by every refusal of a mesh.
var ErrMesh = errors.New("mesh")

// meshAxes is the number of mesh axes, the length of axis.Meshes.
const meshAxes = 4

// maxDevices bounds a mesh, and the sizes of a job, so that no product of sizes overflows.
const maxDevices = 1 << 24

// Mesh is the devices of one program, in a box whose axes are axis.Meshes, outermost first: devices are
// numbered row-major, so those that differ in the tensor axis alone are neighbors. An axis that is not used
// has size 1. The zero Mesh is one device. Meshes are compared with ==.
//
// Every axis has one meaning for the dense part of the model and one for its experts, which is Megatron's
// folding of the two: a device keeps different sequences than its neighbors along data and along expert, and
// different experts along expert (and along tensor too, by the rule etp1).
type Mesh struct {
	less [meshAxes]int // sizes less 1
}

// Axis is a mesh axis and its size.
type Axis struct {
	Name axis.Mesh
	Size int
}

// NewMesh is the mesh of the given axes, in any order.
func NewMesh(axes ...Axis) (Mesh, error) {
	var m Mesh
	var seen [meshAxes]bool
	devices := 1
	for _, a := range axes {
		i := place(a.Name)
		switch {
		case i < 0:
			return Mesh{}, fmt.Errorf("%w: axis %q, want %s", ErrMesh, a.Name, list(axis.Meshes, ", "))
		case seen[i]:
			return Mesh{}, fmt.Errorf("%w: axis %s is there twice", ErrMesh, a.Name)
		case a.Size < 1:
			return Mesh{}, fmt.Errorf("%w: %s=%d, want at least 1", ErrMesh, a.Name, a.Size)
		case a.Size > maxDevices/devices:
			return Mesh{}, fmt.Errorf("%w: more than %d devices", ErrMesh, maxDevices)
		}
		devices *= a.Size
		m.less[i], seen[i] = a.Size-1, true
	}
	return m, nil
}

// ParseMesh reads "data=2 pipe=2 expert=2 tensor=1": axes in any order, with blanks or commas between them.
// Empty text is one device.
func ParseMesh(text string) (Mesh, error) {
	var axes []Axis
	for _, field := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' }) {
		name, size, ok := strings.Cut(field, "=")
		n, err := strconv.Atoi(size)
		if !ok || err != nil {
			return Mesh{}, fmt.Errorf("%w: %q, want axis=size, e.g. \"data=2 expert=4\"", ErrMesh, field)
		}
		axes = append(axes, Axis{axis.Mesh(name), n})
	}
	return NewMesh(axes...)
}

// MeshOf is the mesh of so many devices with the three sizes of Megatron's flags; data takes the rest.
func MeshOf(devices, tensor, pipe, expert int) (Mesh, error) {
	m, err := NewMesh(Axis{axis.Tensor, tensor}, Axis{axis.Pipe, pipe}, Axis{axis.Expert, expert})
	if err != nil {
		return Mesh{}, err
	}
	if devices < 1 || devices > maxDevices || devices%m.Devices() != 0 {
		return Mesh{}, fmt.Errorf("%w: %d devices do not divide over tensor %d × pipe %d × expert %d", ErrMesh, devices, tensor, pipe, expert)
	}
	m.less[place(axis.Data)] = devices/m.Devices() - 1
	return m, nil
}

// String is the axes in canonical order, those of size 1 left out; "data=1" for one device.
func (m Mesh) String() string {
	var b []string
	for _, a := range m.Axes() {
		b = append(b, fmt.Sprintf("%s=%d", a.Name, a.Size))
	}
	if len(b) == 0 {
		return "data=1"
	}
	return strings.Join(b, " ")
}

// MarshalText is String, for JSON.
func (m Mesh) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// Axes lists the axes of more than one device, outermost first.
func (m Mesh) Axes() (axes []Axis) {
	for i, a := range axis.Meshes {
		if m.less[i] > 0 {
			axes = append(axes, Axis{a, m.less[i] + 1})
		}
	}
	return axes
}

// Size is the number of devices along an axis, or along several together; 1 for none, and for a name that
// is no mesh axis.
func (m Mesh) Size(axes ...axis.Mesh) int {
	n := 1
	for _, a := range axes {
		if i := place(a); i >= 0 {
			n *= m.less[i] + 1
		}
	}
	return n
}

// Devices is the number of devices.
func (m Mesh) Devices() int { return m.Size(axis.Meshes...) }

// Coord is the place of a device along an axis, or along several together, the first the slowest.
func (m Mesh) Coord(device int, axes ...axis.Mesh) int {
	at := 0
	for _, a := range axes {
		i := place(a)
		if i < 0 {
			continue
		}
		at = at*(m.less[i]+1) + device/m.stride(i)%(m.less[i]+1)
	}
	return at
}

// Coords is the place of a device along all axes.
func (m Mesh) Coords(device int) map[axis.Mesh]int {
	at := map[axis.Mesh]int{}
	for _, a := range axis.Meshes {
		at[a] = m.Coord(device, a)
	}
	return at
}

// Groups lists the devices that differ in the given axes alone, in the order of Coord: the groups of a
// collective over those axes.
func (m Mesh) Groups(axes ...axis.Mesh) [][]int {
	size := m.Size(axes...)
	var rest []axis.Mesh
	for _, a := range axis.Meshes {
		if !slices.Contains(axes, a) {
			rest = append(rest, a)
		}
	}
	groups := make([][]int, m.Devices()/size)
	for i := range groups {
		groups[i] = make([]int, size)
	}
	for d := range m.Devices() {
		groups[m.Coord(d, rest...)][m.Coord(d, axes...)] = d
	}
	return groups
}

// stride is the distance between neighbors along axis number i.
func (m Mesh) stride(i int) int {
	n := 1
	for _, less := range m.less[i+1:] {
		n *= less + 1
	}
	return n
}

// place is the number of an axis in axis.Meshes, -1 for an unknown name.
func place(a axis.Mesh) int {
	for i, b := range axis.Meshes {
		if a == b {
			return i
		}
	}
	return -1
}

// list joins names.
func list[T ~string](names []T, sep string) string {
	s := make([]string, len(names))
	for i, n := range names {
		s[i] = string(n)
	}
	return strings.Join(s, sep)
}
