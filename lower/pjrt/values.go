package pjrt

import (
	"fmt"
	"unsafe"
)

// namedValues copies n PJRT_NamedValues.
func namedValues(at unsafe.Pointer, n int) map[string]any {
	m := make(map[string]any, n)
	for i := range n {
		v := (*namedValue)(unsafe.Add(at, i*int(unsafe.Sizeof(namedValue{}))))
		u := unsafe.Pointer(&v.int64Value) // the union
		k := goString(v.name, v.nameSize)
		switch v.type_ {
		case NamedValueKString:
			m[k] = goString(*(*unsafe.Pointer)(u), v.valueSize)
		case NamedValueKInt64:
			m[k] = *(*int64)(u)
		case NamedValueKInt64List:
			m[k] = goSlice[int64](*(*unsafe.Pointer)(u), v.valueSize)
		case NamedValueKFloat:
			m[k] = *(*float32)(u)
		case NamedValueKBool:
			m[k] = *(*bool)(u)
		}
	}
	return m
}

// newNamedValues makes options in C memory; release frees them.
func newNamedValues(opts map[string]any) (at unsafe.Pointer, n int, release func(), err error) {
	var all []unsafe.Pointer
	release = func() {
		for _, p := range all {
			free(p)
		}
	}
	size := int(unsafe.Sizeof(namedValue{}))
	at = malloc(size * len(opts))
	all = append(all, at)
	for k, v := range opts {
		name := cBytes([]byte(k))
		all = append(all, name)
		nv := (*namedValue)(unsafe.Add(at, n*size))
		*nv = namedValue{structSize: sizeNamedValue, name: name, nameSize: len(k), valueSize: 1}
		u := unsafe.Pointer(&nv.int64Value) // the union
		switch v := v.(type) {
		case string:
			s := cBytes([]byte(v))
			all = append(all, s)
			nv.type_, nv.valueSize = NamedValueKString, len(v)
			*(*uintptr)(u) = uintptr(s)
		case int:
			nv.type_, nv.int64Value = NamedValueKInt64, uint64(v)
		case int64:
			nv.type_, nv.int64Value = NamedValueKInt64, uint64(v)
		case []int64:
			s := malloc(8 * len(v))
			all = append(all, s)
			copy(unsafe.Slice((*int64)(s), len(v)), v)
			nv.type_, nv.valueSize = NamedValueKInt64List, len(v)
			*(*uintptr)(u) = uintptr(s)
		case bool:
			nv.type_ = NamedValueKBool
			*(*bool)(u) = v
		case float32:
			nv.type_ = NamedValueKFloat
			*(*float32)(u) = v
		default:
			release()
			return nil, 0, nil, fmt.Errorf("pjrt: option %q has type %T, want string, int, int64, []int64, bool or float32", k, v)
		}
		n++
	}
	return at, n, release, nil
}
