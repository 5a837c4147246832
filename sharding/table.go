package sharding

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Write prints the ranking: a line for each of the first top mappings (all if top is 0), what they are made
// of, and why the other meshes do not do.
func (r Ranking) Write(w io.Writer, top int) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if len(r.Fits) > 0 {
		fmt.Fprintln(t, "mapping\tmicro-batch × group\trecompute\tZeRO\tstep s\ttokens/s/GPU\tTFLOP/s\tMFU %\tbubble %\tGB: weights, gradients, optimizer, activations\tGB sent: expert, tensor, data, pipe\tmesh")
	}
	for _, e := range first(r.Fits, top) {
		m, s := e.Memory, e.Traffic
		fmt.Fprintf(t, "%v\t%d × %d\t%s\t%d\t%.2f\t%.0f\t%.0f\t%.1f\t%.1f\t%.1f: %.1f, %.1f, %.1f, %.1f\t%.1f, %.1f, %.1f, %.1f\t%v\n", e.Mapping, e.MicroBatch, e.Group,
			e.Recompute, e.Zero, e.Step, e.Tokens, e.FLOPs/1e12, 100*e.MFU, 100*e.Bubble, m.Total()/1e9, m.Weights/1e9, m.Gradients/1e9,
			m.Optimizer/1e9, (m.Activations+m.Logits+m.Gathered)/1e9, s.Expert/1e9, s.Tensor/1e9, s.Data/1e9, s.Pipe/1e9, e.Mesh)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	return writeRest(w, len(r.Fits), top, r.Refused)
}

// Write prints the ranking as that of training does.
func (r Services) Write(w io.Writer, top int) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if len(r.Fits) > 0 {
		fmt.Fprintln(t, "mapping\ttokens/s\tms/token\tprefill ms\tHBM use %\tGB: weights, keys and values\troom for tokens\tMB sent a step\tmesh")
	}
	for _, s := range first(r.Fits, top) {
		fmt.Fprintf(t, "%v\t%.0f\t%.2f\t%.0f\t%.0f\t%.1f: %.1f, %.1f\t%.0f\t%.1f\t%v\n", Mapping{Mesh: s.Mesh, Folded: s.Folded, Rounds: 1}, s.Rate, 1e3*s.Step,
			1e3*s.First, 100*s.Roofline, s.Memory.Total()/1e9, s.Memory.Weights/1e9, s.Memory.KVCache/1e9, s.Capacity, s.Sent/1e6, s.Mesh)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	return writeRest(w, len(r.Fits), top, r.Refused)
}

// writeRest prints how many mappings are not shown, and the refusals.
func writeRest(w io.Writer, fits, top int, refused []Refusal) error {
	var b strings.Builder
	if top > 0 && fits > top {
		fmt.Fprintf(&b, "and %d more that fit\n", fits-top)
	}
	for i, r := range refused {
		if i == 0 {
			if fits > 0 {
				b.WriteString("\n")
			}
			b.WriteString("these do not fit:\n")
		}
		fmt.Fprintf(&b, "%v%s: %s\n", r.Mesh, map[bool]string{true: " (ETP1)"}[r.Folded], r.Reason)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// first is the beginning of a list, of n entries at most; all of it for 0.
func first[T any](all []T, n int) []T {
	if n > 0 && n < len(all) {
		return all[:n]
	}
	return all
}
