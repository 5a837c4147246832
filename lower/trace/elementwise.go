package trace

import (
	"fmt"
	"slices"

	"mix/lower/ir"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapeinference"
	"github.com/gomlx/compute/shapes"
)

// unary maps the operations of one operand that keep its shape and dtype.
var unary = map[compute.OpType]string{
	compute.OpTypeAbs:        "stablehlo.abs",
	compute.OpTypeBitCount:   "stablehlo.popcnt",
	compute.OpTypeBitwiseNot: "stablehlo.not",
	compute.OpTypeCeil:       "stablehlo.ceil",
	compute.OpTypeClz:        "stablehlo.count_leading_zeros",
	compute.OpTypeCos:        "stablehlo.cosine",
	compute.OpTypeErf:        "chlo.erf",
	compute.OpTypeExp:        "stablehlo.exponential",
	compute.OpTypeExpm1:      "stablehlo.exponential_minus_one",
	compute.OpTypeFloor:      "stablehlo.floor",
	compute.OpTypeLog:        "stablehlo.log",
	compute.OpTypeLog1p:      "stablehlo.log_plus_one",
	compute.OpTypeLogicalNot: "stablehlo.not",
	compute.OpTypeLogistic:   "stablehlo.logistic",
	compute.OpTypeNeg:        "stablehlo.negate",
	compute.OpTypeRound:      "stablehlo.round_nearest_even",
	compute.OpTypeRsqrt:      "stablehlo.rsqrt",
	compute.OpTypeSign:       "stablehlo.sign",
	compute.OpTypeSin:        "stablehlo.sine",
	compute.OpTypeSqrt:       "stablehlo.sqrt",
	compute.OpTypeTanh:       "stablehlo.tanh",
}

// binary maps the operations of two operands of one dtype.
var binary = map[compute.OpType]string{
	compute.OpTypeAdd:                  "stablehlo.add",
	compute.OpTypeAtan2:                "stablehlo.atan2",
	compute.OpTypeBitwiseAnd:           "stablehlo.and",
	compute.OpTypeBitwiseOr:            "stablehlo.or",
	compute.OpTypeBitwiseXor:           "stablehlo.xor",
	compute.OpTypeDiv:                  "stablehlo.divide",
	compute.OpTypeLogicalAnd:           "stablehlo.and",
	compute.OpTypeLogicalOr:            "stablehlo.or",
	compute.OpTypeLogicalXor:           "stablehlo.xor",
	compute.OpTypeMax:                  "stablehlo.maximum",
	compute.OpTypeMin:                  "stablehlo.minimum",
	compute.OpTypeMul:                  "stablehlo.multiply",
	compute.OpTypePow:                  "stablehlo.power",
	compute.OpTypeRem:                  "stablehlo.remainder",
	compute.OpTypeShiftLeft:            "stablehlo.shift_left",
	compute.OpTypeShiftRightArithmetic: "stablehlo.shift_right_arithmetic",
	compute.OpTypeShiftRightLogical:    "stablehlo.shift_right_logical",
	compute.OpTypeSub:                  "stablehlo.subtract",
}

// comparison maps comparisons to their direction, and says which order floats totally.
var comparison = map[compute.OpType]struct {
	direction string
	total     bool
}{
	compute.OpTypeEqual:                    {"EQ", false},
	compute.OpTypeNotEqual:                 {"NE", false},
	compute.OpTypeLessThan:                 {"LT", false},
	compute.OpTypeLessOrEqual:              {"LE", false},
	compute.OpTypeGreaterThan:              {"GT", false},
	compute.OpTypeGreaterOrEqual:           {"GE", false},
	compute.OpTypeEqualTotalOrder:          {"EQ", true},
	compute.OpTypeNotEqualTotalOrder:       {"NE", true},
	compute.OpTypeLessThanTotalOrder:       {"LT", true},
	compute.OpTypeLessOrEqualTotalOrder:    {"LE", true},
	compute.OpTypeGreaterThanTotalOrder:    {"GT", true},
	compute.OpTypeGreaterOrEqualTotalOrder: {"GE", true},
}

func (f *Function) unary(op compute.OpType, x compute.Value) (compute.Value, error) {
	a, err := f.input(op.String(), x)
	if err != nil {
		return nil, err
	}
	shape, err := shapeinference.UnaryOp(op, a.shape)
	if err != nil {
		return nil, err
	}
	return result(f.emit(unary[op], shape, nil, a))
}

