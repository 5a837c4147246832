package lower

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	gx "github.com/gomlx/gomlx/core/graph"
	"github.com/stretchr/testify/require"
)

// update writes row into cache [8, 4] at row at: a cache update as decoding does it.
func update(g *gx.Graph) []*gx.Node {
	cache := gx.Parameter(g, "cache", f32(8, 4))
	row := gx.Parameter(g, "row", f32(1, 4))
	at := gx.Parameter(g, "at", shapes.Make(dtypes.Int32))
	return []*gx.Node{gx.ReduceAllSum(row), gx.DynamicUpdateSlice(cache, row, []*gx.Node{at, gx.Const(g, int32(0))})}
}

func TestDonatedUpdateIsInPlace(t *testing.T) {
	b := testBackend(t)
	p := compiled(t, b, "update", ProgramOptions{Donate: map[string]int{"cache": 1}}, update)
	cache := upload(t, b, make([]float32, 32), 8, 4)
	row := upload(t, b, []float32{1, 2, 3, 4}, 1, 4)
	first, err := cache.Address()
	require.NoError(t, err)
	for i := range 3 {
		outs, err := p.Run(cache, row, upload(t, b, []int32{int32(i)}))
		require.NoError(t, err)
		require.ErrorContains(t, cache.ReadInto(make([]byte, 128)), "donated")
		cache = outs[1]
		require.NoError(t, cache.Wait())
		now, err := cache.Address()
		require.NoError(t, err)
		require.Equal(t, first, now, "run %d moved the cache", i)
	}
	require.Equal(t, []float32{1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4, 0}, floats(t, cache)[:13])
}

// TestExecuteKeepsWhatIsNotDonated runs a program that aliases its cache as GoMLX does, which says
// at each call what it donates.
func TestExecuteKeepsWhatIsNotDonated(t *testing.T) {
	b := testBackend(t)
	p := compiled(t, b, "keep", ProgramOptions{Donate: map[string]int{"cache": 1}}, update)
	cache := upload(t, b, make([]float32, 32), 8, 4)
	row, at := upload(t, b, []float32{1, 2, 3, 4}, 1, 4), upload(t, b, []int32{0})
	outs, err := p.e.Execute([]compute.Buffer{cache, row, at}, nil, 0)
	require.NoError(t, err)
	require.Equal(t, make([]float32, 32), floats(t, cache))
	require.Equal(t, []float32{1, 2, 3, 4, 0}, floats(t, outs[1].(*Buffer))[:5])

	_, err = p.e.Execute([]compute.Buffer{cache, row, at}, []bool{true, true, false}, 0)
	require.NoError(t, err)
	for _, gone := range []*Buffer{cache, row} {
		require.ErrorContains(t, gone.Wait(), "donated")
	}
	require.NoError(t, at.Wait())
}

func TestBoundArguments(t *testing.T) {
	b := testBackend(t)
	p := compiled(t, b, "bound", ProgramOptions{Donate: map[string]int{"cache": 1}}, update)
	require.NoError(t, p.Bind(p.Index("row"), upload(t, b, []float32{1, 1, 1, 1}, 1, 4)))
	cache := upload(t, b, make([]float32, 32), 8, 4)
	require.ErrorContains(t, p.Bind(0, cache), "in place")
	outs, err := p.Run(cache, upload(t, b, []int32{0}))
	require.NoError(t, err)
	require.Equal(t, []float32{4}, floats(t, outs[0]))
	_, err = p.Run(outs[1])
	require.ErrorContains(t, err, "1 arguments, want 2")
}

// TestFinalizedProgram frees the code under a program and another of the same executable.
func TestFinalizedProgram(t *testing.T) {
	b := testBackend(t)
	p := compiled(t, b, "over", ProgramOptions{}, func(g *gx.Graph) []*gx.Node { return []*gx.Node{gx.Neg(gx.Parameter(g, "x", f32(2)))} })
	q, err := ProgramOf(p.e)
	require.NoError(t, err)
	x := upload(t, b, []float32{1, 2}, 2)
	outs, err := p.Run(x)
	require.NoError(t, err)
	p.Finalize()
	p.Finalize()
	require.Equal(t, []float32{-1, -2}, floats(t, outs[0]), "a run that was started")
	for _, gone := range []*Program{p, q} {
		_, err = gone.Run(x)
		require.ErrorContains(t, err, `program "over"`)
		require.ErrorContains(t, err, "used after Destroy")
	}
	_, err = p.e.Execute([]compute.Buffer{x}, nil, 0)
	require.ErrorContains(t, err, `program "over"`)
	require.NoError(t, x.Wait(), "its buffers stay")
}

