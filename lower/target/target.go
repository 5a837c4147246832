// Package target says what a platform wants of a program: which form of the weights runs fastest there.
// It is data, and the one list of platforms; the passes hold the rules that go with it.
package target

import (
	"fmt"
	"slices"
	"strings"
)

// Names of the platforms, as PJRT and the passes have them.
const (
	CPU  = "cpu"
	CUDA = "cuda"
)

// Target is a platform to compile for.
type Target struct {
	Platform string

	// WeightLayout is the layout, by graph's name of it, in which programs take the weights.
	WeightLayout string
}

var targets = []Target{
	// A slice of a stacked weight is a copy on the CPU, which doubles what decode reads; so each matrix of
	// each expert is an argument, and the layers are unrolled.
	{Platform: CPU, WeightLayout: "per-matrix"},
	// Grouped products read expert matrices in place by offset; the layers are scanned.
	{Platform: CUDA, WeightLayout: "stacked"},
}

// Platforms lists the platforms that have a target.
func Platforms() []string {
	names := make([]string, len(targets))
	for i, t := range targets {
		names[i] = t.Platform
	}
	return names
}

// Lookup finds a target by platform.
func Lookup(platform string) (Target, error) {
	i := slices.IndexFunc(targets, func(t Target) bool { return t.Platform == platform })
	if i < 0 {
		return Target{}, fmt.Errorf("platform %q is unknown, want one of %s", platform, strings.Join(Platforms(), ", "))
	}
	return targets[i], nil
}
