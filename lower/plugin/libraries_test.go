package plugin

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// machine is one with a driver, the plugin and its tools, and a server that has two wheels of libraries.
type machine struct {
	o      Options
	plugin string
	system string            // the folder of the dynamic loader
	data   map[string][]byte // wheels by file name
	mu     sync.Mutex
	asked  []string                                                           // files that were asked for
	serve  func(w http.ResponseWriter, r *http.Request, file string, try int) // nil serves what is asked for
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{system: t.TempDir(), data: map[string][]byte{}}
	touch(t, m.system, driverLibrary)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		file := filepath.Base(r.URL.Path)
		m.mu.Lock()
		m.asked = append(m.asked, file)
		try, serve := len(m.asked), m.serve
		m.mu.Unlock()
		if serve != nil {
			serve(w, r, file, try)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(m.data[file]))
	}))
	t.Cleanup(srv.Close)
	m.o = Options{Platform: CUDA, CacheDir: t.TempDir(), system: []string{m.system}, client: srv.Client(), backoff: time.Millisecond,
		locate: func(_ context.Context, w wheel) (string, error) { return srv.URL + "/" + w.file, nil }}
	m.o.wheel = &wheel{platform: CUDA, pkg: "plugin", version: "1", file: "plugin.whl", target: "jax_plugins/xla_cuda13/xla_cuda_plugin.so"}
	m.o.libs = []wheel{
		m.wheel(t, "nvidia-a", map[string]string{"nvidia/cu13/lib/liba.so.13": "a", "nvidia/cu13/lib/libaLt.so.13": "Lt", "nvidia/cu13/lib/liba_static.a": "-", "nvidia/cu13/include/a.h": "-", "liba.so.13": "-"}, "liba.so.13", "libaLt.so.13"),
		m.wheel(t, "nvidia-b", map[string]string{"nvidia/b/lib/libb.so.9": strings.Repeat("b", 200_000), "nvidia/b/lib/libb_more.so": "more"}, "libb.so.9"),
	}
	touch(t, m.folder(), m.o.wheel.target, "nvidia/cu13/bin/ptxas", "nvidia/cu13/nvvm/libdevice/libdevice.10.bc")
	m.plugin = filepath.Join(m.folder(), filepath.FromSlash(m.o.wheel.target))
	return m
}

// wheel makes a wheel, stored and not compressed.
func (m *machine) wheel(t *testing.T, pkg string, files map[string]string, holds ...string) wheel {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, content := range files {
		f, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store})
		require.NoError(t, err)
		_, err = f.Write([]byte(content))
		require.NoError(t, err)
	}
	require.NoError(t, z.Close())
	sum := sha256.Sum256(b.Bytes())
	w := wheel{platform: CUDA, pkg: pkg, version: "2.0", file: pkg + "-2.0.whl", sha256: hex.EncodeToString(sum[:]), folder: m.o.wheel.dir(), size: int64(b.Len()), holds: holds}
	m.data[w.file] = b.Bytes()
	return w
}

func (m *machine) folder() string { return filepath.Join(m.o.CacheDir, m.o.wheel.dir()) }

// libraries lists the shared objects below nvidia, and anything that should not be there.
func (m *machine) libraries(t *testing.T) (names []string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(m.folder(), func(path string, e os.DirEntry, err error) error {
		if name, _ := filepath.Rel(m.folder(), path); err == nil && !e.IsDir() && name != m.o.wheel.target && filepath.Ext(name) != ".json" &&
			!strings.HasSuffix(name, "ptxas") && !strings.HasSuffix(name, ".bc") {
			names = append(names, filepath.ToSlash(name))
		}
		return err
	}))
	return names
}

var (
	ofA  = []string{"nvidia/cu13/lib/liba.so.13", "nvidia/cu13/lib/libaLt.so.13"}
	ofB  = []string{"nvidia/b/lib/libb.so.9", "nvidia/b/lib/libb_more.so"}
	both = append(append([]string{}, ofB...), ofA...)
)

func TestLibrariesAreInstalledOnce(t *testing.T) {
	m := newMachine(t)
	var b bytes.Buffer
	m.o.Progress = &b
	for range 2 {
		require.NoError(t, EnsureLibraries(t.Context(), m.plugin, m.o))
		require.Equal(t, both, m.libraries(t))
		require.Equal(t, []string{"nvidia-a-2.0.whl", "nvidia-b-2.0.whl"}, m.asked)
	}
	got, err := os.ReadFile(filepath.Join(m.folder(), "nvidia", "cu13", "lib", "libaLt.so.13"))
	require.NoError(t, err)
	require.Equal(t, "Lt", string(got))
	require.Equal(t, fmt.Sprintf("installing NVIDIA's libraries for CUDA into %s, once: 2 packages, 0.2 MB\n", m.folder())+
		"downloading nvidia-a 2.0 (0.0 MB)\ndownloaded nvidia-a 2.0 (0.0 MB)\ndownloading nvidia-b 2.0 (0.2 MB)\ndownloaded nvidia-b 2.0 (0.2 MB)\n"+
		"installed NVIDIA's libraries for CUDA\n", b.String())
	left, err := filepath.Glob(filepath.Join(m.o.CacheDir, "*.part"))
	require.NoError(t, err)
	require.Empty(t, left)
}

