package plugin

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
)

// Tools are what the CUDA plugin compiles with.
type Tools struct {
	Dir   string // folder for XLA's option xla_gpu_cuda_data_dir; nvvm/libdevice/libdevice.10.bc lies below it
	Ptxas string // the assembler, below Dir too
}

// EnsureTools returns the tools that the CUDA plugin at path compiles with. A Python site-packages folder has them
// beside the plugin, in nvidia/cu13, where the plugin looks for them itself; else they are installed into the
// cache folder as Ensure installs a plugin, in the place where a plugin that Ensure installed looks. Errors are
// those of Ensure.
func EnsureTools(ctx context.Context, path string, o Options) (Tools, error) {
	if t, ok := toolsIn(filepath.Join(filepath.Dir(path), "..", "..", "nvidia", "cu13")); ok {
		return t, nil
	}
	all := o.tools
	if all == nil {
		all = tools[runtime.GOOS+"/"+runtime.GOARCH]
	}
	if len(all) == 0 {
		return Tools{}, fmt.Errorf("plugin: %w: tools of cuda on %s/%s", ErrPlatform, runtime.GOOS, runtime.GOARCH)
	}
	if err := o.inCache(); err != nil {
		return Tools{}, err
	}
	for _, w := range all {
		o.wheel = &w
		if _, err := o.find(); err == nil {
			continue
		}
		if _, err := o.locked(ctx, w); err != nil {
			return Tools{}, err
		}
	}
	t, ok := toolsIn(filepath.Join(o.CacheDir, all[0].dir(), "nvidia", "cu13"))
	if !ok {
		return Tools{}, fmt.Errorf("plugin: %w: tools of cuda in %s", ErrNotFound, t.Dir)
	}
	return t, nil
}

// inCache fills in the folder to install into.
func (o *Options) inCache() (err error) {
	if o.CacheDir == "" {
		o.CacheDir, err = CacheDir()
	}
	return err
}

// toolsIn are the tools in a folder, if all are there.
func toolsIn(dir string) (Tools, bool) {
	t := Tools{Dir: filepath.Clean(dir), Ptxas: filepath.Join(dir, "bin", "ptxas")}
	for _, file := range []string{t.Ptxas, filepath.Join(dir, "nvvm", "libdevice", "libdevice.10.bc")} {
		if !exists(file) {
			return t, false
		}
	}
	return t, true
}
