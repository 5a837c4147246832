package main

import (
	"fmt"
	"strings"
)

// table is the summary for people.
func (r summary) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s of %s: %s\n", r.Model, r.URL, r.title())
	fmt.Fprintf(&b, "%d requests in %.2f s: %d answered, %d failed, at most %d at once\n", r.Requests, r.Seconds, r.Completed, r.Failed, r.InFlight)
	if r.Cut > 0 {
		fmt.Fprintf(&b, "  %d more were in flight when it was interrupted\n", r.Cut)
	}
	for _, e := range r.Errors {
		fmt.Fprintf(&b, "  %d × %s, e.g. %s\n", e.Count, e.Kind, strings.Join(strings.Fields(e.Example), " "))
	}
	if r.Stream && r.Textless > 0 {
		fmt.Fprintf(&b, "  %d answers had no text: no time to first token\n", r.Textless)
	}
	fmt.Fprintf(&b, "%.2f requests/s, %.1f tokens/s in, %.1f tokens/s out (tokens counted by %s)\n\n", r.RequestRate, r.InputRate, r.OutputRate, r.CountedBy)
	fmt.Fprintf(&b, "%-24s%10s%10s%10s%10s%10s\n", "milliseconds", "mean", "p50", "p90", "p99", "max")
	for _, x := range r.rows() {
		if x.Stats == nil {
			continue
		}
		fmt.Fprintf(&b, "%-24s", x.Name)
		for _, v := range x.Values() {
			fmt.Fprintf(&b, "%10s", v)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func (r summary) title() string {
	if r.Loop == "open" {
		return fmt.Sprintf("open loop, %g requests/s wanted", r.Rate)
	}
	return fmt.Sprintf("closed loop, %d clients", r.Concurrency)
}

// statRow is a row of the table.
type statRow struct {
	Name  string
	Stats *stats
	unit  float64 // what a number is multiplied with
}

func (r summary) rows() []statRow {
	return []statRow{
		{"time to first token", r.First, 1000}, {"between tokens", r.Gap, 1000}, {"per token after first", r.Token, 1000},
		{"whole answer", r.Whole, 1000}, {"sent late by", r.Lag, 1000}, {"prompt, tokens", r.Prompts, 1}, {"answer, tokens", r.Answers, 1},
	}
}

func (x statRow) Values() (all []string) {
	for _, v := range []float64{x.Stats.Mean, x.Stats.P50, x.Stats.P90, x.Stats.P99, x.Stats.Max} {
		all = append(all, fmt.Sprintf("%.*f", decimals(v*x.unit), v*x.unit))
	}
	return all
}

// decimals are as many as show four digits.
func decimals(v float64) int {
	switch {
	case v < 10:
		return 3
	case v < 100:
		return 2
	case v < 1000:
		return 1
	}
	return 0
}
