package web

import (
	"context"
	"log/slog"
	"net/http/httptest"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"mix/graph/token"
	"mix/serve/api"
	"mix/serve/infer"
)

// stub is an engine that says what it is told to, one token after the other.
type stub struct {
	tokens  *token.Tokenizer
	context int
	pause   time.Duration // before each token
	layers  int

	ready   atomic.Bool
	endless atomic.Bool // begins anew at the end of the text
	ended   atomic.Int64
	mu      sync.Mutex
	says    string
	asked   []infer.Request
}

const stubLayers, stubExperts = 6, 8

// newStub serves a stub with the page.
func newStub(t *testing.T, change func(*stub, *api.Options)) (*stub, string) {
	b, err := os.ReadFile("../../graph/token/testdata/tokenizer.model.v3")
	require.NoError(t, err)
	tokens, err := token.FromModel(b)
	require.NoError(t, err)
	e := &stub{tokens: tokens, context: 512, layers: stubLayers}
	e.ready.Store(true)
	o := api.Options{Engine: e, Tokenizer: tokens, Model: "mixtral-stub", Local: true, Page: Page(), Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(e, &o)
	}
	s, err := api.New(o)
	require.NoError(t, err)
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return e, server.URL + "/"
}

func (s *stub) say(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.says = text
}

// last is the request that came last.
func (s *stub) last() infer.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[len(s.asked)-1]
}

// Ready implements infer.Engine.
func (s *stub) Ready() bool { return s.ready.Load() }

// Model implements infer.Engine.
func (s *stub) Model() infer.Model {
	return infer.Model{Vocab: s.tokens.VocabSize(), Context: s.context, Layers: s.layers, Experts: stubExperts, Ends: []int32{s.tokens.EOS()}}
}

// stubChosen are the two experts of token i in layer l.
func stubChosen(i, l int) []uint8 {
	return []uint8{uint8((i*3 + l*5 + i*i*l) % stubExperts), uint8((i*3 + l*5 + i*i*l + 1 + (i+l)%6) % stubExperts)}
}

// stubLogProb is the log probability of token i: 1/2, 1/4, 1/8, and again.
func stubLogProb(i int) float32 { return -0.6931472 * float32(1+i%3) }

// Submit implements infer.Engine.
func (s *stub) Submit(ctx context.Context, r infer.Request) (<-chan infer.Event, error) {
	if err := r.Validate(s.Model()); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.asked = append(s.asked, r)
	ids, err := s.tokens.Encode(s.says, token.EncodeOptions{})
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	out := make(chan infer.Event, r.Max+1)
	go func() {
		defer close(out)
		end := infer.Event{Finish: infer.FinishLength, StopID: -1}
		made := 0
		for ; made < r.Max; made++ {
			select {
			case <-time.After(s.pause):
			case <-ctx.Done():
				end.Finish = infer.FinishCancelled
			}
			if end.Finish == infer.FinishCancelled {
				break
			}
			if made >= len(ids) && !s.endless.Load() {
				end.Finish, end.StopID = infer.FinishStop, s.tokens.EOS()
				break
			}
			out <- s.event(r, ids, made)
		}
		end.Usage = infer.Usage{Prompt: len(r.Prompt), Generated: made}
		out <- end
		s.ended.Add(1)
	}()
	return out, nil
}

func (s *stub) event(r infer.Request, ids []int32, i int) infer.Event {
	e := infer.Event{Token: ids[i%len(ids)], Has: true}
	if r.LogProbs >= 0 {
		chosen := infer.TokenLogProb{ID: e.Token, LogProb: stubLogProb(i)}
		e.Place = &infer.Place{Chosen: chosen, Rank: 1, Top: []infer.TokenLogProb{chosen}}
		for k := 1; k < r.LogProbs; k++ {
			e.Place.Top = append(e.Place.Top, infer.TokenLogProb{ID: 2000 + int32(i+37*k), LogProb: chosen.LogProb - float32(k)})
		}
	}
	if r.Experts {
		for l := range s.layers {
			e.Experts = append(e.Experts, stubChosen(i, l))
		}
	}
	return e
}
