//go:build !unix

package lower

import "mix/lower/pjrt"

// mapMemory uses the Go heap where there is no mmap.
func mapMemory(bytes int64) ([]byte, error) { return pjrt.AlignedBytes(int(bytes)), nil }

// unmap leaves the memory to the garbage collector.
func unmap([]byte) {}
