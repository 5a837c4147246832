package plugin

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// library is the content of the plugin in the test's wheel; random, so that it does not shrink.
var library = func() []byte {
	r, b := rand.New(rand.NewPCG(1, 2)), make([]byte, 200_000)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}()

// fixture is a wheel, a server that has it, and a cache to install into.
type fixture struct {
	w     wheel
	data  []byte // the wheel
	o     Options
	hits  atomic.Int32
	path  string // where the library is to come
	part  string // where the download goes
	serve func(w http.ResponseWriter, r *http.Request, try int)
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, content := range map[string][]byte{"pkg/__init__.py": nil, "pkg/lib.so": library} {
		f, err := z.Create(name)
		require.NoError(t, err)
		_, err = f.Write(content)
		require.NoError(t, err)
	}
	require.NoError(t, z.Close())
	f := &fixture{data: b.Bytes()}
	sum := sha256.Sum256(f.data)
	f.w = wheel{platform: CPU, pkg: "a-package", version: "1.2", file: "a_package-1.2.whl", sha256: hex.EncodeToString(sum[:]),
		member: "lib.so", target: "sub/lib.so"}
	f.serve = func(w http.ResponseWriter, r *http.Request, _ int) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.data))
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.serve(w, r, int(f.hits.Add(1)))
	}))
	t.Cleanup(srv.Close)
	dir := t.TempDir()
	f.o = Options{CacheDir: dir, wheel: &f.w, client: srv.Client(), backoff: time.Millisecond,
		locate: func(context.Context, wheel) (string, error) { return srv.URL + "/file", nil }}
	f.path = filepath.Join(dir, "cpu-1.2", "sub", "lib.so")
	f.part = filepath.Join(dir, f.w.file+".part")
	return f
}

// installs runs Ensure and checks that the library is complete and nothing else is left.
func (f *fixture) installs(t *testing.T) {
	t.Helper()
	path, err := Ensure(t.Context(), f.o)
	require.NoError(t, err)
	require.Equal(t, f.path, path)
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.True(t, bytes.Equal(library, got))
	require.NoFileExists(t, f.part)
	left, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, left, 2, "the library and its description")
}

// nothing checks that no library is to be seen.
func (f *fixture) nothing(t *testing.T) {
	t.Helper()
	_, err := f.o.find()
	require.ErrorIs(t, err, ErrNotFound)
	require.NoFileExists(t, f.path)
}

func TestInstallOnce(t *testing.T) {
	f := newFixture(t)
	f.nothing(t)
	f.installs(t)
	f.installs(t)
	require.EqualValues(t, 1, f.hits.Load())
	p, err := Describe(f.path)
	require.NoError(t, err)
	sum := sha256.Sum256(library)
	st, err := os.Stat(f.path)
	require.NoError(t, err)
	require.Equal(t, Plugin{Platform: CPU, Version: "1.2", Modified: st.ModTime().UnixNano(), Size: int64(len(library)), SHA256: hex.EncodeToString(sum[:]), Wheel: f.w.file, Path: f.path}, p)
}

func TestCopiedCacheIsIntact(t *testing.T) {
	f := newFixture(t)
	f.installs(t)
	require.NoError(t, os.Chtimes(f.path, time.Now(), time.Now().Add(-time.Hour)))
	_, err := f.o.find()
	require.NoError(t, err, "the content is looked at where the time differs")
}

// drop sends part of the answer and closes the connection.
func drop(w http.ResponseWriter, n int, data []byte) {
	w.Header().Set("Content-Length", fmt.Sprint(len(data)))
	_, _ = w.Write(data[:n])
	panic(http.ErrAbortHandler)
}

func TestInterruptedDownload(t *testing.T) {
	tests := []struct {
		name  string
		serve func(f *fixture, w http.ResponseWriter, r *http.Request, try int)
		hits  int32
	}{
		{"a connection that breaks is resumed", func(f *fixture, w http.ResponseWriter, r *http.Request, try int) {
			if try == 1 {
				drop(w, 70_000, f.data)
			}
			if r.Header.Get("Range") == "" {
				panic("not resumed")
			}
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.data))
		}, 2},
		{"a server that ignores Range starts again", func(f *fixture, w http.ResponseWriter, r *http.Request, try int) {
			if try == 1 {
				drop(w, 70_000, f.data)
			}
			_, _ = w.Write(f.data)
		}, 2},
		{"a server that answers another range starts again", func(f *fixture, w http.ResponseWriter, r *http.Request, try int) {
			switch try {
			case 1:
				drop(w, 70_000, f.data)
			case 2:
				w.Header().Set("Content-Range", fmt.Sprintf("bytes 5-%d/%d", len(f.data)-1, len(f.data)))
				w.WriteHeader(http.StatusPartialContent)
				_, _ = w.Write(f.data[5:])
			default:
				_, _ = w.Write(f.data)
			}
		}, 3},
		{"a server in trouble is asked again", func(f *fixture, w http.ResponseWriter, r *http.Request, try int) {
			if try < 4 {
				http.Error(w, "busy", http.StatusServiceUnavailable)
				return
			}
			_, _ = w.Write(f.data)
		}, 4},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t)
			f.serve = func(w http.ResponseWriter, r *http.Request, try int) { tt.serve(f, w, r, try) }
			f.installs(t)
			require.Equal(t, tt.hits, f.hits.Load())
		})
	}
}

