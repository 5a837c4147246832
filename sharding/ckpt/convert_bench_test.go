//go:build linux

package ckpt

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/gomlx/compute/dtypes"
	"github.com/stretchr/testify/require"

	"mix/sharding/axis"
)

// BenchmarkConversion converts a gigabyte and copies the same files in turns, both until they are on the disk.
// It reports the rates and their ratio, of which the project wants at least 0.6, and the same ratio of
// processor time, which says more where others use the machine.
func BenchmarkConversion(b *testing.B) {
	base := b.TempDir()
	from := filepath.Join(base, "from")
	sizes := map[axis.Logical]int{axis.Layers: 4, axis.Embed: 2048, axis.FFN: 3584, axis.Heads: 16, axis.KVHeads: 4,
		axis.HeadDim: 128, axis.Experts: 8, axis.Vocab: 32000}
	params := weights(sizes, false)
	require.NoError(b, WriteHF(from, params, noise{}, WriteOptions{DType: dtypes.BFloat16, ShardBytes: 300 << 20}))
	for name, o := range map[string]ConvertOptions{"to megatron": {Format: Megatron, Grid: Grid{2, 2, 2}}, "to ours": {Format: Mixtral, Grid: Grid{2, 2, 2}}, "to hf": {Format: HuggingFace, Layout: Fused, ShardBytes: 300 << 20}} {
		b.Run(name, func(b *testing.B) {
			var converting, copying, convertingCPU, copyingCPU time.Duration
			var bytes, copied int64
			for i := range b.N {
				to := filepath.Join(base, fmt.Sprint("to", i))
				start, used := time.Now(), processor(b)
				copied += copyFolder(b, from, to+"copy")
				copying += time.Since(start)
				copyingCPU += processor(b) - used
				require.NoError(b, os.RemoveAll(to+"copy"))
				c, err := PlanConversion(from, params, o)
				require.NoError(b, err)
				start, used = time.Now(), processor(b)
				m, err := c.Run(context.Background(), to, RunOptions{})
				require.NoError(b, err)
				converting += time.Since(start)
				convertingCPU += processor(b) - used
				require.NoError(b, c.Close())
				for _, f := range m.Files {
					bytes += f.Bytes
				}
				require.NoError(b, os.RemoveAll(to))
			}
			rate, limit := float64(bytes)/converting.Seconds()/1e9, float64(copied)/copying.Seconds()/1e9
			b.ReportMetric(rate, "GB/s")
			b.ReportMetric(limit, "copyGB/s")
			b.ReportMetric(rate/limit, "ratio")
			b.ReportMetric(float64(bytes)/float64(copied)*copyingCPU.Seconds()/convertingCPU.Seconds(), "cpu-ratio")
		})
	}
}

// processor is the time that this process has had of processors, the kernel's work for it included.
func processor(b *testing.B) time.Duration {
	var r syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &r))
	return time.Duration(syscall.TimevalToNsec(r.Utime) + syscall.TimevalToNsec(r.Stime))
}

// noise is weights of random bits without NaN and Inf.
type noise struct{}

func (noise) Read(q axis.Piece, dst []byte) error {
	r := rand.New(rand.NewPCG(1, uint64(q.Offset[0])))
	for i := 0; i+4 <= len(dst); i += 4 {
		binary.LittleEndian.PutUint32(dst[i:], r.Uint32()&0x3fffffff)
	}
	return nil
}

// copyFolder copies files as a program does that leaves it to the kernel.
func copyFolder(b *testing.B, from, to string) (bytes int64) {
	require.NoError(b, os.Mkdir(to, 0o777))
	list, err := os.ReadDir(from)
	require.NoError(b, err)
	for _, e := range list {
		src, err := os.Open(filepath.Join(from, e.Name()))
		require.NoError(b, err)
		dst, err := os.Create(filepath.Join(to, e.Name()))
		require.NoError(b, err)
		n, err := io.Copy(dst, src)
		require.NoError(b, err)
		bytes += n
		require.NoError(b, dst.Sync())
		require.NoError(b, dst.Close())
		require.NoError(b, src.Close())
	}
	return bytes
}
