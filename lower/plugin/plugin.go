// Package plugin finds the PJRT plugin of this machine, or installs it once.
//
// A plugin is one shared library with the XLA compiler and a device runtime in it. Stages:
//
//	Find: $PJRT_PLUGIN_LIBRARY_PATH → go-xla's folders → our cache
//	Ensure: Find → lock → Find again → wheel (by hand, or download → SHA-256) → extract → fsync → rename
//
// EnsureTools does the same for what the CUDA plugin compiles with, ptxas and libdevice; EnsureLibraries also for
// what it runs with, cuBLAS, cuDNN, NCCL and others, where the machine does not have them.
//
// The wheels are pinned by name, version and SHA-256 in wheels.go. go-xla's installer knows where
// the package registry is; nothing here does.
package plugin

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
)

// Platforms a plugin can be asked for.
const (
	CPU  = "cpu"
	CUDA = "cuda"
)

var (
	// ErrNotFound says that no plugin is on this machine; the message lists the places searched.
	ErrNotFound = errors.New("no PJRT plugin found")

	// ErrPlatform says that the platform is not one that this package knows, or has no plugin
	// for this operating system and processor.
	ErrPlatform = errors.New("no PJRT plugin for this platform")

	// ErrNoDriver says that CUDA was asked for on a machine without NVIDIA's driver.
	ErrNoDriver = errors.New("no NVIDIA driver")

	// ErrLibraries says that a plugin that Ensure did not install lacks libraries or tools of NVIDIA's; the message says which.
	ErrLibraries = errors.New("NVIDIA's libraries are missing")

	// ErrDownload says that a wheel could not be fetched; the message says which file to put where.
	ErrDownload = errors.New("cannot download")

	// ErrChecksum says that a wheel is not the pinned one.
	ErrChecksum = errors.New("wrong SHA-256")
)

// CacheDir is the folder plugins are installed in unless Options.CacheDir names another:
// mix/plugins in the user's cache folder.
func CacheDir() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("plugin: no cache folder: %w: set one, or $%s to the folder of a plugin", err, PathEnv)
	}
	return filepath.Join(dir, "mix", "plugins"), nil
}

// known refuses a platform other than CPU and CUDA.
func known(platform string) error {
	if platform != CPU && platform != CUDA {
		return fmt.Errorf("plugin: %w: platform %q, want %q or %q", ErrPlatform, platform, CPU, CUDA)
	}
	return nil
}

// suffix is the file name extension of a shared library here.
func suffix() string {
	switch runtime.GOOS {
	case "darwin":
		return ".dylib"
	case "windows":
		return ".dll"
	}
	return ".so"
}
