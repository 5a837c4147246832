package main

import (
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// tokenizing shows on a terminal how much of a file is tokenized; elsewhere it is nil.
func tokenizing(to io.Writer) func(path string, done, total int64) {
	f, ok := to.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	var bar *progressbar.ProgressBar
	shown := ""
	return func(path string, done, total int64) {
		if path != shown {
			shown = path
			bar = progressbar.NewOptions64(total, progressbar.OptionSetWriter(f), progressbar.OptionShowBytes(true),
				progressbar.OptionSetDescription("tokenizing "+filepath.Base(path)), progressbar.OptionSetPredictTime(true),
				progressbar.OptionThrottle(50*time.Millisecond), progressbar.OptionClearOnFinish())
		}
		_ = bar.Set64(done) // at total it clears itself
	}
}
