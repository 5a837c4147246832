package aot

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"mix/lower/target"
	"mix/sharding"
)

// Report is what a compiled program takes.
type Report struct {
	Program  string `json:"program"`
	Target   string `json:"target"`
	Mesh     string `json:"mesh"`
	Devices  int    `json:"devices"`
	Settings string `json:"settings"` // of the program, as flags

	Memory      Memory       `json:"memory"`
	Cost        Cost         `json:"cost"`
	Least       Least        `json:"least_seconds"`
	Collectives []Collective `json:"collectives"`
	CustomCalls []CustomCall `json:"custom_calls"`
	Kernels     []Kernel     `json:"kernels"` // of a GPU
	Seconds     Seconds      `json:"seconds"`
	Executable  int          `json:"executable_bytes"`
	Cached      string       `json:"cached,omitempty"` // file in the cache of compiled programs
	Dump        string       `json:"dump,omitempty"`
}

// Memory are bytes of one device, as XLA planned them.
type Memory struct {
	Arguments int64 `json:"arguments"`
	Outputs   int64 `json:"outputs"`
	InPlace   int64 `json:"in_place"` // of the outputs, in the memory of arguments
	Temporary int64 `json:"temporary"`
	Code      int64 `json:"code"`
	Total     int64 `json:"total"`
	Limit     int64 `json:"limit,omitempty"` // of the chip
	Fits      bool  `json:"fits"`            // false only above a limit
}

// Least are the seconds that a device needs at its peak rates, 0 when they are unknown. A run takes at least the
// longest of them.
type Least struct {
	Compute float64 `json:"compute"` // of matrix products in bfloat16
	Memory  float64 `json:"memory"`
	Link    float64 `json:"link"`
}

// Seconds it took to make the program.
type Seconds struct {
	Trace  float64 `json:"trace"`  // graph and gradient
	Passes float64 `json:"passes"` // ours, and the text
	XLA    float64 `json:"xla"`
}

// Fill takes in what was compiled.
func (r *Report) Fill(c target.Chip, x *Result) {
	r.Target = c.Name
	m := Memory{Arguments: x.Memory.Argument, Outputs: x.Memory.Output, InPlace: x.Memory.Alias, Temporary: x.Memory.Temp,
		Code: x.Memory.Code, Limit: c.Memory}
	m.Total = m.Arguments + m.Outputs - m.InPlace + m.Temporary + m.Code
	m.Fits = m.Limit == 0 || m.Total <= m.Limit
	r.Memory, r.Seconds.XLA, r.Executable = m, x.Seconds, len(x.Executable)
	r.Cost, r.Collectives, r.CustomCalls, r.Kernels = x.Module.Cost(), x.Module.Collectives(), x.Module.CustomCalls(), x.Kernels
	if r.CustomCalls == nil { // JSON has [] for it, not null
		r.CustomCalls = []CustomCall{}
	}
	if r.Kernels == nil {
		r.Kernels = []Kernel{}
	}
	var sent int64
	for _, e := range r.Collectives {
		sent += e.Sent
	}
	over := func(n int64, rate float64) float64 {
		if rate == 0 {
			return 0
		}
		return float64(n) / rate
	}
	r.Least = Least{over(r.Cost.FLOPs+r.Cost.Ours, c.BF16), over(r.Cost.Bytes, c.Bandwidth), over(sent, c.Link)}
}

