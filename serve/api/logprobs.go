package api

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"mix/serve/infer"
)

// logProb is a natural logarithm of a probability. JSON has no infinity, so it is cut at -9999, as elsewhere.
type logProb float32

// MarshalJSON writes the shortest decimal that reads back as the same float32.
func (l logProb) MarshalJSON() ([]byte, error) {
	if !(l > -9999) { // also what is no number
		return []byte("-9999.0"), nil
	}
	return strconv.AppendFloat(nil, float64(l), 'g', -1, 32), nil
}

// legacyLogProbs is what completions say of their tokens.
type legacyLogProbs struct {
	Tokens  []string             `json:"tokens"`
	Chosen  []*logProb           `json:"token_logprobs"` // null for the first of a sequence
	Top     []map[string]logProb `json:"top_logprobs"`
	Offsets []int                `json:"text_offset"` // in characters of the answer's text
}

func (l *legacyLogProbs) add(name string, top map[string]logProb, chosen float32, offset int) {
	lp := logProb(chosen)
	l.Tokens = append(l.Tokens, name)
	l.Chosen = append(l.Chosen, &lp)
	l.Top = append(l.Top, top)
	l.Offsets = append(l.Offsets, offset)
}

// names is how a token is written: its text, a control piece by its name, and bytes that are no character as
// bytes:\xe2.
func (s *Server) names(id int32) string {
	t := s.o.Tokenizer
	b := t.Bytes(id)
	switch {
	case len(b) == 0:
		return t.Piece(id)
	case utf8.Valid(b):
		return string(b)
	}
	var out strings.Builder
	out.WriteString("bytes:")
	for _, c := range b {
		fmt.Fprintf(&out, `\x%02x`, c)
	}
	return out.String()
}

// topNames are the n best tokens of a place and the chosen one, by name. Two tokens of one name are told apart
// by their ids.
func (s *Server) topNames(p infer.Place, n int) map[string]logProb {
	top := map[string]logProb{s.names(p.Chosen.ID): logProb(p.Chosen.LogProb)}
	for _, t := range p.Top[:min(n, len(p.Top))] {
		if t.ID == p.Chosen.ID {
			continue
		}
		name := s.names(t.ID)
		if _, taken := top[name]; taken {
			name = fmt.Sprintf("token_id:%d", t.ID)
		}
		top[name] = logProb(t.LogProb)
	}
	return top
}

// echoText is a prompt given back.
type echoText struct {
	text    string
	chars   int
	offsets []int // of each token
}

func (s *Server) echo(prompt []int32) echoText {
	e := echoText{}
	var out strings.Builder
	stream := s.o.Tokenizer.Stream()
	for _, id := range prompt {
		e.offsets = append(e.offsets, e.chars)
		piece := stream.Push(id)
		e.chars += utf8.RuneCountInString(piece)
		out.WriteString(piece)
	}
	rest := stream.Flush()
	e.chars += utf8.RuneCountInString(rest)
	out.WriteString(rest)
	e.text = out.String()
	return e
}

// echoed adds the tokens of the prompt, of which the first has no probability.
func (s *Server) echoed(l *legacyLogProbs, prompt []int32, e echoText, places []infer.Place, n int) {
	for i, id := range prompt {
		if i == 0 || i > len(places) {
			l.Tokens = append(l.Tokens, s.names(id))
			l.Chosen = append(l.Chosen, nil)
			l.Top = append(l.Top, nil)
			l.Offsets = append(l.Offsets, e.offsets[i])
			continue
		}
		p := places[i-1]
		l.add(s.names(id), s.topNames(p, n), p.Chosen.LogProb, e.offsets[i])
	}
}

// seen is what prompt_logprobs say of one token.
type seen struct {
	LogProb logProb `json:"logprob"`
	Rank    int     `json:"rank"`
	Text    string  `json:"decoded_token"`
}

// promptSeen lists the chosen and the best tokens of each place by id; null for the first.
func (s *Server) promptSeen(prompt []int32, places []infer.Place, n int) []map[string]seen {
	all := []map[string]seen{nil}
	for _, p := range places {
		m := map[string]seen{}
		for k, t := range p.Top[:min(n, len(p.Top))] {
			m[strconv.Itoa(int(t.ID))] = seen{logProb(t.LogProb), k + 1, s.names(t.ID)}
		}
		m[strconv.Itoa(int(p.Chosen.ID))] = seen{logProb(p.Chosen.LogProb), p.Rank, s.names(p.Chosen.ID)}
		all = append(all, m)
	}
	return all[:min(len(all), len(prompt))]
}

// chatLogProb is what chats say of one token.
type chatLogProb struct {
	Token   string        `json:"token"`
	LogProb logProb       `json:"logprob"`
	Bytes   []int         `json:"bytes"`
	Top     []chatLogProb `json:"top_logprobs,omitzero"`
}

type chatLogProbs struct {
	Content []chatLogProb `json:"content"`
	Refusal *string       `json:"refusal"`
}

func (s *Server) chatPlace(p infer.Place, n int) chatLogProb {
	top := make([]chatLogProb, 0, n)
	for _, t := range p.Top[:min(n, len(p.Top))] {
		top = append(top, s.chatToken(t))
	}
	c := s.chatToken(p.Chosen)
	c.Top = top
	return c
}

func (s *Server) chatToken(t infer.TokenLogProb) chatLogProb {
	b := s.o.Tokenizer.Bytes(t.ID)
	out := chatLogProb{Token: s.names(t.ID), LogProb: logProb(t.LogProb), Bytes: make([]int, len(b))}
	for i, c := range b {
		out.Bytes[i] = int(c)
	}
	return out
}
