package serve

import (
	"fmt"
	"slices"
	"time"

	"mix/lower"
	"mix/serve/sched"
)

// Stats are numbers of a Batcher. Counters go up from the start.
type Stats struct {
	sched.Stats
	ExpertTokens [][]uint64    // [layer][expert] tokens that went there
	Busy         time.Duration // of the device, in programs
	// Programs of the engine that were found in the cache on disk, and those that were not.
	CompileHits, CompileMisses int
}

// Stats counts.
func (b *Batcher) Stats() Stats {
	var x Stats
	x.CompileHits, x.CompileMisses = b.e.compiled()
	b.mu.Lock()
	defer b.mu.Unlock()
	x.Stats, x.Busy = b.s.Stats(), b.work.busy
	for _, row := range b.work.tokens {
		x.ExpertTokens = append(x.ExpertTokens, slices.Clone(row))
	}
	return x
}

// compiled counts programs by where they came from.
func (e *Engine) compiled() (hits, misses int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, x := range e.programs {
		switch p := x.p.Load(); {
		case p == nil:
		case p.Stats().FromCache:
			hits++
		default:
			misses++
		}
	}
	return hits, misses
}

// work notes what the device does: when it is busy, and which experts tokens went to. It belongs to the loop,
// but for what publish changes.
type work struct {
	choices int       // K
	began   time.Time // of the first program since the device was waited for; 0 for none
	pending []*routed // whose tokens are not counted
	added   time.Duration

	busy   time.Duration // published
	tokens [][]uint64    // [L][E], published
}

// routed are the experts that the tokens of one call went to.
type routed struct {
	w      *work
	on     *lower.Buffer // [L, T, K] int32; nil once they are on the host
	rows   []int         // of T, those that are not padding
	chosen []int32       // [L, T, K]
}

func newWork(layers, experts, choices int) *work {
	w := &work{choices: choices}
	for range layers {
		w.tokens = append(w.tokens, make([]uint64, experts))
	}
	return w
}

// launched notes that a program is about to start.
func (w *work) launched() {
	if w.began.IsZero() {
		w.began = time.Now()
	}
}

// routed takes over a call's experts.
func (w *work) routed(on *lower.Buffer, rows []int) *routed {
	r := &routed{w: w, on: on, rows: rows}
	w.pending = append(w.pending, r)
	return r
}

// fetch waits for the experts of all calls but one, nil for none.
func (w *work) fetch(but *routed) error {
	for _, r := range w.pending {
		if r == but || r.on == nil {
			continue
		}
		chosen, err := fetch[int32](r.on)
		if err != nil {
			return fmt.Errorf("experts: %w", err)
		}
		free(r.on)
		r.on, r.chosen = nil, chosen
	}
	return nil
}

// ended notes that all programs have ended.
func (w *work) ended() {
	if !w.began.IsZero() {
		w.added += time.Since(w.began)
		w.began = time.Time{}
	}
}

// publish adds up what is on the host. The Batcher's lock is held.
func (w *work) publish() {
	w.busy += w.added
	w.added = 0
	w.pending = slices.DeleteFunc(w.pending, func(r *routed) bool {
		if r.on != nil {
			return false
		}
		for l := range w.tokens {
			for _, row := range r.rows {
				for _, e := range r.at(l, row) {
					w.tokens[l][e]++
				}
			}
		}
		return true
	})
}

// free gives back what nobody fetches any more.
func (w *work) free() {
	for _, r := range w.pending {
		free(r.on)
	}
	w.pending = nil
}

// at is what one layer chose for a token.
func (r *routed) at(layer, token int) []int32 {
	k := r.w.choices
	t := len(r.chosen) / len(r.w.tokens) / k
	return r.chosen[(layer*t+token)*k : (layer*t+token+1)*k]
}

// of is which experts a token used, by layers.
func (r *routed) of(token int) (all [][]uint8) {
	for l := range r.w.tokens {
		var row []uint8
		for _, e := range r.at(l, token) {
			row = append(row, uint8(e))
		}
		all = append(all, row)
	}
	return all
}
