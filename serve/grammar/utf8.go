package grammar

import (
	"fmt"
	"slices"
	"unicode/utf8"
)

// span is one byte of a character: from lo to hi.
type span struct{ lo, hi byte }

// Last characters of one, two, three and four bytes.
var lastOfLength = [...]rune{0x7f, 0x7ff, 0xffff, utf8.MaxRune}

// byteSpans appends the UTF-8 of the characters lo to hi to out, as sequences of spans: the bytes of every
// character are in exactly one. First spans of two sequences are equal or apart.
func byteSpans(out [][]span, lo, hi rune) [][]span {
	// Surrogates have no UTF-8.
	if lo <= 0xdfff && hi >= 0xd800 {
		if lo < 0xd800 {
			out = byteSpans(out, lo, 0xd7ff)
		}
		if hi > 0xdfff {
			out = byteSpans(out, 0xe000, hi)
		}
		return out
	}
	for _, last := range lastOfLength {
		if lo <= last && last < hi {
			return byteSpans(byteSpans(out, lo, last), last+1, hi)
		}
	}
	if hi < utf8.RuneSelf {
		return append(out, []span{{byte(lo), byte(hi)}})
	}
	// Both have the same length. Where a byte but the last differs, the bytes below must take
	// all values; what does not, goes into sequences of its own.
	for low := rune(0x3f); low < hi; low = low<<6 | 0x3f {
		if lo&^low == hi&^low {
			break
		}
		if lo&low != 0 {
			return byteSpans(byteSpans(out, lo, lo|low), lo|low+1, hi)
		}
		if hi&low != low {
			return byteSpans(byteSpans(out, lo, hi&^low-1), hi&^low, hi)
		}
	}
	var a, b [utf8.UTFMax]byte
	n := utf8.EncodeRune(a[:], lo)
	utf8.EncodeRune(b[:], hi)
	s := make([]span, n)
	for i := range s {
		s[i] = span{a[i], b[i]}
	}
	return append(out, s)
}

// built is where the nodes of a class are, the first of them being start.
type built struct{ from, to, start int32 }

// class builds the nodes that read one character of ranges and go on at next. Those of a class that was built
// before are copied.
func (b *builder) class(ranges []rune, next int32) int32 {
	key := fmt.Sprint(ranges)
	old, ok := b.classes[key]
	if !ok {
		from := int32(len(b.nodes))
		var all [][]span
		for i := 0; i < len(ranges); i += 2 {
			all = byteSpans(all, ranges[i], ranges[i+1])
		}
		start := b.spans(all, next, map[string]int32{})
		b.classes[key] = built{from, int32(len(b.nodes)), start}
		return start
	}
	move := int32(len(b.nodes)) - old.from
	for i := old.from; i < old.to; i++ {
		arcs := slices.Clone(b.nodes[i].arcs)
		for j := range arcs {
			// Nodes of others came before these.
			if arcs[j].to += move; arcs[j].to-move < old.from {
				arcs[j].to = next
			}
		}
		b.read(arcs)
	}
	return old.start + move
}

// spans builds a tree of sequences; made has the nodes of those that were met before.
func (b *builder) spans(all [][]span, next int32, made map[string]int32) int32 {
	key := make([]byte, 0, 2*len(all))
	for _, s := range all {
		key = append(key, byte(len(s)))
		for _, v := range s {
			key = append(key, v.lo, v.hi)
		}
	}
	if n, ok := made[string(key)]; ok {
		return n
	}
	var arcs []arc
	for i := 0; i < len(all); {
		j := i + 1
		for j < len(all) && all[j][0] == all[i][0] {
			j++
		}
		to := next
		if len(all[i]) > 1 {
			rest := make([][]span, 0, j-i)
			for _, s := range all[i:j] {
				rest = append(rest, s[1:])
			}
			to = b.spans(rest, next, made)
		}
		arcs = append(arcs, arc{all[i][0], to})
		i = j
	}
	n := b.read(arcs)
	made[string(key)] = n
	return n
}
