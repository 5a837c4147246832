package plugin

import (
	"archive/zip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
)

// EnsureLibraries prepares the machine for the CUDA plugin at path to run on its GPU; call it before the plugin is
// loaded. It fails with ErrNoDriver without NVIDIA's driver.
//
// A plugin that Ensure installed opens cuBLAS, cuDNN, NCCL and others (see libraries in wheels.go), and XLA runs ptxas.
// Those that the dynamic loader does not find are installed where the plugin looks, a wheel at a time, with its shared
// objects only: what an interrupted call has completed stays. Processes that call it at once install once. Any
// other plugin's place is left as it is: where that lacks what every program needs, it fails with ErrLibraries. Further
// errors are those of Ensure.
func EnsureLibraries(ctx context.Context, path string, o Options) error {
	l := o.loader()
	if err := l.driver(); err != nil {
		return err
	}
	if none := o.inCache(); none != nil || !o.owns(path) {
		return l.suffices(path)
	}
	all := o.libs
	if all == nil {
		all = libraries[runtime.GOOS+"/"+runtime.GOARCH]
	}
	missing := slices.DeleteFunc(slices.Clone(all), func(w wheel) bool {
		return o.unpacked(w) || !slices.ContainsFunc(w.holds, func(name string) bool { return l.find(name) == "" })
	})
	if len(missing) > 0 {
		if err := o.installLibraries(ctx, missing); err != nil {
			return err
		}
	}
	_, err := EnsureTools(ctx, path, o)
	return err
}

// owns says whether the plugin at path is the one that Ensure installs.
func (o Options) owns(path string) bool {
	w, ok := o.pinned()
	return ok && w.platform == CUDA && filepath.Clean(path) == filepath.Join(o.CacheDir, w.dir(), filepath.FromSlash(w.target))
}

// installLibraries installs wheels of one folder while it holds the folder's lock.
func (o Options) installLibraries(ctx context.Context, missing []wheel) error {
	folder := missing[0].dir()
	release, err := o.hold(ctx, folder)
	if err != nil {
		return err
	}
	defer release()
	missing = slices.DeleteFunc(missing, o.unpacked) // another process was first
	if len(missing) == 0 {
		return nil
	}
	total := int64(0)
	for _, w := range missing {
		total += w.size
	}
	report := o.lines(fmt.Sprintf("installing NVIDIA's libraries for CUDA into %s, once: %d packages, %s", filepath.Join(o.CacheDir, folder), len(missing), size(total)))
	for i, w := range missing {
		err := o.install(ctx, w, func(file string) error { return o.unpack(file, w) })
		if rest := missing[i+1:]; errors.Is(err, ErrDownload) && len(rest) > 0 {
			var files []string
			for _, w := range rest {
				files = append(files, w.file)
			}
			return fmt.Errorf("%w; after it come %s", err, strings.Join(files, ", "))
		}
		if err != nil {
			return err
		}
	}
	report("installed NVIDIA's libraries for CUDA")
	return nil
}

// unpackedWheel is written when all libraries of a wheel are in place.
type unpackedWheel struct {
	Wheel string           `json:"wheel"` // file name
	Files map[string]int64 `json:"files"` // bytes, by name below the folder, with slashes
}

// description is where a wheel's unpackedWheel lies.
func (o Options) description(w wheel) string {
	return filepath.Join(o.CacheDir, w.dir(), w.pkg+".json")
}

// unpacked says whether the wheel's libraries are in place, complete. Their content was checked when they were
// unpacked; of gigabytes only the sizes are looked at again.
func (o Options) unpacked(w wheel) bool {
	b, err := os.ReadFile(o.description(w))
	if err != nil {
		return false
	}
	var u unpackedWheel
	if err := json.Unmarshal(b, &u); err != nil || u.Wheel != w.file {
		return false
	}
	for name, size := range u.Files {
		st, err := os.Stat(filepath.Join(o.CacheDir, w.dir(), filepath.FromSlash(name)))
		if err != nil || st.Size() != size {
			return false
		}
	}
	return true
}

// object is the name of a shared object, with or without a version.
var object = regexp.MustCompile(`^nvidia/.*\.so(\.[0-9]+)*$`)

// unpack puts the shared objects of a wheel that was checked in place: all are written under other names and
// synced, then renamed, the description last.
func (o Options) unpack(file string, w wheel) error {
	dir := filepath.Join(o.CacheDir, w.dir())
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("plugin: %w", err)
	}
	tmp, err := workFolder(dir)
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	u := unpackedWheel{Wheel: w.file}
	if u.Files, err = extract(file, tmp); err != nil {
		return fmt.Errorf("plugin: %s: %w", w.file, err)
	}
	for _, name := range w.holds {
		if !holds(u.Files, name) {
			return fmt.Errorf("plugin: %s: no %s in it: %w", w.file, name, os.ErrNotExist)
		}
	}
	b, err := json.MarshalIndent(u, "", "  ")
	if err != nil {
		return fmt.Errorf("plugin: %w", err)
	}
	written := filepath.Join(tmp, filepath.Base(o.description(w)))
	if err := errors.Join(os.WriteFile(written, append(b, '\n'), 0o644), flush(written), removeIf(o.description(w))); err != nil {
		return fmt.Errorf("plugin: %w", err)
	}
	for name := range u.Files {
		to := filepath.Join(dir, filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.Rename(filepath.Join(tmp, filepath.FromSlash(name)), to), flush(filepath.Dir(to))); err != nil {
			return fmt.Errorf("plugin: %w", err)
		}
	}
	if err := errors.Join(os.Rename(written, o.description(w)), flush(dir)); err != nil {
		return fmt.Errorf("plugin: %w", err)
	}
	return nil
}

// extract writes the shared objects of a wheel below dir and returns their sizes by name.
func extract(file, dir string) (map[string]int64, error) {
	z, err := zip.OpenReader(file)
	if err != nil {
		return nil, err
	}
	defer z.Close()
	files := map[string]int64{}
	for _, member := range z.File {
		if !object.MatchString(member.Name) || !filepath.IsLocal(filepath.FromSlash(member.Name)) {
			continue
		}
		if files[member.Name], err = extractOne(member, filepath.Join(dir, filepath.FromSlash(member.Name))); err != nil {
			return nil, fmt.Errorf("%s: %w", member.Name, err)
		}
	}
	return files, nil
}

// extractOne writes a member of a wheel, synced, and returns its size.
func extractOne(member *zip.File, path string) (int64, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return 0, err
	}
	r, err := member.Open()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(f, r)
	return n, errors.Join(err, f.Sync(), f.Close())
}

// holds says whether a library of that name is among the files, in whatever folder.
func holds(files map[string]int64, name string) bool {
	for f := range files {
		if strings.HasSuffix(f, "/"+name) {
			return true
		}
	}
	return false
}
