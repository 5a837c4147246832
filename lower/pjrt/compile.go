package pjrt

import "unsafe"

// newProgram makes a PJRT_Program of StableHLO, text or bytecode.
func newProgram(ps *pins, code []byte) *program {
	g := &program{structSize: sizeProgram}
	g.code, g.codeSize = pinSlice(ps, code)
	g.format, g.formatSize = ps.str("mlir")
	ps.Pin(g)
	return g
}

// Compile compiles StableHLO, text or bytecode, and loads the result. options are those of
// CompileOptions.Marshal; nil is those of the zero CompileOptions. Malformed custom calls can
// abort the process.
func (c *Client) Compile(code, options []byte) (*LoadedExecutable, error) {
	if len(options) == 0 {
		var err error
		if options, err = (CompileOptions{}).Marshal(); err != nil { // without any, XLA aborts
			return nil, err
		}
	}
	if err := c.enter(); err != nil {
		return nil, err
	}
	defer c.leave()
	var ps pins
	defer ps.Unpin()
	a := clientCompileArgs{client: c.h, program: unsafe.Pointer(newProgram(&ps, code))}
	a.compileOptions, a.compileOptionsSize = pinSlice(&ps, options)
	if err := c.p.clientCompile(&a); err != nil {
		return nil, err
	}
	return c.loaded(a.executable)
}

// Deserialize loads what Executable.Serialize gave, in this or another process with the same
// build of the plugin. options nil keeps those it was compiled with.
func (c *Client) Deserialize(b, options []byte) (*LoadedExecutable, error) {
	if err := c.enter(); err != nil {
		return nil, err
	}
	defer c.leave()
	var ps pins
	defer ps.Unpin()
	a := executableDeserializeAndLoadArgs{client: c.h}
	a.serializedExecutable, a.serializedExecutableSize = pinSlice(&ps, b)
	a.overriddenSerializedCompileOptions, a.overriddenSerializedCompileOptionsSize = pinSlice(&ps, options)
	if err := c.p.executableDeserializeAndLoad(&a); err != nil {
		return nil, err
	}
	return c.loaded(a.loadedExecutable)
}
