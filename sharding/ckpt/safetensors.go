package ckpt

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"runtime"
	"runtime/debug"

	"github.com/gomlx/compute/dtypes"
)

// File is an open safetensors file. Its methods copy what they return; none may run during Close or after.
type File struct {
	name     string // for messages
	region   region
	infos    []Info // in the order of their bytes
	byName   map[string]int
	metadata map[string]string
}

// OpenFile opens a safetensors file and checks its header against the format and the file's size.
// Errors are of the file system, ErrFormat or ErrTruncated.
func OpenFile(path string) (*File, error) {
	r, err := openPath(path)
	if err != nil {
		return nil, err
	}
	f, err := newFile(path, r)
	if err != nil {
		r.close()
		return nil, err
	}
	return f, nil
}

// newFile reads the header of r. If the file ends before its tensors do, it returns both the file,
// good for a listing, and ErrTruncated.
func newFile(name string, r region) (f *File, err error) {
	defer fault(name, &err)()
	infos, metadata, err := readHeader(r)
	if err != nil {
		err = fmt.Errorf("%s: %w", name, err)
		if infos == nil {
			return nil, err
		}
	}
	f = &File{name: name, region: r, infos: infos, byName: make(map[string]int, len(infos)), metadata: metadata}
	for i, t := range infos {
		f.byName[t.Name] = i
	}
	return f, err
}

// Names lists the tensors in the order of their bytes.
func (f *File) Names() []string {
	names := make([]string, len(f.infos))
	for i, t := range f.infos {
		names[i] = t.Name
	}
	return names
}

// Metadata is the free text of the header, such as {"format": "pt"}.
func (f *File) Metadata() map[string]string { return f.metadata }

// Info describes a tensor. The error is ErrMissing if there is none of that name.
func (f *File) Info(name string) (Info, error) {
	i, ok := f.byName[name]
	if !ok {
		return Info{}, fmt.Errorf("%s: %w %s", f.name, ErrMissing, quote(name))
	}
	return f.infos[i], nil
}

// Bytes is a copy of a tensor as it lies in the file.
func (f *File) Bytes(name string) (b []byte, err error) {
	t, err := f.Info(name)
	if err != nil {
		return nil, err
	}
	defer fault(f.name, &err)()
	v, err := f.region.view(t.Offset, t.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: tensor %s: %w", f.name, quote(name), err)
	}
	return bytes.Clone(v), nil
}

// Float32s is a tensor of F32, BF16, F16 or F64, each element rounded to float32. Other types are ErrDType.
func (f *File) Float32s(name string) ([]float32, error) {
	t, err := f.Info(name)
	if err != nil {
		return nil, err
	}
	b, err := f.Bytes(name)
	if err != nil {
		return nil, err
	}
	switch {
	case t.DType == dtypes.Float64:
		list := make([]float32, len(b)/8)
		for i := range list {
			list[i] = float32(math.Float64frombits(binary.LittleEndian.Uint64(b[8*i:])))
		}
		return list, nil
	case kernels[t.DType][dtypes.Float32] == nil:
		return nil, fmt.Errorf("%s: %w: tensor %s is %s, want F32, BF16, F16 or F64", f.name, ErrDType, quote(name), t.Format)
	case t.DType != dtypes.Float32:
		wide := make([]byte, 2*len(b))
		kernels[t.DType][dtypes.Float32](wide, b)
		b = wide
	}
	list := make([]float32, len(b)/4)
	for i := range list {
		list[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return list, nil
}

// Ints is a tensor of I64, I32 or BOOL (0 and 1). Other types are ErrDType.
func (f *File) Ints(name string) ([]int, error) {
	t, err := f.Info(name)
	if err != nil {
		return nil, err
	}
	b, err := f.Bytes(name)
	if err != nil {
		return nil, err
	}
	var width int
	var at func(b []byte) int
	switch t.DType {
	case dtypes.Int64:
		width, at = 8, func(b []byte) int { return int(binary.LittleEndian.Uint64(b)) }
	case dtypes.Int32:
		width, at = 4, func(b []byte) int { return int(int32(binary.LittleEndian.Uint32(b))) }
	case dtypes.Bool:
		width, at = 1, func(b []byte) int { return int(min(b[0], 1)) }
	default:
		return nil, fmt.Errorf("%s: %w: tensor %s is %s, want I64, I32 or BOOL", f.name, ErrDType, quote(name), t.Format)
	}
	list := make([]int, len(b)/width)
	for i := range list {
		list[i] = at(b[i*width:])
	}
	return list, nil
}

// Close lets go of the file.
func (f *File) Close() error { return f.region.close() }

// fault turns a memory fault of this goroutine, which a mapped file causes when it shrinks under its
// reader or its disk fails, into *err. Use: defer fault(name, &err)().
func fault(name string, err *error) func() {
	old := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(old)
		switch r := recover().(type) {
		case nil:
		case interface {
			runtime.Error
			Addr() uintptr
		}:
			*err = fmt.Errorf("%s: %w: the file changed or became unreadable while it was read", name, ErrTruncated)
		default:
			panic(r)
		}
	}
}
