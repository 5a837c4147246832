package sched

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/serve/infer"
)

// TestRandomScripts runs random requests through small schedulers on a model of the device and checks the
// state after each call.
func TestRandomScripts(t *testing.T) {
	var all Stats
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 7))
		size := 1 + r.IntN(3)
		o := Options{Slots: 1 + r.IntN(5), Size: size, Chunk: size * (1 + r.IntN(3)), Blocks: 4 + r.IntN(24),
			Context: 8 + r.IntN(40), Queue: r.IntN(12), Fork: r.IntN(2) == 0,
			Chunks: r.IntN(4), Speculate: r.IntN(5)}
		o.Watermark = r.IntN(min(4, o.Blocks))
		w := newWorld(t, r, o)
		for range 150 {
			w.something()
		}
		for w.unfinished() { // without arrivals, all of them come to an end
			w.next()
		}
		require.Zero(t, w.s.Stats().Used, "seed %d", seed)
		require.Equal(t, w.arrived, w.ended, "seed %d", seed)
		x := w.s.Stats()
		all.Preemptions += x.Preemptions
		all.Forks += x.Forks
		all.Copies += x.Copies
		all.PrefixHits += x.PrefixHits
		all.Ahead += x.Ahead
		all.Accepted += x.Accepted
		all.Proposed += x.Proposed
	}
	// Else the test does not test what it should.
	require.Greater(t, all.Preemptions, int64(100))
	require.Greater(t, all.Forks, int64(100))
	require.Greater(t, all.Copies, int64(100))
	require.Greater(t, all.PrefixHits, int64(1000))
	require.Greater(t, all.Ahead, int64(100))
	require.Greater(t, all.Accepted, int64(1000))
	require.Greater(t, all.Proposed-all.Accepted, int64(1000))
}

// world is a scheduler, a device, and what is known of their requests.
type world struct {
	t              *testing.T
	r              *rand.Rand
	s              *Scheduler
	d              *device
	ids            []ID // arrived and not ended
	arrived, ended int
	steps          int
}

func newWorld(t *testing.T, r *rand.Rand, o Options) *world {
	s, err := New(o)
	require.NoError(t, err)
	return &world{t: t, r: r, s: s, d: newDevice(o)}
}

func (w *world) unfinished() bool { return len(w.ids) > 0 }

func (w *world) gone(id ID) {
	w.ids = slices.DeleteFunc(w.ids, func(x ID) bool { return x == id })
	w.ended++
}

func (w *world) something() {
	switch k := w.r.IntN(20); {
	case k < 7:
		w.arrive()
	case k == 7 && w.unfinished():
		id := w.ids[w.r.IntN(len(w.ids))]
		require.True(w.t, w.s.End(id))
		require.False(w.t, w.s.End(id))
		w.gone(id)
	case k == 8 && w.r.IntN(4) == 0:
		w.s.DropCache()
		require.Zero(w.t, w.s.Stats().Cached)
	default:
		w.next()
	}
	w.check()
}

// arrive makes up to three requests of one prompt, which often begins, or is all, like another's.
func (w *world) arrive() {
	n := 1 + w.r.IntN(w.s.o.Context)
	q := Request{Max: w.r.IntN(12), Salt: []string{"", "", "", "b"}[w.r.IntN(4)], Whole: w.r.IntN(8) == 0, Speculate: w.r.IntN(8) > 0}
	if w.r.IntN(3) == 0 {
		q.Priority = w.r.IntN(3) - 1
	}
	if w.r.IntN(2) == 0 {
		n = []int{3, 5, 7}[w.r.IntN(3)]
	}
	for i := range n {
		q.Prompt = append(q.Prompt, int32(i))
	}
	if w.r.IntN(3) == 0 {
		q.Prompt[w.r.IntN(n)] = 99
	}
	for range 1 + w.r.IntN(3) {
		w.submit(q)
	}
}

func (w *world) submit(q Request) {
	n, present := len(q.Prompt), len(w.s.all)
	id, err := w.s.Arrive(q)
	switch {
	case err == nil:
		require.LessOrEqual(w.t, n, w.s.o.Blocks*w.s.o.Size)
		w.arrived++
		w.ids = append(w.ids, id)
		w.d.arrive(id, q)
	case present >= w.s.o.Slots+w.s.o.Queue:
		require.Error(w.t, err)
	default:
		require.ErrorIs(w.t, err, infer.ErrTooLong)
	}
}

// next runs a step on the device and tells its draws.
func (w *world) next() {
	waiting, running := slices.Clone(w.s.waiting), slices.Clone(w.s.running)
	decodes := func(r *request) bool { return r.done >= len(r.Prompt) }
	wasDecoding := slices.DeleteFunc(slices.Clone(running), func(r *request) bool { return !decodes(r) })
	x, err := w.s.Next()
	require.NoError(w.t, err)
	for _, id := range x.Finished {
		require.Zero(w.t, w.d.want[id].Max)
		w.gone(id)
	}
	w.check()
	w.order(x, waiting, wasDecoding)

	draws, err := w.d.run(x)
	require.NoError(w.t, err, "%s%s", x, w.s)
	require.Equal(w.t, x.draws(), draws)
	for _, id := range draws {
		if !slices.Contains(w.ids, id) || !w.s.all[id].drawing { // its guess was wrong
			continue
		}
		if w.r.IntN(30) == 0 { // a stop id, or cancelled before its draw is told
			require.True(w.t, w.s.End(id))
			w.gone(id)
			continue
		}
		t := w.d.want[id]
		token := int32(w.r.IntN(5))
		guesses := slices.Clone(w.s.all[id].guesses)
		if len(guesses) > 0 && w.r.IntN(2) == 0 {
			token = guesses[0]
		}
		w.d.draw(id, token)
		ended, err := w.s.Drawn(id, token)
		require.NoError(w.t, err)
		n := len(t.tokens)
		require.Equal(w.t, n-len(t.Prompt) == t.Max || n == w.s.o.Context || n > w.s.o.Blocks*w.s.o.Size, ended)
		if ended {
			w.gone(id)
		} else if len(guesses) > 0 && guesses[0] == token {
			continue // its next row is told too
		}
		_, err = w.s.Drawn(id, token)
		require.Error(w.t, err)
	}
	w.check()
	w.steps++
}

