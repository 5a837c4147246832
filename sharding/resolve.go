package sharding

import (
	"fmt"
	"strings"

	"mix/sharding/axis"
)

// router ends the path of the one weight that has experts and yet is whole on every device, because each
// token's choice needs all of it.
const router = "/router"

// Resolve applies the rules to one tensor of a kind: p is a weight of the catalogue, or the name, axes and
// sizes of an activation.
//
// Mesh axes of size 1 are dropped, so one table serves every machine. Key and value heads that are fewer than
// the shards of their axis, and divide them, are whole on every device: each needs a part of one head, or one
// head, and that much is not worth a layout of its own.
//
// It fails where an axis has no rule, where a mesh axis would split two axes of the tensor, and where a size
// does not divide over its shards. The error names tensor, axis and both numbers.
func (r Rules) Resolve(k Kind, p axis.Param, m Mesh) (Spec, error) {
	if len(p.Axes) != len(p.Dims) {
		return nil, fmt.Errorf("%w: %s: %d axes %v for %d dimensions %v", ErrRules, p.Path, len(p.Axes), p.Axes, len(p.Dims), p.Dims)
	}
	if k < 0 || int(k) >= len(Kinds) {
		return nil, fmt.Errorf("%w: %s: %v, want %v", ErrRules, p.Path, k, Kinds)
	}
	t := r.tables[k]
	spec := make(Spec, len(p.Axes))
	owner := map[axis.Mesh]axis.Logical{}
	for i, a := range p.Axes {
		row, ok := t.Split[a]
		switch {
		case !ok:
			return nil, fmt.Errorf("%w: %s: axis %q has no sharding rule", ErrRules, p.Path, a)
		case p.Dims[i] < 1:
			return nil, fmt.Errorf("%w: %s: axis %q has size %d, want at least 1", ErrRules, p.Path, a, p.Dims[i])
		case a == axis.Experts && strings.HasSuffix(p.Path, router):
			continue
		}
		for _, x := range row {
			if m.Size(x) == 1 {
				continue
			}
			if other, taken := owner[x]; taken {
				return nil, fmt.Errorf("%w: %s: mesh axis %s would split both %q and %q", ErrRules, p.Path, x, other, a)
			}
			owner[x] = a
			spec[i] = append(spec[i], x)
		}
		if n := m.Size(spec[i]...); a == axis.KVHeads && p.Dims[i] < n && n%p.Dims[i] == 0 {
			spec[i] = nil // their mesh axes stay taken
		}
	}
	for i, a := range p.Axes {
		for _, x := range t.Fill[a] {
			if _, taken := owner[x]; !taken && m.Size(x) > 1 {
				owner[x] = a
				spec[i] = append(spec[i], x)
			}
		}
	}
	for i, a := range p.Axes {
		if n := m.Size(spec[i]...); p.Dims[i]%n != 0 {
			return nil, fmt.Errorf("%w: %s: axis %q of %d does not divide over %d shards %v", ErrRules, p.Path, a, p.Dims[i], n, spec[i])
		}
	}
	return spec, nil
}

// Layout is Resolve, and the boxes of every device.
func (r Rules) Layout(k Kind, p axis.Param, m Mesh) (Layout, error) {
	spec, err := r.Resolve(k, p, m)
	if err != nil {
		return Layout{}, err
	}
	return Lay(spec, m, p.Dims)
}
