package sharding

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"mix/sharding/axis"
)

// Width is the bytes that one element of a weight takes.
type Width struct {
	Weight   int // as programs compute with it
	Gradient int // 0 if none is kept
	Moment   int // of all the optimizer keeps for it
}

// Row is what one device holds for one weight. Every device holds as much.
type Row struct {
	Path  string         `json:"path"`
	Axes  []axis.Logical `json:"axes"`
	Dims  []int          `json:"dims"`
	Specs [3]Spec        `json:"specs"` // by Kind: weights, gradients, moments
	Local []int          `json:"local"` // shape of the weight on a device
	Bytes [3]int         `json:"bytes"` // by Kind, on a device
}

// Report is the table of weight × spec × bytes a device.
type Report struct {
	Preset  string `json:"preset"`
	Mesh    string `json:"mesh"`
	Devices int    `json:"devices"`
	Rows    []Row  `json:"weights"`
	Bytes   [3]int `json:"bytes"` // by Kind, on a device
}

// Describe applies rules to a catalogue of weights. width tells the bytes of an element of each.
func Describe(params []axis.Param, width func(axis.Param) Width, r Rules, m Mesh) (Report, error) {
	report := Report{Preset: r.String(), Mesh: m.String(), Devices: m.Devices()}
	for _, p := range params {
		row := Row{Path: p.Path, Axes: p.Axes, Dims: p.Dims}
		w := width(p)
		for k, n := range []int{w.Weight, w.Gradient, w.Moment} {
			spec, err := r.Resolve(Kind(k), p, m)
			if err != nil {
				return Report{}, err
			}
			local, err := spec.Local(m, p.Dims)
			if err != nil {
				return Report{}, err
			}
			if Kind(k) == Weights {
				row.Local = local
			}
			row.Specs[k], row.Bytes[k] = spec, n*axis.Count(local)
			report.Bytes[k] += row.Bytes[k]
		}
		report.Rows = append(report.Rows, row)
	}
	return report, nil
}

// String is the table. Specs of gradients and moments are shown where they are not the weights'.
func (r Report) String() string {
	var b strings.Builder
	plural := "s"
	if r.Devices == 1 {
		plural = ""
	}
	fmt.Fprintf(&b, "preset %s on mesh %s: %d device%s; bytes on each\n", r.Preset, r.Mesh, r.Devices, plural)
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "weight\tshape\tspec\tweights\tgradients\tmoments\t")
	for _, row := range r.Rows {
		fmt.Fprintf(t, "%s\t%s\t%v\t%d\t%s\t%s\t\n", row.Path, shape(row.Axes, row.Dims), row.Specs[Weights], row.Bytes[Weights],
			row.other(Gradients), row.other(Moments))
	}
	fmt.Fprintf(t, "total\t\t\t%d\t%d\t%d\t\n", r.Bytes[Weights], r.Bytes[Gradients], r.Bytes[Moments])
	t.Flush()
	var lines []string
	for line := range strings.Lines(b.String()) {
		lines = append(lines, strings.TrimRight(line, " \n"))
	}
	return strings.Join(lines, "\n") + "\n"
}

// other is the bytes of kind k, with its spec where that is not the weights'.
func (row Row) other(k Kind) string {
	n := fmt.Sprint(row.Bytes[k])
	if s := row.Specs[k].String(); s != row.Specs[Weights].String() {
		n += " " + s
	}
	return n
}

// shape is "layers 32, embed 4096".
func shape(axes []axis.Logical, dims []int) string {
	s := make([]string, len(axes))
	for i, a := range axes {
		s[i] = fmt.Sprintf("%s %d", a, dims[i])
	}
	return strings.Join(s, ", ")
}