func (f *Function) binary(op compute.OpType, x, y compute.Value) (compute.Value, error) {
	a, b, err := f.input2(op.String(), x, y)
	if err != nil {
		return nil, err
	}
	shape, err := shapeinference.BinaryOp(op, a.shape, b.shape)
	if err != nil {
		return nil, err
	}
	return result(f.spread2(binary[op], shape, nil, a, b))
}

func (f *Function) compare(op compute.OpType, x, y compute.Value) (compute.Value, error) {
	a, b, err := f.input2(op.String(), x, y)
	if err != nil {
		return nil, err
	}
	shape, err := shapeinference.ComparisonOp(op, a.shape, b.shape)
	if err != nil {
		return nil, err
	}
	c := comparison[op]
	return result(f.spread2("stablehlo.compare", shape, compareAttrs(c.direction, a.shape.DType, c.total), a, b))
}

func compareAttrs(direction string, t dtypes.DType, total bool) ir.Attrs {
	kind := "SIGNED"
	switch {
	case total && t.IsFloat():
		kind = "TOTALORDER"
	case t.IsFloat() || t.IsComplex():
		kind = "FLOAT"
	case t == dtypes.Bool || t.IsUnsigned():
		kind = "UNSIGNED"
	}
	return ir.Attrs{
		"comparison_direction": ir.Attr("#stablehlo<comparison_direction " + direction + ">"),
		"compare_type":         ir.Attr("#stablehlo<comparison_type " + kind + ">"),
	}
}

// spread2 records a binary operation after broadcasting both operands to the result's dimensions.
func (f *Function) spread2(name string, shape shapes.Shape, attrs ir.Attrs, a, b *value) (*value, error) {
	a, err := f.spread(a, shape.Dimensions)
	if err != nil {
		return nil, err
	}
	if b, err = f.spread(b, shape.Dimensions); err != nil {
		return nil, err
	}
	return f.emit(name, shape, attrs, a, b)
}

// spread broadcasts a scalar, or axes of size 1, to dims.
func (f *Function) spread(x *value, dims []int) (*value, error) {
	if slices.Equal(x.shape.Dimensions, dims) {
		return x, nil
	}
	to := shapes.Make(x.shape.DType, dims...)
	axes := make([]int, x.shape.Rank())
	for i := range axes {
		axes[i] = i
	}
	return f.emit("stablehlo.broadcast_in_dim", to, ir.Attrs{"broadcast_dimensions": ir.Ints(axes...)}, x)
}

// result turns a typed nil into an untyped one.
func result(v *value, err error) (compute.Value, error) {
	if err != nil {
		return nil, err
	}
	return v, nil
}

// Abs of an unsigned value is the value, of a complex one its real magnitude.
func (f *Function) Abs(x compute.Value) (compute.Value, error) {
	a, err := f.input("Abs", x)
	switch {
	case err != nil:
		return nil, err
	case a.shape.DType.IsUnsigned():
		return a, nil
	case a.shape.DType.IsComplex():
		return result(f.emit("stablehlo.abs", withDType(a.shape, a.shape.DType.RealDType()), nil, a))
	}
	return f.unary(compute.OpTypeAbs, a)
}

// Sign of an unsigned value is 0 or 1, which StableHLO's sign does not give.
func (f *Function) Sign(x compute.Value) (compute.Value, error) {
	a, err := f.input("Sign", x)
	if err != nil {
		return nil, err
	}
	if !a.shape.DType.IsUnsigned() {
		return f.unary(compute.OpTypeSign, x)
	}
	one, err := f.splat(a.shape.DType, 1)
	if err != nil {
		return nil, err
	}
	return f.binary(compute.OpTypeMin, a, one)
}

// IsFinite says which elements are neither infinite nor NaN.
func (f *Function) IsFinite(x compute.Value) (compute.Value, error) {
	a, err := f.input("IsFinite", x)
	if err != nil {
		return nil, err
	}
	if !a.shape.DType.IsFloat() {
		return nil, fmt.Errorf("trace: IsFinite of %s, want a float", a.shape)
	}
	return result(f.emit("stablehlo.is_finite", withDType(a.shape, dtypes.Bool), nil, a))
}

// IsNaN says which elements differ from themselves.
func (f *Function) IsNaN(x compute.Value) (compute.Value, error) {
	return f.compare(compute.OpTypeNotEqual, x, x)
}

