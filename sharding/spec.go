package sharding

import (
	"fmt"
	"strings"

	"mix/sharding/axis"
)

// Spec says which mesh axes split each axis of a tensor, the first the slowest; none where the axis is whole
// on every device.
type Spec [][]axis.Mesh

// String is one entry a tensor axis: "[data+expert, -, tensor]".
func (s Spec) String() string {
	entries := make([]string, len(s))
	for i, axes := range s {
		entries[i] = "-"
		if len(axes) > 0 {
			entries[i] = list(axes, "+")
		}
	}
	return "[" + strings.Join(entries, ", ") + "]"
}

// MarshalText is String, for JSON.
func (s Spec) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// ParseSpec reads what String prints.
func ParseSpec(text string) (Spec, error) {
	inner, open := strings.CutPrefix(strings.TrimSpace(text), "[")
	inner, closed := strings.CutSuffix(inner, "]")
	if !open || !closed {
		return nil, fmt.Errorf("%w: spec %q, want e.g. [data+expert, -, tensor]", ErrRules, text)
	}
	s := Spec{}
	if strings.TrimSpace(inner) == "" {
		return s, nil
	}
	for _, entry := range strings.Split(inner, ",") {
		entry = strings.TrimSpace(entry)
		if entry == "-" {
			s = append(s, nil)
			continue
		}
		var axes []axis.Mesh
		for _, name := range strings.Split(entry, "+") {
			axes = append(axes, axis.Mesh(name))
		}
		s = append(s, axes)
	}
	return s, s.once()
}

// Axes lists the mesh axes that split the tensor.
func (s Spec) Axes() (used []axis.Mesh) {
	for _, axes := range s {
		used = append(used, axes...)
	}
	return used
}

// Local is the shape of what one device holds of a tensor of dims.
func (s Spec) Local(m Mesh, dims []int) ([]int, error) {
	if err := s.fits(m, dims); err != nil {
		return nil, err
	}
	local := make([]int, len(dims))
	for i, d := range dims {
		local[i] = d / m.Size(s[i]...)
	}
	return local, nil
}

// fits says whether s splits dims evenly.
func (s Spec) fits(m Mesh, dims []int) error {
	if len(s) != len(dims) {
		return fmt.Errorf("%w: spec %v has %d entries for %d dimensions %v", ErrRules, s, len(s), len(dims), dims)
	}
	if err := s.once(); err != nil {
		return err
	}
	for i, d := range dims {
		if n := m.Size(s[i]...); d < 0 || d%n != 0 {
			return fmt.Errorf("%w: dimension %d of %d does not divide over %d shards %v", ErrRules, i, d, n, s[i])
		}
	}
	return nil
}

// once says whether every entry is a mesh axis that is there once.
func (s Spec) once() error {
	var seen [meshAxes]bool
	for _, a := range s.Axes() {
		i := place(a)
		if i < 0 {
			return fmt.Errorf("%w: spec %v has mesh axis %q, want %s", ErrRules, s, a, list(axis.Meshes, ", "))
		}
		if seen[i] {
			return fmt.Errorf("%w: spec %v has mesh axis %s twice", ErrRules, s, a)
		}
		seen[i] = true
	}
	return nil
}
