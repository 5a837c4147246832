package sched

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPropose(t *testing.T) {
	for _, tt := range []struct {
		name string
		text []int32
		most int
		want []int32
	}{
		{"no text", nil, 4, nil},
		{"one token", []int32{7}, 4, nil},
		{"none came before", []int32{1, 2, 3, 4, 5}, 4, nil},
		{"one token alone is not enough", []int32{1, 2, 3, 1}, 4, nil},
		{"what followed two tokens", []int32{1, 2, 3, 4, 1, 2}, 2, []int32{3, 4}},
		{"no more than asked for", []int32{1, 2, 3, 4, 1, 2}, 1, []int32{3}},
		{"none asked for", []int32{1, 2, 3, 4, 1, 2}, 0, nil},
		{"fewer than none asked for", []int32{1, 2, 3, 4, 1, 2}, -3, nil},
		{"round from there", []int32{1, 2, 3, 1, 2}, 5, []int32{3, 1, 2, 3, 1}},
		{"one token over and over", []int32{5, 5, 5}, 3, []int32{5, 5, 5}},
		{"the last of two places", []int32{1, 2, 3, 1, 2, 4, 1, 2}, 1, []int32{4}},
		{"the longer match, though further back", []int32{9, 1, 2, 3, 8, 1, 2, 4, 9, 1, 2}, 1, []int32{3}},
		{"the last of those that match as far as is looked", []int32{9, 1, 2, 3, 4, 5, 8, 1, 2, 3, 4, 6, 9, 1, 2, 3, 4}, 1, []int32{6}},
	} {
		t.Run(tt.name, func(t *testing.T) { require.Equal(t, tt.want, propose(tt.text, tt.most)) })
	}
}
