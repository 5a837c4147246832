package lower

import (
	"fmt"
	"reflect"
	"sync/atomic"

	"mix/lower/pjrt"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
)

// Buffer is a tensor on a device. It may still be in the making: reads wait for it, and return the
// error of the program that was to make it.
type Buffer struct {
	be     *Backend
	b      *pjrt.Buffer // on a mesh, the part of the first device
	parts  *parts       // on a mesh, those of all
	shape  shapes.Shape
	device compute.DeviceNum
	gone   atomic.Bool // finalized or donated
}

var _ compute.Buffer = (*Buffer)(nil)

// elementTypes are the dtypes that buffers hold.
var elementTypes = map[dtypes.DType]pjrt.BufferType{
	dtypes.Bool: pjrt.BufferTypePRED,
	dtypes.Int8: pjrt.BufferTypeS8, dtypes.Int16: pjrt.BufferTypeS16, dtypes.Int32: pjrt.BufferTypeS32, dtypes.Int64: pjrt.BufferTypeS64,
	dtypes.Uint8: pjrt.BufferTypeU8, dtypes.Uint16: pjrt.BufferTypeU16, dtypes.Uint32: pjrt.BufferTypeU32, dtypes.Uint64: pjrt.BufferTypeU64,
	dtypes.Float16: pjrt.BufferTypeF16, dtypes.BFloat16: pjrt.BufferTypeBF16, dtypes.Float32: pjrt.BufferTypeF32, dtypes.Float64: pjrt.BufferTypeF64,
	dtypes.Complex64: pjrt.BufferTypeC64, dtypes.Complex128: pjrt.BufferTypeC128,
	dtypes.Int2: pjrt.BufferTypeS2, dtypes.Uint2: pjrt.BufferTypeU2, dtypes.Int4: pjrt.BufferTypeS4, dtypes.Uint4: pjrt.BufferTypeU4,
}

// Backend is the backend that the buffer belongs to.
func (b *Buffer) Backend() compute.Backend { return b.be }

// Shape is the shape the buffer was made with.
func (b *Buffer) Shape() (shapes.Shape, error) { return b.shape, nil }

// DeviceNum is the device the buffer is on.
func (b *Buffer) DeviceNum() (compute.DeviceNum, error) { return b.device, nil }

// Finalize frees the buffer; programs already started on it are not disturbed. Twice does nothing.
func (b *Buffer) Finalize() error {
	if b.gone.Swap(true) {
		return nil
	}
	switch {
	case b.parts != nil:
		return b.parts.destroy()
	case b.b == nil: // hollow
		return nil
	}
	return b.b.Destroy()
}

// alive refuses a buffer that is finalized or donated.
func (b *Buffer) alive() error {
	if b.gone.Load() {
		return fmt.Errorf("lower: buffer %s is finalized or was donated", b.shape)
	}
	return nil
}

// ReadInto copies the elements, row-major, into dst and waits for them. dst must have exactly the
// buffer's size in bytes.
func (b *Buffer) ReadInto(dst []byte) error {
	if err := b.alive(); err != nil {
		return err
	}
	if b.be.emit != nil {
		return fmt.Errorf("lower: reading %s: %w", b.shape, ErrHollow)
	}
	if want := int(b.shape.ByteSize()); len(dst) != want {
		return fmt.Errorf("lower: %d bytes to read %s into, want %d", len(dst), b.shape, want)
	}
	if b.parts != nil {
		return b.parts.read(b.be.o.Mesh, b.shape, dst)
	}
	if b.shape.DType.IsPacked() {
		one := make([]byte, b.shape.Size())
		if err := b.b.ToHost(one); err != nil {
			return err
		}
		pack(b.shape.DType, one, dst)
		return nil
	}
	return b.b.ToHost(dst)
}

// ToFlatData is ReadInto for a slice of the dtype's Go type.
func (b *Buffer) ToFlatData(flat any) error {
	dst, err := flatBytes(flat, b.shape)
	if err != nil {
		return err
	}
	return b.ReadInto(dst)
}

// Wait returns when the buffer is there, or the program that was to make it has failed.
func (b *Buffer) Wait() error {
	if err := b.alive(); err != nil {
		return err
	}
	switch {
	case b.be.emit != nil:
		return fmt.Errorf("lower: waiting for %s: %w", b.shape, ErrHollow)
	case b.parts != nil:
		return b.parts.wait()
	}
	return wait(b.b)
}

func wait(b *pjrt.Buffer) error {
	ev, err := b.Ready()
	if err != nil {
		return err
	}
	return ev.Wait()
}

// Address is where the elements are in device memory, on a mesh in the first device's, for tests of what is in place.
func (b *Buffer) Address() (uintptr, error) {
	if err := b.alive(); err != nil {
		return 0, err
	}
	if b.be.emit != nil {
		return 0, fmt.Errorf("lower: address of %s: %w", b.shape, ErrHollow)
	}
	return b.b.UnsafePointer()
}

// Data is refused: buffers are not shared, see HasSharedBuffers.
func (b *Buffer) Data() (flat any, err error) {
	return nil, fmt.Errorf("lower: Data of buffer %s: %w: buffers are not shared with the host", b.shape, compute.ErrNotImplemented)
}

// CopyToDevice copies the buffer to another device, or on the one it is on.
func (b *Buffer) CopyToDevice(n compute.DeviceNum) (compute.Buffer, error) {
	if err := b.alive(); err != nil {
		return nil, err
	}
	if b.be.emit != nil {
		return nil, fmt.Errorf("lower: copy of %s: %w", b.shape, ErrHollow)
	}
	if b.parts != nil {
		return nil, fmt.Errorf("lower: copy of %s, which lies on a mesh, to device %d", b.shape, n)
	}
	d, err := b.be.device(n)
	if err != nil {
		return nil, err
	}
	if n == b.device { // PJRT copies between devices only
		host := make([]byte, b.shape.ByteSize())
		if err := b.ReadInto(host); err != nil {
			return nil, err
		}
		return b.be.upload(n, host, b.shape)
	}
	c, err := b.b.CopyToDevice(d)
	if err != nil {
		return nil, err
	}
	return &Buffer{be: b.be, b: c, shape: b.shape, device: n}, nil
}

// flatBytes is the memory of flat, a slice of the shape's Go type, or bytes as they are, and of
// its size.
func flatBytes(flat any, s shapes.Shape) ([]byte, error) {
	if _, ok := elementTypes[s.DType]; !ok { // compute knows no size for some of them
		return nil, fmt.Errorf("lower: buffers of dtype %s: %w", s.DType, compute.ErrNotImplemented)
	}
	raw, isBytes := flat.([]byte)
	if !isBytes && !(flat == nil && s.Size() == 0) {
		if s.DType.IsPacked() || reflect.TypeOf(flat) != reflect.SliceOf(s.DType.GoType()) {
			return nil, fmt.Errorf("lower: %T for %s, want a slice of its Go type", flat, s)
		}
		raw = dtypes.UnsafeByteSliceFromAny(flat)
	}
	if want := s.ByteSize(); int64(len(raw)) != want {
		return nil, fmt.Errorf("lower: %d bytes for %s, want %d", len(raw), s, want)
	}
	return raw, nil
}
