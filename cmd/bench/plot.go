package main

import (
	"bytes"
	_ "embed"
	"errors"
	"html/template"
	"math"
	"slices"
	"time"
)

//go:embed plot.css
var style string

//go:embed plot.html
var page string

var pages = template.Must(template.New("plot").Parse(page))

// size of the drawing and of the room beside its panels, in pixels.
const (
	width, height = 960., 900.
	left, right   = 76., width - 130.
)

// plot draws the percentiles of the latencies, every request, and the throughput over time. It is an SVG file, or
// that in a page with the numbers below.
func plot(r summary, records []record, whole bool) ([]byte, error) {
	if len(records) == 0 {
		return nil, errors.New("there is nothing to plot: no request ended")
	}
	d := new(drawing)
	s := gather(records)
	d.percentiles(s, span(s.first, s.whole, lasting(s.gap)))
	d.requests(records, span(s.first, s.whole), r.Seconds)
	d.throughput(records, r.Seconds)
	var b bytes.Buffer
	err := pages.ExecuteTemplate(&b, map[bool]string{false: "svg", true: "page"}[whole], map[string]any{
		"Style": template.CSS(style), "Drawing": template.HTML(d.String()), "R": r, "Title": r.title(), "Rows": r.rows(),
		"Width": width, "Height": height,
	})
	return b.Bytes(), err
}

// span is from the shortest to the longest time.
func span(times ...[]float64) (ends [2]float64) {
	ends = [2]float64{math.Inf(1), 0}
	for _, x := range times {
		for _, v := range x {
			ends[0], ends[1] = min(ends[0], v), max(ends[1], v)
		}
	}
	if ends[1] == 0 {
		return [2]float64{1e-3, 1}
	}
	return [2]float64{max(ends[0], 1e-6), max(ends[1], 1e-6)}
}

// lasting leaves out the shortest gaps: pieces that came in one packet would stretch the axis without end.
func lasting(gaps []float64) []float64 {
	slices.Sort(gaps)
	return gaps[len(gaps)/20:]
}

// percentiles draws a curve a latency. The horizontal axis gives each further nine the same room.
func (d *drawing) percentiles(s samples, ends [2]float64) {
	const top, bottom = 50., 270.
	y := logAxis(ends[0], ends[1], bottom, top)
	x := axis{0, 3, left, right, false}
	d.text("title", "start", left, top-24, "Latency by percentile")
	d.rows(y, left, right, duration)
	for _, p := range []struct {
		name string
		p    float64
	}{{"fastest", 0}, {"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99.9", 0.999}} {
		at := x.at(-math.Log10(1 - p.p))
		d.line("grid", at, top, at, bottom)
		d.text("tick", "middle", at, bottom+18, p.name)
	}
	var labels []label
	for _, c := range []struct {
		class, name string
		sorted      []float64
	}{{"whole", "whole answer", s.whole}, {"first", "first token", s.first}, {"gap", "between tokens", s.gap}} {
		if len(c.sorted) == 0 {
			continue
		}
		slices.Sort(c.sorted)
		// A curve ends where a percentile would be of less than one number.
		end := min(3, math.Log10(float64(len(c.sorted))))
		var points [][2]float64
		for i := range 121 {
			at := end * float64(i) / 120
			points = append(points, [2]float64{x.at(at), y.at(percentile(c.sorted, 1-math.Pow(10, -at)))})
		}
		d.curve("curve "+c.class, points)
		labels = append(labels, label{c.class, c.name, points[120][1] + 4})
	}
	d.labels(labels)
}

// label names a curve at the right.
type label struct {
	class, text string
	y           float64
}

// labels are written one below the other where they would overlap.
func (d *drawing) labels(all []label) {
	last := math.Inf(-1)
	for _, l := range all { // the slowest first, so from the top
		last = max(l.y, last+15)
		d.text("label "+l.class, "start", right+8, last, l.text)
	}
}

// most is how many dots and steps are drawn.
const most = 4000

