package hub

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	commit = "0123456789abcdef0123456789abcdef01234567"
	secret = "hf_secretSecret"
)

// fake is a hub and the other host that gives out its large files.
type fake struct {
	hub, cdn *httptest.Server
	files    map[string][]byte // .bin files are large ones
	bare     bool              // listings have names only, as a mirror's may

	mu     sync.Mutex
	fault  func(w http.ResponseWriter, r *http.Request, nth int) (handled bool) // of requests for contents
	refuse func(w http.ResponseWriter, nth int) (handled bool)                  // of requests for listings
	lists  int
	gets   map[string][]string // Range headers of the requests for contents, by file
	leaks  []string            // Authorization headers that reached the other host
	tokens map[string]bool     // Authorization headers that reached the hub
}

// content is n bytes that compress to nothing and differ by seed.
func content(n int, seed uint64) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func newFake(t *testing.T) *fake {
	f := &fake{gets: map[string][]string{}, tokens: map[string]bool{}, files: map[string][]byte{
		"config.json":            []byte(`{"model_type":"mixtral"}` + "\n"),
		"empty.txt":              {},
		"model-1.bin":            content(300_000, 1),
		"original/model-2.bin":   content(50_000, 2),
		"consolidated.00.pt":     content(99, 3),
		"odd/naïve name #%2F.md": []byte("odd\n"),
	}}
	f.cdn = httptest.NewServer(http.HandlerFunc(f.serveCDN))
	f.hub = httptest.NewServer(http.HandlerFunc(f.serveHub))
	t.Cleanup(f.hub.Close)
	t.Cleanup(f.cdn.Close)
	return f
}

func large(name string) bool { return strings.HasSuffix(name, ".bin") }

// sumOf is a file's checksum as the hub says it.
func sumOf(name string, b []byte) string {
	if large(name) {
		s := sha256.Sum256(b)
		return hex.EncodeToString(s[:])
	}
	s := sha1.Sum(append(fmt.Appendf(nil, "blob %d\x00", len(b)), b...))
	return hex.EncodeToString(s[:])
}

func (f *fake) serveHub(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.tokens[r.Header.Get("Authorization")] = true
	f.mu.Unlock()
	if r.URL.Path == "/api/models/owner/name/revision/main" || r.URL.EscapedPath() == "/api/models/owner/name/revision/refs%2Fpr%2F1" {
		f.list(w)
		return
	}
	name, found := strings.CutPrefix(r.URL.Path, "/owner/name/resolve/"+commit+"/")
	b, known := f.files[name]
	if !found || !known {
		w.Header().Set("X-Error-Code", "EntryNotFound")
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.Header().Set("X-Repo-Commit", commit)
	if large(name) {
		w.Header().Set("X-Linked-Etag", `"`+sumOf(name, b)+`"`)
		w.Header().Set("X-Linked-Size", fmt.Sprint(len(b)))
		http.Redirect(w, r, f.cdn.URL+"/"+sumOf(name, b)+"?name="+name+"&signature=signed", http.StatusFound)
		return
	}
	w.Header().Set("ETag", `"`+sumOf(name, b)+`"`)
	f.contents(w, r, name)
}

func (f *fake) list(w http.ResponseWriter) {
	f.mu.Lock()
	f.lists++
	nth, refuse := f.lists, f.refuse
	f.mu.Unlock()
	if refuse != nil && refuse(w, nth) {
		return
	}
	siblings := []map[string]any{}
	for name, b := range f.files {
		one := map[string]any{"rfilename": name}
		if !f.bare {
			one["size"], one["blobId"] = len(b), sumOf("", b)
			if large(name) {
				one["lfs"] = map[string]any{"sha256": sumOf(name, b), "size": len(b), "pointerSize": 134}
			}
		}
		siblings = append(siblings, one)
	}
	json.NewEncoder(w).Encode(map[string]any{"id": "owner/name", "sha": commit, "siblings": siblings, "cardData": map[string]any{"license": []string{"a", "b"}}})
}

func (f *fake) serveCDN(w http.ResponseWriter, r *http.Request) {
	if a := r.Header.Get("Authorization"); a != "" {
		f.mu.Lock()
		f.leaks = append(f.leaks, a)
		f.mu.Unlock()
	}
	w.Header().Set("ETag", `"other-host"`)
	f.contents(w, r, r.URL.Query().Get("name"))
}

func (f *fake) contents(w http.ResponseWriter, r *http.Request, name string) {
	if r.Method == http.MethodGet {
		f.mu.Lock()
		f.gets[name] = append(f.gets[name], r.Header.Get("Range"))
		nth, fault := len(f.gets[name]), f.fault
		f.mu.Unlock()
		if fault != nil && fault(w, r, nth) {
			return
		}
	}
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(f.files[name]))
}

// options are for one call against the fake, with waits that a test can bear.
func (f *fake) options(t *testing.T) Options {
	o := Defaults()
	o.Repo, o.Endpoint, o.Cache, o.Token = "owner/name", f.hub.URL, t.TempDir(), secret
	o.backoff = time.Millisecond
	return o
}

// only asks for one file.
func only(o Options, name string) Options {
	o.Include = []string{name}
	return o
}

func must(t *testing.T, o Options) *Snapshot {
	t.Helper()
	s, err := Download(context.Background(), o)
	require.NoError(t, err)
	return s
}

// tree lists what a folder holds: links with where they lead, files with their sizes.
func tree(t *testing.T, folder string) []string {
	t.Helper()
	var all []string
	require.NoError(t, filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(folder, path)
		require.NoError(t, err)
		if to, err := os.Readlink(path); err == nil {
			all = append(all, rel+" -> "+to)
			return nil
		}
		info, err := d.Info()
		all = append(all, fmt.Sprintf("%s %d", rel, info.Size()))
		return err
	}))
	return all
}

// drop sends the head of an honest answer and breaks the connection after n bytes of its body.
func drop(w http.ResponseWriter, r *http.Request, b []byte, n int) {
	from := 0
	if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); err == nil {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(b)-1, len(b)))
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(b)-from))
	if from > 0 {
		w.WriteHeader(http.StatusPartialContent)
	}
	w.Write(b[from:min(from+n, len(b))])
	w.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}
