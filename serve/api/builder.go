package api

import (
	"net/http"

	"mix/serve/infer"
)

// builder writes the texts of a completion as choices, whole or in pieces.
type builder struct {
	s     *Server
	c     *completion
	jobs  []job
	best  int
	lines []line
}

// line is how far a choice has come.
type line struct {
	begun bool
	chars int // of the echoed prompt
}

// choice writes a piece of text i.
func (b *builder) choice(i int, p piece) completionChoice {
	j, l := b.jobs[i], &b.lines[i]
	ch := completionChoice{Index: i, Text: p.text}
	want := b.c.LogProbs != nil
	if want {
		ch.LogProbs = &legacyLogProbs{Tokens: []string{}, Chosen: []*logProb{}, Top: []map[string]logProb{}, Offsets: []int{}}
	}
	if !l.begun {
		l.begun = true
		if b.c.ReturnTokenIDs {
			ch.PromptIDs = j.Prompt
		}
		if b.c.Echo {
			before := b.s.echo(j.Prompt)
			l.chars = before.chars
			ch.Text = before.text + ch.Text
			if want {
				b.s.echoed(ch.LogProbs, j.Prompt, before, p.prompt, *b.c.LogProbs)
			}
		}
		if b.c.PromptLogProbs != nil {
			ch.PromptLogProbs = b.s.promptSeen(j.Prompt, p.prompt, *b.c.PromptLogProbs)
		}
	}
	for _, t := range p.tokens {
		if want && t.place != nil {
			ch.LogProbs.add(b.s.names(t.id), b.s.topNames(*t.place, *b.c.LogProbs), t.place.Chosen.LogProb, l.chars+t.offset)
		}
		if b.c.ReturnTokenIDs {
			ch.TokenIDs = append(ch.TokenIDs, t.id)
		}
		if b.c.ReturnExperts {
			ch.Experts = append(ch.Experts, numbers(t.experts))
		}
	}
	if p.end != nil {
		ch.Finish, ch.Stop = finish(p.end)
	}
	return ch
}

// finish names the end of a text, and the stop string or id that it was.
func finish(e *ending) (*string, any) {
	reason := string(e.finish)
	switch {
	case e.stop != "":
		return &reason, e.stop
	case e.finish == infer.FinishStop && e.stopID >= 0:
		return &reason, e.stopID
	}
	return &reason, nil
}

// stream sends the pieces as they come.
func (b *builder) stream(w http.ResponseWriter, r *http.Request, a completionAnswer, pieces <-chan piece) error {
	e, err := b.s.stream(w)
	if err != nil {
		return err
	}
	m := meter{jobs: b.jobs, best: b.best}
	opts := or(b.c.StreamOptions, streamOptions{})
	send := func(p piece) error {
		m.count(p)
		a.Choices = []completionChoice{b.choice(p.index, p)}
		if opts.Continuous {
			a.Usage = m.usage()
		}
		return e.data("", a)
	}
	if err := b.s.forward(r.Context(), len(b.jobs), pieces, send, e.keepAlive); err != nil {
		return b.s.abort(e, w, openAI, err)
	}
	if opts.Usage {
		a.Choices, a.Usage = []completionChoice{}, m.usage()
		if err := e.data("", a); err != nil {
			return err
		}
	}
	return e.done()
}

// numbers makes experts readable: bytes would be written as base64.
func numbers(experts [][]uint8) [][]int {
	out := make([][]int, len(experts))
	for l, chosen := range experts {
		out[l] = make([]int, len(chosen))
		for k, e := range chosen {
			out[l][k] = int(e)
		}
	}
	return out
}

// meter counts the tokens of a stream.
type meter struct {
	jobs []job
	best int
	made map[int]infer.Usage // by text
}

func (m *meter) count(p piece) {
	if m.made == nil {
		m.made = map[int]infer.Usage{}
	}
	u := m.made[p.index]
	u.Prompt = len(m.jobs[p.index].Prompt)
	u.Generated += len(p.tokens)
	if p.end != nil {
		u = p.end.usage
	}
	m.made[p.index] = u
}

func (m *meter) usage() *usage {
	total := &usage{}
	for i := range m.jobs {
		total.add(m.made[i], i%m.best == 0)
	}
	return total
}
