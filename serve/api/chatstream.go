package api

import (
	"net/http"

	"mix/graph/token"
	"mix/serve/infer"
)

// chatStream sends an answer in pieces. Each text begins with its role. A tool call is sent when it is whole:
// first its name, then its arguments.
func (s *Server) chatStream(w http.ResponseWriter, r *http.Request, c *chatRequest, jobs []job, a chatAnswer, pieces <-chan piece) error {
	e, err := s.stream(w)
	if err != nil {
		return err
	}
	m := meter{jobs: jobs, best: len(jobs)}
	opts := or(c.StreamOptions, streamOptions{})
	send := func(ch chatChoice) error {
		a.Choices = []chatChoice{ch}
		if opts.Continuous {
			a.Usage = m.usage()
		}
		return e.data("", a)
	}
	for i := range jobs {
		if err := send(chatChoice{Index: i, Delta: &chatDelta{Role: token.Assistant, Content: new("")}}); err != nil {
			return err
		}
		a.PromptIDs = nil
	}
	readers := make([]callReader, len(jobs))
	each := func(p piece) error {
		m.count(p)
		return s.chatPieces(c, p, &readers[p.index], send)
	}
	if err := s.forward(r.Context(), len(jobs), pieces, each, e.keepAlive); err != nil {
		return s.abort(e, w, openAI, err)
	}
	if opts.Usage {
		a.Choices, a.Usage = []chatChoice{}, m.usage()
		if err := e.data("", a); err != nil {
			return err
		}
	}
	return e.done()
}

// chatPieces sends what one piece brings: text, calls, the end.
func (s *Server) chatPieces(c *chatRequest, p piece, reader *callReader, send func(chatChoice) error) error {
	calls := reader.push(p.calls)
	if p.end != nil {
		p.text += reader.rest()
	}
	if p.text != "" || len(p.tokens) > 0 {
		ch := chatChoice{Index: p.index, Delta: &chatDelta{}}
		if p.text != "" {
			ch.Delta.Content = &p.text
		}
		s.describe(c, &ch, p.tokens)
		if err := send(ch); err != nil {
			return err
		}
	}
	for i, k := range calls {
		at := reader.found - len(calls) + i
		for _, d := range []chatCall{
			{Index: &at, ID: newID(9), Type: "function", Function: function{Name: k.Name}},
			{Index: &at, Function: function{Arguments: k.Arguments}},
		} {
			if err := send(chatChoice{Index: p.index, Delta: &chatDelta{Calls: []chatCall{d}}}); err != nil {
				return err
			}
		}
	}
	if p.end == nil {
		return nil
	}
	ch := chatChoice{Index: p.index, Delta: &chatDelta{}}
	ch.Finish, ch.Stop = finish(p.end)
	if reader.found > 0 && p.end.finish == infer.FinishStop {
		ch.Finish = new("tool_calls")
	}
	return send(ch)
}
