package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"strings"

	"mix/cmd/chat/openai"
)

// source makes requests. The same i gives the same one, whatever the order they are asked for in.
type source interface{ ask(i int) openai.Ask }

// prompts is what sources share.
type prompts struct {
	base   openai.Ask
	chat   bool
	answer lengths
	seed   uint64
}

func (p *prompts) random(i int) *rand.Rand { return rand.New(rand.NewPCG(p.seed, uint64(i))) }

// with is a request with this text.
func (p *prompts) with(text string, tokens int) openai.Ask {
	a := p.base
	a.MaxTokens = &tokens
	if p.chat {
		a.Messages = []openai.Message{{Role: "user", Content: text}}
	} else {
		a.Prompt = &text
	}
	return a
}

// vocabulary are common words, so that most tokenizers take few tokens for each.
var vocabulary = strings.Fields(`about after again all also and another any are because been before being between both but
came can come could day did different does down each end even every few find first for found from get give good great had
hand has have her here him his house how into its just know large last left life line little long look made make man many
may men might more most much must name never new night not now number off old one only other our out over own part people
place right same saw say see set she should show small some sound still such take tell than that the their them then there
these they thing think this those thought three through time together too two under until use very want was water way well
went were what when where which while who why will with without word work world would write year you your`)

// words are prompts of random words. Each begins differently, so no server answers from a cache of prefixes.
type words struct {
	prompts
	prompt lengths
	each   float64 // tokens a word
	fixed  float64 // tokens of a prompt beside its words
}

func (w *words) ask(i int) openai.Ask {
	r := w.random(i)
	n := int(math.Round((float64(w.prompt.draw(r)) - w.fixed) / w.each))
	return w.with(text(r, max(n, 1)), w.answer.draw(r))
}

func text(r *rand.Rand, n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(vocabulary[r.IntN(len(vocabulary))])
	}
	return b.String()
}

// calibrate asks twice to learn from the usage how many tokens words are: tokenizers and templates differ.
func (w *words) calibrate(ctx context.Context, client *openai.Client, log io.Writer) error {
	w.each, w.fixed = 1, 0
	const short, long = 8, 72
	var tokens [2]float64
	for i, n := range []int{short, long} {
		a := w.with(text(w.random(-1000-i), n), 1)
		a.Stream, a.StreamOptions = false, nil
		answer, err := client.Do(ctx, a, func(string) error { return nil })
		if err != nil {
			return fmt.Errorf("asking how many tokens %d words are: %w", n, err)
		}
		if answer.Usage == nil || answer.Usage.Prompt < 1 {
			fmt.Fprintln(log, "the server tells no usage: a word of a prompt is taken for a token")
			return nil
		}
		tokens[i] = float64(answer.Usage.Prompt)
	}
	if each := (tokens[1] - tokens[0]) / (long - short); each > 0 {
		w.each, w.fixed = each, tokens[0]-each*short
	}
	return nil
}

// dataset are the prompts of a file, in its order.
type dataset struct {
	prompts
	lines []line
}

// line is one prompt.
type line struct {
	text     string
	messages json.RawMessage
	tokens   int // 0 where it does not say
}

func (d *dataset) ask(i int) openai.Ask {
	// Requests before the measurement have numbers below 0 and take lines from the end.
	l := d.lines[((i%len(d.lines))+len(d.lines))%len(d.lines)]
	tokens := l.tokens
	if tokens == 0 {
		tokens = d.answer.draw(d.random(i))
	}
	a := d.with(l.text, tokens)
	if l.messages != nil {
		a.Prompt, a.Messages = nil, l.messages
	}
	return a
}

// readDataset reads lines of JSON. A line with messages goes to the chat endpoint whatever --endpoint says.
func readDataset(path string) (lines []line, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	in := bufio.NewReader(f)
	for n := 1; ; n++ {
		raw, err := in.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		if len(strings.TrimSpace(string(raw))) > 0 {
			var l struct {
				Prompt   *string         `json:"prompt"`
				Text     *string         `json:"text"`
				Messages json.RawMessage `json:"messages"`
				Tokens   int             `json:"max_tokens"`
			}
			if err := json.Unmarshal(raw, &l); err != nil {
				return nil, fmt.Errorf("%s: line %d: %w", path, n, err)
			}
			made := line{messages: l.Messages, tokens: l.Tokens}
			switch {
			case l.Prompt != nil:
				made.text = *l.Prompt
			case l.Text != nil:
				made.text = *l.Text
			case len(l.Messages) == 0 || l.Messages[0] != '[':
				return nil, fmt.Errorf("%s: line %d has neither prompt nor text nor a list of messages", path, n)
			}
			if l.Tokens < 0 {
				return nil, fmt.Errorf("%s: line %d: max_tokens is %d, want at least 1", path, n, l.Tokens)
			}
			lines = append(lines, made)
		}
		if err != nil {
			break
		}
	}
	if len(lines) == 0 {
		return nil, fmt.Errorf("%s has no prompt", path)
	}
	return lines, nil
}
