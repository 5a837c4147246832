// Package target says what a platform wants of a program: which form of the weights runs fastest there.
// It is data; the passes hold the rules that go with it.
package target

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Target is a platform to compile for.
type Target struct {
	Platform string // as PJRT and the passes name it

	// WeightLayout is the layout, by graph's name of it, in which programs take the weights.
	WeightLayout string
}

var targets = map[string]Target{
	// A slice of a stacked weight is a copy on the CPU, which doubles what decode reads; so each matrix of
	// each expert is an argument, and the layers are unrolled.
	"cpu": {Platform: "cpu", WeightLayout: "per-matrix"},
	// Grouped products read expert matrices in place by offset; the layers are scanned.
	"cuda": {Platform: "cuda", WeightLayout: "stacked"},
}

// Lookup finds a target by platform.
func Lookup(platform string) (Target, error) {
	t, ok := targets[platform]
	if !ok {
		names := slices.Sorted(maps.Keys(targets))
		return t, fmt.Errorf("target %q is unknown, want one of %s", platform, strings.Join(names, ", "))
	}
	return t, nil
}
