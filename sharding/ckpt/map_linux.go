package ckpt

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// mostSpans ends the search for holes in a file that has very many; what follows counts as filled.
const mostSpans = 1 << 16

// filledParts lists the parts of a file that are no holes. What a file system does not tell is filled.
func filledParts(f *os.File, size int64) (list []span) {
	for at := int64(0); at < size; {
		from, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // no data from here to the end
			return list
		}
		to := size
		if err == nil && len(list) < mostSpans {
			to, err = unix.Seek(int(f.Fd()), from, unix.SEEK_HOLE)
		}
		if err != nil || from < at || to <= from {
			return append(list, span{at, size})
		}
		list = append(list, span{from, to})
		at = to
	}
	return list
}
