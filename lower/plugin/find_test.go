package plugin

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/gomlx/go-xla/installer"
	"github.com/stretchr/testify/require"
)

// touch makes files below dir.
func touch(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, n := range names {
		path := filepath.Join(dir, n)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(n), 0o644))
	}
}

func TestFind(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs Linux: the file names in the table end in .so")
	}
	const cpu, cuda, jax = "pjrt_c_api_cpu_plugin.so", "pjrt_c_api_cuda_plugin.so", "jax_plugins/xla_cuda13/xla_cuda_plugin.so"
	tests := []struct {
		name     string
		platform string
		files    []string // below the root; "home/" is the home folder
		env      string   // entries of the variable, relative to the root, separated by colons
		want     string   // relative to the root
	}{
		{"folder in the variable", CPU, []string{"a/" + cpu}, "a", "a/" + cpu},
		{"the first folder wins", CPU, []string{"a/" + cpu, "b/" + cpu}, "b:a", "b/" + cpu},
		{"folders without it are passed over", CPU, []string{"a/" + cuda, "b/" + cpu}, "a:none:b", "b/" + cpu},
		{"a file in the variable", CPU, []string{"x.so"}, "x.so", "x.so"},
		{"a file for another platform is passed over", CUDA, []string{cpu, "b/" + cuda}, cpu + ":b", "b/" + cuda},
		{"site-packages", CUDA, []string{"site/" + jax}, "site", "site/" + jax},
		{"a file with a version", CPU, []string{"a/pjrt_c_api_cpu_v0.1_plugin.so", "a/pjrt_c_api_cpu_v0.2_plugin.so"}, "a", "a/pjrt_c_api_cpu_v0.2_plugin.so"},
		{"a name of go-xla", CPU, []string{"a/pjrt_plugin_cpu.so"}, "a", "a/pjrt_plugin_cpu.so"},
		{"odd folder names", CPU, []string{"[a]*/" + cpu}, "[a]*", "[a]*/" + cpu},
		{"the variable comes before go-xla", CPU, []string{"a/" + cpu, "home/.local/lib/go-xla/" + cpu}, "a", "a/" + cpu},
		{"go-xla's folder", CPU, []string{"home/.local/lib/go-xla/" + cpu}, "", "home/.local/lib/go-xla/" + cpu},
		{"go-xla's folder for CUDA", CUDA, []string{"home/.local/lib/go-xla/nvidia/" + cuda}, "", "home/.local/lib/go-xla/nvidia/" + cuda},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			touch(t, root, tt.files...)
			setEnv(t, root, tt.env)
			got, err := Find(tt.platform)
			require.NoError(t, err)
			require.Equal(t, filepath.Join(root, tt.want), got)
		})
	}
}

// setEnv makes root/home the home folder, and entries those of the variable.
func setEnv(t *testing.T, root, entries string) {
	t.Helper()
	t.Setenv("HOME", filepath.Join(root, "home"))
	t.Setenv("XDG_CACHE_HOME", "")
	env := ""
	for _, e := range filepath.SplitList(entries) {
		env += filepath.Join(root, e) + string(filepath.ListSeparator)
	}
	t.Setenv(PathEnv, env)
}

func TestFindRefuses(t *testing.T) {
	root := t.TempDir()
	setEnv(t, root, "a:b")
	touch(t, root, "a/readme")
	_, err := find(CPU, filepath.Join(root, "cache"))
	if err != nil { // another plugin may be installed for the whole machine
		require.ErrorIs(t, err, ErrNotFound)
		for _, place := range []string{"a", "b", "home/.local/lib/go-xla", "cache"} {
			require.ErrorContains(t, err, filepath.Join(root, place))
		}
	}
	setEnv(t, root, "missing"+suffix())
	_, err = find(CPU, root)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, "$PJRT_PLUGIN_LIBRARY_PATH names")
	_, err = Find("tpu")
	require.ErrorIs(t, err, ErrPlatform)
}

