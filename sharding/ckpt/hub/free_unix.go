//go:build linux || darwin || freebsd

package hub

import "golang.org/x/sys/unix"

// freeBytes is what a user may still write in a folder's file system.
func freeBytes(folder string) (bytes int64, known bool) {
	var s unix.Statfs_t
	if err := unix.Statfs(folder, &s); err != nil {
		return 0, false
	}
	return int64(s.Bavail) * int64(s.Bsize), true
}
