package data

import (
	"encoding/binary"
	"fmt"
	"math"
)

// DType is how a token is stored in a .bin file; the values are the codes of the .idx file.
type DType uint8

// The codes, all of them little-endian. Floats are described but not read as tokens.
const (
	Uint8 DType = iota + 1
	Int8
	Int16
	Int32
	Int64
	Float64
	Float32
	Uint16
)

// dtypes has a row a code: name, bytes, and the ids that fit, none for floats.
var dtypes = [...]struct {
	name     string
	bytes    int
	min, max int64
}{
	Uint8:   {"uint8", 1, 0, math.MaxUint8},
	Int8:    {"int8", 1, math.MinInt8, math.MaxInt8},
	Int16:   {"int16", 2, math.MinInt16, math.MaxInt16},
	Int32:   {"int32", 4, math.MinInt32, math.MaxInt32},
	Int64:   {"int64", 8, math.MinInt32, math.MaxInt32}, // ids are int32 everywhere else
	Float64: {"float64", 8, 0, -1},
	Float32: {"float32", 4, 0, -1},
	Uint16:  {"uint16", 2, 0, math.MaxUint16},
}

// DTypeFor is the dtype that Megatron's preprocessing takes for a vocabulary: uint16 below 65500 ids,
// int32 from there on.
func DTypeFor(vocab int) DType {
	if vocab < 65500 {
		return Uint16
	}
	return Int32
}

func (d DType) valid() bool { return d >= Uint8 && d <= Uint16 }

// Bytes is the size of a token.
func (d DType) Bytes() int { return dtypes[d].bytes }

// String returns the name as numpy has it.
func (d DType) String() string {
	if !d.valid() {
		return fmt.Sprintf("dtype(%d)", uint8(d))
	}
	return dtypes[d].name
}

// integer tells whether tokens can have this dtype.
func (d DType) integer() bool { return d.valid() && dtypes[d].max > 0 }

// decode reads len(dst) tokens from b. It returns the index and the value of the first that is no int32,
// or -1.
func (d DType) decode(dst []int32, b []byte) (bad int, value int64) {
	switch d {
	case Uint8:
		for i := range dst {
			dst[i] = int32(b[i])
		}
	case Int8:
		for i := range dst {
			dst[i] = int32(int8(b[i]))
		}
	case Int16:
		for i := range dst {
			dst[i] = int32(int16(binary.LittleEndian.Uint16(b[2*i:])))
		}
	case Uint16:
		for i := range dst {
			dst[i] = int32(binary.LittleEndian.Uint16(b[2*i:]))
		}
	case Int32:
		for i := range dst {
			dst[i] = int32(binary.LittleEndian.Uint32(b[4*i:]))
		}
	case Int64:
		for i := range dst {
			v := int64(binary.LittleEndian.Uint64(b[8*i:]))
			if v != int64(int32(v)) {
				return i, v
			}
			dst[i] = int32(v)
		}
	}
	return -1, 0
}

// encode appends ids to b. It returns the index of the first id that does not fit, or -1.
func (d DType) encode(b []byte, ids []int32) (out []byte, bad int) {
	row := dtypes[d]
	for i, id := range ids {
		if int64(id) < row.min || int64(id) > row.max {
			return b, i
		}
		switch row.bytes {
		case 1:
			b = append(b, byte(id))
		case 2:
			b = binary.LittleEndian.AppendUint16(b, uint16(id))
		case 4:
			b = binary.LittleEndian.AppendUint32(b, uint32(id))
		case 8:
			b = binary.LittleEndian.AppendUint64(b, uint64(int64(id)))
		}
	}
	return b, -1
}