// requests draws each request at the time when it was due.
func (d *drawing) requests(records []record, ends [2]float64, seconds float64) {
	const top, bottom = 350., 570.
	y := logAxis(ends[0], ends[1], bottom, top)
	x := linearAxis(seconds, left, right)
	title := "Requests by the time when they were due"
	every := (len(records) + most - 1) / most
	if every > 1 {
		title += ": one in " + number(float64(every))
	}
	d.text("title", "start", left, top-24, title)
	d.rows(y, left, right, duration)
	d.seconds(x, bottom)
	var whole, first, failed [][2]float64
	for i, r := range records {
		at := x.at(r.due.Seconds())
		if r.cut {
			continue
		}
		if r.err != nil {
			failed = append(failed, [2]float64{at, top - 8}) // all of them
			continue
		}
		if i%every != 0 {
			continue
		}
		whole = append(whole, [2]float64{at, y.at((r.end - r.due).Seconds())})
		if len(r.chunks) > 0 {
			first = append(first, [2]float64{at, y.at((r.chunks[0] - r.due).Seconds())})
		}
	}
	d.dots("whole", whole)
	d.dots("first", first)
	d.dots("failed", failed)
	legend := []label{{"whole", "whole answer", top + 14}}
	if len(first) > 0 {
		legend = append(legend, label{"first", "first token", top + 30})
	}
	if len(failed) > 0 {
		legend = append([]label{{"failed", "failed", top - 4}}, legend...)
	}
	d.labels(legend)
}

// bins is how many steps the throughput is drawn in.
const bins = 120

// throughput draws tokens a second and how many requests are in flight.
func (d *drawing) throughput(records []record, seconds float64) {
	const top, bottom = 650., 850.
	x := linearAxis(seconds, left, right)
	d.text("title", "start", left, top-24, "Tokens a second, and requests in flight")
	d.seconds(x, bottom)
	rates := tokens(records, seconds)
	highest := 0.
	for _, v := range rates {
		highest = max(highest, v)
	}
	y := linearAxis(highest*1.05, bottom, top)
	d.rows(y, left, right, number)
	area := [][2]float64{{left, bottom}}
	for i, v := range rates {
		for _, edge := range []int{i, i + 1} {
			area = append(area, [2]float64{left + (right-left)*float64(edge)/bins, y.at(v)})
		}
	}
	d.curve("area", append(area, [2]float64{right, bottom}))
	flying := linearAxis(float64(inFlight(records))*1.05, bottom, top)
	now := 0
	var steps [][2]float64
	all := changes(records)
	every := (len(all) + most - 1) / most
	for i, c := range all {
		at := x.at(c.at.Seconds())
		shown := (len(all)-1-i)%every == 0 // the last is
		if shown {
			steps = append(steps, [2]float64{at, flying.at(float64(now))})
		}
		if now += c.by; shown {
			steps = append(steps, [2]float64{at, flying.at(float64(now))})
		}
	}
	d.curve("curve flying", steps)
	for _, v := range flying.ticks(4) {
		if v == math.Trunc(v) {
			d.text("tick flying", "start", right+8, flying.at(v)+4, number(v))
		}
	}
	d.text("label tokens", "start", right+34, top+14, "tokens/s")
	d.text("label flying", "start", right+34, top+30, "in flight")
}

// tokens are those a second in each bin. Those of a stream are spread over its pieces; without one they come at the end.
func tokens(records []record, seconds float64) []float64 {
	rates := make([]float64, bins)
	if seconds <= 0 {
		return rates
	}
	add := func(at time.Duration, n float64) {
		rates[min(int(at.Seconds()/seconds*bins), bins-1)] += n * bins / seconds
	}
	for _, r := range records {
		if len(r.chunks) == 0 {
			add(r.end, float64(r.answer))
		}
		for _, at := range r.chunks {
			add(at, float64(r.answer)/float64(len(r.chunks)))
		}
	}
	return rates
}

func (d *drawing) seconds(x axis, bottom float64) {
	d.line("base", left, bottom, right, bottom)
	for _, v := range x.ticks(8) {
		d.text("tick", "middle", x.at(v), bottom+18, number(v)+" s")
	}
}
