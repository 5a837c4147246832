package main

import (
	"fmt"
	"html"
	"math"
	"strconv"
	"strings"
)

// axis turns values into pixels.
type axis struct {
	low, high float64 // values
	from, to  float64 // pixels
	log       bool
}

func (a axis) at(v float64) float64 {
	low, high := a.low, a.high
	if a.log {
		v, low, high = math.Log(max(v, low)), math.Log(low), math.Log(high)
	}
	return a.from + (v-low)/(high-low)*(a.to-a.from)
}

// logAxis spans values by whole powers of ten.
func logAxis(low, high, from, to float64) axis {
	low, high = math.Pow(10, math.Floor(math.Log10(low))), math.Pow(10, math.Ceil(math.Log10(high)))
	if low >= high {
		high = low * 10
	}
	return axis{low, high, from, to, true}
}

// linearAxis begins at 0.
func linearAxis(high, from, to float64) axis {
	if high <= 0 {
		high = 1
	}
	return axis{0, high, from, to, false}
}

// ticks are round values; of a log axis its powers of ten.
func (a axis) ticks(about int) (all []float64) {
	if a.log {
		for v := a.low; v <= a.high*1.001; v *= 10 {
			all = append(all, v)
		}
		return all
	}
	step := math.Pow(10, math.Floor(math.Log10(a.high/float64(about))))
	for _, by := range []float64{1, 2, 5, 10} {
		if a.high/(step*by) <= float64(about) {
			step *= by
			break
		}
	}
	for i := 0; float64(i)*step <= a.high*1.001; i++ {
		all = append(all, float64(i)*step)
	}
	return all
}

// drawing is the inside of an SVG element.
type drawing struct{ strings.Builder }

func px(v float64) string { return strconv.FormatFloat(math.Round(v*10)/10, 'f', -1, 64) }

// line draws from point to point.
func (d *drawing) line(class string, x1, y1, x2, y2 float64) {
	fmt.Fprintf(d, `<line class="%s" x1="%s" y1="%s" x2="%s" y2="%s"/>`+"\n", class, px(x1), px(y1), px(x2), px(y2))
}

// text writes; anchor is start, middle or end.
func (d *drawing) text(class, anchor string, x, y float64, text string) {
	fmt.Fprintf(d, `<text class="%s" text-anchor="%s" x="%s" y="%s">%s</text>`+"\n", class, anchor, px(x), px(y), html.EscapeString(text))
}

// curve draws through points; closed ones are filled by their class.
func (d *drawing) curve(class string, points [][2]float64) {
	if len(points) == 0 {
		return
	}
	fmt.Fprintf(d, `<path class="%s" d="`, class)
	for i, p := range points {
		mark := "L"
		if i == 0 {
			mark = "M"
		}
		d.WriteString(mark + px(p[0]) + " " + px(p[1]))
	}
	d.WriteString("\"/>\n")
}

// dots draws points as one path of strokes without length, which round caps make round.
func (d *drawing) dots(class string, points [][2]float64) {
	if len(points) == 0 {
		return
	}
	fmt.Fprintf(d, `<path class="dots %s" d="`, class)
	for _, p := range points {
		d.WriteString("M" + px(p[0]) + " " + px(p[1]) + "h0")
	}
	d.WriteString("\"/>\n")
}

// rows draws the grid lines of a vertical axis and their values.
func (d *drawing) rows(y axis, left, right float64, name func(float64) string) {
	for _, v := range y.ticks(4) {
		d.line("grid", left, y.at(v), right, y.at(v))
		d.text("tick", "end", left-8, y.at(v)+4, name(v))
	}
}

// duration names seconds.
func duration(v float64) string {
	switch {
	case v < 0.9995e-3:
		return strconv.FormatFloat(v*1e6, 'g', 3, 64) + " µs"
	case v < 0.9995:
		return strconv.FormatFloat(v*1e3, 'g', 3, 64) + " ms"
	}
	return strconv.FormatFloat(v, 'g', 3, 64) + " s"
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', 4, 64) }
