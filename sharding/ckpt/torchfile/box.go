package torchfile

import (
	"fmt"
	"io"
)

// Read fills dst with a box of the tensor, row-major, whatever its strides are. dst holds as many bytes as
// the box.
func (t *Tensor) Read(r io.ReaderAt, offset, size []int, dst []byte) error {
	if len(offset) != len(t.Shape) || len(size) != len(t.Shape) {
		return fmt.Errorf("box of %d and %d axes in a tensor of %d", len(offset), len(size), len(t.Shape))
	}
	at, n := t.Offset, 1
	for i, d := range t.Shape {
		if offset[i] < 0 || size[i] < 0 || size[i] > d-offset[i] {
			return fmt.Errorf("box %v, %v outside of shape %v", offset, size, t.Shape)
		}
		at += offset[i] * t.Stride[i]
		n *= size[i]
	}
	width := int(t.DType.Size())
	if len(dst) != n*width {
		return fmt.Errorf("buffer of %d bytes, want %d", len(dst), n*width)
	}
	if n == 0 {
		return nil
	}
	// Axes from k on lie in the file as in dst: one read.
	k, run := len(size), 1
	for k > 0 && (size[k-1] == 1 || t.Stride[k-1] == run) {
		k--
		run *= size[k]
	}
	index := make([]int, k)
	for ; len(dst) > 0; dst = dst[run*width:] {
		from := at
		for i, x := range index {
			from += x * t.Stride[i]
		}
		if err := readAt(r, dst[:run*width], t.Storage.At+int64(from)*int64(width)); err != nil {
			return err
		}
		for i := k - 1; i >= 0; i-- {
			if index[i]++; index[i] < size[i] {
				break
			}
			index[i] = 0
		}
	}
	return nil
}