// Print writes the report as text.
func (r *Report) Print(to io.Writer) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "program\t%s %s\n", r.Program, r.Settings)
	fmt.Fprintf(w, "target\t%s, mesh %s, devices %d\n", r.Target, r.Mesh, r.Devices)
	m := r.Memory
	fmt.Fprintf(w, "memory a device\t%s: arguments %s, outputs %s (in place %s), temporary %s, code %s\n", size(m.Total),
		size(m.Arguments), size(m.Outputs), size(m.InPlace), size(m.Temporary), size(m.Code))
	switch {
	case !m.Fits:
		fmt.Fprintf(w, "\tdoes not fit %s\n", size(m.Limit))
	case m.Limit > 0:
		fmt.Fprintf(w, "\t%.0f%% of %s\n", 100*float64(m.Total)/float64(m.Limit), size(m.Limit))
	}
	fmt.Fprintf(w, "work a run\t%.4g TFLOP of XLA's products, at most %.4g in our kernels, %s read and written\n", float64(r.Cost.FLOPs)/1e12, float64(r.Cost.Ours)/1e12, size(r.Cost.Bytes))
	if len(r.Kernels) > 0 {
		fmt.Fprintf(w, "launches a run\t%d\n", r.Cost.Launches)
	}
	if r.Cost.UnknownLoops > 0 {
		fmt.Fprintf(w, "\tloops of unknown length, counted once: %d\n", r.Cost.UnknownLoops)
	}
	if l := r.Least; l != (Least{}) {
		fmt.Fprintf(w, "at peak rates\t%.3g ms of products, %.3g ms of memory, %.3g ms of links\n", 1e3*l.Compute, 1e3*l.Memory, 1e3*l.Link)
	}
	fmt.Fprintf(w, "made in\ttrace %.2f s, passes %.2f s, XLA %.2f s\n", r.Seconds.Trace, r.Seconds.Passes, r.Seconds.XLA)
	if r.Cached != "" {
		fmt.Fprintf(w, "cached\t%s, %.1f MB\n", r.Cached, float64(r.Executable)/1e6)
	}
	if r.Dump != "" {
		fmt.Fprintf(w, "dump\t%s\n", r.Dump)
	}
	r.exchanges(w)
	r.calls(w)
	r.kernels(w)
	return w.Flush()
}

func (r *Report) exchanges(w io.Writer) {
	if r.Devices < 2 {
		return
	}
	fmt.Fprintf(w, "\ncollective\tamong\talong\ta device gives\truns\tbeside work\tsends\n")
	mesh, err := sharding.ParseMesh(r.Mesh)
	for _, c := range r.Collectives {
		along := "?"
		if err == nil && mesh.Devices() == r.Devices {
			along = cmp.Or(c.Along(mesh), along)
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s, %s\t%d\t%d\t%s\n", c.Op, c.Group, along, c.Type, size(c.Bytes), c.Runs, c.Beside, size(c.Sent))
	}
	if len(r.Collectives) == 0 {
		fmt.Fprintf(w, "none\n")
	}
}

func (r *Report) calls(w io.Writer) {
	if len(r.CustomCalls) == 0 {
		return
	}
	fmt.Fprintf(w, "\ncustom call\tin the program\truns\n")
	for _, c := range r.CustomCalls {
		name := c.Target
		if c.Kernel != "" {
			name += " " + c.Kernel
		}
		fmt.Fprintf(w, "%s\t%d\t%d\n", name, c.Count, c.Runs)
	}
}

// kernels prints ours, and those of XLA's that keep registers in memory; the rest is a number.
func (r *Report) kernels(w io.Writer) {
	if len(r.Kernels) == 0 {
		return
	}
	shown := slices.DeleteFunc(slices.Clone(r.Kernels), func(k Kernel) bool { return !k.Ours && k.Spilled == 0 })
	if len(shown) > 0 {
		fmt.Fprintf(w, "\nkernel\tgrid\tthreads\tregisters\tspilled\tshared\twgmma\n")
	}
	for _, k := range shown {
		known := []string{"?", "?", "?"}
		if k.Assembled {
			known = []string{fmt.Sprint(k.Registers), fmt.Sprintf("%d bytes", k.Spilled), fmt.Sprint(k.WGMMA)}
		}
		fmt.Fprintf(w, "%s\t%d×%d×%d\t%d\t%s\t%s\t%d bytes\t%s\n", k.Name, k.Grid[0], k.Grid[1], k.Grid[2], k.Threads, known[0], known[1], k.Shared, known[2])
	}
	fmt.Fprintf(w, "\nkernels\t%d, of them ours %d\n", len(r.Kernels), len(r.Kernels)-len(slices.DeleteFunc(slices.Clone(r.Kernels), func(k Kernel) bool { return k.Ours })))
}

func size(n int64) string {
	switch {
	case n >= 1e8:
		return fmt.Sprintf("%.2f GB", float64(n)/1e9)
	case n >= 1e5:
		return fmt.Sprintf("%.2f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%d bytes", n)
}
