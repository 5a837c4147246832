package main

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"text/tabwriter"

	"mix/graph/token"
	"mix/internal/cli"
	"mix/train/data"
)

type inspect struct {
	Prefix    string `arg:"" help:"The dataset's files without .bin and .idx."`
	Tokenizer string `placeholder:"PATH" help:"Check that the dataset was made with this tokenizer and show text."`
	Show      int    `placeholder:"N" help:"Show the first N documents, with --tokenizer as text, else as ids."`
	JSON      bool   `name:"json" help:"Print one JSON object."`
}

// report is what inspect prints.
type report struct {
	Prefix    string         `json:"prefix"`
	DType     string         `json:"dtype"`
	Documents int            `json:"documents"`
	Empty     int            `json:"empty_documents"`
	Sequences int            `json:"sequences"`
	Tokens    int64          `json:"tokens"`
	Shortest  int            `json:"shortest_sequence"` // tokens
	Longest   int            `json:"longest_sequence"`  // tokens
	Mean      float64        `json:"mean_sequence"`     // tokens
	MinID     int32          `json:"min_id"`
	MaxID     int32          `json:"max_id"`
	Made      *data.Manifest `json:"made,omitempty"`
	First     []string       `json:"first,omitempty"`
}

// Run reads every token, so a dataset that it describes is readable to its end.
func (c *inspect) Run(streams *cli.IO) error {
	if c.Show < 0 {
		return fmt.Errorf("%w: show is %d, want at least 0", cli.ErrUsage, c.Show)
	}
	x, err := data.Open(c.Prefix)
	if err != nil {
		return err
	}
	defer x.Close()
	var t *token.Tokenizer
	if c.Tokenizer != "" {
		if t, err = tokenizer(c.Tokenizer); err == nil {
			err = x.CheckTokenizer(t)
		}
		if err != nil {
			return err
		}
	}
	r, err := describe(x, t)
	if err != nil {
		return err
	}
	r.Prefix = c.Prefix
	for i := range min(c.Show, x.Documents()) {
		text, err := show(x, i, t)
		if err != nil {
			return err
		}
		r.First = append(r.First, text)
	}
	if c.JSON {
		return json.NewEncoder(streams.Out).Encode(r)
	}
	return r.print(streams)
}

// describe goes over all tokens; with a tokenizer, an id that it has not is an error.
func describe(x *data.Indexed, t *token.Tokenizer) (r report, err error) {
	r = report{DType: x.DType().String(), Documents: x.Documents(), Sequences: x.Sequences(), Made: x.Manifest()}
	for i := range x.Documents() {
		if begin, end := x.Document(i); begin == end {
			r.Empty++
		}
	}
	r.Shortest, r.MinID, r.MaxID = math.MaxInt, math.MaxInt32, math.MinInt32
	var ids []int32
	for i := range x.Sequences() {
		n := x.Length(i)
		r.Tokens += int64(n)
		r.Shortest, r.Longest = min(r.Shortest, n), max(r.Longest, n)
		ids = append(ids[:0], make([]int32, n)...)
		if err := x.Read(ids, i, 0); err != nil {
			return r, err
		}
		for j, id := range ids {
			r.MinID, r.MaxID = min(r.MinID, id), max(r.MaxID, id)
			if t != nil && (id < 0 || int(id) >= t.VocabSize()) {
				return r, fmt.Errorf("%s: token id %d, want 0 to %d, the vocabulary", x.Where(i, j), id, t.VocabSize()-1)
			}
		}
	}
	if r.Sequences > 0 {
		r.Mean = float64(r.Tokens) / float64(r.Sequences)
	} else {
		r.Shortest = 0
	}
	if r.Tokens == 0 {
		r.MinID, r.MaxID = 0, 0
	}
	return r, nil
}

// show is a document as text, or as ids without a tokenizer.
func show(x *data.Indexed, document int, t *token.Tokenizer) (string, error) {
	var all []int32
	begin, end := x.Document(document)
	for i := begin; i < end; i++ {
		ids := make([]int32, x.Length(i))
		if err := x.Read(ids, i, 0); err != nil {
			return "", err
		}
		all = append(all, ids...)
	}
	if t != nil {
		return t.DecodeWithControls(all), nil
	}
	return strings.Trim(fmt.Sprint(all), "[]"), nil
}

func (r report) print(streams *cli.IO) error {
	w := tabwriter.NewWriter(streams.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "documents\t%d, of them empty %d\n", r.Documents, r.Empty)
	fmt.Fprintf(w, "sequences\t%d of %d to %d tokens, %.1f on average\n", r.Sequences, r.Shortest, r.Longest, r.Mean)
	fmt.Fprintf(w, "tokens\t%d in %s, ids %d to %d\n", r.Tokens, r.DType, r.MinID, r.MaxID)
	if m := r.Made; m != nil {
		fmt.Fprintf(w, "tokenizer\t%.12s… of %d ids\n", m.Tokenizer, m.VocabSize)
		fmt.Fprintf(w, "made with\tappend-eod %t, prepend-bos %t, %d bad lines left out\n", m.AppendEOD, m.PrependBOS, m.BadLines)
	}
	for i, text := range r.First {
		fmt.Fprintf(w, "document %d\t%q\n", i, text)
	}
	return w.Flush()
}
