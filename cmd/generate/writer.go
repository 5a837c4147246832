package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"mix/graph/token"
)

// writer prints tokens as text as they come, up to the first stop text. It holds back what could still
// become the beginning of one.
type writer struct {
	out    io.Writer
	stream *token.Stream
	stops  []string
	held   string
	ended  bool
	err    error

	printed bool // anything
}

func newWriter(out io.Writer, stream *token.Stream, stops []string) *writer {
	return &writer{out: out, stream: stream, stops: stops}
}

// token takes the next one and tells whether to go on.
func (w *writer) token(id int32) bool {
	w.take(w.stream.Push(id))
	return !w.ended && w.err == nil
}

// finish prints what is held back and ends the line, unless the generation failed before any text.
func (w *writer) finish(failed bool) error {
	w.take(w.stream.Flush())
	if !w.ended {
		w.print(w.held)
	}
	if w.printed || !failed {
		w.print("\n")
	}
	return w.err
}

func (w *writer) take(text string) {
	if w.ended {
		return
	}
	w.held += text
	end := len(w.held) // the earliest stop text, whichever it is
	for _, s := range w.stops {
		if i := strings.Index(w.held, s); s != "" && i >= 0 {
			end, w.ended = min(end, i), true
		}
	}
	w.held = w.held[:end]
	keep := 0 // the longest end of held that begins a stop text
	if !w.ended {
		for _, s := range w.stops {
			for n := min(len(s)-1, len(w.held)); n > keep; n-- {
				if strings.HasSuffix(w.held, s[:n]) {
					keep = n
				}
			}
		}
	}
	w.print(w.held[:len(w.held)-keep])
	w.held = w.held[len(w.held)-keep:]
}

func (w *writer) print(text string) {
	if w.err != nil || text == "" {
		return
	}
	w.printed = true
	if _, err := io.WriteString(w.out, text); err != nil {
		w.err = fmt.Errorf("output: %w", err)
	}
}

// rate is n per second.
func rate(n int, d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return float64(n) / d.Seconds()
}
