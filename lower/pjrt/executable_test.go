package pjrt

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestExecutableSaysWhatItIs(t *testing.T) {
	c := client(t)
	l := compile(t, c, []byte(swap), CompileOptions{})
	require.Equal(t, "swap", l.Exec.Name())
	shapes, err := l.Exec.Outputs()
	require.NoError(t, err)
	require.Equal(t, []Shape{{BufferTypeF32, []int64{2}}, {BufferTypeF32, []int64{3}}, {BufferTypeF32, []int64{3}}}, shapes)
	format, hlo, err := l.Exec.OptimizedHLO()
	require.NoError(t, err)
	require.Equal(t, "hlo_with_config", format)
	require.NotEmpty(t, hlo)
	m, err := l.Exec.MemoryStats()
	require.NoError(t, err)
	require.EqualValues(t, 20, m.Argument)
	if _, err := l.Exec.Cost(); err != nil {
		require.ErrorIs(t, err, &Error{Code: ErrorCodeUNIMPLEMENTED})
	}
	if _, err := l.Exec.Fingerprint(); err != nil {
		var e *Error
		require.ErrorAs(t, err, &e)
	}
}

func TestSerialize(t *testing.T) {
	c := client(t)
	o := options(t, CompileOptions{})
	l := compile(t, c, addOne(1024, false), CompileOptions{})
	b, err := l.Exec.Serialize()
	require.NoError(t, err)
	for name, opts := range map[string][]byte{"own options": nil, "given options": o} {
		again, err := c.Deserialize(b, opts)
		require.NoError(t, err, name)
		outs, _, err := again.ExecuteOne([]*Buffer{put(t, c, 0, fill(1024, 1), 1024)}, ExecOptions{})
		require.NoError(t, err, name)
		require.Equal(t, float32(2), fetch(t, outs[0])[1000], name)
		require.NoError(t, again.Destroy())
	}
	for name, bad := range map[string][]byte{"garbage": []byte("garbage"), "empty": nil, "truncated": b[:len(b)/2]} {
		_, err := c.Deserialize(bad, nil)
		require.Error(t, err, name)
	}
}

func TestCompileForTopology(t *testing.T) {
	c := client(t)
	top, err := c.Topology()
	require.NoError(t, err)
	x, err := top.CompileAOT(addOne(64, false), options(t, CompileOptions{}))
	require.NoError(t, err)
	b, err := x.Serialize()
	require.NoError(t, err)
	require.NotEmpty(t, b)
	require.NoError(t, x.Destroy())
	require.NoError(t, x.Destroy())
	_, err = x.Serialize()
	require.ErrorIs(t, err, ErrDestroyed)
	require.NoError(t, top.Destroy())
	_, err = c.Plugin().NewTopology("no such topology", map[string]any{"a": []int64{1, 2}, "b": "c", "d": true, "e": float32(1)})
	require.Error(t, err)
}

func TestUseAfterExecutableDestroy(t *testing.T) {
	c := client(t)
	l, err := c.Compile(addOne(4, false), options(t, CompileOptions{}))
	require.NoError(t, err)
	require.NoError(t, l.Exec.Destroy(), "a part is left alone")
	in := put(t, c, 0, fill(4, 1), 4)
	outs, _, err := l.ExecuteOne([]*Buffer{in}, ExecOptions{})
	require.NoError(t, err, "runs")
	require.NoError(t, l.Destroy())
	require.NoError(t, l.Destroy())
	require.Equal(t, []float32{2, 2, 2, 2}, fetch(t, outs[0]), "results outlive the program")
	_, _, err = l.ExecuteOne([]*Buffer{in}, ExecOptions{})
	require.ErrorIs(t, err, ErrDestroyed)
	require.Empty(t, l.Exec.Name())
}

func TestForgottenExecutables(t *testing.T) {
	c := newClient(t, ClientOptions{})
	held := func() int {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.held)
	}
	for range 5 {
		_, err := c.Compile(addOne(4, false), options(t, CompileOptions{}))
		require.NoError(t, err)
	}
	eventually(t, func() bool { return held() == 0 }, "forgotten executables are destroyed")
	// One that is only kept for its description stays.
	l, err := c.Compile(addOne(4, false), options(t, CompileOptions{}))
	require.NoError(t, err)
	x := l.Exec
	l = nil
	_ = l
	runtime.GC()
	require.Equal(t, 1, held())
	require.Equal(t, "m", x.Name())
	x = nil
	_ = x
	eventually(t, func() bool { return held() == 0 }, "it is destroyed in the end")
}
