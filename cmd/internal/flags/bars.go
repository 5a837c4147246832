package flags

import (
	"io"
	"os"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// bars show loading and compiling on a terminal. Elsewhere they are silent.
type bars struct {
	to  io.Writer
	bar *progressbar.ProgressBar
}

func newBars(log io.Writer) *bars {
	if f, ok := log.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return &bars{to: log}
	}
	return &bars{}
}

// loading is told of the bytes of weights on the device.
func (b *bars) loading(done, total int64) {
	if b.to == nil {
		return
	}
	if b.bar == nil {
		b.bar = progressbar.NewOptions64(total, progressbar.OptionSetWriter(b.to), progressbar.OptionShowBytes(true),
			progressbar.OptionSetDescription("loading weights"), progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(50e6))
	}
	b.bar.Set64(done)
}

// compiling is told of a program before it is compiled. How long that takes nobody knows, so the bar spins.
func (b *bars) compiling(program string) (compiled func()) {
	if b.to == nil {
		return func() {}
	}
	b.done()
	b.bar = progressbar.NewOptions(-1, progressbar.OptionSetWriter(b.to), progressbar.OptionSetDescription("compiling "+program),
		progressbar.OptionSpinnerType(14), progressbar.OptionSetElapsedTime(true), progressbar.OptionClearOnFinish())
	b.bar.RenderBlank()
	return b.done
}

// done clears what is shown.
func (b *bars) done() {
	if b.bar != nil {
		b.bar.Finish()
		b.bar = nil
	}
}
