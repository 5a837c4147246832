package sharding

import (
	"fmt"
	"slices"
	"strings"

	"mix/sharding/axis"
)

// Axes of the view of stacked layers that a pipeline takes, see Circle.View.
const (
	Rounds axis.Logical = "rounds" // R times around the circle of stages
	Depth  axis.Logical = "depth"  // layers of one stage in one round
)

// Circle is how layers lie on the stages of a pipeline whose end is joined to its beginning: an activation
// goes Rounds times around the Stages, and each stage holds Depth layers of every round. Layer
// (r·Stages + s)·Depth + d is number d of round r on stage s.
type Circle struct{ Stages, Rounds, Depth int }

// NewCircle lays layers on stages, in rounds. It refuses layers that do not divide.
func NewCircle(layers, stages, rounds int) (Circle, error) {
	if layers < 1 || stages < 1 || rounds < 1 || rounds > layers || stages > layers || layers%(stages*rounds) != 0 {
		return Circle{}, fmt.Errorf("%w: %d layers do not divide over %d stages in %d rounds", ErrRules, layers, stages, rounds)
	}
	return Circle{stages, rounds, layers / stages / rounds}, nil
}

// Layer is the number of the layer at depth d of round r on stage s.
func (c Circle) Layer(r, s, d int) int { return (r*c.Stages+s)*c.Depth + d }

// Home is where a layer is.
func (c Circle) Home(layer int) (r, s, d int) {
	return layer / c.Depth / c.Stages, layer / c.Depth % c.Stages, layer % c.Depth
}

// View is p with its layers axis cut in three, rounds, layers (the stages) and depth: the same elements in
// the same order. Rules split the middle one over pipe. A weight without layers is its own view.
func (c Circle) View(p axis.Param) (axis.Param, error) {
	i := slices.Index(p.Axes, axis.Layers)
	if i < 0 {
		return p, nil
	}
	if i > 0 || len(p.Dims) != len(p.Axes) || p.Dims[0] != c.Stages*c.Rounds*c.Depth {
		return p, fmt.Errorf("%w: %s %v of %v, want %d layers first", ErrRules, p.Path, p.Axes, p.Dims, c.Stages*c.Rounds*c.Depth)
	}
	return axis.Param{
		Path: p.Path,
		Axes: append([]axis.Logical{Rounds, axis.Layers, Depth}, p.Axes[1:]...),
		Dims: append([]int{c.Rounds, c.Stages, c.Depth}, p.Dims[1:]...),
	}, nil
}

// Layout is the layout of weight p, in its own axes, of what rules say about its view. A device has a box for
// each round.
func (c Circle) Layout(r Rules, k Kind, p axis.Param, m Mesh) (Layout, error) {
	v, err := c.View(p)
	if err != nil {
		return Layout{}, err
	}
	l, err := r.Layout(k, v, m)
	if err != nil || len(v.Dims) == len(p.Dims) {
		return l, err
	}
	out := Layout{Dims: slices.Clone(p.Dims)}
	for _, b := range l.Boxes {
		for i := range b.Size[0] {
			for j := range b.Size[1] {
				q := Box{Holder: b.Holder, Replica: b.Replica,
					Offset: append([]int{c.Layer(b.Offset[0]+i, b.Offset[1]+j, b.Offset[2])}, b.Offset[3:]...),
					Size:   append([]int{b.Size[2]}, b.Size[3:]...)}
				out.Boxes = append(out.Boxes, q)
			}
		}
	}
	return out, nil
}

// Schedule is the order of work of a circular pipeline inside one program: at every tick each stage computes
// its layers of one round on one microbatch, or nothing that counts, and then all shift by one stage.
type Schedule struct{ Stages, Rounds, Microbatches int }

// Validate refuses sizes below 1.
func (s Schedule) Validate() error {
	if s.Stages < 1 || s.Rounds < 1 || s.Microbatches < 1 {
		return fmt.Errorf("%w: pipeline of %d stages, %d rounds, %d microbatches, want at least 1 of each", ErrRules, s.Stages, s.Rounds, s.Microbatches)
	}
	return nil
}

// period is the ticks between two rounds of one microbatch: once around, or longer if there are more
// microbatches than stages, which then wait Period−Stages ticks between the last stage and the first.
func (s Schedule) period() int { return max(s.Stages, s.Microbatches) }

// Waiting is the number of ticks that an activation waits from the last stage to the first.
func (s Schedule) Waiting() int { return s.period() - s.Stages }

// Ticks is the length of the schedule.
func (s Schedule) Ticks() int { return (s.Rounds-1)*s.period() + s.Microbatches + s.Stages - 1 }

// At is what a stage does at a tick: which round of which microbatch. ok is false in a bubble.
func (s Schedule) At(tick, stage int) (round, microbatch int, ok bool) {
	t := tick - stage
	if t < 0 || stage < 0 || stage >= s.Stages {
		return 0, 0, false
	}
	round, microbatch = t/s.period(), t%s.period()
	if round >= s.Rounds || microbatch >= s.Microbatches {
		return 0, 0, false
	}
	return round, microbatch, true
}

// Bubble is the part of all ticks, over all stages, in which nothing useful is computed.
func (s Schedule) Bubble() float64 {
	return 1 - float64(s.Rounds*s.Microbatches)/float64(s.Ticks())
}

// String is a line for each stage, with round.microbatch or a dot at each tick.
func (s Schedule) String() string {
	var b strings.Builder
	width := len(fmt.Sprintf("%d.%d", s.Rounds-1, s.Microbatches-1))
	for stage := range s.Stages {
		fmt.Fprintf(&b, "stage %d:", stage)
		for tick := range s.Ticks() {
			cell := "."
			if r, m, ok := s.At(tick, stage); ok {
				cell = fmt.Sprintf("%d.%d", r, m)
			}
			fmt.Fprintf(&b, " %*s", width, cell)
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "%d ticks, bubble %.1f%%\n", s.Ticks(), 100*s.Bubble())
	return b.String()
}
