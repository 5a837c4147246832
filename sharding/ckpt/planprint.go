package ckpt

import (
	"bufio"
	"fmt"
	"io"

	"mix/sharding/axis"
)

// PlanReport is a conversion in a form for programs.
type PlanReport struct {
	From   string     `json:"from"`
	Format string     `json:"format"`
	Bytes  int64      `json:"bytes"` // of all files with tensors
	Files  []PlanFile `json:"files"`
	Others []string   `json:"others"` // further files
	Notes  []string   `json:"notes"`
}

// PlanFile is a file of the target.
type PlanFile struct {
	Name    string       `json:"name"`
	Bytes   int64        `json:"bytes"`
	Tensors []PlanTensor `json:"tensors"`
}

// PlanTensor is a tensor of the target and what fills it, in order.
type PlanTensor struct {
	Name   string     `json:"name"`
	DType  string     `json:"dtype"`
	Shape  []int      `json:"shape"`
	Copies []PlanCopy `json:"copies"`
}

// PlanCopy is a box of a weight that is copied out of one tensor of the source.
type PlanCopy struct {
	Weight string `json:"weight"`
	Offset []int  `json:"offset"`
	Size   []int  `json:"size"`
	File   string `json:"file"`
	Tensor string `json:"tensor"`
}

// Report is the whole plan.
func (c *Conversion) Report() PlanReport {
	r := PlanReport{From: c.From, Format: c.Format, Files: []PlanFile{}, Others: []string{}, Notes: append([]string{}, c.Notes...)}
	for i := range c.outputs {
		o := &c.outputs[i]
		f := PlanFile{Name: o.name, Bytes: o.bytes}
		r.Bytes += o.bytes
		for _, p := range o.parts {
			if p.tensor < 0 {
				continue
			}
			t := o.tensors[p.tensor]
			format, _ := formatOf(t.dtype)
			x := PlanTensor{Name: t.name, DType: format.name, Shape: t.shape}
			for k, q := range t.boxes {
				for _, y := range o.copies[p.box+k] {
					x.Copies = append(x.Copies, PlanCopy{q.Path, y.box.Offset, y.box.Size, y.from.file.name, y.from.info.Name})
				}
			}
			f.Tensors = append(f.Tensors, x)
		}
		r.Files = append(r.Files, f)
	}
	r.Others = append(r.Others, sortedKeys(c.texts)...)
	for _, name := range c.as {
		if c.texts[name] == nil {
			r.Others = append(r.Others, name)
		}
	}
	return r
}

// Print writes the plan as text: a line a file, a line a tensor, a line a copy; then the notes and the sum.
func (c *Conversion) Print(w io.Writer) error {
	out := bufio.NewWriter(w)
	r := c.Report()
	copies := 0
	for _, f := range r.Files {
		fmt.Fprintf(out, "%s %d bytes\n", f.Name, f.Bytes)
		for _, t := range f.Tensors {
			fmt.Fprintf(out, "  %s %s %s\n", t.Name, t.DType, shapeText(t.Shape))
			copies += len(t.Copies)
			for _, x := range t.Copies {
				fmt.Fprintf(out, "    %s%s from %s %s\n", x.Weight, axis.Spans(x.Offset, x.Size), x.File, printable(x.Tensor))
			}
		}
	}
	for _, name := range r.Others {
		fmt.Fprintln(out, name)
	}
	for _, n := range r.Notes {
		fmt.Fprintln(out, "note:", n)
	}
	fmt.Fprintf(out, "%d copies into %d files of %d bytes\n", copies, len(r.Files), r.Bytes)
	return out.Flush()
}
