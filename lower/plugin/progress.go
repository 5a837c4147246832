package plugin

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// progress tells a person how a download goes: a bar on a terminal, else two lines.
type progress struct {
	w     io.Writer // nil: silent
	what  string
	tty   bool
	begun bool
	bytes int64
	bar   *progressbar.ProgressBar
}

// bar makes the progress of a wheel's download.
func (o Options) bar(w wheel) *progress {
	f, ok := o.Progress.(*os.File)
	return &progress{w: o.Progress, what: w.String(), tty: ok && term.IsTerminal(int(f.Fd()))}
}

// start says that the body begins at byte have and has rest bytes more, or -1 if that is unknown.
func (p *progress) start(have, rest int64) {
	p.bytes = have
	if p.w == nil {
		return
	}
	total := int64(-1)
	if rest >= 0 {
		total = have + rest
	}
	if !p.tty {
		if !p.begun {
			fmt.Fprintf(p.w, "downloading %s (%s)\n", p.what, size(total))
		}
		p.begun = true
		return
	}
	if p.bar == nil {
		p.bar = progressbar.NewOptions64(total,
			progressbar.OptionSetWriter(p.w),
			progressbar.OptionSetDescription("downloading "+p.what),
			progressbar.OptionShowBytes(true),
			progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionClearOnFinish())
	}
	_ = p.bar.Set64(have) // a bar that cannot be drawn is no reason to stop
}

func (p *progress) add(n int) {
	p.bytes += int64(n)
	if p.bar != nil {
		_ = p.bar.Add(n)
	}
}

// done says that the wheel is here and checked.
func (p *progress) done() {
	p.close()
	if p.w != nil {
		fmt.Fprintf(p.w, "downloaded %s (%s)\n", p.what, size(p.bytes))
	}
}

// close takes the bar off the terminal.
func (p *progress) close() {
	if p.bar != nil {
		_ = p.bar.Clear()
		p.bar = nil
	}
}

// lines writes a first line and returns what writes the last.
func (o Options) lines(first string) func(last string) {
	if o.Progress == nil {
		return func(string) {}
	}
	fmt.Fprintln(o.Progress, first)
	return func(last string) { fmt.Fprintln(o.Progress, last) }
}

// size prints bytes in MB, or "size unknown".
func size(n int64) string {
	if n < 0 {
		return "size unknown"
	}
	return fmt.Sprintf("%.1f MB", float64(n)/1e6)
}
