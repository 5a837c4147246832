package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/gofrs/flock"
	"github.com/gomlx/go-xla/installer"
)

// Options says what Ensure is to find or install. The zero value asks for the CPU plugin, silently.
type Options struct {
	Platform   string    // CPU or CUDA; "" is CPU
	CacheDir   string    // "" is CacheDir()
	Progress   io.Writer // nil: silent; a terminal gets a bar, anything else a line at start and end
	WithoutGPU bool      // install CUDA on a machine without a driver too, to compile for another

	// For tests; the zero values are the registry that go-xla's installer knows.
	wheel   *wheel
	tools   []wheel
	libs    []wheel
	system  []string // folders of the dynamic loader; nil: this machine's
	locate  func(context.Context, wheel) (string, error)
	client  *http.Client
	backoff time.Duration // before the second try; doubles
}

// Ensure returns the path of the plugin, which it installs into the cache folder if Find finds
// none. Where a wheel is pinned for this machine that wheel is used: a copy put into the cache
// folder by hand, else a download. Elsewhere go-xla's own CPU installer runs.
//
// Processes that call it at once install once: the others wait for the lock, or for ctx to end.
// A download that was interrupted goes on where it stopped. The library appears under its name
// only when it is complete. Errors: ErrPlatform, ErrNoDriver, ErrDownload, ErrChecksum, ctx's, and
// those of the file system.
func Ensure(ctx context.Context, o Options) (string, error) {
	if o.Platform == "" {
		o.Platform = CPU
	}
	path, err := o.find()
	if !errors.Is(err, ErrNotFound) {
		return path, err
	}
	w, ok := o.pinned()
	if !ok && o.Platform != CPU {
		return "", fmt.Errorf("plugin: %w: %s on %s/%s", ErrPlatform, o.Platform, runtime.GOOS, runtime.GOARCH)
	}
	if o.Platform == CUDA && !o.WithoutGPU {
		if err := o.loader().driver(); err != nil {
			return "", err
		}
	}
	if o.CacheDir == "" {
		dir, none := CacheDir()
		if none != nil {
			return "", err // which says so
		}
		o.CacheDir = dir
	}
	if !ok {
		return o.goxla(ctx)
	}
	return o.locked(ctx, w)
}

func (o Options) pinned() (wheel, bool) {
	if o.wheel != nil {
		return *o.wheel, true
	}
	return pinned(o.Platform)
}

// find looks in the cache folder, and unless a test has a wheel of its own, elsewhere before.
func (o Options) find() (string, error) {
	if o.wheel == nil && o.CacheDir == "" {
		dir, none := CacheDir()
		path, err := find(o.Platform, dir)
		if errors.Is(err, ErrNotFound) && none != nil {
			err = fmt.Errorf("%w; %w", err, none)
		}
		return path, err
	}
	if o.wheel == nil {
		return find(o.Platform, o.CacheDir)
	}
	path := filepath.Join(o.CacheDir, o.wheel.dir(), filepath.FromSlash(o.wheel.target))
	if err := intact(path, *o.wheel); err != nil {
		return "", fmt.Errorf("plugin: %w: %s: %v", ErrNotFound, path, err)
	}
	return path, nil
}

// locked installs w while it holds the lock of its folder.
func (o Options) locked(ctx context.Context, w wheel) (string, error) {
	release, err := o.hold(ctx, w.dir())
	if err != nil {
		return "", err
	}
	defer release()
	if path, err := o.find(); err == nil {
		return path, nil // another process was first
	}
	path := ""
	err = o.install(ctx, w, func(file string) (err error) {
		path, err = o.place(file, w)
		return err
	})
	return path, err
}

// hold takes the lock of a folder in the cache; release gives it back.
func (o Options) hold(ctx context.Context, folder string) (release func(), err error) {
	if err := os.MkdirAll(o.CacheDir, 0o755); err != nil {
		return nil, fmt.Errorf("plugin: %w", err)
	}
	lock := flock.New(filepath.Join(o.CacheDir, folder+".lock"))
	got, err := lock.TryLock()
	if err == nil && !got {
		o.lines("waiting for another process, which installs into " + filepath.Join(o.CacheDir, folder))
		_, err = lock.TryLockContext(ctx, 100*time.Millisecond)
	}
	if err != nil {
		return nil, fmt.Errorf("plugin: waiting for %s: %w", lock.Path(), err)
	}
	return func() { _ = lock.Unlock() }, nil // the file stays: removing it would let two holders in
}

