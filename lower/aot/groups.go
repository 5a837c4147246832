package aot

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"mix/sharding"
	"mix/sharding/axis"
)

// groups lists the devices that exchange with each other: replica_groups as a list {{0,1},{2,3}}, or as numbers 0, 1, …
// in a box, turned, [2,2]<=[2,2]T(1,0), or along axes of a mesh; of a permutation the pairs from, to. Without groups there is one of all
// devices; nil for what it cannot read.
func (m *Module) groups(in *instr) [][]int {
	if strings.HasPrefix(in.op, "collective-permute") {
		return numberLists(in.attr("source_target_pairs"))
	}
	s := in.attr("replica_groups")
	switch {
	case m.Devices > maxListed:
		return nil
	case s == "" || s == "{}":
		all := make([]int, m.Devices)
		for i := range all {
			all[i] = i
		}
		return [][]int{all}
	case strings.HasPrefix(s, "{"):
		return numberLists(s)
	}
	var dims, perm []int
	var size int
	if strings.HasPrefix(s, "mesh[") {
		dims, perm, size = meshGroups(in.attrs)
	} else {
		dims, perm, size = boxGroups(s)
	}
	if size < 1 || len(perm) != len(dims) || !m.fill(dims) {
		return nil
	}
	for i, p := range slices.Sorted(slices.Values(perm)) {
		if p != i {
			return nil
		}
	}
	return slices.Collect(slices.Chunk(turned(dims, perm), size))
}

// boxGroups reads [groups,size]<=[dims]T(perm).
func boxGroups(s string) (dims, perm []int, size int) {
	shape, order, _ := strings.Cut(s, "<=")
	box, turn, isTurned := strings.Cut(order, "T")
	dims = numbers(box)
	if isTurned {
		perm = numbers(turn)
	} else {
		for i := range dims {
			perm = append(perm, i)
		}
	}
	if sizes := numbers(shape); len(sizes) == 2 {
		size = sizes[1]
	}
	return dims, perm, size
}

var meshAxes = regexp.MustCompile(`replica_groups=mesh\[((?:'[^']+'=\d+,?)+)\] \{((?:'[^']+',?)*)\}`)

// meshGroups reads a mesh whose devices are numbered row-major, and which of its axes are in a group.
func meshGroups(attrs string) (dims, perm []int, size int) {
	m := meshAxes.FindStringSubmatch(attrs)
	if m == nil {
		return nil, nil, 0
	}
	inGroup := strings.Split(m[2], ",")
	var rest, among []int
	size = 1
	for i, a := range strings.Split(m[1], ",") {
		name, n, _ := strings.Cut(a, "=")
		dims = append(dims, numbers(n)...)
		if slices.Contains(inGroup, name) {
			among = append(among, i)
			size *= min(max(dims[i], 1), maxListed)
		} else {
			rest = append(rest, i)
		}
	}
	return dims, append(rest, among...), size
}

// turned lists the places of a box, row-major in the order of axes that perm gives.
func turned(dims, perm []int) (all []int) {
	var visit func(k, base int)
	visit = func(k, base int) {
		if k == len(perm) {
			all = append(all, base)
			return
		}
		stride := axis.Count(dims[perm[k]+1:])
		for i := range dims[perm[k]] {
			visit(k+1, base+i*stride)
		}
	}
	visit(0, 0)
	return all
}

// maxListed bounds the devices whose groups are listed.
const maxListed = 1 << 16

// fill tells whether a box of these sizes has as many places as there are devices.
func (m *Module) fill(sizes []int) bool {
	n := 1
	for _, s := range sizes {
		if s < 1 || s > m.Devices/n {
			return false
		}
		n *= s
	}
	return n == m.Devices
}

// numberLists reads {{0,1},{2,3}}.
func numberLists(s string) (all [][]int) {
	for part := range strings.SplitSeq(strings.Trim(s, "{}"), "},{") {
		all = append(all, numbers(part))
	}
	return all
}

// numbers reads [2,4], (1,0), {1,2} or 2,4; what is no number is -1.
func numbers(s string) (all []int) {
	for f := range strings.SplitSeq(strings.Trim(s, "[](){} "), ",") {
		n, err := strconv.Atoi(strings.TrimSpace(f))
		if err != nil {
			n = -1
		}
		all = append(all, n)
	}
	return all
}

// Along names the axes of a mesh along which devices exchange, joined by +, or for a permutation the axis along which
// each hands on; "" where it is along none.
func (c Collective) Along(m sharding.Mesh) string {
	axes := m.Axes()
	for set := 1; set < 1<<len(axes); set++ {
		var names []axis.Mesh
		var text []string
		for i, a := range axes {
			if set>>i&1 == 1 {
				names, text = append(names, a.Name), append(text, string(a.Name))
			}
		}
		if c.among(m.Groups(names...)) {
			return strings.Join(text, "+")
		}
	}
	return ""
}

// among tells whether the exchange is within the groups, all of each.
func (c Collective) among(groups [][]int) bool {
	of := map[int]int{}
	for g, devices := range groups {
		for _, d := range devices {
			of[d] = g
		}
	}
	for _, group := range c.groups() {
		if slices.Contains(group, -1) {
			return false
		}
		if c.Op != "collective-permute" && len(group) != len(groups[0]) {
			return false
		}
		for _, d := range group {
			if of[d] != of[group[0]] {
				return false
			}
		}
	}
	return true
}

// groups reads Groups.
func (c Collective) groups() [][]int { return numberLists(c.Groups) }

// groupText writes groups as HLO's lists.
func groupText(groups [][]int) string {
	s := strings.ReplaceAll(fmt.Sprint(groups), " ", ",")
	return strings.NewReplacer("[", "{", "]", "}").Replace(s)
}
