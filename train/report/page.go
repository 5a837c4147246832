package report

import (
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

//go:embed page.html
var pageText string

//go:embed page.css
var pageStyle string

//go:embed page.js
var pageScript string

// pageTemplate escapes all that is put into it; the style and the script alone are trusted.
var pageTemplate = template.Must(template.New("page").Parse(pageText))

// page is the HTML file: one file that needs no other, made anew from time to time. While the run goes
// on it reloads itself.
type page struct {
	path     string
	title    string
	settings []setting
	every    time.Duration
	began    time.Time
	busy     chan error // the version that is being written; nil when none
}

// view is what one version of the page shows.
type view struct {
	history *history
	running bool
	at      time.Time
	left    time.Duration // negative when unknown
}

func openPage(o Options) (*page, error) {
	rows, err := settings(o.Config)
	if err != nil {
		return nil, err
	}
	dir := filepath.Dir(o.HTML)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if info, err := os.Stat(o.HTML); err == nil && info.IsDir() {
		return nil, fmt.Errorf("%s is a folder, want a file", o.HTML)
	}
	probe, err := os.CreateTemp(dir, "."+filepath.Base(o.HTML)+"-*")
	if err != nil {
		return nil, err
	}
	if err := errors.Join(probe.Close(), os.Remove(probe.Name())); err != nil {
		return nil, err
	}
	title := o.Title
	if title == "" {
		title = "Training"
	}
	return &page{path: o.HTML, title: title, settings: rows, every: o.RefreshEvery}, nil
}

// due tells whether the next version may begin. It never waits for a slow disk.
func (p *page) due(now time.Time) bool {
	return now.Sub(p.began) >= p.every && len(p.busy) == cap(p.busy)
}

// begin writes a version while the caller goes on; wait gives its error.
func (p *page) begin(now time.Time, v view) {
	p.began = now
	busy := make(chan error, 1)
	p.busy = busy
	go func() { busy <- p.write(v) }()
}

// wait is for the version that was begun last.
func (p *page) wait() error {
	if p.busy == nil {
		return nil
	}
	err := <-p.busy
	p.busy = nil
	return err
}

// write replaces the file.
func (p *page) write(v view) error {
	return replace(p.path, func(f *os.File) error {
		return pageTemplate.Execute(f, p.fill(v, template.CSS(pageStyle), template.JS(pageScript)))
	})
}

// filled is the template's input.
type filled struct {
	Title    string
	Status   string
	Running  bool
	Seconds  int   // between reloads
	At       int64 // Unix milliseconds of this version
	Done     string
	Figures  []figure
	Settings []setting
	Samples  []evaluation
	Hidden   int // evaluations whose samples are left out
	Data     chartData
	Style    template.CSS
	Script   template.JS
}

// figure is one of the numbers at the top.
type figure struct{ Name, Value, Note string }

func (p *page) fill(v view, style template.CSS, script template.JS) filled {
	h := v.history
	f := filled{Title: p.title, Running: v.running, Seconds: max(1, int(math.Ceil(p.every.Seconds()))), At: v.at.UnixMilli(), Settings: p.settings,
		Style: style, Script: script, Data: charts(h)}
	f.Samples, f.Hidden = samples(h)
	step, steps := h.done(), h.last.Steps
	switch {
	case steps == 0 && v.running:
		f.Status = "starting"
	case v.running:
		f.Status = fmt.Sprintf("running, step %d of %d", step, steps)
		if v.left >= 0 {
			f.Status += ", " + span(v.left.Seconds()) + " left"
		}
	case step < steps || steps == 0:
		f.Status = fmt.Sprintf("stopped after step %d of %d", step, steps)
	default:
		f.Status = fmt.Sprintf("finished, %d steps", step)
	}
	if h.save > 0 {
		f.Status += fmt.Sprintf(", saved at step %d", h.save)
	}
	f.Done = strconv.FormatFloat(100*float64(min(step, steps))/float64(max(steps, 1)), 'f', 2, 64)
	f.Figures = figures(h)
	return f
}

func figures(h *history) []figure {
	if h.last.Step == 0 {
		return nil
	}
	s := h.last
	list := []figure{{"training loss", fmt.Sprintf("%.3f", s.CE), "cross-entropy, last step"}}
	if i := h.lowest(); i >= 0 {
		last, best := h.evals[len(h.evals)-1], h.evals[i]
		list = append(list, figure{"evaluation loss", fmt.Sprintf("%.3f", last.Loss), fmt.Sprintf("best %.3f at step %d", best.Loss, best.Step)})
		note := ""
		if last.BitsPerByte > 0 {
			note = fmt.Sprintf("%.3f bits a byte", last.BitsPerByte)
		}
		list = append(list, figure{"perplexity", short(last.Perplexity), note})
	}
	speed := figure{Name: "tokens a second", Value: count(s.TokensPerSecond)}
	if s.MFU > 0 {
		speed.Note = fmt.Sprintf("%.1f%% of the peak (MFU)", 100*s.MFU)
	}
	list = append(list, speed, figure{"tokens seen", count(float64(s.Tokens)), fmt.Sprintf("in %s", span(h.seconds+h.judging))})
	skipped := figure{Name: "updates skipped", Value: strconv.Itoa(s.Skipped)}
	if s.Skipped > 0 {
		skipped.Note = "gradient not finite"
	}
	return append(list, skipped)
}

// evaluation is one whose samples are shown.
type evaluation struct {
	Step    int
	Loss    string
	Best    bool
	Open    bool
	Samples []Sample
}

// Bounds of the text in a page.
const (
	maxSampled = 16   // evaluations
	maxSamples = 8    // of an evaluation
	maxText    = 2000 // characters of a prompt or of a text
)

// samples picks evaluations that have samples, latest first: the latest, the best, and others evenly
// spread. hidden is how many it leaves out.
func samples(h *history) (shown []evaluation, hidden int) {
	lowest := h.lowest()
	var have []int
	for i, e := range h.evals {
		if len(e.Samples) > 0 {
			have = append(have, i)
		}
	}
	stride := 1
	for len(have) > (maxSampled-1)*stride {
		stride++
	}
	for n := len(have) - 1; n >= 0; n-- {
		i := have[n]
		if (len(have)-1-n)%stride != 0 && i != lowest {
			hidden++
			continue
		}
		e := evaluation{Step: h.evals[i].Step, Loss: fmt.Sprintf("%.3f", h.evals[i].Loss), Best: i == lowest, Open: n == len(have)-1}
		for _, s := range h.evals[i].Samples[:min(len(h.evals[i].Samples), maxSamples)] {
			e.Samples = append(e.Samples, Sample{Prompt: cut(s.Prompt), Text: cut(s.Text)})
		}
		shown = append(shown, e)
	}
	return shown, hidden
}

func cut(s string) string {
	if r := []rune(s); len(r) > maxText {
		return string(r[:maxText]) + "…"
	}
	return s
}
