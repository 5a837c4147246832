package hub

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestCacheIsThatOfHuggingFaceHub(t *testing.T) {
	f := newFake(t)
	o := f.options(t)
	s := must(t, o)
	require.Equal(t, Snapshot{Repo: "owner/name", Revision: "main", Commit: commit, Files: 5, Bytes: 350_029, Fetched: 350_029,
		Path: filepath.Join(o.Cache, "models--owner--name", "snapshots", commit), Seconds: s.Seconds}, *s)
	names := []string{"config.json", "empty.txt", "model-1.bin", "odd/naïve name #%2F.md", "original/model-2.bin"}
	var want []string
	for _, n := range names {
		want = append(want, n+" -> "+strings.Repeat("../", strings.Count(n, "/"))+"../../blobs/"+sumOf(n, f.files[n]))
		b, err := os.ReadFile(filepath.Join(s.Path, n))
		require.NoError(t, err)
		require.Equal(t, f.files[n], append([]byte{}, b...), n)
		require.FileExists(t, filepath.Join(o.Cache, ".locks", "models--owner--name", sumOf(n, f.files[n])+".lock"))
	}
	require.Equal(t, want, tree(t, s.Path))
	require.Len(t, tree(t, filepath.Join(o.Cache, "models--owner--name", "blobs")), len(names), "nothing incomplete is left")
	ref, err := os.ReadFile(filepath.Join(o.Cache, "models--owner--name", "refs", "main"))
	require.NoError(t, err)
	require.Equal(t, commit, string(ref))

	before := len(f.gets)
	again := must(t, o)
	require.Zero(t, again.Fetched)
	require.Len(t, f.gets, before)

	o.Revision = "refs/pr/1"
	must(t, o)
	require.FileExists(t, filepath.Join(o.Cache, "models--owner--name", "refs", "refs", "pr", "1"))

	o.Offline, o.Endpoint = true, "http://127.0.0.1:1"
	off := must(t, o)
	require.Equal(t, [4]any{s.Path, commit, s.Files, s.Bytes}, [4]any{off.Path, off.Commit, off.Files, off.Bytes})
	o.Revision = commit
	require.Equal(t, s.Path, must(t, o).Path)
	o.Revision = "other"
	_, err = Download(context.Background(), o)
	require.ErrorIs(t, err, ErrOffline)
}

// TestSnapshotOfPythonIsReused lays files as huggingface_hub does, once with links, once with plain files as
// where links cannot be made.
func TestSnapshotOfPythonIsReused(t *testing.T) {
	for _, links := range []bool{true, false} {
		f := newFake(t)
		o := f.options(t)
		top := filepath.Join(o.Cache, "models--owner--name")
		for n, b := range f.files {
			link, blob := filepath.Join(top, "snapshots", commit, n), filepath.Join(top, "blobs", sumOf(n, b))
			if !links {
				blob = link
			}
			require.NoError(t, os.MkdirAll(filepath.Dir(link), 0o755))
			require.NoError(t, os.MkdirAll(filepath.Dir(blob), 0o755))
			require.NoError(t, os.WriteFile(blob, b, 0o644))
			if links {
				to, err := filepath.Rel(filepath.Dir(link), blob)
				require.NoError(t, err)
				require.NoError(t, os.Symlink(to, link))
			}
		}
		before := tree(t, top)
		s := must(t, o)
		require.Zero(t, s.Fetched)
		require.Empty(t, f.gets)
		require.Subset(t, tree(t, top), before)
	}
}

func TestSameContentsAreFetchedOnce(t *testing.T) {
	f := newFake(t)
	f.files["copy.bin"] = f.files["model-1.bin"]
	s := must(t, f.options(t))
	require.Len(t, append(f.gets["copy.bin"], f.gets["model-1.bin"]...), 1)
	b, err := os.ReadFile(filepath.Join(s.Path, "copy.bin"))
	require.NoError(t, err)
	require.True(t, bytes.Equal(f.files["copy.bin"], b))
}

func TestListingWithoutSumsIsCompletedByHeaders(t *testing.T) {
	f := newFake(t)
	f.bare = true
	require.Equal(t, int64(350_029), must(t, f.options(t)).Fetched)
}

