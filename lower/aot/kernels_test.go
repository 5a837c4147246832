package aot

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLaunches(t *testing.T) {
	const text = `001: kCustomKernel   [source       | next=007 (6)] loop_broadcast_fusion_3 grid: [264192, 1, 1] threads: [128, 1, 1]  shared_memory: 0 bytes
006: kCopy           [source       | next=007 (1)] kCopy
007: kWhile          [prev=006 (1) | next=070 (1)]
  body:
    022: kCublasLtMatmul     [prev=021 (1)  | next=023 (1) ] kCublasLtMatmul
    023: kKernel       [prev=022 (1)  | next=025 (2) ] moe_up grid: [112, 72, 2] threads: [32, 4, 2]  shared_memory: 147456 bytes
    024: kCustomKernel       [prev=022 (2)  | next=025 (1) ] loop_broadcast_fusion_3 grid: [264192, 1, 1] threads: [128, 1, 1]  shared_memory: 0 bytes
`
	require.Equal(t, []Kernel{
		{Name: "loop_broadcast_fusion_3", Grid: [3]int{264192, 1, 1}, Threads: 128, Runs: 2},
		{Name: "moe_up", Grid: [3]int{112, 72, 2}, Threads: 256, Shared: 147456, Runs: 1},
	}, parseLaunches(text))
}

func TestPtxas(t *testing.T) {
	const text = `ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'gemm_fusion_dot_62' for 'sm_90a'
ptxas info    : Function properties for gemm_fusion_dot_62
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 32 registers, used 1 barriers
ptxas info    : Compile time = 6.343 ms
ptxas info    : Compiling entry function 'fusion_181' for 'sm_90a'
ptxas info    : Function properties for fusion_181
    96 bytes stack frame, 100 bytes spill stores, 84 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 96 bytes cumulative stack size
`
	require.Equal(t, map[string]assembly{"gemm_fusion_dot_62": {32, 0}, "fusion_181": {255, 184}}, parsePtxas(text))
	require.Empty(t, parsePtxas("ptxas fatal   : Unresolved extern function 'x'\n"))
}

func TestNewest(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "[a]*")
	require.NoError(t, os.Mkdir(dir, 0o755))
	_, err := newest(dir, "b.txt", "a.txt")
	require.ErrorContains(t, err, "has no b.txt")
	for _, name := range []string{"module_0001.a.txt", "module_0002.a.txt"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644))
	}
	got, err := newest(dir, "b.txt", "a.txt")
	require.NoError(t, err)
	require.Equal(t, "module_0002.a.txt", got)
}
