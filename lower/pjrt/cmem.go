package pjrt

import (
	"runtime"
	"unsafe"
)

// ptr turns a C address into a pointer, which vet cannot tell from a misuse otherwise.
func ptr(a uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&a)) }

// malloc returns zeroed C memory. Zeroed matters: storing a Go struct with pointer fields there
// runs the write barrier, which looks at the old contents.
func malloc(n int) unsafe.Pointer {
	a, _ := libc() // Load has seen it succeed
	p := ptr(call3(a.calloc, uintptr(max(n, 1)), 1, 0))
	if p == nil {
		panic("pjrt: out of C memory") // as the Go allocator does
	}
	return p
}

// free releases memory of malloc.
func free(p unsafe.Pointer) { call3(cFree(), uintptr(p), 0, 0) }

// cFree is the address of C's free.
func cFree() uintptr {
	a, _ := libc() // Load has seen it succeed
	return a.free
}

// cBytes copies b to C memory.
func cBytes(b []byte) unsafe.Pointer {
	p := malloc(len(b))
	copy(unsafe.Slice((*byte)(p), len(b)), b)
	return p
}

// goString copies a string from C memory.
func goString(p unsafe.Pointer, n int) string { return string(goBytes(p, n)) }

// goBytes copies bytes from C memory.
func goBytes(p unsafe.Pointer, n int) []byte { return goSlice[byte](p, n) }

// goSlice copies n elements from C memory.
func goSlice[T any](p unsafe.Pointer, n int) []T {
	if n == 0 || p == nil {
		return nil
	}
	return append([]T(nil), unsafe.Slice((*T)(p), n)...)
}

// pins holds Go memory that an argument struct points to for the length of one call. The struct
// itself needs no pin; what it points to does, being a Go pointer inside Go memory that C follows.
type pins struct{ runtime.Pinner }

// str pins the bytes of s.
func (p *pins) str(s string) (unsafe.Pointer, int) {
	if s == "" {
		return nil, 0
	}
	d := unsafe.StringData(s)
	p.Pin(d)
	return unsafe.Pointer(d), len(s)
}

// pinSlice pins the elements of s.
func pinSlice[T any](p *pins, s []T) (unsafe.Pointer, int) {
	if len(s) == 0 {
		return nil, 0
	}
	d := unsafe.SliceData(s)
	p.Pin(d)
	return unsafe.Pointer(d), len(s)
}
