//go:build !unix

package data

import (
	"io"
	"os"
)

// mapFile reads f into memory.
func mapFile(f *os.File, size int64) (b []byte, unmap func() error, err error) {
	b = make([]byte, size)
	_, err = io.ReadFull(f, b)
	return b, func() error { return nil }, err
}
