// Package clients drives the server with the official clients of OpenAI and Anthropic. It is apart from the
// other tests because the clients take minutes to compile.
package clients

import (
	"context"
	"log/slog"
	"net/http/httptest"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/graph/token"
	"mix/serve/api"
	"mix/serve/infer"
)

// words is an engine that says one text, whatever is asked.
type words struct {
	t    *token.Tokenizer
	ids  []int32
	fail bool // after the first token
}

// says sets the text; [TOOL_CALLS] is the control id.
func (w *words) says(t *testing.T, texts ...string) {
	w.ids = nil
	for _, text := range texts {
		ids, err := w.t.Encode(text, token.EncodeOptions{})
		require.NoError(t, err)
		if id, ok := w.t.ID(text); ok && w.t.IsControl(id) {
			ids = []int32{id}
		}
		w.ids = append(w.ids, ids...)
	}
}

func (w *words) Ready() bool { return true }

func (w *words) Model() infer.Model {
	return infer.Model{Vocab: w.t.VocabSize(), Context: 512, Ends: []int32{w.t.EOS()}}
}

func (w *words) Submit(_ context.Context, r infer.Request) (<-chan infer.Event, error) {
	events := make(chan infer.Event, len(w.ids)+1)
	defer close(events)
	usage := infer.Usage{Prompt: len(r.Prompt), Cached: 4}
	for _, id := range w.ids[:min(len(w.ids), r.Max)] {
		e := infer.Event{Token: id, Has: true, StopID: -1}
		if r.LogProbs >= 0 {
			e.Place = &infer.Place{Chosen: infer.TokenLogProb{ID: id, LogProb: -0.1}, Rank: 1}
			for k := range r.LogProbs {
				e.Place.Top = append(e.Place.Top, infer.TokenLogProb{ID: id + int32(k), LogProb: -0.1 - float32(k)})
			}
		}
		events <- e
		usage.Generated++
		if w.fail {
			events <- infer.Event{Finish: infer.FinishError, Err: context.Canceled, StopID: -1, Usage: usage}
			return events, nil
		}
	}
	events <- infer.Event{Finish: infer.FinishStop, StopID: w.t.EOS(), Usage: usage}
	return events, nil
}

// anyMask allows everything.
type anyMask struct{}

func (anyMask) Allowed(bits []uint32) {
	for i := range bits {
		bits[i] = ^uint32(0)
	}
}
func (anyMask) Accept(int32) error { return nil }
func (anyMask) Done() bool         { return true }

// serve starts a server that asks for the key "secret", and returns its address.
func serve(t *testing.T) (*words, string) {
	b, err := os.ReadFile("../../../graph/token/testdata/tokenizer.model.v3")
	require.NoError(t, err)
	w := &words{}
	w.t, err = token.FromModel(b)
	require.NoError(t, err)
	s, err := api.New(api.Options{Engine: w, Tokenizer: w.t, Model: "mixtral", Keys: []string{"secret"}, Log: slog.New(slog.DiscardHandler),
		Grammar: func(api.Constraint) (func() infer.Mask, error) { return func() infer.Mask { return anyMask{} }, nil }})
	require.NoError(t, err)
	h := httptest.NewServer(s)
	t.Cleanup(h.Close)
	return w, h.URL
}
