//go:build unix

package data

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// mapFile maps f for reading.
func mapFile(f *os.File, size int64) (b []byte, unmap func() error, err error) {
	if size != int64(int(size)) {
		return nil, nil, fmt.Errorf("%d bytes do not fit the address space", size)
	}
	if b, err = unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED); err != nil {
		return nil, nil, err
	}
	return b, func() error { return unix.Munmap(b) }, nil
}
