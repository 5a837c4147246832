package pjrt

import (
	"fmt"
	"runtime"
	"sync"
	"unsafe"

	"github.com/ebitengine/purego"
)

// call1 calls the C function fn(arg). SyscallN is go:uintptrescapes: arg's object is moved to the
// heap and kept alive for the call.
func call1(fn uintptr, arg unsafe.Pointer) uintptr {
	r, _, _ := purego.SyscallN(fn, uintptr(arg))
	return r
}

// call3 calls the C function fn(a, b, c).
func call3(fn, a, b, c uintptr) uintptr {
	r, _, _ := purego.SyscallN(fn, a, b, c)
	return r
}

// dlopen opens a library for good and returns how to look up its symbols.
func dlopen(path string) (func(sym string) (uintptr, error), error) {
	if _, err := libc(); err != nil {
		return nil, err
	}
	h, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, err
	}
	return func(sym string) (uintptr, error) { return purego.Dlsym(h, sym) }, nil
}

// C entry points of our callbacks, made once: purego never frees one and has room for 2000.
var (
	cOnReady  = purego.NewCallback(func(err errorHandle, user uintptr) uintptr { onReady(err, user); return 0 })
	cKVGet    = purego.NewCallback(func(a *keyValueGetCallbackArgs) errorHandle { return kvGet(a) })
	cKVTryGet = purego.NewCallback(func(a *keyValueTryGetCallbackArgs) errorHandle { return kvTryGet(a) })
	cKVPut    = purego.NewCallback(func(a *keyValuePutCallbackArgs) errorHandle { return kvPut(a) })
)

// allocator is C's.
type allocator struct{ calloc, free uintptr }

// libc looks up the allocator once. After a first success, which dlopen demands, it cannot fail.
var libc = sync.OnceValues(func() (a allocator, err error) {
	name := map[string]string{"linux": "libc.so.6", "darwin": "/usr/lib/libSystem.B.dylib"}[runtime.GOOS]
	if name == "" {
		return a, fmt.Errorf("no C library known for %s", runtime.GOOS)
	}
	h, err := purego.Dlopen(name, purego.RTLD_NOW)
	if err != nil {
		return a, err
	}
	if a.calloc, err = purego.Dlsym(h, "calloc"); err != nil {
		return a, err
	}
	a.free, err = purego.Dlsym(h, "free")
	return a, err
})
