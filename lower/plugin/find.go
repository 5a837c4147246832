package plugin

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/gomlx/go-xla/installer"
)

// PathEnv names the environment variable with the folders, or plugin files, to search first.
const PathEnv = "PJRT_PLUGIN_LIBRARY_PATH"

// Find returns the path of the plugin for a platform, CPU or CUDA.
//
// It searches, in this order, the entries of $PJRT_PLUGIN_LIBRARY_PATH (plugin files or folders;
// a Python site-packages folder will do for CUDA), go-xla's default folders, and CacheDir. A
// plugin in the cache counts only if it is complete. It fails with ErrNotFound, naming every
// place searched, and if an entry of the variable names a plugin file that is not there. Without a cache
// folder the other places are searched.
func Find(platform string) (string, error) { return Options{Platform: platform}.find() }

// find looks for the plugin of a platform; cache is "" where there is no such folder.
func find(platform, cache string) (string, error) {
	if err := known(platform); err != nil {
		return "", err
	}
	s := search{platform: platform}
	for _, e := range filepath.SplitList(os.Getenv(PathEnv)) {
		if e == "" {
			continue
		}
		path, err := s.entry(e)
		if err != nil || path != "" {
			return path, err
		}
	}
	for _, dir := range goxlaDirs() {
		if path := s.folder(dir); path != "" {
			return path, nil
		}
	}
	if cache != "" {
		if path := s.cached(cache); path != "" {
			return path, nil
		}
	}
	return "", fmt.Errorf("plugin: %w: %s for %s/%s; searched %s", ErrNotFound, platform, runtime.GOOS, runtime.GOARCH, strings.Join(s.places, ", "))
}

// search remembers the places it has been to.
type search struct {
	platform string
	places   []string
}

// entry looks at one entry of $PJRT_PLUGIN_LIBRARY_PATH.
func (s *search) entry(e string) (string, error) {
	st, err := os.Stat(e)
	if err == nil && st.IsDir() {
		return s.folder(e), nil
	}
	if filepath.Ext(e) != suffix() {
		s.places = append(s.places, e+" (not a folder)")
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("plugin: $%s names %s: %w", PathEnv, e, err)
	}
	if p := platformOf(e); p != "" && p != s.platform {
		s.places = append(s.places, e+" (for "+p+")")
		return "", nil
	}
	return filepath.Abs(e)
}

// folder looks for a plugin file by the names in use.
func (s *search) folder(dir string) string {
	s.places = append(s.places, dir)
	for _, pattern := range patterns(s.platform) {
		found, _ := filepath.Glob(filepath.Join(escape(dir), pattern)) // fails only on a bad pattern
		slices.Sort(found)
		for _, path := range slices.Backward(found) { // the highest version
			if exists(path) {
				if abs, err := filepath.Abs(path); err == nil {
					return abs
				}
			}
		}
	}
	return ""
}

// cached looks for what Ensure installs.
func (s *search) cached(cache string) string {
	w, ok := pinned(s.platform)
	if !ok {
		return s.folder(filepath.Join(cache, goxlaDir))
	}
	path := filepath.Join(cache, w.dir(), filepath.FromSlash(w.target))
	if err := intact(path, w); err != nil {
		s.places = append(s.places, fmt.Sprintf("%s (%v)", path, err))
		return ""
	}
	return path
}

// patterns are the names a plugin goes by in a folder, best first.
func patterns(platform string) []string {
	p := []string{
		"pjrt_c_api_" + platform + "_plugin" + suffix(),
		"pjrt_c_api_" + platform + "_*_plugin" + suffix(),
		"pjrt_plugin_" + platform + suffix(),
		"pjrt-plugin-" + platform + suffix(),
	}
	if platform == CUDA {
		const jax = "xla_cuda_plugin"
		p = append(p, jax+suffix(), filepath.Join("jax_plugins", "xla_cuda13", jax+suffix()), filepath.Join("xla_cuda13", jax+suffix()))
	}
	return p
}

// platformOf reads the platform off a plugin's file name; "" if the name does not say.
func platformOf(path string) string {
	for _, p := range []string{CPU, CUDA} {
		for _, pattern := range patterns(p) {
			if ok, _ := filepath.Match(filepath.Base(pattern), filepath.Base(path)); ok {
				return p
			}
		}
	}
	return ""
}

// escape makes a folder's name match itself in a Glob pattern.
func escape(dir string) string {
	if runtime.GOOS == "windows" {
		return dir
	}
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(dir)
}

// goxlaDirs are the folders that go-xla installs plugins in and searches by default.
func goxlaDirs() (dirs []string) {
	if lib, err := installer.DefaultHomeLibPath(); err == nil {
		dirs = append(dirs, filepath.Join(lib, goxlaDir))
	}
	if runtime.GOOS != "windows" {
		dirs = append(dirs, filepath.Join("/usr/local/lib", goxlaDir))
	}
	for _, d := range slices.Clone(dirs) {
		dirs = append(dirs, filepath.Join(d, "nvidia"))
	}
	return dirs
}

// goxlaDir is the name go-xla gives its folder.
const goxlaDir = "go-xla"
