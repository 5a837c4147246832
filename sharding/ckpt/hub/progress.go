package hub

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// progress tells a person how a download goes: a bar on a terminal, else lines. A nil one is silent, as is
// one that writes nowhere. Several files report to one.
type progress struct {
	w    io.Writer
	mu   sync.Mutex
	here int64                    // bytes of the files that were missing
	bar  *progressbar.ProgressBar // nil elsewhere than on a terminal
}

func newProgress(w io.Writer) *progress { return &progress{w: w} }

// start says what is to come.
func (p *progress) start(what string, files int, bytes int64) {
	p.say("downloading %s: %d files, %s", what, files, size(bytes))
	f, ok := p.w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bar = progressbar.NewOptions64(bytes,
		progressbar.OptionSetWriter(p.w),
		progressbar.OptionSetDescription("downloading"),
		progressbar.OptionShowBytes(true),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish())
}

// add counts bytes that are here, or with a negative n bytes that were thrown away.
func (p *progress) add(n int64) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.here += n
	if p.bar != nil {
		_ = p.bar.Set64(p.here) // a bar that cannot be drawn is no reason to stop
	}
}

// say writes a line above the bar.
func (p *progress) say(format string, args ...any) {
	if p == nil || p.w == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar != nil {
		_ = p.bar.Clear()
	}
	fmt.Fprintf(p.w, format+"\n", args...)
}

// close takes the bar off the terminal.
func (p *progress) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar != nil {
		_ = p.bar.Clear()
		p.bar = nil
	}
}

// size prints bytes in MB or GB.
func size(n int64) string {
	if n >= 1e9 {
		return fmt.Sprintf("%.1f GB", float64(n)/1e9)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/1e6)
}
