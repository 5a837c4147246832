package flags

import (
	"fmt"
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

// compiling is told of a program before it is compiled.
func (b *bars) compiling(program string) {
	if b.to == nil {
		return
	}
	b.done()
	fmt.Fprintf(b.to, "\r\033[Kcompiling %s …\r", program)
}

// done clears what is shown.
func (b *bars) done() {
	if b.bar != nil {
		b.bar.Finish()
		b.bar = nil
	}
	if b.to != nil {
		fmt.Fprint(b.to, "\r\033[K")
	}
}
