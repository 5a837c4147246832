//go:build linux

package ckpt

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/stretchr/testify/require"

	"mix/sharding/axis"
)

// resident reads the memory of this process in bytes: its own, and pages of mapped files.
func resident(t *testing.T) (own, mapped int64) {
	f, err := os.Open("/proc/self/status")
	require.NoError(t, err)
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var kib int64
		if n, _ := fmt.Sscanf(s.Text(), "RssAnon: %d kB", &kib); n == 1 {
			own = kib << 10
		}
		if n, _ := fmt.Sscanf(s.Text(), "RssFile: %d kB", &kib); n == 1 {
			mapped = kib << 10
		}
	}
	return own, mapped
}

// sparse writes a checkpoint of bf16 zeros that takes no room on the disk.
func sparse(t *testing.T, dir string, sizes map[axis.Logical]int) {
	var lines []string
	at := 0
	for i := range mixtral {
		r := &mixtral[i]
		if len(r.paths) == 0 || r.layout == Hub {
			continue
		}
		layers := 1
		if r.perLayer() {
			layers = sizes[axis.Layers]
		}
		for l := range layers {
			n, text := 2, []string{}
			for _, d := range r.dims(sizes) {
				n *= d
				text = append(text, fmt.Sprint(d))
			}
			lines = append(lines, fmt.Sprintf(`%q:{"dtype":"BF16","shape":[%s],"data_offsets":[%d,%d]}`, r.nameAt(l, 0, false), strings.Join(text, ","), at, at+n))
			at += n
		}
	}
	header := "{" + strings.Join(lines, ",") + "}"
	path := filepath.Join(dir, singleFile)
	require.NoError(t, os.WriteFile(path, append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header...), 0o600))
	require.NoError(t, os.Truncate(path, int64(8+len(header)+at)))
}

func TestLoadingHoldsThePieceAndLittleMore(t *testing.T) {
	if testing.Short() {
		t.Skip("reads two gigabytes of zeros; run without -short")
	}
	dir := t.TempDir()
	sizes := map[axis.Logical]int{axis.Layers: 2, axis.Embed: 2048, axis.FFN: 9216, axis.Heads: 16, axis.KVHeads: 4,
		axis.HeadDim: 128, axis.Experts: 8, axis.Vocab: 32000}
	sparse(t, dir, sizes)
	params := weights(sizes, false)
	c, err := Open(dir, params, Options{})
	require.NoError(t, err)
	defer c.Close()
	require.Greater(t, c.Bytes(), int64(2e9))
	var largest int64
	pieces := func(p axis.Param) []axis.Piece {
		if len(p.Dims) < 4 || p.Axes[1] != axis.Experts {
			return []axis.Piece{axis.Whole(p, dtypes.Float32)}
		}
		var list []axis.Piece
		for l := range p.Dims[0] {
			for e := range p.Dims[1] {
				list = append(list, axis.Slice(p, dtypes.Float32, l, e))
			}
		}
		return list
	}
	for _, p := range params {
		for _, q := range pieces(p) {
			largest = max(largest, int64(q.Bytes()))
		}
	}
	buffer := make([]byte, largest)
	for i := range buffer {
		buffer[i] = 1 // resident before the first measurement
	}
	own, mapped := resident(t)
	const room = 32 << 20
	for _, p := range params {
		for _, q := range pieces(p) {
			require.NoError(t, c.Read(q, buffer[:q.Bytes()]))
			nowOwn, nowMapped := resident(t)
			require.Less(t, nowOwn-own, int64(room), "memory of our own after %s", q.Name)
			require.Less(t, nowMapped-mapped, int64(room), "pages of the file after %s", q.Name)
		}
	}
}

func TestReadFromAFileThatShrinksIsAnError(t *testing.T) {
	dir := t.TempDir()
	sizes := map[axis.Logical]int{axis.Layers: 1, axis.Embed: 64, axis.FFN: 128, axis.Heads: 2, axis.KVHeads: 1,
		axis.HeadDim: 32, axis.Experts: 2, axis.Vocab: 500}
	sparse(t, dir, sizes)
	params := weights(sizes, false)
	c, err := Open(dir, params, Options{})
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, os.Truncate(filepath.Join(dir, singleFile), 4096))
	q := axis.Whole(params[len(params)-1], dtypes.Float32)
	err = c.Read(q, make([]byte, q.Bytes()))
	require.ErrorIs(t, err, ErrTruncated)
	require.ErrorContains(t, err, `tensor "lm_head.weight"`)
}