// Clamp bounds x; min and max are scalars or have x's shape.
func (f *Function) Clamp(min, x, max compute.Value) (compute.Value, error) {
	vs, err := f.inputs("Clamp", min, x, max)
	if err != nil {
		return nil, err
	}
	shape := vs[1].shape
	for i := range vs {
		if vs[i].shape.DType != shape.DType {
			return nil, fmt.Errorf("trace: Clamp of %s between %s and %s, want one dtype", shape, vs[0].shape, vs[2].shape)
		}
		if vs[i].shape.IsScalar() {
			continue
		}
		if vs[i], err = f.spread(vs[i], shape.Dimensions); err != nil {
			return nil, err
		}
	}
	if shape.IsScalar() && !(vs[0].shape.IsScalar() && vs[2].shape.IsScalar()) {
		return nil, fmt.Errorf("trace: Clamp of a scalar between %s and %s, want scalars", vs[0].shape, vs[2].shape)
	}
	return result(f.emit("stablehlo.clamp", shape, nil, vs...))
}

// Where takes onTrue where condition holds, else onFalse; scalars spread.
func (f *Function) Where(condition, onTrue, onFalse compute.Value) (compute.Value, error) {
	vs, err := f.inputs("Where", condition, onTrue, onFalse)
	if err != nil {
		return nil, err
	}
	shape, err := shapeinference.Where(vs[0].shape, vs[1].shape, vs[2].shape)
	if err != nil {
		return nil, err
	}
	for i := range vs {
		if i == 0 && vs[0].shape.IsScalar() {
			continue
		}
		if vs[i], err = f.spread(vs[i], shape.Dimensions); err != nil {
			return nil, err
		}
	}
	return result(f.emit("stablehlo.select", shape, nil, vs...))
}

// Complex joins two real values.
func (f *Function) Complex(re, im compute.Value) (compute.Value, error) {
	a, b, err := f.input2("Complex", re, im)
	if err != nil {
		return nil, err
	}
	t := complexOf(a.shape.DType)
	if a.shape.DType != b.shape.DType || t == dtypes.InvalidDType {
		return nil, fmt.Errorf("trace: Complex of %s and %s, want two of Float32 or two of Float64", a.shape, b.shape)
	}
	dims := a.shape.Dimensions
	if a.shape.IsScalar() {
		dims = b.shape.Dimensions
	} else if !b.shape.IsScalar() && !slices.Equal(dims, b.shape.Dimensions) {
		return nil, fmt.Errorf("trace: Complex of %s and %s, want equal dimensions or a scalar", a.shape, b.shape)
	}
	return result(f.spread2("stablehlo.complex", shapes.Make(t, dims...), nil, a, b))
}

func complexOf(t dtypes.DType) dtypes.DType {
	switch t {
	case dtypes.Float32:
		return dtypes.Complex64
	case dtypes.Float64:
		return dtypes.Complex128
	}
	return dtypes.InvalidDType
}

// Real is the real part; of a real value, the value.
func (f *Function) Real(x compute.Value) (compute.Value, error) { return f.part("stablehlo.real", x) }

// Imag is the imaginary part; of a real value, zero.
func (f *Function) Imag(x compute.Value) (compute.Value, error) {
	a, err := f.input("Imag", x)
	if err != nil {
		return nil, err
	}
	if a.shape.DType.IsComplex() {
		return f.part("stablehlo.imag", x)
	}
	zero, err := f.splat(a.shape.DType, 0)
	if err != nil {
		return nil, err
	}
	return result(f.spread(zero, a.shape.Dimensions))
}

func (f *Function) part(name string, x compute.Value) (compute.Value, error) {
	a, err := f.input(name, x)
	if err != nil {
		return nil, err
	}
	if !a.shape.DType.IsComplex() {
		return f.Identity(x)
	}
	return result(f.emit(name, withDType(a.shape, a.shape.DType.RealDType()), nil, a))
}

// Conj negates the imaginary part.
func (f *Function) Conj(x compute.Value) (compute.Value, error) {
	a, err := f.input("Conj", x)
	if err != nil {
		return nil, err
	}
	if _, err := shapeinference.UnaryOp(compute.OpTypeConj, a.shape); err != nil {
		return nil, err
	}
	re, err := f.Real(a)
	if err != nil {
		return nil, err
	}
	im, err := f.Imag(a)
	if err != nil {
		return nil, err
	}
	if im, err = f.Neg(im); err != nil {
		return nil, err
	}
	return f.Complex(re, im)
}

// withDType is s with another dtype.
func withDType(s shapes.Shape, t dtypes.DType) shapes.Shape {
	s = s.Clone()
	s.DType = t
	return s
}
