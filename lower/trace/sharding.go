package trace

import (
	"fmt"
	"slices"

	"mix/lower/ir"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapes"
)

// meshOp declares a mesh to Shardy and counts its devices.
func meshOp(m compute.Mesh) (op *ir.Op, devices int, err error) {
	if m.Name == "" || len(m.AxesNames) != len(m.AxesSizes) {
		return nil, 0, fmt.Errorf("trace: mesh %q has %d axis names and %d sizes, want a name and one size an axis", m.Name, len(m.AxesNames), len(m.AxesSizes))
	}
	devices = 1
	for i, a := range m.AxesNames {
		if m.AxesSizes[i] < 1 {
			return nil, 0, fmt.Errorf("trace: axis %q of mesh %q has size %d, want at least 1", a, m.Name, m.AxesSizes[i])
		}
		if slices.Contains(m.AxesNames[:i], a) {
			return nil, 0, fmt.Errorf("trace: mesh %q has two axes %q", m.Name, a)
		}
		devices *= m.AxesSizes[i]
	}
	ids := m.LogicalDeviceAssignment
	if len(ids) > 0 {
		if err := permutation(ids, devices); err != nil {
			return nil, 0, fmt.Errorf("trace: mesh %q: %w", m.Name, err)
		}
		if slices.IsSorted(ids) { // Shardy refuses the identity spelled out
			ids = nil
		}
	}
	return ir.MeshOp(m.Name, m.AxesNames, m.AxesSizes, ids), devices, nil
}

func permutation(ids []int, n int) error {
	sorted := slices.Clone(ids)
	slices.Sort(sorted)
	for i, id := range sorted {
		if id != i {
			return fmt.Errorf("device ids %v, want each of 0 to %d once", ids, n-1)
		}
	}
	if len(ids) != n {
		return fmt.Errorf("%d device ids, want %d", len(ids), n)
	}
	return nil
}

// sharding writes a spec of a tensor and gives the shape that one device holds; axes beyond the spec
// are replicated.
func (b *Builder) sharding(s *compute.ShardingSpec, whole shapes.Shape) (attr ir.Attr, local shapes.Shape, err error) {
	refuse := func(format string, args ...any) (ir.Attr, shapes.Shape, error) {
		return "", shapes.Invalid(), fmt.Errorf(format, args...)
	}
	i := slices.IndexFunc(b.meshes, func(m compute.Mesh) bool { return m.Name == s.Mesh })
	if i < 0 {
		return refuse("sharding over mesh %q, which the program does not have", s.Mesh)
	}
	if len(s.Axes) > whole.Rank() {
		return refuse("sharding of %d axes for %s", len(s.Axes), whole)
	}
	mesh := b.meshes[i]
	local = whole.Clone()
	split := make([][]string, whole.Rank())
	copy(split, s.Axes)
	used := map[string]bool{}
	for d, axes := range s.Axes {
		shards := 1
		for _, a := range axes {
			at := slices.Index(mesh.AxesNames, a)
			if at < 0 {
				return refuse("sharding of axis %d over %q, which mesh %q does not have", d, a, s.Mesh)
			}
			if used[a] {
				return refuse("sharding uses axis %q of mesh %q twice", a, s.Mesh)
			}
			used[a] = true
			shards *= mesh.AxesSizes[at]
		}
		if whole.Dimensions[d]%shards != 0 {
			return refuse("axis %d of %s does not divide over %d shards", d, whole, shards)
		}
		local.Dimensions[d] /= shards
	}
	return ir.ShardingAttr(ir.Sharding(s.Mesh, split, nil)), local, nil
}
