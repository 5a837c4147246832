package ckpt

import (
	"hash/crc32"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestChecksumsOfZerosAndOfPartsJoined(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		a, b := make([]byte, r.IntN(5000)), make([]byte, r.IntN(5000))
		for _, list := range [][]byte{a, b} {
			for i := range list {
				list[i] = byte(r.Uint32())
			}
		}
		for _, poly := range []uint32{crc32.IEEE, crc32.Castagnoli} {
			table := crc32.MakeTable(poly)
			sum := crc32.Checksum(a, table)
			require.Equal(t, crc32.Update(sum, table, make([]byte, len(b))), zeroBytes(poly, sum, int64(len(b))))
			require.Equal(t, crc32.Update(sum, table, b), joinCRC(poly, sum, crc32.Checksum(b, table), int64(len(b))))
		}
	}
}
