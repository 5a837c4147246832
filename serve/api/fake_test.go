package api

import (
	"context"
	"hash/fnv"
	"os"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"mix/graph/token"
	"mix/serve/infer"
)

// load reads a tokenizer of the tests of graph/token once.
func load(t testing.TB, name string) *token.Tokenizer {
	t.Helper()
	loaded.Lock()
	defer loaded.Unlock()
	if loaded.m[name] == nil {
		b, err := os.ReadFile("../../graph/token/testdata/" + name)
		require.NoError(t, err)
		loaded.m[name], err = token.FromModel(b)
		require.NoError(t, err)
	}
	return loaded.m[name]
}

var loaded = struct {
	sync.Mutex
	m map[string]*token.Tokenizer
}{m: map[string]*token.Tokenizer{}}

// fake is an engine whose words are known. Without a script each token follows from those before it.
type fake struct {
	t       *token.Tokenizer
	context int
	starts  bool // not ready
	busy    error
	script  func(r infer.Request) []int32 // what it says; its end-of-text id ends
	step    chan struct{}                 // if not nil, each token waits for one
	failAt  int                           // fails after so many tokens, 0 never
	queued  time.Duration                 // what it says of each wait

	running atomic.Int64
	mu      sync.Mutex
	asked   []infer.Request
}

func newFake(t testing.TB) *fake { return &fake{t: load(t, "tokenizer.model.v3"), context: 512} }

func (f *fake) Ready() bool { return !f.starts }

func (f *fake) Model() infer.Model {
	return infer.Model{Vocab: f.t.VocabSize(), Context: f.context, Layers: 2, Experts: 8, Ends: []int32{f.t.EOS()}}
}

func (f *fake) requests() []infer.Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]infer.Request(nil), f.asked...)
}

// says makes the engine answer with texts; [TOOL_CALLS] at the beginning of one is the control id.
func (f *fake) says(texts ...string) {
	f.script = func(r infer.Request) []int32 {
		var ids []int32
		for _, text := range texts {
			if id, ok := f.t.ID(text); ok && f.t.IsControl(id) {
				ids = append(ids, id)
				continue
			}
			more, err := f.t.Encode(text, token.EncodeOptions{})
			if err != nil {
				panic(err)
			}
			ids = append(ids, more...)
		}
		return append(ids, f.t.EOS())
	}
}

func (f *fake) Submit(ctx context.Context, r infer.Request) (<-chan infer.Event, error) {
	if f.busy != nil {
		return nil, f.busy
	}
	if err := r.Validate(f.Model()); err != nil {
		return nil, err
	}
	f.mu.Lock()
	f.asked = append(f.asked, r)
	f.mu.Unlock()
	var script []int32
	if f.script != nil {
		script = f.script(r)
	}
	events := make(chan infer.Event, r.Max+2) // without bound, as engines promise
	f.running.Add(1)
	go func() {
		defer f.running.Add(-1)
		defer close(events)
		f.answer(ctx, r, script, events)
	}()
	return events, nil
}

func (f *fake) answer(ctx context.Context, r infer.Request, script []int32, out chan<- infer.Event) {
	ids := append([]int32(nil), r.Prompt...)
	var prompt []infer.Place
	if r.PromptLogProbs >= 0 {
		for i := 1; i < len(ids); i++ {
			prompt = append(prompt, f.place(ids[:i], ids[i], r.PromptLogProbs))
		}
	}
	end := infer.Event{Finish: infer.FinishLength, StopID: -1, Prompt: prompt}
	made := 0
	for made < r.Max && len(r.Prompt)+made < f.context {
		if f.step != nil {
			select {
			case <-f.step:
			case <-ctx.Done():
			}
		}
		if ctx.Err() != nil {
			end.Finish = infer.FinishCancelled
			break
		}
		if f.failAt > 0 && made == f.failAt {
			end.Finish, end.Err = infer.FinishError, context.Canceled
			break
		}
		id := f.next(ids, r)
		if script != nil {
			id = f.t.EOS()
			if made < len(script) {
				id = script[made]
			}
		}
		if id == f.t.EOS() && !r.IgnoreEnd || contains(r.Stop, id) {
			end.Finish, end.StopID = infer.FinishStop, id
			break
		}
		e := infer.Event{Token: id, Has: true, StopID: -1, Prompt: end.Prompt}
		end.Prompt = nil
		if r.LogProbs >= 0 {
			p := f.place(ids, id, r.LogProbs)
			e.Place = &p
		}
		if r.Experts {
			e.Experts = [][]uint8{{uint8(id % 8), uint8((id + 1) % 8)}, {uint8(id / 8 % 8), 7}}
		}
		ids = append(ids, id)
		made++
		out <- e
	}
	end.Usage = infer.Usage{Prompt: len(r.Prompt), Cached: len(r.Prompt) / 16 * 16, Generated: made, Queued: f.queued}
	out <- end
}

func contains(ids []int32, id int32) bool {
	for _, x := range ids {
		if x == id {
			return true
		}
	}
	return false
}

// best are the most likely tokens after ids, with their probabilities.
func (f *fake) best(ids []int32) []infer.TokenLogProb {
	h := fnv.New64a()
	for _, id := range ids {
		_, _ = h.Write([]byte{byte(id), byte(id >> 8)})
	}
	x := h.Sum64()
	out := make([]infer.TokenLogProb, 64)
	for k := range out {
		x = x*6364136223846793005 + 1442695040888963407
		out[k] = infer.TokenLogProb{ID: int32(1000 + x>>33%20000), LogProb: -0.5 - float32(k)/6 - float32(x>>40%1000)/4000}
	}
	sort.SliceStable(out, func(i, k int) bool { return out[i].LogProb > out[k].LogProb })
	seen := map[int32]bool{}
	return slices.DeleteFunc(out, func(t infer.TokenLogProb) bool {
		again := seen[t.ID]
		seen[t.ID] = true
		return again
	})
}

// next is the best token, one of the first few, or with a mask the best that it allows.
func (f *fake) next(ids []int32, r infer.Request) int32 {
	best := f.best(ids)
	if r.Mask != nil {
		bits := make([]uint32, (f.t.VocabSize()+31)/32)
		r.Mask.Allowed(bits)
		allowed := func(id int32) bool { return bits[id/32]>>(id%32)&1 != 0 }
		for _, t := range best {
			if allowed(t.ID) {
				return t.ID
			}
		}
		for id := range int32(f.t.VocabSize()) {
			if allowed(id) {
				return id
			}
		}
	}
	if r.Sampling.Temperature == 0 {
		return best[0].ID
	}
	return best[(r.Sampling.Seed+uint64(len(ids)))%8].ID
}

func (f *fake) place(ids []int32, chosen int32, n int) infer.Place {
	all := f.best(ids)
	p := infer.Place{Chosen: infer.TokenLogProb{ID: chosen, LogProb: -20}, Rank: 1000, Top: all[:n]}
	for k, t := range all {
		if t.ID == chosen {
			p.Chosen, p.Rank = t, k+1
			break
		}
	}
	return p
}
