package pass

import (
	"fmt"
	"strconv"
	"strings"
	"sync"

	"mix/lower/ir"
	"mix/lower/triton"
)

// The files cuda*.go put kernels of package triton in the place of composites. A composite that kernels do not fit keeps its
// body: too large, of other elements, its matrices a tensor each.

// tiles say how kernels cut their work.
var tiles = sync.OnceValue(triton.Default)

// kernelElems are the elements that kernels multiply.
var kernelElems = map[string]triton.Elem{"f16": triton.F16, "bf16": triton.BF16, "f32": triton.F32}

// emitPlan emits the calls of a plan on values, its inputs by name, to which it adds all results.
func emitPlan(b ir.Builder, p triton.Plan, values map[string]*ir.Value) error {
	for _, s := range p.Steps {
		operands := make([]*ir.Value, len(s.In))
		for i, name := range s.In {
			operands[i] = values[name]
		}
		results, err := EmitCall(b, s.Call, operands...)
		if err != nil {
			return err
		}
		for i, v := range results {
			values[s.Out[i]] = v
		}
	}
	return nil
}

// EmitCall emits a kernel's call and returns its results. It refuses operands that are not those the kernel takes.
func EmitCall(b ir.Builder, c triton.Call, operands ...*ir.Value) ([]*ir.Value, error) {
	if len(operands) != len(c.Operands) {
		return nil, fmt.Errorf("kernel %s: %d operands, wanted %d", c.Name, len(operands), len(c.Operands))
	}
	for i, want := range c.Operands {
		if v := operands[i]; v == nil || v.Type != ir.Type(want.String()) {
			return nil, fmt.Errorf("kernel %s: %s is not the %s that it takes", c.Name, want.Name, want)
		}
	}
	var types []ir.Type
	for _, a := range c.Results {
		types = append(types, ir.Type(a.String()))
	}
	attrs := ir.Attrs{
		"api_version": ir.I32(4), "call_target_name": ir.String(triton.Target), "backend_config": ir.Attr(c.Config()),
		"operand_layouts": layouts(c.Operands), "result_layouts": layouts(c.Results),
	}
	if len(c.InPlace) > 0 {
		attrs["output_operand_aliases"] = inPlace(c)
	}
	return b.Region.Emit("stablehlo.custom_call", operands, attrs, types...).Results, nil
}

// inPlace says which results lie in the memory of operands.
func inPlace(c triton.Call) ir.Attr {
	var all []ir.Attr
	for _, p := range c.InPlace {
		result := strconv.Itoa(p[0])
		if len(c.Results) == 1 {
			result = ""
		}
		all = append(all, ir.Attr(fmt.Sprintf("#stablehlo.output_operand_alias<output_tuple_indices = [%s], operand_index = %d, operand_tuple_indices = []>", result, p[1])))
	}
	return ir.List(all...)
}

func layouts(arrays []triton.Array) ir.Attr {
	var all [][]int
	for _, a := range arrays {
		all = append(all, a.Layout())
	}
	return layoutsOf(all)
}

// layoutsOf are the layouts of operands or results of a call: of each tensor the axes from the closest elements on.
func layoutsOf(tensors [][]int) ir.Attr {
	var all []ir.Attr
	for _, axes := range tensors {
		all = append(all, ir.Attr(fmt.Sprintf("dense<[%s]> : tensor<%dxindex>", strings.Join(texts(axes...), ", "), len(axes))))
	}
	return ir.List(all...)
}

// texts are integers as words, which is how JSON of protobuf has those of 64 bits.
func texts(vs ...int) []string {
	all := make([]string, len(vs))
	for i, v := range vs {
		all[i] = strconv.Itoa(v)
	}
	return all
}
