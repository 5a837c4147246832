//go:build !unix

package ckpt

import "os"

// mapFile never maps here: files are read piece by piece.
func mapFile(*os.File, int64) (region, bool) { return nil, false }

// syncFolder has no counterpart here.
func syncFolder(string) error { return nil }