// order checks that a step is fair: nobody is passed in the queue, all that decode have a row, a prompt has a
// chunk, and those that were put off are the last.
func (w *world) order(x Step, waiting, decoding []*request) {
	t := w.t
	preempted := map[ID]bool{}
	for _, id := range x.Preempted {
		preempted[id] = true
		for _, r := range w.s.running {
			require.True(t, r.before(w.s.all[id]), "%d was preempted before %d", id, r.id)
		}
	}
	require.True(t, len(x.Admitted) == 0 || len(x.Preempted) == 0)
	for i, a := range x.Admitted {
		require.Equal(t, waiting[i].id, a.ID, "admitted out of order")
		require.True(t, !waiting[i].Whole || a.Cached == 0)
	}
	rows := map[ID]bool{}
	for _, r := range x.Decode {
		require.False(t, rows[r.ID])
		rows[r.ID] = true
	}
	for _, r := range decoding {
		if w.s.all[r.id] != nil && !preempted[r.id] {
			require.True(t, rows[r.id], "request %d has no row", r.id)
		}
	}
	if slices.ContainsFunc(w.s.running, (*request).prefilling) {
		require.Len(t, x.Prefill, w.s.o.Chunks)
	}
	for _, r := range x.Ahead {
		require.True(t, rows[r.ID], "request %d runs ahead without a row", r.ID)
	}
	require.LessOrEqual(t, len(x.Decode)+len(x.Ahead), w.s.o.Slots)
	require.Equal(t, x.Idle(), len(w.s.all) == 0, "%s%s", x, w.s)
}

// check holds the state to what it follows from. It is called too often for require.
func (w *world) check() {
	s, p := w.s, w.s.blocks
	w.must(len(w.ids) == len(s.all) && len(s.all) == len(s.waiting)+len(s.running), "%d requests: %s", len(w.ids), s)
	w.must(slices.IsSortedFunc(s.waiting, (*request).compare) && slices.IsSortedFunc(s.running, (*request).compare), "no order: %s", s)
	drawing, slots := 0, make([]*request, s.o.Slots)
	refs := make([]int32, s.o.Blocks)
	for _, r := range s.waiting {
		w.must(r.slot == -1 && len(r.table) == 0 && !r.drawing && r.done == 0, "request %d waits and has something: %s", r.id, s)
	}
	for _, r := range s.running {
		w.must(slots[r.slot] == nil, "slot %d is taken twice: %s", r.slot, s)
		slots[r.slot] = r
		if r.drawing {
			drawing++
		}
		w.must(len(r.table) >= s.cover(max(r.done, len(r.Prompt))), "table of %d does not cover it: %s", r.id, s)
		for i, b := range r.table {
			refs[b]++
			w.must(!slices.Contains(r.table[:i], b), "block %d is twice in a table: %s", b, s)
		}
	}
	w.must(slices.Equal(slots, s.slots) && s.seats == s.o.Slots-len(s.running), "slots: %s", s)
	w.must(drawing == s.drawing, "%d draw, counted %d", drawing, s.drawing)
	w.must(slices.Equal(refs, p.refs), "references %v, counted %v", p.refs, refs)
	w.blocks(refs)
	x := s.Stats()
	w.must(x.Blocks == x.Used+x.Cached+len(p.free) && x.PrefixHits <= x.PrefixQueries, "%+v", x)
}

// blocks checks that each block is free, idle or held, and known by its key only.
func (w *world) blocks(refs []int32) {
	p := w.s.blocks
	where := make([]string, len(refs))
	at := func(b int32, place string) {
		w.must(where[b] == "", "block %d is %s and %s", b, where[b], place)
		where[b] = place
	}
	for _, b := range p.free {
		at(b, "free")
		w.must(!p.named[b], "free block %d has a key", b)
	}
	idle, named := 0, 0
	for b := p.next[p.ring()]; b != p.ring(); b = p.next[b] {
		at(b, "idle")
		w.must(p.prev[p.next[b]] == b && p.named[b], "idle block %d: ring or key", b)
		idle++
	}
	w.must(idle == p.idle, "%d idle blocks, counted %d", p.idle, idle)
	for b, n := range refs {
		if n > 0 {
			at(int32(b), "held")
		}
		w.must(where[b] != "", "block %d is lost", b)
		if p.named[b] {
			named++
			w.must(p.cached[p.keys[b]] == int32(b), "block %d is not that of its key", b)
		}
	}
	w.must(named == len(p.cached), "%d keys for %d blocks", len(p.cached), named)
}

func (w *world) must(holds bool, format string, args ...any) {
	if !holds {
		w.t.Helper()
		w.t.Fatalf(format, args...)
	}
}