// What an earlier process left is used as far as it is good.
func TestEarlierPart(t *testing.T) {
	tests := []struct {
		name string
		part func(f *fixture) []byte
		hits int32
	}{
		{"the first half", func(f *fixture) []byte { return f.data[:len(f.data)/2] }, 1},
		{"all of it", func(f *fixture) []byte { return f.data }, 0},
		{"wrong bytes", func(f *fixture) []byte { return make([]byte, 1000) }, 2},
		{"more than there is", func(f *fixture) []byte { return append(bytes.Clone(f.data), 1, 2, 3) }, 2},
		{"nothing", func(f *fixture) []byte { return nil }, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t)
			require.NoError(t, os.WriteFile(f.part, tt.part(f), 0o644))
			f.installs(t)
			require.Equal(t, tt.hits, f.hits.Load())
		})
	}
}

func TestDownloadFails(t *testing.T) {
	tests := []struct {
		name string
		set  func(f *fixture)
		want error
		text string
		hits int32
	}{
		{"not found is final", func(f *fixture) {
			f.serve = func(w http.ResponseWriter, r *http.Request, _ int) { http.NotFound(w, r) }
		}, ErrDownload, "server says 404 Not Found", 1},
		{"a server in trouble for long", func(f *fixture) {
			f.serve = func(w http.ResponseWriter, _ *http.Request, _ int) { http.Error(w, "", http.StatusBadGateway) }
		}, ErrDownload, "server says 502 Bad Gateway", tries},
		{"a wrong file", func(f *fixture) {
			f.serve = func(w http.ResponseWriter, _ *http.Request, _ int) { _, _ = w.Write([]byte("<html>")) }
		}, ErrChecksum, "a_package-1.2.whl", 1},
		{"no network", func(f *fixture) {
			f.o.locate = func(context.Context, wheel) (string, error) { return "", errors.New("dial: unreachable") }
		}, ErrDownload, "dial: unreachable", 0},
		{"no such member", func(f *fixture) { f.w.member = "other.so" }, os.ErrNotExist, "other.so of a_package-1.2.whl", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t)
			tt.set(f)
			_, err := Ensure(t.Context(), f.o)
			require.ErrorIs(t, err, tt.want)
			require.ErrorContains(t, err, tt.text)
			require.NotContains(t, err.Error(), "\n")
			require.Equal(t, tt.hits, f.hits.Load())
			f.nothing(t)
		})
	}
}

// Without a network the message has all that a person needs, and doing what it says works.
func TestOffline(t *testing.T) {
	f := newFixture(t)
	f.o.locate = func(context.Context, wheel) (string, error) { return "", errors.New("dial: unreachable") }
	_, err := Ensure(t.Context(), f.o)
	for _, part := range []string{f.w.file, f.w.pkg, f.w.version, f.w.sha256, f.o.CacheDir, PathEnv} {
		require.ErrorContains(t, err, part)
	}
	byHand := filepath.Join(f.o.CacheDir, f.w.file)
	require.NoError(t, os.WriteFile(byHand, f.data[:1000], 0o644))
	_, err = Ensure(t.Context(), f.o)
	require.ErrorIs(t, err, ErrChecksum)
	f.nothing(t)
	require.NoError(t, os.WriteFile(byHand, f.data, 0o644))
	f.installs(t)
	require.FileExists(t, byHand, "what a person put there stays")
}

