//go:build linux

package ckpt

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/gomlx/compute/dtypes"
	"github.com/stretchr/testify/require"

	"mix/sharding/axis"
)

// mixtral8x7B is the published model's sizes.
var mixtral8x7B = map[axis.Logical]int{axis.Layers: 32, axis.Embed: 4096, axis.FFN: 14336, axis.Heads: 32, axis.KVHeads: 8,
	axis.HeadDim: 128, axis.Experts: 8, axis.Vocab: 32000}

// onDisk is the bytes that the files below a folder take, and those they seem to have.
func onDisk(t testing.TB, dir string) (taken, apparent int64) {
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		st, err := d.Info()
		taken += st.Sys().(*syscall.Stat_t).Blocks * 512
		apparent += st.Size()
		return err
	}))
	return taken, apparent
}

// plant writes random bytes over elements of a weight in a checkpoint's files.
func plant(t testing.TB, dir string, params []axis.Param, r *rand.Rand, pieces []axis.Piece) {
	c, err := Open(dir, params, Options{})
	require.NoError(t, err)
	defer c.Close()
	for _, q := range pieces {
		for _, x := range c.matched.extents[q.Path] {
			k, ok := intersect(x, q)
			if !ok {
				continue
			}
			f, err := os.OpenFile(filepath.Join(dir, x.file.name), os.O_WRONLY, 0)
			require.NoError(t, err)
			for i := range k.Count {
				src, _ := k.Run(i)
				b := make([]byte, k.Length*2)
				for j := range b {
					b[j] = byte(r.IntN(0x40)) // no NaN, no Inf
				}
				_, err = f.WriteAt(b, x.at+int64(2*src))
				require.NoError(t, err)
			}
			require.NoError(t, f.Close())
		}
	}
}

func TestConvertingAllOf8x7BHoldsLittleMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("converts 93 gigabytes of holes; run without -short")
	}
	var disk syscall.Statfs_t
	base := t.TempDir()
	require.NoError(t, syscall.Statfs(base, &disk))
	if free := int64(disk.Bavail) * disk.Bsize; free < 8<<30 {
		t.Skipf("needs 8 GiB of disk for what is not sparse, %d bytes are free", free)
	}
	from := filepath.Join(base, "from")
	require.NoError(t, os.Mkdir(from, 0o777))
	sparse(t, from, mixtral8x7B)
	params := weights(mixtral8x7B, false)
	piece := func(path string, offset, size []int) axis.Piece {
		return axis.Piece{Name: path, Path: path, Offset: offset, Size: size, Shape: size, DType: dtypes.BFloat16}
	}
	planted := []axis.Piece{
		piece("embed", []int{31998, 0}, []int{2, 4096}),
		piece("layers/attn/query", []int{31, 30, 5, 0}, []int{1, 2, 3, 4096}),
		piece("layers/moe/up", []int{17, 6, 7000, 100}, []int{1, 1, 400, 77}),
		piece("layers/moe/down", []int{2, 3, 4000, 7100}, []int{1, 1, 90, 300}),
		piece("final_norm", []int{0}, []int{4096}),
	}
	plant(t, from, params, rand.New(rand.NewPCG(1, 2)), planted)
	taken, apparent := onDisk(t, from)
	require.Greater(t, apparent, int64(93e9))
	if taken > 1<<30 {
		t.Skipf("needs a file system with holes: the checkpoint takes %d bytes", taken)
	}
	var most int64
	stop, watched := make(chan struct{}), make(chan struct{})
	start, _ := resident(t)
	go func() {
		defer close(watched)
		for tick := time.NewTicker(20 * time.Millisecond); ; {
			select {
			case <-stop:
				tick.Stop()
				return
			case <-tick.C:
				own, _ := resident(t)
				most = max(most, own-start)
			}
		}
	}()
	middle, err := Open(from, params, Options{})
	require.NoError(t, err)
	defer middle.Close()
	ours := filepath.Join(base, "to1")
	for i, leg := range []struct {
		from string
		o    ConvertOptions
	}{{from, ConvertOptions{Format: Megatron, Grid: Grid{2, 4, 8}}}, {from, ConvertOptions{Format: Mixtral, Grid: Grid{4, 2, 2}}}, {ours, ConvertOptions{Format: HuggingFace}}} {
		to := filepath.Join(base, fmt.Sprint("to", i))
		began := time.Now()
		c, err := PlanConversion(leg.from, params, leg.o)
		require.NoError(t, err)
		planned := time.Since(began)
		_, err = c.Run(context.Background(), to, RunOptions{})
		require.NoError(t, err)
		require.NoError(t, c.Close())
		taken, apparent := onDisk(t, to)
		t.Logf("%s: %d bytes, %d of them on disk, planned in %v, written in %v", leg.o.Format, apparent, taken, planned, time.Since(began)-planned)
		require.Greater(t, apparent, int64(93e9))
		require.Less(t, taken, int64(1<<30))
		x, err := Open(to, params, Options{})
		require.NoError(t, err)
		for _, q := range planted {
			require.True(t, slices.Equal(read(t, middle, q), read(t, x, q)), q.Path)
		}
		require.NoError(t, x.Close())
	}
	close(stop)
	<-watched
	t.Logf("anonymous memory: %d bytes", most)
	require.Less(t, most, int64(4<<30))
}
