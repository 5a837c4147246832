package report

import (
	"math"
	"slices"
	"strings"
)

// chartData is what the page's script draws.
type chartData struct {
	Step    int      `json:"step"`
	Width   int      `json:"width"` // steps a bin
	CE      band     `json:"ce"`
	Loss    numbers  `json:"loss"`
	Norm    band     `json:"norm"`
	LR      numbers  `json:"lr"`
	Rate    numbers  `json:"rate"`
	Aux     numbers  `json:"aux,omitempty"`     // none when it is 0 throughout
	Z       numbers  `json:"z,omitempty"`       // the same
	Dropped numbers  `json:"dropped,omitempty"` // the same; shares
	Skipped [][2]int `json:"skipped"`           // bin, updates skipped in it
	Eval    struct {
		Step       []int   `json:"step"`
		Loss       numbers `json:"loss"`
		Perplexity numbers `json:"perplexity"`
	} `json:"eval"`
	Load loadData `json:"load"`
}

// band is a curve with its least and greatest values; these are left out where a bin is one step.
type band struct {
	Mean numbers `json:"mean"`
	Min  numbers `json:"min,omitempty"`
	Max  numbers `json:"max,omitempty"`
}

// loadData is the heatmap: a string a layer, experts one after the other, two characters a column.
type loadData struct {
	Experts int      `json:"experts"`
	Width   int      `json:"width"` // steps a column
	Columns int      `json:"columns"`
	Layers  []string `json:"layers"`
}

func charts(h *history) chartData {
	d := chartData{Step: h.last.Step, Width: max(1, h.ce.width), CE: banded(h.ce), Loss: h.loss.mean(), Norm: banded(h.norm), LR: h.lr.mean(),
		Rate: h.rate.mean(), Load: load(h.load), Skipped: [][2]int{}}
	if !h.aux.zero() {
		d.Aux = h.aux.mean()
	}
	if !h.z.zero() {
		d.Z = h.z.mean()
	}
	if !h.dropped.zero() {
		d.Dropped = h.dropped.mean()
	}
	if h.ce.width > 0 {
		for step, n := range h.skipBins() {
			d.Skipped = append(d.Skipped, [2]int{(step - 1) / h.ce.width, n})
		}
		slices.SortFunc(d.Skipped, func(a, b [2]int) int { return a[0] - b[0] })
	}
	d.Eval.Step = []int{}
	for _, e := range h.evals {
		d.Eval.Step = append(d.Eval.Step, e.Step)
		d.Eval.Loss = append(d.Eval.Loss, e.Loss)
		d.Eval.Perplexity = append(d.Eval.Perplexity, e.Perplexity)
	}
	return d
}

func banded(c curve) band {
	b := band{Mean: c.mean()}
	if c.width > 1 {
		b.Min, b.Max = c.min, c.max
	}
	return b
}

// numbers is written with five significant digits and null for what is no number.
type numbers []float64

func (n numbers) MarshalJSON() ([]byte, error) {
	b := []byte{'['}
	for i, v := range n {
		if i > 0 {
			b = append(b, ',')
		}
		b = digits(b, v, 5)
	}
	return append(b, ']'), nil
}

// alphabet has the digits of a share in units of 1/4095, two digits a share.
const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// load writes shares; a column without steps is "..".
func load(h heat) loadData {
	d := loadData{Experts: h.experts, Width: h.width, Columns: len(h.count), Layers: []string{}}
	for l := range h.layers {
		var b strings.Builder
		for e := range h.experts {
			for i, n := range h.count {
				if n == 0 {
					b.WriteString("..")
					continue
				}
				v := int(math.Round(4095 / shareUnits * float64(h.sum[i][l*h.experts+e]) / float64(n)))
				b.WriteByte(alphabet[v/64])
				b.WriteByte(alphabet[v%64])
			}
		}
		d.Layers = append(d.Layers, b.String())
	}
	return d
}
