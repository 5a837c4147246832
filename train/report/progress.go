package report

import (
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
)

// How often the line is written: in place on a terminal, as lines of their own elsewhere.
const (
	redrawEvery = 100 * time.Millisecond
	plainEvery  = 5 * time.Second
)

// ProgressOn makes f the place of the progress line, as a terminal of its width if it is one.
func (o *Options) ProgressOn(f *os.File) {
	fd := int(f.Fd())
	o.Progress, o.Terminal = f, term.IsTerminal(fd)
	o.Width = func() int {
		width, _, err := term.GetSize(fd)
		if err != nil {
			return 0
		}
		return width
	}
}

// progressLine writes a line about the last step. On a terminal it stands below everything else that
// is said. What cannot be written is lost: nobody reads it.
type progressLine struct {
	to       io.Writer
	terminal bool
	width    func() int
	at       time.Time // of the last writing
	pending  string    // a line that was too early to write
	shown    string    // what stands on the terminal now
}

func newProgressLine(o Options) *progressLine {
	p := &progressLine{to: o.Progress, terminal: o.Terminal, width: o.Width}
	if p.to == nil {
		p.to = io.Discard
	}
	return p
}

func (p *progressLine) step(now time.Time, s Step, left time.Duration) {
	every, columns := plainEvery, math.MaxInt
	if p.terminal {
		every, columns = redrawEvery, p.columns()
	}
	if p.to == io.Discard {
		return
	}
	p.pending = fit(parts(s, left), columns)
	if p.at.IsZero() || s.Step == s.Steps || now.Sub(p.at) >= every {
		p.at = now
		p.flush()
	}
}

// columns is how many the line may use: the last stays free, terminals wrap there.
func (p *progressLine) columns() int {
	if p.width != nil {
		if w := p.width(); w > 0 {
			return w - 1
		}
	}
	return 79
}

func (p *progressLine) flush() {
	switch {
	case p.pending == "":
		return
	case p.terminal:
		p.shown = p.pending
		io.WriteString(p.to, "\r"+p.shown+"\x1b[K")
	default:
		io.WriteString(p.to, p.pending+"\n")
	}
	p.pending = ""
}

// say writes whole lines above the line. The last step came before them, so its line does too.
func (p *progressLine) say(text string) {
	p.flush()
	if p.shown == "" {
		io.WriteString(p.to, text)
		return
	}
	if !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	io.WriteString(p.to, "\r\x1b[K"+text+p.shown)
}

// close leaves the last line standing.
func (p *progressLine) close() {
	p.flush()
	if p.shown != "" {
		io.WriteString(p.to, "\n")
		p.shown = ""
	}
}

// part is a piece of the line. Pieces of the highest rank go first when there is no room.
type part struct {
	rank int
	text string
}

func parts(s Step, left time.Duration) []part {
	list := []part{
		{0, fmt.Sprintf("step %d/%d", s.Step, s.Steps)},
		{1, fmt.Sprintf("loss %.3f", s.Loss)},
		{5, fmt.Sprintf("lr %.1e", s.LR)},
		{4, "norm " + short(s.GradNorm)},
		{3, count(s.TokensPerSecond) + " tok/s"},
	}
	if s.MFU > 0 {
		list = append(list, part{6, fmt.Sprintf("mfu %.0f%%", 100*s.MFU)})
	}
	if left >= 0 && s.Step < s.Steps {
		list = append(list, part{2, "eta " + span(left.Round(time.Second).Seconds())})
	}
	switch {
	case !s.Good:
		list = append(list, part{1, fmt.Sprintf("update skipped (%d in all)", s.Skipped)})
	case s.Skipped > 0:
		list = append(list, part{3, fmt.Sprintf("%d skipped", s.Skipped)})
	}
	if s.Dropped > 0 {
		list = append(list, part{3, fmt.Sprintf("dropped %s%%", short(100*s.Dropped))})
	}
	if b := meanBalance(s.Load); !math.IsNaN(b) {
		if bars := bars(s.Load); bars != "" {
			list = append(list, part{8, "experts " + bars})
		}
		list = append(list, part{7, fmt.Sprintf("(balance max/mean %.2f)", b)})
	}
	return list
}

// fit joins what there is room for.
func fit(list []part, columns int) string {
	for {
		texts, worst := make([]string, len(list)), 0
		for i, p := range list {
			texts[i] = p.text
			if p.rank >= list[worst].rank {
				worst = i
			}
		}
		line := strings.Join(texts, " ")
		if utf8.RuneCountInString(line) <= columns {
			return line
		}
		if len(list) == 1 {
			return string([]rune(line)[:max(columns, 0)])
		}
		list = append(list[:worst:worst], list[worst+1:]...)
	}
}

// maxBars is how many experts still make a legible row of bars.
const maxBars = 32

// bars shows each expert's share, the mean over layers: the fourth of eight heights is an even share,
// the highest twice that or more. It is empty for too many experts.
func bars(load [][]float64) string {
	experts := len(load[0])
	if experts > maxBars {
		return ""
	}
	const heights = "▁▂▃▄▅▆▇█"
	runes := []rune(heights)
	var b strings.Builder
	for e := range experts {
		share := 0.0
		for _, layer := range load {
			if e < len(layer) {
				share += layer[e] / float64(len(load))
			}
		}
		level := int(math.Round(share * float64(experts) * 4))
		b.WriteRune(runes[min(max(level-1, 0), len(runes)-1)])
	}
	return b.String()
}

// evalText is an evaluation in lines: its numbers, then each sample.
func evalText(e Eval) string {
	var b strings.Builder
	fmt.Fprintf(&b, "evaluation at step %d: loss %.3f, perplexity %s", e.Step, e.Loss, short(e.Perplexity))
	if e.BitsPerByte > 0 {
		fmt.Fprintf(&b, ", %.3f bits a byte", e.BitsPerByte)
	}
	if e.Best {
		b.WriteString(", the best up to now")
	}
	fmt.Fprintf(&b, " (%s)\n", span(e.Seconds))
	for _, s := range e.Samples {
		text := strings.TrimRight(printable(s.Prompt)+"│"+printable(s.Text), "\n")
		b.WriteString("  " + strings.ReplaceAll(text, "\n", "\n  ") + "\n")
	}
	return b.String()
}

// printable replaces what could command a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n':
			return r
		case r == '\t':
			return ' '
		case !unicode.IsPrint(r):
			return '\uFFFD'
		}
		return r
	}, s)
}

// short is a positive number in three significant digits: 1.02, 20.3, 1.2e+05.
func short(v float64) string {
	switch {
	case v >= 1e5, v != 0 && v < 0.005:
		return fmt.Sprintf("%.1e", v)
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

// count is a large number for people: 950, 4075, 123k, 1.23M, 46.7B.
func count(v float64) string {
	switch {
	case v >= 1e11:
		return fmt.Sprintf("%.0fB", v/1e9)
	case v >= 1e9:
		return fmt.Sprintf("%.3gB", v/1e9)
	case v >= 1e6:
		return fmt.Sprintf("%.3gM", v/1e6)
	case v >= 1e5:
		return fmt.Sprintf("%.0fk", v/1e3)
	default:
		return fmt.Sprintf("%.0f", v)
	}
}
