package aot

import (
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Cost is what one run of a program takes on one device, counted from its optimized text.
type Cost struct {
	FLOPs int64 `json:"flops"`        // of XLA's matrix products, a multiply-add being two
	Ours  int64 `json:"kernel_flops"` // of those in our kernels, at most
	Bytes int64 `json:"bytes"`        // read and written by the operations, each on its own: caches are not seen

	// Launches are operations of a device's queue: kernels, library calls, copies and exchanges.
	Launches int64 `json:"launches"`

	// Loops of unknown length are counted as one turn.
	UnknownLoops int `json:"unknown_loops"`
}

// Cost counts. Of a conditional the costliest branch counts. Custom calls other than matrix products of cuBLAS
// count their operands and results but for those that are changed in place.
func (m *Module) Cost() Cost {
	c := coster{m: m, done: map[*computation]Cost{}}
	return c.of(m.computations[m.entry])
}

type coster struct {
	m    *Module
	done map[*computation]Cost
}

// of is the cost of a computation whose instructions the device runs one by one.
func (c coster) of(comp *computation) (sum Cost) {
	if comp == nil {
		return sum
	}
	if known, ok := c.done[comp]; ok {
		return known
	}
	for _, in := range comp.instrs {
		calls := c.m.calls(in)
		switch {
		case in.op == "conditional":
			var worst Cost
			for _, b := range calls {
				one := c.of(b.to)
				worst = Cost{max(worst.FLOPs, one.FLOPs), max(worst.Ours, one.Ours), max(worst.Bytes, one.Bytes), max(worst.Launches, one.Launches), max(worst.UnknownLoops, one.UnknownLoops)}
			}
			sum.add(worst, 1)
		case len(calls) > 0:
			if in.op == "while" && in.trips() == 0 {
				sum.UnknownLoops++
			}
			for _, b := range calls {
				sum.add(c.of(b.to), b.times)
			}
		default:
			sum.FLOPs += c.flops(comp, in)
			if in.op == "custom-call" {
				sum.Ours += kernelFLOPs(comp, in)
			}
			sum.Bytes += c.bytes(comp, in)
			if !moveless(in) {
				sum.Launches++
			}
		}
	}
	c.done[comp] = sum
	return sum
}

func (c *Cost) add(x Cost, times int64) {
	c.FLOPs += times * x.FLOPs
	c.Ours += times * x.Ours
	c.Bytes += times * x.Bytes
	c.Launches += times * x.Launches
	c.UnknownLoops += x.UnknownLoops
}

// flops of one instruction, and of what is fused into it.
func (c coster) flops(comp *computation, in *instr) (n int64) {
	switch in.op {
	case "fusion":
		inside := c.m.called(in, "calls")
		if inside == nil {
			return 0
		}
		for _, x := range inside.instrs {
			n += c.flops(inside, x)
		}
	case "dot":
		n = product(comp, in, numbers(in.attr("lhs_contracting_dims")))
	case "custom-call":
		if dims, ok := gemm(in); ok {
			n = product(comp, in, dims)
		}
	}
	return n
}

// product is 2 × the elements of the result × the sizes that are summed over.
func product(comp *computation, in *instr, contracting []int) int64 {
	lhs := comp.given(in, 0)
	if len(lhs) == 0 || len(in.shape) == 0 {
		return 0
	}
	n := 2 * in.shape[0].elements()
	for _, d := range contracting {
		if d >= 0 && d < len(lhs[0].dims) {
			n *= lhs[0].dims[d]
		}
	}
	return n
}

var contracting = regexp.MustCompile(`"lhs_contracting_dimensions":(\[[^\]]*\])`)

// gemm tells a matrix product of cuBLAS from other custom calls, and which axes of its left side it sums over.
func gemm(in *instr) (dims []int, ok bool) {
	if !strings.HasPrefix(in.attr("custom_call_target"), `"__cublas$`) {
		return nil, false
	}
	m := contracting.FindStringSubmatch(in.attrs)
	if m == nil {
		return nil, false
	}
	err := json.Unmarshal([]byte(strings.ReplaceAll(m[1], `"`, "")), &dims)
	return dims, err == nil
}

// free are operations that move nothing.
var free = []string{"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id",
	"opt-barrier", "add-dependency", "domain", "get-dimension-size"}

// moveless tells operations that a device has nothing to do for.
func moveless(in *instr) bool {
	return slices.Contains(free, in.op) || strings.HasSuffix(in.op, "-done")
}

// aliased is where a custom call says which results lie in the memory of operands: {1}: (6, {}).
var aliased = regexp.MustCompile(`\{(\d*)\}: \((\d+), \{\}`)

// inPlace are the bytes of operands and results of a custom call that are the same memory, of which it touches a little.
func inPlace(comp *computation, in *instr) (n int64) {
	for _, a := range aliased.FindAllStringSubmatch(in.attr("output_to_operand_aliasing"), -1) {
		operand, err := strconv.Atoi(a[2])
		if err == nil {
			n += 2 * total(comp.given(in, operand))
		}
	}
	return n
}

// bytes of one instruction: all operands and results, but of slices, gathers and updates in place only what they
// touch.
func (c coster) bytes(comp *computation, in *instr) int64 {
	if moveless(in) {
		return 0
	}
	switch in.op {
	case "dynamic-slice", "slice":
		return 2 * total(in.shape)
	case "gather":
		return 2*total(in.shape) + total(comp.given(in, 1))
	case "dynamic-update-slice":
		return 2 * total(comp.given(in, 1))
	case "scatter":
		return 2*total(comp.given(in, 2)) + total(comp.given(in, 1))
	case "custom-call":
		return comp.operandBytes(in) + total(in.shape) - inPlace(comp, in)
	case "fusion":
		if inside := c.m.called(in, "calls"); inside != nil {
			return fused(inside)
		}
	}
	if strings.HasSuffix(in.op, "-start") {
		return 2 * comp.operandBytes(in)
	}
	return comp.operandBytes(in) + total(in.shape)
}

// fused is what a fusion reads by its parameters and writes by its root.
func fused(c *computation) (n int64) {
	for _, in := range c.instrs {
		if in.op == "parameter" {
			n += read(c, in)
		}
	}
	if c.root == nil {
		return n
	}
	if c.root.op != "tuple" {
		return n + written(c, c.root)
	}
	for i := range c.root.operands {
		if x := c.operand(c.root, i); x != nil {
			n += written(c, x)
		}
	}
	return n
}

// read is what is touched of a value in a fusion: all of it, unless only slices of it are used.
func read(c *computation, of *instr) (n int64) {
	whole := total(of.shape)
	for _, user := range c.instrs[of.index+1:] { // operands come first
		i := slices.IndexFunc(user.operands, func(o operand) bool { return o.name == of.name })
		if i < 0 {
			continue
		}
		switch {
		case i == 0 && (user.op == "dynamic-slice" || user.op == "slice" || user.op == "gather"):
			n += total(user.shape)
		case i == 0 && (user.op == "dynamic-update-slice" || user.op == "scatter"): // in place
		case user.op == "bitcast":
			n += read(c, user)
		default:
			return whole
		}
	}
	return min(n, whole)
}

// written is what a result of a fusion takes: of an update in place only the new part.
func written(c *computation, in *instr) int64 {
	for range c.instrs { // as many as there can be in a chain
		x := c.operand(in, 0)
		if in.op != "bitcast" || x == nil {
			break
		}
		in = x
	}
	switch in.op {
	case "dynamic-update-slice":
		return total(c.given(in, 1))
	case "scatter":
		return total(c.given(in, 2))
	case "parameter": // handed through
		return 0
	}
	return total(in.shape)
}
