package sched

import (
	"crypto/sha256"
	"fmt"
	"slices"
)

// device is a model of an engine: each place of its cache holds what was computed there, as a digest of all
// that it depends on. Rows are refused if a place before them does not hold what a request alone would have
// put there, so that a run without an error is one with equal results.
type device struct {
	o     Options
	cache []string // of each position of each block
	want  map[ID]*text
	slots map[ID]int // slots
}

// text is a request as the device sees it.
type text struct {
	Request
	tokens []int32  // prompt and answer
	places []string // what the cache holds for each token of it
}

func newDevice(o Options) *device {
	return &device{o: o, cache: make([]string, o.Blocks*o.Size), want: map[ID]*text{}, slots: map[ID]int{}}
}

func (d *device) arrive(id ID, r Request) {
	x := &text{Request: r, tokens: slices.Clone(r.Prompt)}
	kind := "prefill"
	if r.Whole { // by another program
		kind = "whole"
	}
	for i := range r.Prompt {
		// A place depends on the tokens up to the end of its chunk, and on who may see it.
		start := i / d.o.Chunk * d.o.Chunk
		end := min(start+d.o.Chunk, len(r.Prompt))
		x.places = append(x.places, digest(kind, r.Salt, i, r.Prompt[:end]))
	}
	d.want[id] = x
}

func (d *device) draw(id ID, token int32) {
	x := d.want[id]
	x.tokens = append(x.tokens, token)
	// Answers of two requests differ by what drew them, so that no two share a place.
	x.places = append(x.places, digest("decode", fmt.Sprint(id), len(x.tokens)-1, x.tokens))
}

func digest(kind, who string, at int, tokens []int32) string {
	h := sha256.Sum256(fmt.Appendf(nil, "%s %q %d %v", kind, who, at, tokens))
	return string(h[:8])
}

// run does what a step says, and tells which requests are to be told a token.
func (d *device) run(x Step) (draws []ID, err error) {
	for _, a := range x.Admitted {
		d.slots[a.ID] = a.Slot
	}
	for _, c := range x.Copies {
		copy(d.block(c.To), d.block(c.From))
	}
	if c := x.Prefill; c != nil {
		t := d.want[c.ID]
		end := c.Start + len(c.Tokens)
		switch {
		case c.Start%d.o.Chunk != 0 || len(c.Tokens) == 0 || len(c.Tokens) > d.o.Chunk:
			return nil, fmt.Errorf("chunk of %d tokens at %d", len(c.Tokens), c.Start)
		case !slices.Equal(c.Tokens, t.Prompt[c.Start:end]) || c.Last != (end == len(t.Prompt)):
			return nil, fmt.Errorf("chunk %v at %d of %v, last %t", c.Tokens, c.Start, t.Prompt, c.Last)
		case !c.Last && (end != c.Start+d.o.Chunk || c.Draw || len(c.Forks) > 0):
			return nil, fmt.Errorf("chunk at %d to %d with a draw or cut short before the prompt's end", c.Start, end)
		}
		if err := d.write(c.ID, c.Slot, c.Table, c.Start, end); err != nil {
			return nil, err
		}
		fresh := c.Last && len(t.tokens) == len(t.Prompt) && t.Max > 0
		if c.Draw != fresh {
			return nil, fmt.Errorf("request %d: chunk draws %t, want %t", c.ID, c.Draw, fresh)
		}
		if c.Draw {
			draws = append(draws, c.ID)
		}
		for _, f := range c.Forks {
			q := d.want[f.ID]
			if !slices.Equal(q.Prompt, t.Prompt) || q.Salt != t.Salt || q.Whole || t.Whole {
				return nil, fmt.Errorf("request %d with prompt %v, fork of %v", f.ID, q.Prompt, t.Prompt)
			}
			if f.Draw {
				draws = append(draws, f.ID)
			}
		}
	}
	for _, r := range x.Decode {
		t := d.want[r.ID]
		switch {
		case r.Position >= len(t.tokens) || r.Position < len(t.Prompt) || r.Token != t.tokens[r.Position]:
			return nil, fmt.Errorf("request %d: row of token %d at %d, tokens are %v", r.ID, r.Token, r.Position, t.tokens)
		case r.Replay != (r.Position < len(t.tokens)-1):
			return nil, fmt.Errorf("request %d: row at %d of %d tokens, replay %t", r.ID, r.Position, len(t.tokens), r.Replay)
		}
		if err := d.write(r.ID, r.Slot, r.Table, r.Position, r.Position+1); err != nil {
			return nil, err
		}
		if !r.Replay {
			draws = append(draws, r.ID)
		}
	}
	return draws, nil
}

// write fills positions of a request whose earlier ones must hold what they should.
func (d *device) write(id ID, slot int, table []int32, start, end int) error {
	t := d.want[id]
	if at, ok := d.slots[id]; !ok || at != slot {
		return fmt.Errorf("request %d in slot %d, was admitted to %d", id, slot, at)
	}
	if len(table)*d.o.Size < end {
		return fmt.Errorf("request %d: table of %d blocks does not cover position %d", id, len(table), end-1)
	}
	for i := range end {
		place := &d.block(table[i/d.o.Size])[i%d.o.Size]
		if i >= start {
			*place = t.places[i]
		} else if *place != t.places[i] {
			return fmt.Errorf("request %d: position %d in block %d does not hold what it should", id, i, table[i/d.o.Size])
		}
	}
	return nil
}

func (d *device) block(b int32) []string { return d.cache[int(b)*d.o.Size : int(b+1)*d.o.Size] }
