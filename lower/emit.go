package lower

import (
	"fmt"
	"maps"
	"slices"

	"mix/lower/ir"
	"mix/lower/trace"
)

// emit marks the module with what XLA must know beside the program, and prints it.
//
// After: parameters to be donated carry tf.aliasing_output, the only form in which XLA updates in
// place for certain.
func emit(t *trace.Builder, aliases []int, replicas, partitions int) (string, error) {
	m := t.Module()
	if replicas*partitions > 1 {
		if m.Attrs == nil {
			m.Attrs = ir.Attrs{}
		}
		m.Attrs["mhlo.num_replicas"] = ir.I32(replicas)
		m.Attrs["mhlo.num_partitions"] = ir.I32(partitions)
	}
	main := m.Func("main")
	if main == nil {
		return "", fmt.Errorf("lower: program %q has lost its main function", t.Name())
	}
	for p, out := range aliases {
		if out < 0 {
			continue
		}
		if main.ParamAttrs == nil {
			main.ParamAttrs = make([]ir.Attrs, len(main.Body.Args))
		}
		attrs := maps.Clone(main.ParamAttrs[p])
		if attrs == nil {
			attrs = ir.Attrs{}
		}
		attrs["tf.aliasing_output"] = ir.I32(out)
		main.ParamAttrs[p] = attrs
	}
	return m.String(), nil
}

// resolveDonations gives for every parameter the output that it is donated to, or -1.
func resolveDonations(t *trace.Builder, donate map[string]int) ([]int, error) {
	if len(donate) == 0 {
		return nil, nil
	}
	params, outs := t.Params(), t.Outputs()
	aliases := slices.Repeat([]int{-1}, len(params))
	taken := map[int]string{}
	for name, out := range donate {
		p := slices.IndexFunc(params, func(p trace.Param) bool { return p.Name == name })
		switch {
		case p < 0:
			return nil, fmt.Errorf("lower: program %q: donated parameter %q does not exist", t.Name(), name)
		case out < 0 || out >= len(outs):
			return nil, fmt.Errorf("lower: program %q: parameter %q is donated to output %d, want 0 to %d", t.Name(), name, out, len(outs)-1)
		case !params[p].Shape.Equal(outs[out]):
			return nil, fmt.Errorf("lower: program %q: parameter %q is %s, its output %d %s, want equal shapes", t.Name(), name, params[p].Shape, out, outs[out])
		case taken[out] != "":
			return nil, fmt.Errorf("lower: program %q: parameters %q and %q are donated to output %d, want one", t.Name(), taken[out], name, out)
		}
		taken[out] = name
		aliases[p] = out
	}
	return aliases, nil
}