// What the dynamic loader finds is not installed.
func TestLibrariesOfTheMachine(t *testing.T) {
	tests := []struct {
		name  string
		there []string
		want  []string
	}{
		{"all", []string{"liba.so.13", "libaLt.so.13", "libb.so.9"}, nil},
		{"those of one wheel", []string{"libb.so.9"}, ofA},
		{"half of a wheel's", []string{"liba.so.13", "libb.so.9"}, ofA},
		{"other versions", []string{"liba.so.12", "libaLt.so.12", "libb.so"}, both},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t)
			touch(t, m.system, tt.there...)
			require.NoError(t, EnsureLibraries(t.Context(), m.plugin, m.o))
			require.Equal(t, tt.want, m.libraries(t))
		})
	}
}

func TestLibrariesWithoutDriver(t *testing.T) {
	m := newMachine(t)
	require.NoError(t, os.Remove(filepath.Join(m.system, driverLibrary)))
	for _, path := range []string{m.plugin, filepath.Join(t.TempDir(), "x.so")} {
		err := EnsureLibraries(t.Context(), path, m.o)
		require.ErrorIs(t, err, ErrNoDriver)
		require.ErrorContains(t, err, "no NVIDIA driver: libcuda.so.1 is neither in "+m.system)
		require.NotContains(t, err.Error(), "\n")
	}
	require.Empty(t, m.asked, "nothing is downloaded")
	require.Empty(t, m.libraries(t))
}

// What is complete stays, what is half there is completed, by the next call.
func TestLibrariesInterrupted(t *testing.T) {
	m := newMachine(t)
	ctx, cancel := context.WithCancel(t.Context())
	m.serve = func(w http.ResponseWriter, r *http.Request, file string, try int) {
		data := m.data[file]
		if try != 2 {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		_, _ = w.Write(data[:100_000])
		w.(http.Flusher).Flush()
		part := filepath.Join(m.o.CacheDir, file+".part")
		for st, err := os.Stat(part); err != nil || st.Size() == 0; st, err = os.Stat(part) {
			time.Sleep(time.Millisecond)
		}
		cancel()
		<-r.Context().Done()
	}
	require.ErrorIs(t, EnsureLibraries(ctx, m.plugin, m.o), context.Canceled)
	require.Equal(t, ofA, m.libraries(t))
	serve := m.serve
	m.serve = func(w http.ResponseWriter, r *http.Request, file string, try int) {
		if r.Header.Get("Range") == "" {
			t.Error("what was there is not used")
		}
		serve(w, r, file, try)
	}
	require.NoError(t, EnsureLibraries(t.Context(), m.plugin, m.o))
	require.Equal(t, both, m.libraries(t))
	require.Equal(t, []string{"nvidia-a-2.0.whl", "nvidia-b-2.0.whl", "nvidia-b-2.0.whl"}, m.asked)
}

func TestLibrariesFail(t *testing.T) {
	tests := []struct {
		name  string
		set   func(m *machine)
		want  error
		texts []string
		left  []string // libraries in place
	}{
		{"offline", func(m *machine) {
			m.o.locate = func(context.Context, wheel) (string, error) { return "", errors.New("dial: unreachable") }
		}, ErrDownload, []string{"dial: unreachable", "nvidia-a-2.0.whl (package nvidia-a, version 2.0, sha256 ", "after it come nvidia-b-2.0.whl", PathEnv}, nil},
		{"the second is not to be had", func(m *machine) {
			m.serve = func(w http.ResponseWriter, r *http.Request, file string, try int) {
				if try > 1 {
					http.NotFound(w, r)
					return
				}
				_, _ = w.Write(m.data[file])
			}
		}, ErrDownload, []string{"404 Not Found", "nvidia-b-2.0.whl"}, ofA},
		{"a wrong file", func(m *machine) {
			m.serve = func(w http.ResponseWriter, _ *http.Request, _ string, _ int) { _, _ = w.Write([]byte("<html>")) }
		}, ErrChecksum, []string{"nvidia-a-2.0.whl"}, nil},
		{"a disk without room", func(m *machine) {
			m.o.locate = func(context.Context, wheel) (string, error) {
				return "", &os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}
			}
		}, syscall.ENOSPC, []string{"no room for nvidia-a 2.0", "XDG_CACHE_HOME"}, nil},
		{"a wheel without its library", func(m *machine) { m.o.libs[0].holds = []string{"libz.so.1"} }, os.ErrNotExist, []string{"nvidia-a-2.0.whl: no libz.so.1"}, nil},
		{"no wheel", func(m *machine) {
			m.data["nvidia-a-2.0.whl"] = []byte("no wheel")
			sum := sha256.Sum256([]byte("no wheel"))
			m.o.libs[0].sha256 = hex.EncodeToString(sum[:])
		}, zip.ErrFormat, []string{"nvidia-a-2.0.whl"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t)
			tt.set(m)
			err := EnsureLibraries(t.Context(), m.plugin, m.o)
			require.ErrorIs(t, err, tt.want)
			for _, text := range tt.texts {
				require.ErrorContains(t, err, text)
			}
			require.NotContains(t, err.Error(), "\n")
			require.Equal(t, tt.left, m.libraries(t))
		})
	}
}

