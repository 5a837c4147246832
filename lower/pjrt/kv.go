package pjrt

import (
	"errors"
	"fmt"
	"sync"
	"time"
	"unsafe"
)

// KV is the store through which the processes of one job find each other. Methods are called on
// threads of the plugin, several at once; Get may block there. An *Error sets the code that the
// plugin sees, any other error is INTERNAL, and so is a panic.
type KV interface {
	// Get waits for the key, at most for the timeout.
	Get(key string, timeout time.Duration) ([]byte, error)
	// TryGet returns &Error{Code: ErrorCodeNOTFOUND} if the key is absent.
	TryGet(key string) ([]byte, error)
	// Put sets a key; the value may be empty.
	Put(key string, value []byte) error
}

// kvs maps the number given to C as user_arg to the store of a client.
var kvs = struct {
	sync.Mutex
	next uintptr
	m    map[uintptr]KV
}{m: map[uintptr]KV{}}

func registerKV(k KV) uintptr {
	kvs.Lock()
	defer kvs.Unlock()
	kvs.next++
	kvs.m[kvs.next] = k
	return kvs.next
}

func unregisterKV(id uintptr) {
	kvs.Lock()
	defer kvs.Unlock()
	delete(kvs.m, id)
}

// withKV runs f on the store of a registration. A panic becomes an error: it must not unwind
// through C++ frames.
func withKV(id uintptr, f func(KV) ([]byte, error)) (v []byte, err error) {
	kvs.Lock()
	k, ok := kvs.m[id]
	kvs.Unlock()
	if !ok {
		return nil, errors.New("the client of this key-value store is destroyed")
	}
	if x := quietly(func() { v, err = f(k) }); x != nil {
		return nil, x
	}
	return v, err
}

// callbackError makes the PJRT_Error to return from a callback. cb points to a function pointer.
func callbackError(cb unsafe.Pointer, err error) errorHandle {
	code, msg := ErrorCodeINTERNAL, err.Error()
	var e *Error
	if errors.As(err, &e) {
		code, msg = e.Code, e.Message
	}
	if msg == "" {
		msg = fmt.Sprint(code)
	}
	c := cBytes([]byte(msg))
	defer free(c)
	return errorHandle(call3(*(*uintptr)(cb), uintptr(code), uintptr(c), uintptr(len(msg))))
}

func kvGet(a *keyValueGetCallbackArgs) errorHandle {
	key := goString(a.key, a.keySize)
	v, err := withKV(a.userArg, func(k KV) ([]byte, error) { return k.Get(key, time.Duration(a.timeoutInMs)*time.Millisecond) })
	if err != nil {
		return callbackError(a.callbackError, err)
	}
	a.value, a.valueSize, a.valueDeleterCallback = cBytes(v), len(v), cFree()
	return 0
}

func kvTryGet(a *keyValueTryGetCallbackArgs) errorHandle {
	key := goString(a.key, a.keySize)
	v, err := withKV(a.userArg, func(k KV) ([]byte, error) { return k.TryGet(key) })
	if err != nil {
		return callbackError(a.callbackError, err)
	}
	a.value, a.valueSize, a.valueDeleterCallback = cBytes(v), len(v), cFree()
	return 0
}

func kvPut(a *keyValuePutCallbackArgs) errorHandle {
	key, v := goString(a.key, a.keySize), goBytes(a.value, a.valueSize)
	if _, err := withKV(a.userArg, func(k KV) ([]byte, error) { return nil, k.Put(key, v) }); err != nil {
		return callbackError(a.callbackError, err)
	}
	return 0
}
