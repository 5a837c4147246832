//go:build unix

package ckpt

import (
	"cmp"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// mapping is a file mapped into memory. Its pages belong to the kernel's cache; drop lets go of them,
// so that what stays resident does not grow with what was read.
type mapping struct {
	data  []byte
	parts []span // that are no holes, in order
}

// mapFile maps f. It refuses what cannot be mapped, an empty file too.
func mapFile(f *os.File, size int64) (region, bool) {
	if size <= 0 || size != int64(int(size)) {
		return nil, false
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, false
	}
	return mapping{data, filledParts(f, size)}, true
}

func (m mapping) size() int64                       { return int64(len(m.data)) }
func (m mapping) view(off, n int64) ([]byte, error) { return m.data[off : off+n : off+n], nil }
func (m mapping) close() error                      { return unix.Munmap(m.data) }

func (m mapping) filled(off, n int64) (all, some bool) {
	i, _ := slices.BinarySearchFunc(m.parts, off, func(s span, off int64) int { return cmp.Compare(s.to, off+1) })
	if i == len(m.parts) || m.parts[i].from >= off+n {
		return false, false
	}
	return m.parts[i].from <= off && off+n <= m.parts[i].to, true
}

// folio is the most that the kernel maps on one fault, aligned in the file, whatever was asked for.
const folio = 2 << 20

// drop takes the bytes out of this process's memory; the kernel may keep them in its cache. It covers all
// folios that hold some of them, since a neighbour's fault maps those whole. What a neighbour still reads
// is mapped again when touched. Refused advice costs memory only.
func (m mapping) drop(off, n int64) {
	from := off / folio * folio
	to := min((off+n+folio-1)/folio*folio, m.size())
	if from < to {
		_ = unix.Madvise(m.data[from:to], unix.MADV_DONTNEED)
	}
}

// syncFolder makes a rename in dir, "" for the current folder, last through a loss of power.
func syncFolder(dir string) error {
	if dir == "" {
		dir = "."
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
