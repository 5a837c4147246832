//go:build unix

package lower

import "golang.org/x/sys/unix"

// mapMemory asks for anonymous pages, which the system zeroes when they are touched.
func mapMemory(bytes int64) ([]byte, error) {
	return unix.Mmap(-1, 0, int(bytes), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
}

// unmap cannot fail on what mapMemory returned.
func unmap(mem []byte) { _ = unix.Munmap(mem) }
