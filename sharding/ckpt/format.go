package ckpt

import (
	"fmt"
	"math/bits"
	"slices"

	"github.com/gomlx/compute/dtypes"
)

// format is one element type of the container.
type format struct {
	name  string
	bits  int          // of one element
	dtype dtypes.DType // InvalidDType where our graphs have no such type
}

// formats lists the element types of the container.
// Source: safetensors, README.md (Format) and the enumeration Dtype of its Rust library.
var formats = []format{
	{"BOOL", 8, dtypes.Bool},
	{"F4", 4, dtypes.InvalidDType},
	{"F6_E2M3", 6, dtypes.InvalidDType},
	{"F6_E3M2", 6, dtypes.InvalidDType},
	{"U8", 8, dtypes.Uint8},
	{"I8", 8, dtypes.Int8},
	{"F8_E5M2", 8, dtypes.F8E5M2},
	{"F8_E4M3", 8, dtypes.F8E4M3FN},
	{"F8_E8M0", 8, dtypes.F8E8M0FNU},
	{"F8_E4M3FNUZ", 8, dtypes.F8E4M3FNUZ},
	{"F8_E5M2FNUZ", 8, dtypes.F8E5M2FNUZ},
	{"I16", 16, dtypes.Int16},
	{"U16", 16, dtypes.Uint16},
	{"F16", 16, dtypes.Float16},
	{"BF16", 16, dtypes.BFloat16},
	{"I32", 32, dtypes.Int32},
	{"U32", 32, dtypes.Uint32},
	{"F32", 32, dtypes.Float32},
	{"C64", 64, dtypes.Complex64},
	{"F64", 64, dtypes.Float64},
	{"I64", 64, dtypes.Int64},
	{"U64", 64, dtypes.Uint64},
}

func formatNamed(name string) (format, bool) {
	i := slices.IndexFunc(formats, func(f format) bool { return f.name == name })
	if i < 0 {
		return format{}, false
	}
	return formats[i], true
}

func formatOf(dtype dtypes.DType) (format, bool) {
	i := slices.IndexFunc(formats, func(f format) bool { return f.dtype == dtype && dtype != dtypes.InvalidDType })
	if i < 0 {
		return format{}, false
	}
	return formats[i], true
}

// bytesOf is the size of one element of a weight.
func bytesOf(dtype dtypes.DType) int {
	f, _ := formatOf(dtype)
	return f.bits / 8
}

// bytes is the size of a tensor of this type. It fails if a dimension is negative, the size does not
// fit, or elements narrower than a byte do not fill the last one.
func (f format) bytes(shape []int) (int64, error) {
	n := uint64(1)
	for _, d := range shape {
		if d < 0 {
			return 0, fmt.Errorf("dimension %d of shape %s is negative", d, shapeText(shape))
		}
		hi, lo := bits.Mul64(n, uint64(d))
		if hi != 0 {
			return 0, fmt.Errorf("shape %s overflows", shapeText(shape))
		}
		n = lo
	}
	hi, n := bits.Mul64(n, uint64(f.bits))
	if hi != 0 || n/8 > 1<<62 {
		return 0, fmt.Errorf("shape %s overflows", shapeText(shape))
	}
	if n%8 != 0 {
		return 0, fmt.Errorf("shape %s of %s ends inside a byte", shapeText(shape), f.name)
	}
	return int64(n / 8), nil
}

// shapeText prints a shape for a message, however long it is.
func shapeText(shape []int) string {
	if len(shape) > 16 {
		return fmt.Sprintf("%v… (%d axes)", shape[:16], len(shape))
	}
	return fmt.Sprint(shape)
}

// quote prints a name from a file for a message, however long it is.
func quote(name string) string {
	const most = 160
	if len(name) > most {
		return fmt.Sprintf("%q… (%d bytes)", name[:most], len(name))
	}
	return fmt.Sprintf("%q", name)
}
