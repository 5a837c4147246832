// Package pjrt is the PJRT C API in Go, without a C compiler: it loads a plugin, compiles
// StableHLO, moves buffers and runs executables.
//
//	Load → Plugin → NewClient → Client → BufferFromHost → Buffer
//	                            Client → Compile → LoadedExecutable → Execute → Buffers, Events
//
// Everything that owns something in C has a Destroy method. Destroying is safe at any time: a call
// in progress finishes first, a later one returns ErrDestroyed, and what is forgotten is destroyed
// after the garbage collector has found it. Client.Destroy ends everything made from the client.
//
// Rules of memory: argument structs live in Go memory and what they point to is pinned for the
// call; client options and key-value replies live in C memory; objects of the plugin are integers
// to Go; no Go pointer is ever kept by C, except host memory that is pinned until its event.
package pjrt

import (
	"errors"
	"fmt"
	"os"
	"structs"
	"unsafe"
)

//go:generate go run ./internal/gen

// apiTable is PJRT_Api: a header, then function pointers.
type apiTable struct {
	_              structs.HostLayout
	structSize     int
	extensionStart unsafe.Pointer
	version        apiVersion
	fns            [len(fnNames)]uintptr
}

// Plugin is a loaded PJRT plugin. It is never unloaded: XLA leaves threads behind. Its methods
// are safe for concurrent use.
type Plugin struct {
	api          *apiTable
	n            int // functions the plugin has, of those we know
	Major, Minor int // version of the C API that the plugin was built with
}

// LogEnv names the environment variable with the level from which on XLA logs to standard error:
// 0 information, 1 warnings, 2 errors, 3 fatal errors.
const LogEnv = "TF_CPP_MIN_LOG_LEVEL"

// Load opens the plugin at path and initializes it. Loading a path again gives another Plugin
// for the same library. Environment variables that the plugin reads, such as XLA_FLAGS, must be
// set before. If LogEnv is not set, Load sets it to 3: what goes wrong is told by errors.
func Load(path string) (*Plugin, error) {
	if _, ok := os.LookupEnv(LogEnv); !ok {
		if err := os.Setenv(LogEnv, "3"); err != nil {
			return nil, fmt.Errorf("pjrt: %w", err)
		}
	}
	sym, err := dlopen(path)
	if err != nil {
		return nil, fmt.Errorf("pjrt: %w", err)
	}
	get, err := sym("GetPjrtApi")
	if err != nil {
		return nil, fmt.Errorf("pjrt: %s is no PJRT plugin: %w", path, err)
	}
	t := (*apiTable)(ptr(call3(get, 0, 0, 0)))
	if t == nil {
		return nil, errors.New("pjrt: GetPjrtApi returned NULL")
	}
	p := &Plugin{api: t, Major: int(t.version.majorVersion), Minor: int(t.version.minorVersion)}
	p.n = min((t.structSize-apiHeaderSize)/8, len(fnNames))
	if p.Major != 0 {
		return nil, fmt.Errorf("pjrt: %s has API version %d.%d, want 0.x", path, p.Major, p.Minor)
	}
	if err := p.pluginInitialize(&pluginInitializeArgs{}); err != nil {
		return nil, err
	}
	return p, nil
}

// fn returns the plugin's function, or 0 if the plugin is too old to have it.
func (p *Plugin) fn(f fn) uintptr {
	if int(f) >= p.n {
		return 0
	}
	return p.api.fns[f]
}

// call runs a function that returns a PJRT_Error.
func (p *Plugin) call(f fn, a unsafe.Pointer) error {
	c := p.fn(f)
	if c == 0 {
		return &Error{fnNames[f], ErrorCodeUNIMPLEMENTED, "the plugin has no such function"}
	}
	if e := call1(c, a); e != 0 {
		return p.takeError(fnNames[f], errorHandle(e))
	}
	return nil
}

// callVoid runs a function that returns nothing.
func (p *Plugin) callVoid(f fn, a unsafe.Pointer) {
	if c := p.fn(f); c != 0 {
		call1(c, a)
	}
}

// Attributes returns the plugin's attributes, such as xla_version and stablehlo_current_version.
// Values are string, int64, []int64, float32 or bool.
func (p *Plugin) Attributes() (map[string]any, error) {
	var a pluginAttributesArgs
	if err := p.pluginAttributes(&a); err != nil {
		return nil, err
	}
	return namedValues(a.attributes, a.numAttributes), nil
}

// Extensions lists the types in the plugin's chain of extensions.
func (p *Plugin) Extensions() (r []ExtensionType) {
	for e := (*extensionBase)(p.api.extensionStart); e != nil; e = (*extensionBase)(e.next) {
		r = append(r, e.type_)
	}
	return r
}
