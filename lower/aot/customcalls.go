package aot

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
)

// CustomCall is a kind of operation that XLA does not make itself.
type CustomCall struct {
	Target string `json:"target"`
	Kernel string `json:"kernel,omitempty"` // name of a kernel of ours
	Count  int64  `json:"count"`            // of such calls in the program
	Runs   int64  `json:"runs"`             // of them in one run
}

// kernelName is where a call of a Triton or PTX kernel has its name.
var kernelName = regexp.MustCompile(`\bname = "([^"\\]+)"`)

// kernel is the name of the kernel of ours that a custom call is of, "" for others.
func (in *instr) kernel() string {
	if !strings.HasPrefix(in.attr("custom_call_target"), `"__gpu$xla.gpu.`) {
		return ""
	}
	m := kernelName.FindStringSubmatch(in.attrs)
	if m == nil {
		return ""
	}
	return m[1]
}

// CustomCalls lists the custom calls of a program, insides of fusions too, by target and kernel.
func (m *Module) CustomCalls() []CustomCall {
	at := map[CustomCall]*CustomCall{}
	m.walk(func(p place) {
		if p.op != "custom-call" {
			return
		}
		c := CustomCall{Target: strings.Trim(p.attr("custom_call_target"), `"`)}
		c.Kernel = p.kernel()
		if at[c] == nil {
			k := c
			at[c] = &k
		}
		at[c].Count++
		at[c].Runs += p.times
	})
	var all []CustomCall
	for _, c := range at {
		all = append(all, *c)
	}
	slices.SortFunc(all, func(a, b CustomCall) int {
		return cmp.Or(cmp.Compare(b.Runs, a.Runs), cmp.Compare(a.Target, b.Target), cmp.Compare(a.Kernel, b.Kernel))
	})
	return all
}