// TestRunLetsGoOfItsArguments makes runs fail at every step: what was looked at is not kept alive.
func TestRunLetsGoOfItsArguments(t *testing.T) {
	b := testBackend(t)
	p := compiled(t, b, "two", ProgramOptions{}, func(g *gx.Graph) []*gx.Node {
		return []*gx.Node{gx.Add(gx.Parameter(g, "x", f32(2)), gx.Parameter(g, "y", f32(2)))}
	})
	x := upload(t, b, []float32{1, 2}, 2)
	_, err := p.Run(x, nil)
	require.ErrorContains(t, err, "input 1 (y) is nil")
	require.Nil(t, p.args[0])
	_, err = p.Run(x, upload(t, b, []float32{1}, 1))
	require.ErrorContains(t, err, "input 1 (y) is (Float32)[1]")
	require.Nil(t, p.args[0])
	require.NoError(t, p.Bind(0, x))
	p.Finalize()
	_, err = p.Run(x)
	require.Error(t, err)
	require.NotNil(t, p.args[0], "bound")
	require.Nil(t, p.args[1])
	require.NoError(t, p.Bind(0, nil))
	require.Nil(t, p.args[0])
}

func TestRefusedDonations(t *testing.T) {
	b := testBackend(t)
	for _, tt := range []struct {
		name   string
		donate map[string]int
		want   string
	}{
		{"unknown parameter", map[string]int{"kv": 1}, `parameter "kv" does not exist`},
		{"unknown output", map[string]int{"cache": 2}, "output 2, want 0 to 1"},
		{"other shape", map[string]int{"row": 1}, "want equal shapes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := compileGraph(b, tt.name, ProgramOptions{Donate: tt.donate}, update)
			require.ErrorContains(t, err, tt.want)
		})
	}
}

func TestRefusedArguments(t *testing.T) {
	b, other := testBackend(t), testBackend(t)
	p := compiled(t, b, "args", ProgramOptions{}, func(g *gx.Graph) []*gx.Node {
		return []*gx.Node{gx.Neg(gx.Parameter(g, "x", f32(2)))}
	})
	dead := upload(t, b, []float32{1, 2}, 2)
	require.NoError(t, dead.Finalize())
	for _, tt := range []struct {
		name string
		arg  *Buffer
		want string
	}{
		{"shape", upload(t, b, []float32{1, 2, 3}, 3), "input 0 (x) is (Float32)[3], want (Float32)[2]"},
		{"dtype", upload(t, b, []int32{1, 2}, 2), "input 0 (x) is (Int32)[2], want (Float32)[2]"},
		{"finalized", dead, "finalized"},
		{"other backend", upload(t, other, []float32{1, 2}, 2), "want one of this backend"},
		{"nil", nil, "input 0 (x) is nil"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := p.Run(tt.arg)
			require.ErrorContains(t, err, tt.want)
		})
	}
}

// TestAsynchronousDispatch starts a long chain of runs, each on the result of the one before, and
// finds at least one of them unfinished after all are started.
func TestAsynchronousDispatch(t *testing.T) {
	const n, runs = 512, 16
	b := testBackend(t)
	p := compiled(t, b, "chain", ProgramOptions{}, func(g *gx.Graph) []*gx.Node {
		x := gx.Parameter(g, "x", f32(n, n))
		return []*gx.Node{gx.MulScalar(gx.Dot(x, x).Product(), 1.0/n)}
	})
	ones := make([]float32, n*n)
	for i := range ones {
		ones[i] = 1
	}
	x := upload(t, b, ones, n, n)
	for range runs {
		outs, err := p.Run(x)
		require.NoError(t, err)
		x = outs[0]
	}
	ready, err := x.b.Ready()
	require.NoError(t, err)
	require.False(t, ready.Ready(), "Run waited for the program")
	for _, v := range floats(t, x) {
		require.Equal(t, float32(1), v)
	}
}