// The wheels that the message names may be put there by hand.
func TestLibrariesByHand(t *testing.T) {
	m := newMachine(t)
	m.o.locate = func(context.Context, wheel) (string, error) { return "", errors.New("dial: unreachable") }
	for file, data := range m.data {
		require.NoError(t, os.WriteFile(filepath.Join(m.o.CacheDir, file), data, 0o644))
	}
	require.NoError(t, EnsureLibraries(t.Context(), m.plugin, m.o))
	require.Equal(t, both, m.libraries(t))
}

func TestLibrariesInstalledAtOnce(t *testing.T) {
	m := newMachine(t)
	m.serve = func(w http.ResponseWriter, r *http.Request, file string, _ int) {
		time.Sleep(20 * time.Millisecond)
		_, _ = w.Write(m.data[file])
	}
	var wg sync.WaitGroup
	said := make([]bytes.Buffer, 4)
	for i := range said {
		wg.Go(func() {
			o := m.o
			o.Progress = &said[i]
			if err := EnsureLibraries(t.Context(), m.plugin, o); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	require.Equal(t, both, m.libraries(t))
	require.Len(t, m.asked, 2)
	for _, s := range said {
		if text := s.String(); !strings.HasPrefix(text, "installing ") && text != "" {
			require.Equal(t, "waiting for another process, which installs into "+m.folder()+"\n", text)
		}
	}
}

// What is damaged is noticed and installed again, and nothing else.
func TestDamagedLibraries(t *testing.T) {
	tests := []struct {
		name   string
		damage func(folder string) error
	}{
		{"a truncated library", func(f string) error { return os.Truncate(filepath.Join(f, ofB[0]), 5) }},
		{"a library that is gone", func(f string) error { return os.Remove(filepath.Join(f, ofB[1])) }},
		{"no description", func(f string) error { return os.Remove(filepath.Join(f, "nvidia-b.json")) }},
		{"a broken description", func(f string) error { return os.WriteFile(filepath.Join(f, "nvidia-b.json"), []byte("{"), 0o644) }},
		{"another version", func(f string) error {
			return os.WriteFile(filepath.Join(f, "nvidia-b.json"), []byte(`{"wheel": "nvidia-b-1.9.whl"}`), 0o644)
		}},
		{"left by a killed process", func(f string) error {
			tmp := filepath.Join(f, ".install-1", "nvidia")
			return errors.Join(os.Remove(filepath.Join(f, "nvidia-b.json")), os.MkdirAll(tmp, 0o755), os.WriteFile(filepath.Join(tmp, "x.so"), nil, 0o644))
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t)
			require.NoError(t, EnsureLibraries(t.Context(), m.plugin, m.o))
			require.NoError(t, tt.damage(m.folder()))
			m.asked = nil
			require.NoError(t, EnsureLibraries(t.Context(), m.plugin, m.o))
			require.Equal(t, both, m.libraries(t))
			require.Equal(t, []string{"nvidia-b-2.0.whl"}, m.asked)
		})
	}
}

// TestPinnedLibraries lie where the plugin that Ensure installs looks for them.
func TestPinnedLibraries(t *testing.T) {
	arch := map[string]string{"linux/amd64": "x86_64.whl", "linux/arm64": "aarch64.whl"}
	for machine, all := range libraries {
		opened := map[string]bool{}
		for _, w := range all {
			require.Len(t, w.sha256, 64)
			require.Contains(t, w.file, w.version)
			require.True(t, strings.HasSuffix(w.file, arch[machine]), w.file)
			require.Positive(t, w.size)
			require.Equal(t, wheels["cuda/"+machine].dir(), w.dir())
			for _, name := range w.holds {
				require.False(t, opened[name], name)
				opened[name] = true
			}
		}
		require.Len(t, opened, 8, machine)
	}
	if runtime.GOOS == "linux" && (runtime.GOARCH == "amd64" || runtime.GOARCH == "arm64") {
		require.NotEmpty(t, libraries[runtime.GOOS+"/"+runtime.GOARCH])
	}
}
