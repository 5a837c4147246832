package ckpt

import (
	"bufio"
	"fmt"
	"io"
	"text/tabwriter"

	"mix/sharding/axis"
)

// Report is what a checkpoint holds and what is wrong with it.
type Report struct {
	Dir        string        `json:"dir"`
	Format     string        `json:"format"` // HuggingFace, Mixtral or Megatron
	Layout     string        `json:"layout"` // Hub, Fused, Boxes or Megatron
	Files      []FileEntry   `json:"files"`
	Tensors    []TensorEntry `json:"tensors"`
	Parameters int64         `json:"parameters"` // elements of all tensors
	Bytes      int64         `json:"bytes"`      // of all tensors
	Problems   []string      `json:"problems"`   // one line each
}

// FileEntry is one file of a Report.
type FileEntry struct {
	Name    string `json:"name"`
	Bytes   int64  `json:"bytes"` // with its header
	Tensors int    `json:"tensors"`
}

// TensorEntry is one tensor of a Report.
type TensorEntry struct {
	Name    string `json:"name"`
	File    string `json:"file"`
	DType   string `json:"dtype"` // as the file spells it
	Shape   []int  `json:"shape"`
	Bytes   int64  `json:"bytes"`
	Holds   string `json:"holds,omitempty"`   // weights of the catalogue, e.g. "layers/moe/gate[3,5]"
	Ignored string `json:"ignored,omitempty"` // why it holds none
}

// Describe reads the headers of a checkpoint and checks them against the weights of its model. Without
// weights (nil) only the names of Hugging Face are checked. The error is of the folder itself; all else is in
// Problems.
func Describe(dir string, params []axis.Param) (*Report, error) {
	format, s, match, err := openFolder(dir, params, "")
	if err != nil {
		return nil, err
	}
	defer s.close()
	r := &Report{Dir: dir, Format: format, Files: []FileEntry{}, Tensors: []TensorEntry{}, Problems: []string{}}
	for _, err := range s.problems {
		r.Wrong(err)
	}
	m := &matched{}
	if params != nil && len(s.files) > 0 {
		var problems []error
		m, problems = match()
		for _, err := range problems {
			r.Wrong(err)
		}
		r.Layout = m.layout
	}
	hf := format == HuggingFace
	bare := hf && isBare(s)
	if hf && len(s.files) > 0 {
		r.Layout = layoutOf(s, bare)
	}
	ignored := map[string]string{}
	for _, i := range m.ignored {
		ignored[i.Name] = i.Reason
	}
	for _, f := range s.files {
		r.Files = append(r.Files, FileEntry{f.name, f.region.size(), len(f.infos)})
		for _, t := range f.infos {
			e := TensorEntry{Name: t.Name, File: f.name, DType: t.Format, Shape: t.Shape, Bytes: t.Bytes}
			if hf {
				e.Ignored = ignored[t.Name]
				if err := e.byName(bare); err != nil && params == nil {
					r.Wrong(fmt.Errorf("%s: %w", f.name, err))
				}
			} else {
				e.Holds, e.Ignored = m.uses[inFile(f, t.Name)], ignored[inFile(f, t.Name)]
			}
			r.add(e)
		}
	}
	return r, nil
}

// byName says what a tensor of Hugging Face's holds, also of a model whose weights are not known or that it does not fit.
func (e *TensorEntry) byName(bare bool) error {
	if e.Ignored != "" {
		return nil
	}
	row, l, x := find(full(e.Name, bare))
	if row == nil {
		return fmt.Errorf("%w %s: Mixtral has none of that name", ErrExtra, quote(e.Name))
	}
	e.Holds, e.Ignored = use(row, l, x), row.ignore
	return nil
}

// add adds a tensor.
func (r *Report) add(e TensorEntry) {
	r.Tensors = append(r.Tensors, e)
	n, _ := formatNamed(e.DType)
	r.Parameters += e.Bytes * 8 / int64(n.bits)
	r.Bytes += e.Bytes
}

// Wrong adds a problem.
func (r *Report) Wrong(err error) { r.Problems = append(r.Problems, err.Error()) }

// Print writes the report as text: a line a tensor, the totals, a line a problem.
func (r *Report) Print(w io.Writer) error {
	out := bufio.NewWriter(w)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, t := range r.Tensors {
		note := t.Holds
		if t.Ignored != "" {
			note = "ignored: " + t.Ignored
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%s\t%s\n", printable(t.Name), t.DType, shapeText(t.Shape), t.Bytes, t.File, note)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, "%d tensors in %d files, %d parameters, %d bytes", len(r.Tensors), len(r.Files), r.Parameters, r.Bytes)
	if r.Layout != "" {
		fmt.Fprintf(out, ", %s layout", r.Layout)
	}
	fmt.Fprintln(out)
	for _, p := range r.Problems {
		fmt.Fprintf(out, "problem: %s\n", p)
	}
	return out.Flush()
}

// printable shows a name from a file as it is, unless it would disturb the table or the terminal.
func printable(name string) string {
	if q := quote(name); q != `"`+name+`"` {
		return q
	}
	return name
}
