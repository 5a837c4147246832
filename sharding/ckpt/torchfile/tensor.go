package torchfile

import (
	"fmt"
	"math"
	"slices"

	"github.com/gomlx/compute/dtypes"
)

// tensorV2 is _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks, metadata).
func (m *machine) tensorV2(at int, args Tuple) (any, error) {
	if len(args) < 6 || len(args) > 7 {
		return nil, m.wrong(at, "_rebuild_tensor_v2 of %d arguments, want 6 or 7", len(args))
	}
	return m.tensor(at, args, dtypes.InvalidDType)
}

// tensorV3 is _rebuild_tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype, metadata).
func (m *machine) tensorV3(at int, args Tuple) (any, error) {
	if len(args) < 7 || len(args) > 8 {
		return nil, m.wrong(at, "_rebuild_tensor_v3 of %d arguments, want 7 or 8", len(args))
	}
	g, _ := args[6].(Global)
	dtype := elements[g.Name]
	if g.Module != "torch" || dtype == dtypes.InvalidDType {
		return nil, m.wrong(at, "element type of a tensor is a %s", kind(args[6]))
	}
	return m.tensor(at, args, dtype)
}

// tensor is the view that the first four arguments describe. It lies inside its storage.
func (m *machine) tensor(at int, args Tuple, dtype dtypes.DType) (any, error) {
	s, ok := args[0].(*Storage)
	offset, ok2 := args[1].(int64)
	if !ok || !ok2 || offset < 0 {
		return nil, m.wrong(at, "a tensor of a %s at a %s", kind(args[0]), kind(args[1]))
	}
	if dtype == dtypes.InvalidDType {
		dtype = s.DType
	}
	if dtype == dtypes.InvalidDType {
		return nil, m.wrong(at, "a tensor without an element type")
	}
	t := &Tensor{DType: dtype, Storage: s, Offset: int(offset)}
	var err error
	if t.Shape, err = m.sizes(at, args[2]); err != nil {
		return nil, err
	}
	if t.Stride, err = m.sizes(at, args[3]); err != nil {
		return nil, err
	}
	if len(t.Shape) != len(t.Stride) || len(t.Shape) > 64 {
		return nil, m.wrong(at, "shape of %d axes with strides of %d, want as many and at most 64", len(t.Shape), len(t.Stride))
	}
	if slices.Contains(t.Shape, 0) {
		return t, nil
	}
	// Neither product passes a bound before it is compared with it, so neither overflows.
	room := s.Bytes / int64(dtype.Size())
	last, count := offset, int64(1)
	for i, d := range t.Shape {
		if d > 1 && int64(t.Stride[i]) > (room-last)/int64(d-1) || int64(d) > math.MaxInt64/64/count {
			return nil, m.outside(at, t, room)
		}
		last += int64(d-1) * int64(t.Stride[i])
		count *= int64(d)
	}
	if last >= room {
		return nil, m.outside(at, t, room)
	}
	return t, nil
}

func (m *machine) outside(at int, t *Tensor, room int64) error {
	return m.wrong(at, "a tensor of shape %v, strides %v and offset %d does not fit its storage of %d elements", t.Shape, t.Stride, t.Offset, room)
}

// sizes reads a tuple of integers from 0 up.
func (m *machine) sizes(at int, v any) ([]int, error) {
	t, ok := v.(Tuple)
	if !ok {
		return nil, m.wrong(at, "sizes of a tensor are a %s, want a tuple", kind(v))
	}
	list := make([]int, len(t))
	for i, x := range t {
		n, ok := x.(int64)
		if !ok || n < 0 {
			return nil, m.wrong(at, "size or stride of a tensor is %s, want an integer from 0", Show(x))
		}
		list[i] = int(n)
	}
	return list, nil
}

// identity reads a persistent id, ("storage", class, key, device, elements) and in older files a view.
func identity(id Tuple, most int) (*Storage, error) {
	if len(id) < 5 || len(id) > most || id[0] != "storage" {
		return nil, fmt.Errorf("%w: persistent id of %d parts, want a storage of 5", ErrFormat, len(id))
	}
	g, ok := id[1].(Global)
	key, ok2 := id[2].(string)
	n, ok3 := id[4].(int64)
	if !ok || !ok2 || !ok3 || n < 0 || n > math.MaxInt64/64 {
		return nil, fmt.Errorf("%w: persistent id of a storage is (%s, %s, %s)", ErrFormat, kind(id[1]), kind(id[2]), kind(id[4]))
	}
	if len(id) == 6 && id[5] != nil {
		return nil, fmt.Errorf("%w: storage %.40q is a view of another", ErrRefused, key)
	}
	s := &Storage{Key: key, DType: storages[g.Name], Elements: n}
	width := int64(1)
	switch {
	case g.Name == "UntypedStorage" && (g.Module == "torch.storage" || g.Module == "torch"):
		s.DType = dtypes.InvalidDType
	case g.Module != "torch" || s.DType == dtypes.InvalidDType:
		return nil, fmt.Errorf("%w: storage class %s", ErrRefused, g)
	default:
		width = int64(s.DType.Size())
	}
	s.Bytes = n * width
	return s, nil
}