func TestFolder(t *testing.T) {
	f := newFake(t)
	o := f.options(t)
	o.To, o.Cache = filepath.Join(t.TempDir(), "model"), ""
	s := must(t, o)
	require.Equal(t, o.To, s.Path)
	note := filepath.Join(o.To, ".cache", "huggingface", "download", "config.json.metadata")
	b, err := os.ReadFile(note)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(b), commit+"\n"+sumOf("", f.files["config.json"])+"\n"))
	require.Zero(t, must(t, o).Fetched)

	require.NoError(t, os.Remove(note))
	require.Zero(t, must(t, o).Fetched, "a file without a note is read, and right")
	require.FileExists(t, note)

	config := filepath.Join(o.To, "config.json")
	changed := bytes.ToUpper(f.files["config.json"])
	require.NoError(t, os.WriteFile(config, changed, 0o644))
	later := time.Now().Add(time.Minute)
	require.NoError(t, os.Chtimes(config, later, later))
	require.Equal(t, int64(len(changed)), must(t, o).Fetched, "a changed file is fetched again")
	b, err = os.ReadFile(config)
	require.NoError(t, err)
	require.Equal(t, f.files["config.json"], b)

	o.Offline = true
	require.Equal(t, 5, must(t, o).Files)
}

func TestOfflineNeedsWhatTheIndexNames(t *testing.T) {
	f := newFake(t)
	f.files[indexFile] = []byte(`{"weight_map": {"a": "model-1.bin", "b": "original/model-2.bin", "c": "model-3.bin"}}`)
	o := f.options(t)
	must(t, o)
	o.Offline = true
	_, err := Download(context.Background(), o)
	require.ErrorIs(t, err, ErrOffline)
	require.ErrorContains(t, err, "model-3.bin and 0 more files")
	o.Exclude = []string{"model-3.bin"}
	must(t, o)
}

// TestInterruptionKeepsWhatIsHere cancels in the middle and goes on.
func TestInterruptionKeepsWhatIsHere(t *testing.T) {
	f := newFake(t)
	o := only(f.options(t), "model-1.bin")
	ctx, cancel := context.WithCancelCause(context.Background())
	f.fault = func(w http.ResponseWriter, r *http.Request, nth int) bool {
		if nth > 1 {
			return false
		}
		w.Header().Set("Content-Length", "300000")
		w.Write(f.files["model-1.bin"][:100_000])
		w.(http.Flusher).Flush()
		part := filepath.Join(o.Cache, "models--owner--name", "blobs", sumOf("model-1.bin", f.files["model-1.bin"])+".incomplete")
		for { // until the client has written them
			if s, err := os.Stat(part); err == nil && s.Size() == 100_000 {
				break
			}
			time.Sleep(time.Millisecond)
		}
		cancel(errors.New("a signal"))
		<-r.Context().Done()
		return true
	}
	_, err := Download(ctx, o)
	require.ErrorIs(t, err, context.Canceled)
	require.Empty(t, tree(t, filepath.Join(o.Cache, "models--owner--name", "snapshots")))
	s := must(t, o)
	require.Equal(t, []string{"", "bytes=100000-"}, f.gets["model-1.bin"])
	require.Equal(t, int64(200_000), s.Fetched)
}

const childCache, childHub = "HUB_TEST_CACHE", "HUB_TEST_ENDPOINT"

// TestProcessesShareOneDownload runs this test binary three times at once on one cache.
func TestProcessesShareOneDownload(t *testing.T) {
	if os.Getenv(childCache) != "" {
		o := Defaults()
		o.Repo, o.Cache, o.Endpoint = "owner/name", os.Getenv(childCache), os.Getenv(childHub)
		must(t, o)
		return
	}
	f := newFake(t)
	f.mu.Lock() // the requests come from other processes, which order nothing here
	f.fault = func(http.ResponseWriter, *http.Request, int) bool {
		time.Sleep(300 * time.Millisecond)
		return false
	}
	f.mu.Unlock()
	cache := t.TempDir()
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			c := exec.Command(os.Args[0], "-test.run=^TestProcessesShareOneDownload$", "-test.timeout=2m")
			c.Env = append(os.Environ(), childCache+"="+cache, childHub+"="+f.hub.URL)
			out, err := c.CombinedOutput()
			if err != nil {
				t.Errorf("child: %v\n%s", err, out)
			}
		})
	}
	all.Wait()
	for name, gets := range f.gets {
		require.Equal(t, []string{""}, gets, name)
	}
	require.Len(t, f.gets, 4, "an empty file needs no request")
}

func TestLockWhoseFileWasRemovedIsTakenAnew(t *testing.T) {
	f := newFake(t)
	c, err := newClient(f.options(t))
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := c.locked(context.Background(), path, file{name: "a"})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	_, err = c.locked(ctx, path, file{name: "a"})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NoError(t, os.Remove(path))
	unlock2, err := c.locked(context.Background(), path, file{name: "a"})
	require.NoError(t, err)
	require.FileExists(t, path)
	unlock2()
	unlock()
}
