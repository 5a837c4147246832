package hub

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestFaultsOfContents breaks requests for a large file of 300000 bytes, which another host gives out.
func TestFaultsOfContents(t *testing.T) {
	const name = "model-1.bin"
	good := content(300_000, 1)
	partial := func(w http.ResponseWriter, r string, b []byte) bool {
		w.Header().Set("Content-Range", r)
		w.WriteHeader(http.StatusPartialContent)
		w.Write(b)
		return true
	}
	first := func(do func(w http.ResponseWriter, r *http.Request)) func(http.ResponseWriter, *http.Request, int) bool {
		return func(w http.ResponseWriter, r *http.Request, nth int) bool {
			if nth == 1 {
				do(w, r)
			}
			return nth == 1
		}
	}
	always := func(do func(w http.ResponseWriter, r *http.Request)) func(http.ResponseWriter, *http.Request, int) bool {
		return func(w http.ResponseWriter, r *http.Request, nth int) bool {
			do(w, r)
			return true
		}
	}
	status := func(code int) func(w http.ResponseWriter, r *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(code) }
	}
	tests := []struct {
		name   string
		fault  func(w http.ResponseWriter, r *http.Request, nth int) bool
		err    error    // of the call, or with no text, of a try that is named in the log
		text   string   // in the call's error; "": it succeeds
		ranges []string // of the requests, without "bytes="
	}{
		{"connections that break are gone on with", func(w http.ResponseWriter, r *http.Request, nth int) bool {
			if nth < 4 {
				drop(w, r, good, 80_000)
			}
			return false
		}, nil, "", []string{"", "80000-", "160000-", "240000-"}},
		{"connections that break at once are given up", always(func(w http.ResponseWriter, r *http.Request) { drop(w, r, good, 0) }),
			nil, "connection lost at 0 of 300000 bytes", []string{"", "", "", "", "", ""}},
		{"a short length is not believed", always(func(w http.ResponseWriter, r *http.Request) { w.Write(good[:1000]) }),
			ErrLength, "server offers 1000 bytes, want 300000", []string{"", "", "", "", "", ""}},
		{"a long length is not believed", first(func(w http.ResponseWriter, r *http.Request) { w.Write(append(good[:len(good):len(good)], 1)) }),
			nil, "", []string{"", ""}},
		{"a body of unknown length that is short is gone on with", first(func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			w.Write(good[:100_000])
		}), nil, "", []string{"", "100000-"}},
		{"a body of unknown length that is long is thrown away", first(func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			w.Write(append(good[:len(good):len(good)], 1, 2, 3))
		}), nil, "", []string{"", ""}},
		{"wrong bytes are refused", always(func(w http.ResponseWriter, r *http.Request) { w.Write(content(300_000, 9)) }),
			ErrChecksum, "want " + sumOf(name, good), []string{""}},
		{"ranges that are ignored start anew", func(w http.ResponseWriter, r *http.Request, nth int) bool {
			if nth == 1 {
				drop(w, r, good, 50_000)
			}
			w.Write(good)
			return true
		}, nil, "", []string{"", "50000-"}},
		{"another range than asked for starts anew", func(w http.ResponseWriter, r *http.Request, nth int) bool {
			switch nth {
			case 1:
				drop(w, r, good, 50_000)
			case 2:
				return partial(w, "bytes 40000-299999/300000", good[40_000:])
			}
			return false
		}, nil, "", []string{"", "50000-", ""}},
		{"a range of another length starts anew", func(w http.ResponseWriter, r *http.Request, nth int) bool {
			switch nth {
			case 1:
				drop(w, r, good, 50_000)
			case 2:
				return partial(w, "bytes 50000-399999/400000", make([]byte, 350_000))
			}
			return false
		}, nil, "", []string{"", "50000-", ""}},
		{"an ETag that changes starts anew, by If-Range", func(w http.ResponseWriter, r *http.Request, nth int) bool {
			if nth == 1 {
				w.Header().Set("ETag", `"before"`)
				drop(w, r, content(300_000, 8), 50_000)
			}
			if nth == 2 && r.Header.Get("If-Range") != `"before"` {
				w.WriteHeader(http.StatusTeapot)
				return true
			}
			return false
		}, nil, "", []string{"", "50000-"}},
		{"an ETag that changes starts anew, where If-Range is ignored", func(w http.ResponseWriter, r *http.Request, nth int) bool {
			switch nth {
			case 1:
				w.Header().Set("ETag", `"before"`)
				drop(w, r, content(300_000, 8), 50_000)
			case 2:
				return partial(w, "bytes 50000-299999/300000", good[50_000:])
			}
			return false
		}, ErrChanged, "", []string{"", "50000-", ""}},
		{"a file that changed unnoticed is fetched whole", func(w http.ResponseWriter, r *http.Request, nth int) bool {
			if nth == 1 {
				drop(w, r, content(300_000, 8), 50_000)
			}
			return false
		}, nil, "", []string{"", "50000-", ""}},
		{"no more bytes than here starts anew", func(w http.ResponseWriter, r *http.Request, nth int) bool {
			switch nth {
			case 1:
				drop(w, r, good, 50_000)
			case 2:
				w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
				return true
			}
			return false
		}, nil, "", []string{"", "50000-", ""}},
		{"a server's failure passes", first(status(500)), nil, "", []string{"", ""}},
		{"an address that expired is asked for anew", first(status(403)), nil, "", []string{"", ""}},
		{"a server's failure that lasts", always(status(503)), nil, "owner/name@main: model-1.bin: server says 503 Service Unavailable", []string{"", "", "", "", "", ""}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t)
			f.fault = tt.fault
			o := only(f.options(t), name)
			var log strings.Builder
			o.Progress = &log
			s, err := Download(context.Background(), o)
			var ranges []string
			for _, r := range f.gets[name] {
				ranges = append(ranges, strings.TrimPrefix(r, "bytes="))
			}
			require.Equal(t, tt.ranges, ranges)
			require.NotContains(t, log.String(), secret)
			require.NotContains(t, log.String(), "signature")
			require.Empty(t, f.leaks, "the token stays with the hub")
			require.True(t, f.tokens["Bearer "+secret])
			if tt.text != "" {
				require.ErrorContains(t, err, tt.text)
				require.ErrorContains(t, err, "owner/name@main: model-1.bin: ")
				require.NotContains(t, err.Error(), "signature")
				require.NotContains(t, err.Error(), secret)
				if tt.err != nil {
					require.ErrorIs(t, err, tt.err)
				}
				require.Empty(t, tree(t, filepath.Join(o.Cache, "models--owner--name", "snapshots")), "nothing is in place")
				return
			}
			require.NoError(t, err)
			if tt.err != nil {
				require.Contains(t, log.String(), tt.err.Error())
			}
			b, err := os.ReadFile(filepath.Join(s.Path, name))
			require.NoError(t, err)
			require.Equal(t, sumOf(name, good), sumOf(name, b))
		})
	}
}