// TestWithoutHome has neither a home nor a cache folder: the variable still counts, and errors say what to
// set.
func TestWithoutHome(t *testing.T) {
	root := t.TempDir()
	name := "pjrt_c_api_cpu_plugin" + suffix()
	touch(t, root, "a/"+name)
	setEnv(t, root, "a")
	for _, v := range []string{"HOME", "XDG_CACHE_HOME"} {
		t.Setenv(v, "")
	}
	if _, err := CacheDir(); err == nil {
		t.Skip("needs a system whose cache folder depends on the environment alone")
	}
	got, err := Find(CPU)
	require.NoError(t, err)
	require.Equal(t, filepath.Join(root, "a", name), got)
	got, err = Ensure(t.Context(), Options{})
	require.NoError(t, err)
	require.Equal(t, filepath.Join(root, "a", name), got)

	setEnv(t, root, "none")
	t.Setenv("HOME", "")
	if _, err := Find(CPU); err == nil {
		t.Skip("needs a machine without a plugin for everybody")
	}
	_, find := Find(CPU)
	_, ensure := Ensure(t.Context(), Options{})
	for _, err := range []error{find, ensure} {
		require.ErrorIs(t, err, ErrNotFound)
		for _, part := range []string{filepath.Join(root, "none"), "$HOME", "$" + PathEnv} {
			require.ErrorContains(t, err, part)
		}
		require.NotContains(t, err.Error(), "\n")
	}
}

func TestFingerprint(t *testing.T) {
	dir := t.TempDir()
	touch(t, dir, "x.so")
	path := filepath.Join(dir, "x.so")
	a, err := Fingerprint(path)
	require.NoError(t, err)
	again, err := Fingerprint(path)
	require.NoError(t, err)
	require.Equal(t, a, again)
	require.NoError(t, os.Symlink(path, filepath.Join(dir, "link.so")))
	link, err := Fingerprint(filepath.Join(dir, "link.so"))
	require.NoError(t, err)
	require.Equal(t, a, link)
	require.NoError(t, os.WriteFile(path, []byte("longer than before"), 0o644))
	b, err := Fingerprint(path)
	require.NoError(t, err)
	require.NotEqual(t, a, b)

	meta, err := json.Marshal(Plugin{Platform: CPU, Version: "1", Size: int64(len("longer than before")), SHA256: "abc"})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(metaPath(path), meta, 0o644))
	installed, err := Fingerprint(path)
	require.NoError(t, err)
	require.Equal(t, "cpu-1-sha256:abc", installed)
	_, err = Fingerprint(filepath.Join(dir, "none.so"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestAddress(t *testing.T) {
	w := wheel{pkg: "p", version: "1", file: "p-1.whl", sha256: "aa"}
	answer := func(page, file, addr, sum string) *installer.PipPackageInfo {
		i := &installer.PipPackageInfo{Releases: map[string][]installer.PipReleaseInfo{"1": {
			{Filename: "other.whl", URL: "http://host.test/other.whl"},
			{Filename: file, URL: addr, Digests: map[string]string{"sha256": sum}},
		}}}
		i.Info.ProjectURL = page
		return i
	}
	const page = "http://host.test/project/p/"
	tests := []struct {
		name string
		info *installer.PipPackageInfo
		want string // or "error: " and a part of the message
	}{
		{"absolute", answer(page, w.file, "http://files.test/p-1.whl", "aa"), "http://files.test/p-1.whl"},
		{"relative to the page", answer(page, w.file, "../../files/p-1.whl", "aa"), "http://host.test/files/p-1.whl"},
		{"no sum given", answer(page, w.file, "http://files.test/p-1.whl", ""), "http://files.test/p-1.whl"},
		{"another sum", answer(page, w.file, "http://files.test/p-1.whl", "bb"), "error: wrong SHA-256: bb, want aa"},
		{"relative to nothing", answer("", w.file, "files/p-1.whl", "aa"), `error: "files/p-1.whl" is relative to nothing known`},
		{"not there", answer(page, "p-2.whl", "", ""), `error: the registry has no p-1.whl in version "1" of p`},
		{"no answer", &installer.PipPackageInfo{}, "error: the registry has no p-1.whl"},
		{"broken address", answer(page, w.file, "http://%zz", "aa"), "error: address of p-1.whl"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := address(tt.info, w)
			if err != nil {
				require.ErrorContains(t, err, tt.want[len("error: "):])
				return
			}
			require.Equal(t, tt.want, got)
		})
	}
}

func TestWheels(t *testing.T) {
	for key, w := range wheels {
		require.Len(t, w.sha256, 64, key)
		require.Contains(t, key, w.platform)
		require.Contains(t, w.file, w.version, key)
		require.Equal(t, w.member, filepath.Base(w.target), key)
	}
}