// Many at once install once, in this process and with the lock held by others.
func TestConcurrentInstall(t *testing.T) {
	f := newFixture(t)
	serve := f.serve
	f.serve = func(w http.ResponseWriter, r *http.Request, try int) {
		time.Sleep(50 * time.Millisecond)
		serve(w, r, try)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			path, err := Ensure(t.Context(), f.o)
			if err != nil || path != f.path {
				t.Error(path, err)
			}
			got, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(got, library) {
				t.Error("an incomplete library was returned", err)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 1, f.hits.Load())
}

func TestCancel(t *testing.T) {
	f := newFixture(t)
	ctx, cancel := context.WithCancel(t.Context())
	serve := f.serve
	f.serve = func(w http.ResponseWriter, r *http.Request, try int) {
		if try > 1 {
			if r.Header.Get("Range") == "" {
				t.Error("what was there is not used")
			}
			serve(w, r, try)
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(f.data)))
		_, _ = w.Write(f.data[:70_000])
		w.(http.Flusher).Flush()
		for fi, err := os.Stat(f.part); err != nil || fi.Size() == 0; fi, err = os.Stat(f.part) {
			time.Sleep(time.Millisecond)
		}
		cancel()
		<-r.Context().Done()
	}
	_, err := Ensure(ctx, f.o)
	require.ErrorIs(t, err, context.Canceled)
	f.nothing(t)
	f.installs(t)
	require.EqualValues(t, 2, f.hits.Load())
}

// One that waits for the lock gives up with its context.
func TestCancelWaiting(t *testing.T) {
	g := newFixture(t)
	entered, leave := make(chan struct{}), make(chan struct{})
	g.serve = func(w http.ResponseWriter, r *http.Request, _ int) {
		close(entered)
		<-leave
		_, _ = w.Write(g.data)
	}
	first := make(chan error, 1)
	go func() {
		_, err := Ensure(context.Background(), g.o)
		first <- err
	}()
	<-entered
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := Ensure(ctx, g.o)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "cpu-1.2.lock")
	close(leave)
	require.NoError(t, <-first)
}

// A library in the cache that is not whole is noticed, and installed again.
func TestDamagedCache(t *testing.T) {
	tests := []struct {
		name   string
		damage func(f *fixture) error
	}{
		{"truncated library", func(f *fixture) error { return os.Truncate(f.path, 100) }},
		{"a page of other content", func(f *fixture) error {
			b := slices.Clone(library)
			copy(b[len(b)/2:], make([]byte, 4096))
			return errors.Join(os.WriteFile(f.path, b, 0o644), os.Chtimes(f.path, time.Now(), time.Now().Add(time.Second)))
		}},
		{"no library", func(f *fixture) error { return os.Remove(f.path) }},
		{"no description", func(f *fixture) error { return os.Remove(metaPath(f.path)) }},
		{"broken description", func(f *fixture) error { return os.WriteFile(metaPath(f.path), []byte("{"), 0o644) }},
		{"left by a killed process", func(f *fixture) error {
			tmp := filepath.Join(filepath.Dir(f.path), ".install-1")
			return errors.Join(os.Remove(f.path), os.Mkdir(tmp, 0o755), os.WriteFile(filepath.Join(tmp, "lib.so"), nil, 0o644))
		}},
		{"another wheel's", func(f *fixture) error {
			return os.WriteFile(metaPath(f.path), fmt.Appendf(nil, `{"wheel": "old.whl", "size": %d}`, len(library)), 0o644)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t)
			f.installs(t)
			require.NoError(t, tt.damage(f))
			_, err := f.o.find()
			require.ErrorIs(t, err, ErrNotFound)
			f.installs(t)
			require.EqualValues(t, 2, f.hits.Load())
		})
	}
}

func TestProgress(t *testing.T) {
	f := newFixture(t)
	var b bytes.Buffer
	f.o.Progress = &b
	f.serve = func(w http.ResponseWriter, r *http.Request, try int) {
		if try == 1 {
			drop(w, 70_000, f.data)
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.data))
	}
	f.installs(t)
	require.Equal(t, "downloading a-package 1.2 (0.2 MB)\ndownloaded a-package 1.2 (0.2 MB)\n", b.String())
}

func TestEnsureRefuses(t *testing.T) {
	_, err := Ensure(t.Context(), Options{Platform: "tpu", CacheDir: t.TempDir()})
	require.ErrorIs(t, err, ErrPlatform)
	require.ErrorContains(t, err, `platform "tpu", want "cpu" or "cuda"`)
	t.Setenv(PathEnv, "")
	t.Setenv("HOME", t.TempDir())
	if _, ok := pinned(CUDA); !ok {
		return
	}
	_, err = Ensure(t.Context(), Options{Platform: CUDA, CacheDir: t.TempDir(), system: []string{t.TempDir()}})
	if err != nil { // another plugin may be installed for the whole machine
		require.ErrorIs(t, err, ErrNoDriver)
		require.ErrorContains(t, err, "libcuda.so.1")
	}
}