// TestStatuses are answers to the first request, the listing's.
func TestStatuses(t *testing.T) {
	header := func(code int, h ...string) func(w http.ResponseWriter, nth int) bool {
		return func(w http.ResponseWriter, nth int) bool {
			for i := 0; i < len(h); i += 2 {
				w.Header().Set(h[i], h[i+1])
			}
			w.WriteHeader(code)
			return true
		}
	}
	once := func(do func(w http.ResponseWriter, nth int) bool) func(w http.ResponseWriter, nth int) bool {
		return func(w http.ResponseWriter, nth int) bool { return nth == 1 && do(w, nth) }
	}
	for _, tt := range []struct {
		name  string
		token string
		do    func(w http.ResponseWriter, nth int) bool
		err   error
		text  string
		lists int
	}{
		{"401 without a token", "", header(401, "X-Error-Code", "RepoNotFound"), ErrToken, "401 Unauthorized (RepoNotFound): set HF_TOKEN to a token", 1},
		{"401 with a token", secret, header(401), ErrToken, "401 Unauthorized: the token is not accepted", 1},
		{"401 of a gated repository", "", header(401, "X-Error-Code", "GatedRepo", "X-Error-Message", "Access is restricted"), ErrGated, "(GatedRepo Access is restricted): accept the licence on http://127.0.0.1", 1},
		{"403", secret, header(403, "X-Error-Code", "GatedRepo"), ErrGated, "403 Forbidden (GatedRepo): accept the licence on http://127.0.0.1", 1},
		{"404", secret, header(404, "X-Error-Code", "RevisionNotFound"), ErrNotFound, "404 Not Found (RevisionNotFound): check the names", 1},
		{"429 passes", secret, once(header(429, "Retry-After", "1")), nil, "", 2},
		{"429 lasts", secret, header(429), ErrBusy, "429 Too Many Requests: wait, or set HF_TOKEN", 6},
		{"429 for long", secret, header(429, "Retry-After", "3600"), ErrBusy, "it asks to wait 1h0m0s", 1},
		{"429 with the hub's own header", secret, header(429, "RateLimit", `"api";r=0;t=3600`), ErrBusy, "it asks to wait 1h0m0s", 1},
		{"500 passes", secret, once(header(500)), nil, "", 2},
		{"a redirect in a circle", secret, header(302, "Location", "/api/models/owner/name/revision/main"), nil, "more than 10 redirects", 11},
		{"a redirect to nowhere", secret, header(302), nil, "it leads nowhere", 1},
		{"not JSON", secret, func(w http.ResponseWriter, nth int) bool { fmt.Fprint(w, "<html>"); return true }, ErrListing, "malformed listing", 1},
		{"no commit", secret, func(w http.ResponseWriter, nth int) bool { fmt.Fprint(w, `{"sha":"../../x"}`); return true }, ErrListing, `commit "../../x"`, 1},
		{"a file that is null", secret, func(w http.ResponseWriter, nth int) bool {
			fmt.Fprint(w, `{"sha":"`+commit+`","siblings":[null]}`)
			return true
		}, ErrListing, "null", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t)
			f.refuse = tt.do
			o := f.options(t)
			o.Token = tt.token
			begin := time.Now()
			_, err := Download(context.Background(), o)
			require.Equal(t, tt.lists, f.lists)
			if tt.text == "" {
				require.NoError(t, err)
				if strings.HasPrefix(tt.name, "429") {
					require.GreaterOrEqual(t, time.Since(begin), time.Second, "Retry-After is waited for")
				}
				return
			}
			require.ErrorContains(t, err, tt.text)
			require.ErrorContains(t, err, "owner/name@main: ")
			require.NotContains(t, err.Error(), secret)
			if tt.err != nil {
				require.ErrorIs(t, err, tt.err)
			}
		})
	}
}