// install gets the wheel, checked, and has place put what is in it in place.
func (o Options) install(ctx context.Context, w wheel, place func(file string) error) error {
	file := filepath.Join(o.CacheDir, w.file)
	if _, err := os.Stat(file); err == nil {
		if err := check(file, w); err != nil {
			return err
		}
		return o.noRoom(place(file), w)
	}
	part := file + ".part"
	if err := o.download(ctx, w, part); err != nil {
		return o.explain(err, w)
	}
	if err := o.noRoom(place(part), w); err != nil {
		return err
	}
	_ = os.Remove(part) // a leftover costs space, nothing else
	return nil
}

// check compares a wheel with its pin.
func check(file string, w wheel) error {
	_, sum, err := hashFile(file)
	if err != nil {
		return fmt.Errorf("plugin: %w", err)
	}
	if sum != w.sha256 {
		return fmt.Errorf("plugin: %s: %w: %s, want %s", file, ErrChecksum, sum, w.sha256)
	}
	return nil
}

// explain tells a person without a network what to do.
func (o Options) explain(err error, w wheel) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, ErrChecksum) {
		return err
	}
	if full(err) {
		return o.noRoom(err, w)
	}
	return fmt.Errorf("plugin: %w (%w): get the wheel %s (package %s, version %s, sha256 %s) and put it into %s, or set $%s to the folder of a plugin that has all it needs",
		ErrDownload, err, w.file, w.pkg, w.version, w.sha256, o.CacheDir, PathEnv)
}

// full says that a disk has no room left, or an account on it.
func full(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// noRoom adds to an error of a full disk what to do about it.
func (o Options) noRoom(err error, w wheel) error {
	if !full(err) {
		return err
	}
	return fmt.Errorf("plugin: no room for %s in %s (%w): make some (CUDA with all libraries takes 3 GB, and 0.6 GB more while it is installed), or set $XDG_CACHE_HOME to another folder", w, o.CacheDir, err)
}

// place extracts the plugin of a wheel that was checked. The library and its description are
// written under other names, synced, and renamed, the description last.
func (o Options) place(file string, w wheel) (string, error) {
	path := filepath.Join(o.CacheDir, w.dir(), filepath.FromSlash(w.target))
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("plugin: %w", err)
	}
	tmp, err := workFolder(dir)
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	lib := filepath.Join(tmp, filepath.Base(path))
	if err := installer.ExtractFileFromZip(file, w.member, lib); err != nil {
		return "", fmt.Errorf("plugin: %s of %s: %w", w.member, w.file, err)
	}
	if err := os.Chmod(lib, 0o755); err != nil { // of tools, some are programs
		return "", fmt.Errorf("plugin: %w", err)
	}
	p := Plugin{Platform: w.platform, Version: w.version, Wheel: w.file}
	if p.Size, p.SHA256, err = hashFile(lib); err != nil {
		return "", fmt.Errorf("plugin: %w", err)
	}
	st, err := os.Stat(lib)
	if err != nil {
		return "", fmt.Errorf("plugin: %w", err)
	}
	p.Modified = st.ModTime().UnixNano()
	b, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return "", fmt.Errorf("plugin: %w", err)
	}
	if err := os.WriteFile(metaPath(lib), append(b, '\n'), 0o644); err != nil {
		return "", fmt.Errorf("plugin: %w", err)
	}
	// Without its description the old library is not loaded any more, with it the next one is.
	if err := errors.Join(flush(lib), flush(metaPath(lib)), removeIf(metaPath(path)),
		os.Rename(lib, path), os.Rename(metaPath(lib), metaPath(path)), flush(dir)); err != nil {
		return "", fmt.Errorf("plugin: %w", err)
	}
	return path, nil
}

// workFolder makes a folder in dir to put files together in, for the holder of the lock: what a process that was
// killed has left of its own is removed.
func workFolder(dir string) (string, error) {
	old, _ := filepath.Glob(filepath.Join(escape(dir), ".install-*")) // fails only on a bad pattern
	for _, d := range old {
		_ = os.RemoveAll(d)
	}
	tmp, err := os.MkdirTemp(dir, ".install-")
	if err != nil {
		return "", fmt.Errorf("plugin: %w", err)
	}
	return tmp, nil
}

// flush writes a file or folder through to the disk.
func flush(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func removeIf(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// goxla runs go-xla's installer, which has a lock and an atomic rename of its own.
func (o Options) goxla(ctx context.Context) (string, error) {
	done := make(chan error, 1)
	dir := filepath.Join(o.CacheDir, goxlaDir)
	report := o.lines("installing the CPU plugin by go-xla's installer into " + dir)
	go func() { done <- installer.CPUAutoInstall(dir, true, installer.Quiet) }()
	select {
	case err := <-done:
		if err != nil {
			return "", fmt.Errorf("plugin: %w: %w: set $%s to the folder of a plugin", ErrDownload, err, PathEnv)
		}
	case <-ctx.Done():
		return "", fmt.Errorf("plugin: %w", ctx.Err())
	}
	report("installed the CPU plugin")
	return o.find()
}
