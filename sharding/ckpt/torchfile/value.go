package torchfile

import (
	"errors"
	"fmt"
	"math/big"

	"github.com/gomlx/compute/dtypes"
)

// What can be wrong with a file. Test with errors.Is.
var (
	ErrFormat  = errors.New("malformed torch file") // the container or the pickle breaks its format's rules
	ErrRefused = errors.New("refused pickle")       // the pickle wants something that is not data
)

// A value of a pickle is one of
//
//	nil, bool, int64, *big.Int (where int64 is too narrow), float64, string, []byte,
//	Tuple, *List, *Dict, Global, *Object, *Tensor
//
// and the writer takes int as well. Values may share parts; lists and dictionaries may even hold themselves,
// so whoever walks them must bound the depth.

// Tuple is a tuple of Python.
type Tuple []any

// List is a list or a set of Python.
type List struct{ Items []any }

// Dict is a dictionary of Python in the order of its keys, which are text, numbers, booleans or nil.
type Dict struct {
	Keys, Values []any
	at           map[any]int
}

// Set sets the value of a key. It fails if the key is of another kind than a dictionary of ours takes.
func (d *Dict) Set(key, value any) error {
	switch k := key.(type) {
	case nil, bool, int64, float64, string:
	case int:
		key = int64(k)
	default:
		return fmt.Errorf("key of a dictionary is a %s, want text, a number or a boolean", kind(key))
	}
	if d.at == nil {
		d.at = map[any]int{}
	}
	if i, ok := d.at[key]; ok {
		d.Values[i] = value
		return nil
	}
	d.at[key] = len(d.Keys)
	d.Keys, d.Values = append(d.Keys, key), append(d.Values, value)
	return nil
}

// Get is the value of a key.
func (d *Dict) Get(key any) (value any, ok bool) {
	i, ok := d.at[key]
	if !ok {
		return nil, false
	}
	return d.Values[i], true
}

// DictOf is a dictionary of text keys: key, value, key, value and so on.
func DictOf(pairs ...any) *Dict {
	d := &Dict{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if err := d.Set(pairs[i], pairs[i+1]); err != nil {
			panic(err) // the keys are written out by the caller
		}
	}
	return d
}

// Global is a name of Python, such as torch.bfloat16, that is not looked up.
type Global struct{ Module, Name string }

func (g Global) String() string { return g.Module + "." + g.Name }

// Object is what a pickle would make of a class: the class's name, what it would be made of, its fields.
type Object struct {
	Class Global
	Args  Tuple
	State any // a *Dict of fields for plain objects; nil for none
}

// Field is a field of the object.
func (o *Object) Field(name string) (value any, ok bool) {
	d, isDict := o.State.(*Dict)
	if !isDict {
		return nil, false
	}
	return d.Get(name)
}

// Tensor is a view of a storage: element i, j, … is the storage's element Offset + i·Stride[0] + j·Stride[1] + …
type Tensor struct {
	DType   dtypes.DType
	Shape   []int
	Stride  []int // elements
	Offset  int   // elements
	Storage *Storage
}

// Storage is a run of elements in the file that tensors are views of.
type Storage struct {
	Key      string
	DType    dtypes.DType // InvalidDType for bytes whose tensors know their type
	Elements int64
	At       int64 // position in the file of the first byte
	Bytes    int64
}

// NewTensor is a whole tensor for the writer, row-major, with a storage of its own.
func NewTensor(dtype dtypes.DType, shape ...int) *Tensor {
	t := &Tensor{DType: dtype, Shape: shape, Stride: rowMajor(shape)}
	t.Storage = &Storage{DType: dtype, Elements: int64(t.Elements())}
	t.Storage.Bytes = t.Storage.Elements * int64(dtype.Size())
	return t
}

// Elements is the number of elements of the tensor.
func (t *Tensor) Elements() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// At is the position in the file of the tensor's first element.
func (t *Tensor) At() int64 { return t.Storage.At + int64(t.Offset)*int64(t.DType.Size()) }

// RowMajor says whether the elements lie in the file one after another, the last axis fastest.
func (t *Tensor) RowMajor() bool {
	want := 1
	for i := len(t.Shape) - 1; i >= 0; i-- {
		if t.Shape[i] != 1 && t.Stride[i] != want {
			return t.Elements() == 0
		}
		want *= t.Shape[i]
	}
	return true
}

func rowMajor(shape []int) []int {
	stride := make([]int, len(shape))
	n := 1
	for i := len(shape) - 1; i >= 0; i-- {
		stride[i] = n
		n *= shape[i]
	}
	return stride
}

// Show is a value in a message: what is short as it is, of all else the kind. Values that share parts may be of endless
// text.
func Show(v any) string {
	switch v := v.(type) {
	case nil, bool, int64, int, float64:
		return fmt.Sprint(v)
	case string:
		return fmt.Sprintf("%.40q", v)
	}
	return kind(v)
}

// kind is the name of a value's type for messages.
func kind(v any) string {
	switch v := v.(type) {
	case nil:
		return "none"
	case bool:
		return "boolean"
	case int64, int, *big.Int:
		return "integer"
	case float64:
		return "float"
	case string:
		return "text"
	case []byte:
		return "bytes"
	case Tuple:
		return "tuple"
	case *List:
		return "list"
	case *Dict:
		return "dictionary"
	case Global:
		return "global " + v.String()
	case *Object:
		return "object of " + v.Class.String()
	case *Tensor:
		return "tensor"
	case *Storage:
		return "storage"
	}
	return "mark"
}
