package pjrt

import (
	"errors"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/ebitengine/purego"
	"github.com/stretchr/testify/require"
)

// memory is a KV store of one process.
type memory struct {
	mu sync.Mutex
	m  map[string][]byte
}

func (k *memory) Get(key string, timeout time.Duration) ([]byte, error) {
	if key == "panic" {
		panic("in Get")
	}
	for end := time.Now().Add(timeout); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if v, err := k.TryGet(key); err == nil {
			return v, nil
		}
	}
	return nil, &Error{Code: ErrorCodeDEADLINEEXCEEDED, Message: key}
}

func (k *memory) TryGet(key string) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	v, ok := k.m[key]
	if !ok {
		return nil, &Error{Code: ErrorCodeNOTFOUND, Message: key}
	}
	return v, nil
}

func (k *memory) Put(key string, value []byte) error {
	if key == "" {
		return errors.New("no key")
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.m[key] = value
	return nil
}

// madeError is what the stand-in for the plugin's error constructor saw last.
var madeError struct {
	code    ErrorCode
	message string
}

var makeError = purego.NewCallback(func(code uintptr, msg unsafe.Pointer, n uintptr) uintptr {
	madeError.code, madeError.message = ErrorCode(code), goString(msg, int(n))
	return 1
})

// TestKV calls the callbacks as the plugin does: through their C entry points.
func TestKV(t *testing.T) {
	cpu(t)
	id := registerKV(&memory{m: map[string][]byte{}})
	maker := makeError
	var ps pins
	defer ps.Unpin()
	put := func(key string, value []byte) uintptr {
		a := keyValuePutCallbackArgs{callbackError: unsafe.Pointer(&maker), userArg: id}
		a.key, a.keySize = ps.str(key)
		a.value, a.valueSize = pinSlice(&ps, value)
		return call1(cKVPut, unsafe.Pointer(&a))
	}
	get := func(key string) (v []byte, e uintptr) {
		a := keyValueGetCallbackArgs{callbackError: unsafe.Pointer(&maker), userArg: id, timeoutInMs: 50}
		a.key, a.keySize = ps.str(key)
		if e = call1(cKVGet, unsafe.Pointer(&a)); e != 0 {
			return nil, e
		}
		defer call3(a.valueDeleterCallback, uintptr(a.value), 0, 0)
		return goBytes(a.value, a.valueSize), 0
	}
	tryGet := func(key string) (v []byte, e uintptr) {
		a := keyValueTryGetCallbackArgs{callbackError: unsafe.Pointer(&maker), userArg: id}
		a.key, a.keySize = ps.str(key)
		if e = call1(cKVTryGet, unsafe.Pointer(&a)); e != 0 {
			return nil, e
		}
		defer call3(a.valueDeleterCallback, uintptr(a.value), 0, 0)
		return goBytes(a.value, a.valueSize), 0
	}
	want := func(e uintptr, code ErrorCode, message string) {
		t.Helper()
		require.EqualValues(t, 1, e)
		require.Equal(t, code, madeError.code)
		require.Contains(t, madeError.message, message)
	}

	require.Zero(t, put("a", []byte("value")))
	require.Zero(t, put("empty", nil))
	v, e := get("a")
	require.Zero(t, e)
	require.Equal(t, "value", string(v))
	v, e = tryGet("empty")
	require.Zero(t, e)
	require.Empty(t, v)
	_, e = tryGet("b")
	want(e, ErrorCodeNOTFOUND, "b")
	_, e = get("b")
	want(e, ErrorCodeDEADLINEEXCEEDED, "b")
	_, e = get("panic")
	want(e, ErrorCodeINTERNAL, "in Get")
	want(put("", nil), ErrorCodeINTERNAL, "no key")
	unregisterKV(id)
	_, e = tryGet("a")
	want(e, ErrorCodeINTERNAL, "destroyed")
}

// A client lets go of its store, also one that could not be made.
func TestKVRegistration(t *testing.T) {
	p := cpu(t)
	count := func() int {
		kvs.Lock()
		defer kvs.Unlock()
		return len(kvs.m)
	}
	before := count()
	c, err := p.NewClient(ClientOptions{Options: map[string]any{"cpu_device_count": 1}, KV: &memory{}})
	require.NoError(t, err)
	require.Equal(t, before+1, count())
	require.NoError(t, c.Destroy())
	require.Equal(t, before, count())
	_, err = p.NewClient(ClientOptions{Options: map[string]any{"num_nodes": 2, "no_such_option": 1}, KV: &memory{}})
	require.Error(t, err)
	require.Equal(t, before, count())
}
