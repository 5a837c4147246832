package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// progress shows counts on a terminal; elsewhere it is silent.
type progress struct {
	to                    io.Writer // nil for silence
	mu                    sync.Mutex
	total                 int // 0 where unknown
	out, answered, failed int
	shown                 time.Time
}

func newProgress(log io.Writer, total int) *progress {
	if f, ok := log.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return &progress{to: log, total: total}
	}
	return &progress{}
}

func (p *progress) sent() { p.update(func() { p.out++ }) }

func (p *progress) ended(answered bool) {
	p.update(func() {
		p.out--
		if answered {
			p.answered++
		} else {
			p.failed++
		}
	})
}

func (p *progress) update(count func()) {
	if p.to == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	count()
	if now := time.Now(); now.Sub(p.shown) > 100*time.Millisecond {
		p.shown = now
		of := ""
		if p.total > 0 {
			of = fmt.Sprintf(" of %d", p.total)
		}
		fmt.Fprintf(p.to, "\r\x1b[K%d%s answered, %d failed, %d in flight", p.answered, of, p.failed, p.out)
	}
}

// done clears what is shown.
func (p *progress) done() {
	if p.to != nil {
		fmt.Fprint(p.to, "\r\x1b[K")
	}
}
