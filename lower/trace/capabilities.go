package trace

import (
	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
)

// Capabilities lists what a trace can hold: the tables of elementwise operations and others.
func Capabilities() compute.Capabilities {
	c := compute.Capabilities{Operations: map[compute.OpType]bool{}, DTypes: map[dtypes.DType]bool{}, Functions: true}
	for op := range unary {
		c.Operations[op] = true
	}
	for op := range binary {
		c.Operations[op] = true
	}
	for op := range comparison {
		c.Operations[op] = true
	}
	for _, op := range others {
		c.Operations[op] = true
	}
	for _, t := range computed {
		c.DTypes[t] = true
	}
	return c
}

// computed are the dtypes that every operation knows. Others (4-bit integers, 8-bit floats) can be
// stored and converted.
var computed = []dtypes.DType{
	dtypes.Bool, dtypes.Int8, dtypes.Int16, dtypes.Int32, dtypes.Int64, dtypes.Uint8, dtypes.Uint16, dtypes.Uint32, dtypes.Uint64,
	dtypes.Float16, dtypes.BFloat16, dtypes.Float32, dtypes.Float64, dtypes.Complex64, dtypes.Complex128,
}

var others = []compute.OpType{
	compute.OpTypeParameter, compute.OpTypeConstant, compute.OpTypeIdentity,
	compute.OpTypeIsFinite, compute.OpTypeIsNaN, compute.OpTypeClamp, compute.OpTypeWhere,
	compute.OpTypeComplex, compute.OpTypeReal, compute.OpTypeImag, compute.OpTypeConj,
	compute.OpTypeConvertDType, compute.OpTypeBitcast, compute.OpTypeBroadcastInDim, compute.OpTypeReshape,
	compute.OpTypeTranspose, compute.OpTypeReverse, compute.OpTypeConcatenate, compute.OpTypeSlice, compute.OpTypePad,
	compute.OpTypeIota, compute.OpTypeOptimizationBarrier, compute.OpTypeSchedulingBarrier,
	compute.OpTypeDot, compute.OpTypeDotGeneral, compute.OpTypeConvGeneral, compute.OpTypeFFT,
	compute.OpTypeBatchNormForInference, compute.OpTypeBatchNormForTraining, compute.OpTypeBatchNormGradient,
	compute.OpTypeReduceSum, compute.OpTypeReduceProduct, compute.OpTypeReduceMax, compute.OpTypeReduceMin,
	compute.OpTypeReduceBitwiseAnd, compute.OpTypeReduceBitwiseOr, compute.OpTypeReduceBitwiseXor,
	compute.OpTypeReduceLogicalAnd, compute.OpTypeReduceLogicalOr, compute.OpTypeReduceLogicalXor,
	compute.OpTypeArgMinMax, compute.OpTypeReduceWindow, compute.OpTypeCumSum,
	compute.OpTypeSelectAndScatterMax, compute.OpTypeSelectAndScatterMin,
	compute.OpTypeGather, compute.OpTypeScatterSum, compute.OpTypeScatterMax, compute.OpTypeScatterMin,
	compute.OpTypeDynamicSlice, compute.OpTypeDynamicUpdateSlice,
	compute.OpTypeSort, compute.OpTypeWhile, compute.OpTypeIf, compute.OpTypeCall,
	compute.OpTypeRNGBitGenerator, compute.OpTypeAllReduce,
}
