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

	guesses []int32 // after tokens, in the step that runs
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
	for _, t := range d.want {
		t.guesses = nil
	}
	for _, a := range x.Admitted {
		d.slots[a.ID] = a.Slot
	}
	for _, c := range x.Copies {
		copy(d.block(c.To), d.block(c.From))
	}
	for _, c := range x.Prefill {
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
		if at, ok := d.slots[c.ID]; !ok || at != c.Slot {
			return nil, fmt.Errorf("request %d in slot %d, was admitted to %d", c.ID, c.Slot, at)
		}
		if err := d.write(c.ID, c.Table, c.Start, end); err != nil {
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
	for _, r := range slices.Concat(x.Decode, x.Ahead) {
		t := d.want[r.ID]
		if r.Guess {
			if err := d.guess(r); err != nil {
				return nil, err
			}
			draws = append(draws, r.ID)
			continue
		}
		switch {
		case r.Position >= len(t.tokens) || r.Position < len(t.Prompt) || r.Token != t.tokens[r.Position]:
			return nil, fmt.Errorf("request %d: row of token %d at %d, tokens are %v", r.ID, r.Token, r.Position, t.tokens)
		case r.Replay != (r.Position < len(t.tokens)-1):
			return nil, fmt.Errorf("request %d: row at %d of %d tokens, replay %t", r.ID, r.Position, len(t.tokens), r.Replay)
		}
		if err := d.write(r.ID, r.Table, r.Position, r.Position+1); err != nil {
			return nil, err
		}
		if !r.Replay {
			draws = append(draws, r.ID)
		}
	}
	return draws, d.rows(x)
}

// guess fills the place of a guessed token, the next of its request's guesses. It is of the text that has this
// token there, so that it is right if the guess is.
func (d *device) guess(r Row) error {
	t := d.want[r.ID]
	n := r.Position - len(t.tokens)
	if n != len(t.guesses) || n+len(t.tokens)-len(t.Prompt)+2 > t.Max {
		return fmt.Errorf("request %d: guess of token %d at %d after %d tokens and %d guesses", r.ID, r.Token, r.Position, len(t.tokens), len(t.guesses))
	}
	t.guesses = append(t.guesses, r.Token)
	if len(r.Table)*d.o.Size <= r.Position {
		return fmt.Errorf("request %d: table of %d blocks does not cover position %d", r.ID, len(r.Table), r.Position)
	}
	d.block(r.Table[r.Position/d.o.Size])[r.Position%d.o.Size] = digest("decode", fmt.Sprint(r.ID), r.Position, slices.Concat(t.tokens, t.guesses))
	return nil
}

// rows checks that no two rows are in one slot or write to one place, and that a request has its own slot.
func (d *device) rows(x Step) error {
	slots, places := map[int]bool{}, map[int]bool{}
	for i, r := range slices.Concat(x.Decode, x.Ahead) {
		place := int(r.Table[r.Position/d.o.Size])*d.o.Size + r.Position%d.o.Size
		if slots[r.Slot] || places[place] || r.Slot >= d.o.Slots || i < len(x.Decode) && d.slots[r.ID] != r.Slot {
			return fmt.Errorf("request %d: row in slot %d at place %d", r.ID, r.Slot, place)
		}
		slots[r.Slot], places[place] = true, true
	}
	return nil
}

// write fills positions of a request whose earlier ones must hold what they should.
func (d *device) write(id ID, table []int32, start, end int) error {
	t := d.want[id]
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