func TestAdoptedMemoryIsNotCopied(t *testing.T) {
	b := testBackend(t)
	block, err := b.Alloc(4096)
	require.NoError(t, err)
	mem := block.Bytes()
	mem[0], mem[4095] = 1, 2
	shape := shapes.Make(dtypes.Uint8, 4096)
	_, err = b.Adopt(shapes.Make(dtypes.Uint8, 3), block)
	require.ErrorContains(t, err, "want 3")
	buf, err := b.Adopt(shape, block)
	require.NoError(t, err)
	require.Nil(t, block.Bytes())
	_, err = b.Adopt(shape, block)
	require.ErrorContains(t, err, "adopted")
	at, err := buf.Address()
	require.NoError(t, err)
	require.Equal(t, address(mem), at)
	got := make([]byte, 4096)
	require.NoError(t, buf.ReadInto(got))
	require.Equal(t, byte(2), got[4095])
	require.NoError(t, buf.Finalize())
}

// TestCompiledProgramsAreKept compiles once, reads the result in other backends, and compiles again
// when the entry is damaged.
func TestCompiledProgramsAreKept(t *testing.T) {
	dir := t.TempDir()
	run := func() bool {
		b, err := New(t.Context(), Options{CacheDir: dir, Verify: true, Progress: os.Stderr})
		require.NoError(t, err)
		defer b.Finalize()
		p := compiled(t, b, "kept", ProgramOptions{Donate: map[string]int{"cache": 1}}, update)
		cache := upload(t, b, make([]float32, 32), 8, 4)
		before, err := cache.Address()
		require.NoError(t, err)
		outs, err := p.Run(cache, upload(t, b, []float32{1, 2, 3, 4}, 1, 4), upload(t, b, []int32{7}))
		require.NoError(t, err)
		after, err := outs[1].Address()
		require.NoError(t, err)
		require.Equal(t, before, after, "a program from the cache updates in place too")
		require.Equal(t, []float32{1, 2, 3, 4}, floats(t, outs[1])[28:])
		return p.Stats().FromCache
	}
	require.False(t, run(), "first backend")
	require.True(t, run(), "second backend")
	files, err := filepath.Glob(filepath.Join(dir, "*"+cacheSuffix))
	require.NoError(t, err)
	require.Len(t, files, 1)
	content, err := os.ReadFile(files[0])
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(files[0], content[:len(content)/2], 0o644))
	require.False(t, run(), "damaged entry")
	require.True(t, run(), "replaced entry")
}

// TestErrorsNameTheModule compiles a program that XLA refuses.
func TestErrorsNameTheModule(t *testing.T) {
	for _, tt := range []struct {
		name, dump string
	}{
		{"temporary file without a dump folder", ""},
		{"newest dump otherwise", "dump"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("TMPDIR", t.TempDir())
			o := Options{NoCache: true, Progress: os.Stderr}
			if tt.dump != "" {
				o.DumpDir = filepath.Join(t.TempDir(), tt.dump)
			}
			b, err := New(t.Context(), o)
			require.NoError(t, err)
			defer b.Finalize()
			_, err = compileGraph(b, "refused/program", ProgramOptions{Overrides: map[string]any{"no_such_xla_option": true}}, update)
			require.ErrorContains(t, err, `program "refused/program" does not compile`)
			_, path, found := strings.Cut(err.Error(), "(module: ")
			require.True(t, found, "no path in %v", err)
			path = strings.TrimRight(strings.Split(path, ";")[0], ")")
			text, rerr := os.ReadFile(path)
			require.NoError(t, rerr)
			require.Contains(t, string(text), "stablehlo.dynamic_update_slice")
			require.Equal(t, tt.dump != "", strings.HasSuffix(path, "refused_program.01.emit.mlir"), path)
		})
	}
}

