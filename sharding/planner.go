package sharding

import (
	"cmp"
	"fmt"
	"slices"

	"mix/sharding/axis"
)

// Refusal is why a mesh does not do.
type Refusal struct {
	Mesh   Mesh   `json:"mesh"`
	Folded bool   `json:"folded"`
	Reason string `json:"reason"`
}

// Ranking is what the planner found: for every mesh the best mapping, fastest first, and the meshes that do
// not do, in the order of their names.
type Ranking struct {
	Fits    []Estimate `json:"fits"`
	Refused []Refusal  `json:"refused"`
}

// maxRanked bounds the devices whose meshes are listed.
const maxRanked = 1 << 16

func tooMany(devices int) error {
	return fmt.Errorf("%w: %d devices, want at most %d", ErrPlan, devices, maxRanked)
}

// Estimate is the cost of one mapping. It fails where the mapping does not divide what the model and the job
// have, and where the mesh has other than j.Devices devices; that it does not fit the memory is no error.
func (j Training) Estimate(a Mapping) (Estimate, error) {
	if err := j.Validate(); err != nil {
		return Estimate{}, err
	}
	if err := j.divides(a.Mesh, a.Folded); err != nil {
		return Estimate{}, err
	}
	layers, replicas := j.Model.Layers/a.Mesh.Size(axis.Pipe), a.Mesh.Size(axis.Data, axis.Expert)
	switch {
	case a.Zero < 0 || a.Zero > 3:
		return Estimate{}, fmt.Errorf("%w: ZeRO stage %d, want 0 to 3", ErrPlan, a.Zero)
	case !slices.Contains(Recomputes, a.Recompute):
		return Estimate{}, fmt.Errorf("%w: recompute %q, want %s", ErrPlan, a.Recompute, list(Recomputes, ", "))
	case a.Rounds < 1 || layers%a.Rounds != 0:
		return Estimate{}, fmt.Errorf("%w: %d layers of a stage do not divide over %d rounds", ErrPlan, layers, a.Rounds)
	case a.MicroBatch < 1 || j.Batch/replicas%a.MicroBatch != 0:
		return Estimate{}, fmt.Errorf("%w: %d sequences of a replica do not divide into microbatches of %d", ErrPlan, j.Batch/replicas, a.MicroBatch)
	case a.Group < 1 || j.microbatches(a)%a.Group != 0:
		return Estimate{}, fmt.Errorf("%w: %d microbatches do not divide into groups of %d", ErrPlan, j.microbatches(a), a.Group)
	}
	held, err := j.static(a)
	if err != nil {
		return Estimate{}, err
	}
	return j.cost(a, held), nil
}

// Only narrows what is ranked. The zero value takes everything.
type Only struct {
	Mesh       func(Mesh) bool
	MicroBatch int
	Recompute  Recompute
	Zero       []int
}

// Rank estimates every legal mapping that only takes. The pipeline's rounds are as many as a
// stage has layers: fewer cost more time and no less memory.
func (j Training) Rank(only Only) (Ranking, error) {
	if err := j.Validate(); err != nil {
		return Ranking{}, err
	}
	if j.Devices > maxRanked {
		return Ranking{}, tooMany(j.Devices)
	}
	var r Ranking
	for _, m := range meshes(j.Devices) {
		if only.Mesh != nil && !only.Mesh(m) {
			continue
		}
		for _, folded := range foldings(m) {
			refuse := func(reason string) { r.Refused = append(r.Refused, Refusal{m, folded, reason}) }
			if err := j.divides(m, folded); err != nil {
				refuse(err.Error())
				continue
			}
			best, smallest, err := j.best(m, folded, only)
			switch {
			case err != nil:
				refuse(err.Error())
			case best != nil:
				r.Fits = append(r.Fits, *best)
			case smallest == nil:
				refuse(fmt.Sprintf("%v: %d sequences of a replica do not divide into microbatches of %d", ErrPlan, j.Batch/m.Size(axis.Data, axis.Expert), only.MicroBatch))
			default:
				refuse(fmt.Sprintf("needs %.1f GB at least (micro-batch %d, recompute %s, ZeRO %d), %s has %.0f", smallest.Memory.Total()/1e9,
					smallest.MicroBatch, smallest.Recompute, smallest.Zero, j.Chip.Name, j.Chip.Memory/1e9))
			}
		}
	}
	slices.SortStableFunc(r.Fits, func(a, b Estimate) int { return cmp.Compare(a.Step, b.Step) })
	return r, nil
}

