package plugin

import (
	"bytes"
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// driverLibrary is NVIDIA's driver as programs open it. It comes with the kernel's module, in no package of ours.
const driverLibrary = "libcuda.so.1"

// ldCache is the dynamic loader's list of libraries, which ldconfig makes.
const ldCache = "/etc/ld.so.cache"

// loader finds libraries where glibc's dynamic loader does for a plugin that opens them by name: in the plugin's
// run path, the folders of $LD_LIBRARY_PATH, the loader's list, and the system's folders, in this order.
type loader struct {
	folders []string // all but the run path
	listed  []string // paths in the loader's list
}

// loader is that of this machine.
func (o Options) loader() loader {
	if o.system != nil {
		return loader{folders: o.system}
	}
	var l loader
	for _, dir := range filepath.SplitList(os.Getenv("LD_LIBRARY_PATH")) {
		if dir != "" {
			l.folders = append(l.folders, dir)
		}
	}
	for _, dir := range []string{"lib64", "lib"} {
		l.folders = append(l.folders, "/"+dir, "/usr/"+dir)
	}
	if triple := map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}[runtime.GOARCH]; triple != "" {
		l.folders = append(l.folders, "/lib/"+triple, "/usr/lib/"+triple)
	}
	if list, err := os.ReadFile(ldCache); err == nil { // a system without one has the folders
		l.listed = paths(list)
	}
	return l
}

// paths are the absolute paths among the strings of the loader's list, each of which ends in a zero byte.
func paths(list []byte) (all []string) {
	for s := range bytes.SplitSeq(list, []byte{0}) {
		if len(s) > 1 && s[0] == '/' {
			all = append(all, string(s))
		}
	}
	return all
}

// find returns the path of a library outside of any run path, "" if there is none. The name may be a pattern.
func (l loader) find(name string) string {
	if path := inFolders(l.folders, name); path != "" {
		return path
	}
	for _, path := range l.listed {
		if ok, _ := filepath.Match(name, filepath.Base(path)); ok && exists(path) {
			return path
		}
	}
	return ""
}

// driver fails where there is no driver.
func (l loader) driver() error {
	if l.find(driverLibrary) != "" {
		return nil
	}
	return fmt.Errorf("plugin: %w: %s is neither in %s nor in the list %s: install the driver of the GPU (from release 580 on), or set $LD_LIBRARY_PATH to its folder",
		ErrNoDriver, driverLibrary, strings.Join(l.folders, ", "), ldCache)
}

// inFolders returns the first file of that name, or pattern, in the folders, "" if there is none.
func inFolders(folders []string, name string) string {
	for _, dir := range folders {
		found, _ := filepath.Glob(filepath.Join(escape(dir), name)) // fails only on a bad pattern
		for _, path := range found {
			if exists(path) {
				return path
			}
		}
	}
	return ""
}

// exists says whether there is a file at path, through links.
func exists(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}

// runPath are the folders that the library at path has libraries of its own searched in first; none if it is no ELF
// file or has no such entry.
func runPath(path string) (folders []string) {
	f, err := elf.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	origin := strings.NewReplacer("$ORIGIN", filepath.Dir(path), "${ORIGIN}", filepath.Dir(path))
	for _, tag := range []elf.DynTag{elf.DT_RPATH, elf.DT_RUNPATH} {
		entries, err := f.DynString(tag)
		if err != nil {
			continue
		}
		for _, e := range entries {
			for dir := range strings.SplitSeq(e, ":") {
				if dir != "" {
					folders = append(folders, filepath.Clean(origin.Replace(dir)))
				}
			}
		}
	}
	return folders
}
