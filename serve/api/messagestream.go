package api

import (
	"encoding/json"
	"net/http"
)

// messagesStream sends an answer as Anthropic's events: message_start; for each block content_block_start,
// its deltas and content_block_stop; message_delta with the reason and the usage; message_stop.
func (s *Server) messagesStream(w http.ResponseWriter, r *http.Request, a claudeAnswer, pieces <-chan piece) error {
	e, err := s.stream(w)
	if err != nil {
		return err
	}
	b := blocks{e: e}
	var reader callReader
	each := func(p piece) error {
		calls := reader.push(p.calls)
		if p.end != nil {
			p.text += reader.rest()
		}
		if err := b.text(p.text); err != nil {
			return err
		}
		for _, k := range calls {
			if err := b.call(k); err != nil {
				return err
			}
		}
		if p.end == nil {
			return nil
		}
		why, stop := reason(p.end, reader.found > 0)
		if err := b.close(); err != nil {
			return err
		}
		if err := b.send("message_delta", "delta", map[string]any{"stop_reason": why, "stop_sequence": stop}, "usage", claudeTokens(p.end.usage)); err != nil {
			return err
		}
		return b.send("message_stop")
	}
	if err := b.send("message_start", "message", a); err != nil {
		return err
	}
	ping := func() error { return b.send("ping") }
	if err := s.forward(r.Context(), 1, pieces, each, ping); err != nil {
		return s.abort(e, w, anthropic, err)
	}
	return nil
}

// blocks writes the parts of an answer, one after the other.
type blocks struct {
	e     *events
	index int
	open  bool // a block of text
}

// send writes an event with pairs of names and values.
func (b *blocks) send(kind string, pairs ...any) error {
	v := map[string]any{"type": kind}
	for i := 0; i < len(pairs); i += 2 {
		v[pairs[i].(string)] = pairs[i+1]
	}
	return b.e.data(kind, v)
}

func (b *blocks) text(text string) error {
	if text == "" {
		return nil
	}
	if !b.open {
		b.open = true
		if err := b.send("content_block_start", "index", b.index, "content_block", block{Type: "text", Text: new("")}); err != nil {
			return err
		}
	}
	return b.send("content_block_delta", "index", b.index, "delta", map[string]any{"type": "text_delta", "text": text})
}

func (b *blocks) call(k function) error {
	if err := b.close(); err != nil {
		return err
	}
	begin := block{Type: "tool_use", ID: newID(9), Name: k.Name, Input: json.RawMessage("{}")}
	if err := b.send("content_block_start", "index", b.index, "content_block", begin); err != nil {
		return err
	}
	part := map[string]any{"type": "input_json_delta", "partial_json": string(input(k.Arguments))}
	if err := b.send("content_block_delta", "index", b.index, "delta", part); err != nil {
		return err
	}
	b.open = true
	return b.close()
}

// close ends the block that is open, if one is.
func (b *blocks) close() error {
	if !b.open {
		return nil
	}
	b.open = false
	b.index++
	return b.send("content_block_stop", "index", b.index-1)
}