// meshes lists all meshes of so many devices.
func meshes(devices int) (all []Mesh) {
	var grow func(axes []Axis, left int)
	grow = func(axes []Axis, left int) {
		if len(axes) == meshAxes-1 {
			m, err := NewMesh(append(axes, Axis{axis.Meshes[meshAxes-1], left})...)
			if err == nil {
				all = append(all, m)
			}
			return
		}
		for n := 1; n <= left; n++ {
			if left%n == 0 {
				grow(append(slices.Clone(axes), Axis{axis.Meshes[len(axes)], n}), left/n)
			}
		}
	}
	grow(nil, devices)
	return all
}

// foldings are the ways to lay experts on a mesh: they differ only where tensor parallelism is.
func foldings(m Mesh) []bool {
	if m.Size(axis.Tensor) == 1 {
		return []bool{false}
	}
	return []bool{false, true}
}

// divides says whether the model and the job fit a mesh, by the names of what does not.
func (j Training) divides(m Mesh, folded bool) error {
	if err := j.Model.on(m, j.Devices); err != nil {
		return err
	}
	a := Mapping{Mesh: m, Folded: folded}
	r, err := a.Rules()
	if err != nil {
		return err
	}
	_, err = r.Resolve(Activations, axis.Param{Path: "activations", Axes: []axis.Logical{axis.Batch, axis.Seq, axis.Embed},
		Dims: []int{j.Batch, j.Seq, j.Model.Width}}, m)
	if err != nil {
		return err
	}
	_, err = j.static(a)
	return err
}

// best finds the fastest mapping on a mesh that fits the memory, and the one of least memory.
func (j Training) best(m Mesh, folded bool, only Only) (best, smallest *Estimate, err error) {
	replicas := m.Size(axis.Data, axis.Expert)
	pipe := m.Size(axis.Pipe)
	stages := []int{1, 0, 2, 3}
	if replicas == 1 {
		stages = []int{0} // there is nothing to split
	}
	if len(only.Zero) > 0 {
		stages = only.Zero
	}
	sizes := []int{1, 2, 4, 8, 16}
	if only.MicroBatch > 0 {
		sizes = []int{only.MicroBatch}
	}
	a := Mapping{Mesh: m, Folded: folded, Rounds: 1}
	if pipe > 1 {
		a.Rounds = j.Model.Layers / pipe
	}
	for _, a.Zero = range stages {
		held, e := j.static(a)
		if e != nil {
			err = e // of ZeRO stages that do not divide; others may
			continue
		}
		for _, a.Recompute = range Recomputes {
			if only.Recompute != "" && only.Recompute != a.Recompute {
				continue
			}
			if pipe > 1 && !j.Interleaved && a.Recompute != Full {
				if only.Recompute != "" {
					err = fmt.Errorf("%w: recompute %s in a pipeline, which computes every layer again: want %s", ErrPlan, a.Recompute, Full)
				}
				continue
			}
			for _, a.MicroBatch = range sizes {
				if j.Batch/replicas%a.MicroBatch != 0 {
					continue
				}
				for _, a.Group = range j.groups(a) {
					e := j.cost(a, held)
					if smallest == nil || e.Memory.Total() < smallest.Memory.Total() {
						smallest = &e
					}
					if e.Memory.Total() <= j.Chip.Memory && (best == nil || e.Step < best.Step) {
						best = &e
					}
				}
			}
		}
	}
	if smallest != nil {
		err = nil
	}
	return best, smallest, err
}

// groups are the numbers of microbatches that may be in the pipeline at once.
func (j Training) groups(a Mapping) (sizes []int) {
	pipe, micro := a.Mesh.Size(axis.Pipe), j.microbatches(a)
	if pipe == 1 || j.Interleaved {
		return []int{1}
	}
	for g := pipe; g < micro; g *= 2 {
		if micro%g == 0 {
			sizes = append(sizes, g)
		}
	}
	return append(sizes, micro)
}
