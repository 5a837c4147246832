package pass

import "mix/lower/ir"

// dce removes dead operations and unreachable functions.
//
// After: every operation is read or has an effect; main reaches every function.
func dce(m *ir.Module, _ Context) (changed bool, err error) {
	ops, funcs := ir.RemoveDead(m)
	return ops+funcs > 0, nil
}
