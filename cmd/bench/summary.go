package main

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// summary is what --json prints. Times are in seconds; latencies are of answered requests only.
type summary struct {
	URL         string  `json:"url"`
	Model       string  `json:"model"`
	Endpoint    string  `json:"endpoint"`
	Stream      bool    `json:"stream"`
	Seed        uint64  `json:"seed"`
	Loop        string  `json:"loop"`                  // open or closed
	Rate        float64 `json:"rate,omitempty"`        // wanted requests a second
	Concurrency int     `json:"concurrency,omitempty"` // clients

	Seconds   float64   `json:"seconds"` // from the start to the last end
	Requests  int       `json:"requests"`
	Completed int       `json:"completed"`
	Failed    int       `json:"failed"`
	Cut       int       `json:"cut_off"`      // in flight when a signal ended the measurement; not among the requests
	Textless  int       `json:"without_text"` // completed streams in which no text came
	InFlight  int       `json:"max_in_flight"`
	Errors    []failure `json:"errors"`

	RequestRate float64 `json:"requests_per_second"`
	InputRate   float64 `json:"input_tokens_per_second"`
	OutputRate  float64 `json:"output_tokens_per_second"`
	CountedBy   string  `json:"tokens_counted_by"` // usage, chunks, both or nothing

	First   *stats `json:"ttft_seconds"`        // from when it was due to the first text
	Gap     *stats `json:"inter_token_seconds"` // between pieces of text
	Token   *stats `json:"per_token_seconds"`   // of each request, from its first text on: time over tokens but one
	Whole   *stats `json:"e2e_seconds"`         // from when it was due to the end
	Lag     *stats `json:"send_lag_seconds"`    // how late requests were sent: the fault of this client
	Prompts *stats `json:"prompt_tokens"`
	Answers *stats `json:"output_tokens"`
}

// failure is a kind of error.
type failure struct {
	Kind    string `json:"kind"`
	Count   int    `json:"count"`
	Example string `json:"example"`
}

// stats describe numbers. Percentiles are interpolated linearly between the two nearest numbers.
type stats struct {
	Count int     `json:"count"`
	Mean  float64 `json:"mean"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	Max   float64 `json:"max"`
}

// samples are the numbers that latencies are made of, in seconds.
type samples struct{ first, gap, token, whole, lag, prompts, answers []float64 }

func gather(records []record) (s samples) {
	for _, r := range records {
		if r.cut {
			continue
		}
		s.lag = append(s.lag, (r.sent - r.due).Seconds())
		if r.err != nil {
			continue
		}
		s.whole = append(s.whole, (r.end - r.due).Seconds())
		if r.prompt > 0 {
			s.prompts = append(s.prompts, float64(r.prompt))
		}
		if r.byUsed || len(r.chunks) > 0 {
			s.answers = append(s.answers, float64(r.answer))
		}
		for i, at := range r.chunks {
			if i == 0 {
				s.first = append(s.first, (at - r.due).Seconds())
				continue
			}
			s.gap = append(s.gap, (at - r.chunks[i-1]).Seconds())
		}
		if n := len(r.chunks); n > 1 && r.answer > 1 {
			s.token = append(s.token, (r.chunks[n-1]-r.chunks[0]).Seconds()/float64(r.answer-1))
		}
	}
	return s
}

func summarize(records []record) summary {
	s := gather(records)
	r := summary{First: describe(s.first), Gap: describe(s.gap), Token: describe(s.token), Whole: describe(s.whole),
		Lag: describe(s.lag), Prompts: describe(s.prompts), Answers: describe(s.answers), Errors: []failure{}, InFlight: inFlight(records)}
	kinds := map[string]*failure{}
	var last time.Duration
	var in, out float64
	var used, counted bool
	for _, x := range records {
		last = max(last, x.end)
		if x.cut {
			r.Cut++
			continue
		}
		r.Requests++
		if x.err != nil {
			k := kind(x.err)
			if kinds[k] == nil {
				kinds[k] = &failure{Kind: k, Example: x.err.Error()}
			}
			kinds[k].Count++
			r.Failed++
			continue
		}
		r.Completed++
		in, out = in+float64(x.prompt), out+float64(x.answer)
		used, counted = used || x.byUsed, counted || !x.byUsed && len(x.chunks) > 0
	}
	r.Textless = r.Completed - len(s.first)
	for _, f := range kinds {
		r.Errors = append(r.Errors, *f)
	}
	slices.SortFunc(r.Errors, func(a, b failure) int { return cmp.Or(b.Count-a.Count, cmp.Compare(a.Kind, b.Kind)) })
	if r.Seconds = last.Seconds(); r.Seconds > 0 {
		r.RequestRate, r.InputRate, r.OutputRate = float64(r.Completed)/r.Seconds, in/r.Seconds, out/r.Seconds
	}
	switch {
	case used && counted:
		r.CountedBy = "both"
	case used:
		r.CountedBy = "usage"
	case counted:
		r.CountedBy = "chunks"
	default:
		r.CountedBy = "nothing"
	}
	return r
}

// describe is nil where there are no numbers. It sorts them.
func describe(x []float64) *stats {
	if len(x) == 0 {
		return nil
	}
	slices.Sort(x)
	sum := 0.
	for _, v := range x {
		sum += v
	}
	return &stats{len(x), sum / float64(len(x)), percentile(x, 0.5), percentile(x, 0.9), percentile(x, 0.99), x[len(x)-1]}
}

// percentile of sorted numbers, p from 0 to 1.
func percentile(x []float64, p float64) float64 {
	at := p * float64(len(x)-1)
	i := int(math.Floor(at))
	if i+1 >= len(x) {
		return x[len(x)-1]
	}
	return x[i] + (at-float64(i))*(x[i+1]-x[i])
}

// change is how many requests more are in flight from a time on.
type change struct {
	at time.Duration
	by int
}

func changes(records []record) []change {
	var all []change
	for _, r := range records {
		all = append(all, change{r.sent, 1}, change{r.end, -1})
	}
	slices.SortFunc(all, func(a, b change) int { return cmp.Or(cmp.Compare(a.at, b.at), a.by-b.by) })
	return all
}

func inFlight(records []record) (most int) {
	now := 0
	for _, c := range changes(records) {
		now += c.by
		most = max(most, now)
	}
	return most
}