func TestUnsafeNamesAreRefused(t *testing.T) {
	for _, name := range []string{"../x", "a/../../x", "/etc/x", "a//b", "", ".", "a/.", `a\..\b`, "a\x00b", "a\nb", ".git/hooks/x", "a/.GIT/x", ".cache/huggingface/x", strings.Repeat("n", 201)} {
		f := newFake(t)
		f.files[name] = []byte("x")
		o := f.options(t)
		_, err := Download(context.Background(), o)
		require.ErrorIs(t, err, ErrName, "%q", name)
		require.Empty(t, tree(t, o.Cache))
	}
}

func TestHubThatOffersAnotherFile(t *testing.T) {
	f := newFake(t)
	f.refuse = func(w http.ResponseWriter, nth int) bool {
		fmt.Fprintf(w, `{"sha":"%s","siblings":[{"rfilename":"model-1.bin","lfs":{"sha256":"%s","size":300000}}]}`, commit, strings.Repeat("0", 64))
		return true
	}
	_, err := Download(context.Background(), f.options(t))
	require.ErrorIs(t, err, ErrChanged)
	require.Len(t, f.gets["model-1.bin"], 1, "it is not tried again")
}

func TestFullDisk(t *testing.T) {
	f := newFake(t)
	o := f.options(t)
	o.free = func(string) (int64, bool) { return 350_028, true }
	_, err := Download(context.Background(), o)
	require.ErrorIs(t, err, ErrSpace)
	require.ErrorContains(t, err, o.Cache)
	require.Empty(t, f.gets)
	o.free = func(string) (int64, bool) { return 350_029, true }
	must(t, o)
}

func TestDiskThatFillsOnTheWay(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("needs /dev/full")
	}
	f := newFake(t)
	o := only(f.options(t), "model-1.bin")
	blobs := filepath.Join(o.Cache, "models--owner--name", "blobs")
	require.NoError(t, os.MkdirAll(blobs, 0o755))
	require.NoError(t, os.Symlink("/dev/full", filepath.Join(blobs, sumOf("model-1.bin", f.files["model-1.bin"])+".incomplete")))
	_, err := Download(context.Background(), o)
	require.ErrorIs(t, err, ErrSpace)
	require.ErrorContains(t, err, blobs)
	require.Len(t, f.gets["model-1.bin"], 1)
}

func TestConnectionThatStalls(t *testing.T) {
	f := newFake(t)
	o := only(f.options(t), "model-1.bin")
	o.stall = 300 * time.Millisecond
	f.fault = func(w http.ResponseWriter, r *http.Request, nth int) bool {
		if nth == 1 {
			w.Header().Set("Content-Length", "300000")
			w.Write(f.files["model-1.bin"][:10])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}
		return nth == 1
	}
	var log strings.Builder
	o.Progress = &log
	must(t, o)
	require.Equal(t, []string{"", "bytes=10-"}, f.gets["model-1.bin"])
	require.Contains(t, log.String(), "downloading owner/name@main: 1 files, 0.3 MB\n")
	require.Contains(t, log.String(), "model-1.bin: connection lost at 10 of 300000 bytes: no data for 300ms; again in 1ms\n")
	require.NotContains(t, log.String(), "signature")
}