// TestTwoDevices runs one program as two replicas that add up what each was given.
func TestTwoDevices(t *testing.T) {
	b := testBackend(t)
	tr := b.Builder("replicas")
	require.NoError(t, tr.DistributedSPMD(2))
	f := tr.Main()
	x, err := f.Parameter("x", f32(2), nil)
	require.NoError(t, err)
	sum, err := f.AllReduce([]compute.Value{x}, compute.ReduceOpSum, [][]int{{0, 1}})
	require.NoError(t, err)
	require.NoError(t, f.Return(sum, nil))
	e, err := tr.Compile()
	require.NoError(t, err)
	var in []compute.Buffer
	for d := range 2 {
		buf, err := b.BufferFromFlatData(compute.DeviceNum(d), []float32{1, float32(10 * d)}, f32(2))
		require.NoError(t, err)
		in = append(in, buf)
	}
	outs, err := e.Execute(in, nil, 0)
	require.NoError(t, err)
	for d, o := range outs {
		n, err := o.DeviceNum()
		require.NoError(t, err)
		require.Equal(t, compute.DeviceNum(d), n)
		require.Equal(t, []float32{2, 10}, floats(t, o.(*Buffer)))
	}
}

// TestPartitions splits the rows of a product over two devices.
func TestPartitions(t *testing.T) {
	b := testBackend(t)
	tr := b.Builder("partitions")
	require.NoError(t, tr.DistributedAutoSharding(compute.Mesh{Name: "m", AxesNames: []string{"rows"}, AxesSizes: []int{2}}))
	rows := &compute.ShardingSpec{Mesh: "m", Axes: [][]string{{"rows"}}}
	f := tr.Main()
	x, err := f.Parameter("x", f32(2, 2), rows)
	require.NoError(t, err)
	w, err := f.Parameter("w", f32(2, 2), nil)
	require.NoError(t, err)
	y, err := f.DotGeneral(x, []int{1}, nil, w, []int{0}, nil, compute.DotGeneralConfig{})
	require.NoError(t, err)
	require.NoError(t, f.Return([]compute.Value{y}, []*compute.ShardingSpec{rows}))
	e, err := tr.Compile()
	require.NoError(t, err)
	var in []compute.Buffer
	for d, row := range [][]float32{{1, 2}, {3, 4}} {
		x, err := b.BufferFromFlatData(compute.DeviceNum(d), row, f32(1, 2))
		require.NoError(t, err)
		w, err := b.BufferFromFlatData(compute.DeviceNum(d), []float32{1, 1, 0, 1}, f32(2, 2))
		require.NoError(t, err)
		in = append(in, x, w)
	}
	outs, err := e.Execute(in, nil, 0)
	require.NoError(t, err)
	require.Equal(t, []float32{1, 3}, floats(t, outs[0].(*Buffer)))
	require.Equal(t, []float32{3, 7}, floats(t, outs[1].(*Buffer)))
}

// TestHostForms uploads and reads back every form that elements take in host memory.
func TestHostForms(t *testing.T) {
	b := testBackend(t)
	for _, tt := range []struct {
		dtype dtypes.DType
		dims  []int
		raw   []byte
	}{
		{dtypes.Uint4, []int{5}, []byte{0x12, 0x34, 0x0f}},
		{dtypes.Int4, []int{2, 2}, []byte{0x89, 0x7f}},
		{dtypes.Uint2, []int{3}, []byte{0b011011}},
		{dtypes.Int2, []int{4}, []byte{0b11100100}},
		{dtypes.Bool, []int{2}, []byte{0, 1}},
		{dtypes.BFloat16, []int{1, 2}, []byte{1, 2, 3, 4}},
		{dtypes.Float32, []int{0, 3}, nil},
	} {
		t.Run(tt.dtype.String(), func(t *testing.T) {
			buf, err := b.Upload(shapes.Make(tt.dtype, tt.dims...), tt.raw)
			require.NoError(t, err)
			got := make([]byte, len(tt.raw))
			require.NoError(t, buf.ReadInto(got))
			require.Equal(t, tt.raw, append([]byte(nil), got...))
			require.ErrorContains(t, buf.ReadInto(make([]byte, 99)), "99 bytes")
		})
	}
	_, err := b.Upload(shapes.Make(dtypes.F8E5M2, 2), []byte{0x3c, 0x40})
	require.ErrorIs(t, err, compute.ErrNotImplemented)
	_, err = b.Upload(f32(2), []int32{1, 2})
	require.ErrorContains(t, err, "[]int32 for (Float32)[2]")
	_, err = b.Upload(f32(2), []float32{1})
	require.ErrorContains(t, err, "4 bytes for (Float32)[2], want 8")
	_, err = b.BufferFromFlatData(2, []float32{1}, f32(1))
	require.ErrorContains(t, err, "device 2, want 0 to 1")
}
