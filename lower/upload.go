package lower

import (
	"fmt"

	"mix/lower/pjrt"
	"mix/sharding"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapes"
)

// BufferFromFlatData copies flat, a slice of the shape's Go type, to a device before it returns.
func (b *Backend) BufferFromFlatData(n compute.DeviceNum, flat any, shape shapes.Shape) (compute.Buffer, error) {
	raw, err := flatBytes(flat, shape)
	if err != nil {
		return nil, err
	}
	return b.upload(n, raw, shape)
}

// Upload copies flat to device 0, or to every device of the mesh, before it returns. flat is a slice of the shape's Go type, or the
// elements as bytes.
func (b *Backend) Upload(shape shapes.Shape, flat any) (*Buffer, error) {
	raw, err := flatBytes(flat, shape)
	if err != nil {
		return nil, err
	}
	if b.emit != nil {
		return b.hollow(shape, make(sharding.Spec, shape.Rank())), nil
	}
	if b.o.Mesh.Devices() > 1 {
		return b.replicate(raw, shape)
	}
	return b.upload(0, raw, shape)
}

func (b *Backend) upload(n compute.DeviceNum, raw []byte, shape shapes.Shape) (*Buffer, error) {
	if shape.DType.IsPacked() {
		raw = unpack(shape.DType, raw, shape.Size())
	}
	return b.fromHost(n, raw, shape, pjrt.CopyDuringCall, nil)
}

func (b *Backend) fromHost(n compute.DeviceNum, raw []byte, shape shapes.Shape, sem pjrt.HostBufferSemantics, release func()) (*Buffer, error) {
	if b.emit != nil {
		return nil, fmt.Errorf("lower: upload of %s: %w", shape, ErrHollow)
	}
	d, err := b.device(n)
	if err != nil {
		return nil, err
	}
	dims := make([]int64, shape.Rank())
	for i, d := range shape.Dimensions {
		dims[i] = int64(d)
	}
	pb, _, err := b.client.BufferFromHost(raw, elementTypes[shape.DType], dims, d, sem, release)
	if err != nil {
		return nil, fmt.Errorf("lower: upload of %s: %w", shape, err)
	}
	return &Buffer{be: b, b: pb, shape: shape.Clone(), device: n}, nil
}

// HasSharedBuffers is false: programs run while the caller goes on, so memory that both may touch
// would be read while it is written.
func (b *Backend) HasSharedBuffers() bool { return false }

// NewSharedBuffer is refused, see HasSharedBuffers.
func (b *Backend) NewSharedBuffer(n compute.DeviceNum, shape shapes.Shape) (compute.Buffer, any, error) {
	return nil, nil, fmt.Errorf("lower: shared buffer %s: %w", shape, compute.ErrNotImplemented)
}

// Make makes a tensor on device 0, or on every device of the mesh, whose elements fill writes, row-major, into zeroed memory; nil leaves zeros.
// On the CPU nothing is copied. The error is fill's as it is, or one that begins with what.
func (b *Backend) Make(what string, shape shapes.Shape, fill func(dst []byte) error) (*Buffer, error) {
	if b.emit != nil {
		return b.hollow(shape, make(sharding.Spec, shape.Rank())), nil
	}
	if b.o.Mesh.Devices() > 1 {
		var whole func(sharding.Box, []byte) error
		if fill != nil {
			whole = func(_ sharding.Box, dst []byte) error { return fill(dst) }
		}
		return b.MakeSharded(what, shape, make(sharding.Spec, shape.Rank()), whole)
	}
	block, err := b.Alloc(int64(shape.ByteSize()))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if fill != nil {
		if err := fill(block.Bytes()); err != nil {
			block.Free()
			return nil, err
		}
	}
	buffer, err := b.Adopt(shape, block)
	if err != nil {
		block.Free()
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return buffer, nil
}

// Adopt makes a tensor on device 0 of a block from Alloc, which it takes over. On the CPU nothing is
// copied and the memory is freed with the buffer; elsewhere it is copied and freed then. The block
// must be filled and not be touched any more; shape has its size in bytes.
func (b *Backend) Adopt(shape shapes.Shape, block *HostBlock) (*Buffer, error) {
	raw := block.take()
	if raw == nil {
		return nil, fmt.Errorf("lower: Adopt of %s: the block is adopted or freed already", shape)
	}
	if _, err := flatBytes(raw, shape); err != nil {
		block.put(raw)
		return nil, err
	}
	if shape.DType.IsPacked() {
		block.put(raw)
		return nil, fmt.Errorf("lower: Adopt of %s: elements under 8 bits are to be uploaded", shape)
	}
	buf, err := b.fromHost(0, raw, shape, pjrt.MutableZeroCopy, func() { unmap(raw) })
	if err != nil {
		block.put(raw)
		return nil, err
	}
	return buf, nil
}
