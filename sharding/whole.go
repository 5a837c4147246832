package sharding

import "strings"

// Whole are the same rules for a program that runs few sequences: weights lie as they did, but sequences and positions
// are split over no axis.
func (r Rules) Whole() (Rules, error) {
	words := []string{"whole"}
	for _, w := range strings.Split(r.name, "+") {
		if w != "sp" && w != "whole" && w != "" {
			words = append(words, w)
		}
	}
	return Preset(strings.Join(words, "+"))
}
