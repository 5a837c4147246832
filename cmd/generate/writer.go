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
}

func newWriter(out io.Writer, stream *token.Stream, stops []string) *writer {
	return &writer{out: out, stream: stream, stops: stops}
}

// token takes the next one and tells whether to go on.
func (w *writer) token(id int32) bool {
	w.take(w.stream.Push(id))
	return !w.ended && w.err == nil
}

// finish prints what is held back, and ends the line.
func (w *writer) finish() error {
	w.take(w.stream.Flush())
	if !w.ended {
		w.print(w.held)
	}
	w.print("\n")
	return w.err
}

func (w *writer) take(text string) {
	if w.ended {
		return
	}
	w.held += text
	for _, s := range w.stops {
		if i := strings.Index(w.held, s); s != "" && i >= 0 {
			w.held, w.ended = w.held[:i], true
		}
	}
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
	if w.err == nil && text != "" {
		_, w.err = io.WriteString(w.out, text)
	}
	if w.err != nil {
		w.err = fmt.Errorf("output: %w", w.err)
	}
}

// rate is n per second.
func rate(n int, d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return float64(n) / d.Seconds()
}
