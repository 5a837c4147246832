package gpu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"mix/lower/pjrt"
	"mix/lower/target"
	"mix/lower/triton"
)

// Parts are what a session can do, in order.
var Parts = []string{"parity", "grouped", "tune", "serve", "train"}

// Options of a session.
type Options struct {
	Only    []string // of Parts; nil for all, of which tune only with a file
	Small   bool     // tiny sizes, to try everything out
	Seconds float64  // for all parts together
	Tune    string   // file that tiles are written to; "" does not tune
	Tiles   string   // file that tiles are read from; "" is the compiler's own
	Layers  int      // of the model, 0 for as many as fit
	Out     io.Writer
	Log     io.Writer
}

// Session is a run on one device.
type Session struct {
	d      *Device
	o      Options
	table  triton.Table
	report Report
	end    time.Time
}

// shares of the time that is left, of parts that are all asked for.
var shares = map[string]float64{"parity": 0.3, "grouped": 0.25, "tune": 0.35, "serve": 0.6, "train": 1}

// Run does the parts, each within its share of the time that is left. Rows go to Out as they come. An error of a part
// does not keep the others from running; it is in the report, which is whole in any case.
func Run(ctx context.Context, d *Device, o Options) (*Report, error) {
	s := &Session{d: d, o: o, end: time.Now().Add(time.Duration(o.Seconds * float64(time.Second)))}
	s.report = Report{Device: d.Kind, Platform: d.Platform, Chip: d.Chip.Name, Date: time.Now().Format(time.DateOnly), Small: o.Small}
	s.table = triton.Default()
	if o.Tiles != "" {
		text, err := os.ReadFile(o.Tiles)
		if err != nil {
			return nil, err
		}
		if s.table, err = triton.ParseTable(text); err != nil {
			return nil, fmt.Errorf("%s: %w", o.Tiles, err)
		}
	}
	s.line("device\t%s\tchip\t%s\t%s", d.Kind, orUnknown(d.Chip.Name), s.report.Date)
	work := map[string]func(context.Context) error{"parity": s.parity, "grouped": s.groupedRates, "tune": s.tune, "serve": s.serving, "train": s.training}
	for _, part := range Parts {
		if len(o.Only) > 0 && !slices.Contains(o.Only, part) || part == "tune" && o.Tune == "" {
			continue
		}
		left := time.Until(s.end)
		if left <= 0 || ctx.Err() != nil {
			s.skip(part, "the time was up")
			continue
		}
		if len(o.Only) != 1 {
			left = time.Duration(float64(left) * shares[part])
		}
		bounded, stop := context.WithTimeout(ctx, left)
		start := time.Now()
		err := work[part](bounded)
		stop()
		fmt.Fprintf(o.Log, "%s: %.1f s\n", part, time.Since(start).Seconds())
		if err != nil {
			s.skip(part, firstLine(err))
			s.report.Failed = true
		}
	}
	return &s.report, ctx.Err()
}

// kernels tells whether the device runs them.
func (s *Session) kernels() bool { return s.d.Platform == target.CUDA }

// skip notes what was not measured.
func (s *Session) skip(part, why string) {
	s.report.Skipped = append(s.report.Skipped, Skipped{part, why})
	s.line("%s\tnot measured: %s", part, why)
}

// line writes a row of the table as it comes.
func (s *Session) line(format string, args ...any) {
	fmt.Fprintln(s.o.Out, strings.ReplaceAll(fmt.Sprintf(format, args...), "\t", "  "))
}

func orUnknown(name string) string {
	if name == "" {
		return "unknown: no share of its peak rates is given"
	}
	return name
}

// firstLine is what an error says first: XLA's go on for pages.
func firstLine(err error) string {
	text := strings.TrimSpace(err.Error())
	line, rest, _ := strings.Cut(text, "\n")
	if rest != "" && len(line) < 60 {
		line += " " + strings.TrimSpace(strings.SplitN(rest, "\n", 2)[0])
	}
	if r := []rune(line); len(r) > 300 {
		line = string(r[:300]) + "…"
	}
	return line
}

// noMemory tells that the device has no room for a program or a tensor.
func noMemory(err error) bool {
	return errors.Is(err, &pjrt.Error{Code: pjrt.ErrorCodeRESOURCEEXHAUSTED}) || err != nil && strings.Contains(err.Error(), "ut of memory")
}
