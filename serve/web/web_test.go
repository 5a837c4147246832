package web

import (
	"encoding/json"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"path"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func get(method, target string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	Page().ServeHTTP(w, r)
	return w
}

func TestPage(t *testing.T) {
	for _, c := range []struct {
		method, path string
		status       int
		kind         string
	}{
		{"GET", "/", 200, "text/html; charset=utf-8"},
		{"HEAD", "/", 200, "text/html; charset=utf-8"},
		{"GET", "/index.html", 200, "text/html; charset=utf-8"},
		{"GET", "/app.js", 200, "text/javascript; charset=utf-8"},
		{"GET", "/style.css", 200, "text/css; charset=utf-8"},
		{"GET", "/icon.svg", 200, "image/svg+xml"},
		{"GET", "/page/app.js", 404, "application/json"},
		{"GET", "/../web.go", 404, "application/json"},
		{"GET", "/v1/nothing", 404, "application/json"},
		{"POST", "/", 405, "application/json"},
	} {
		w := get(c.method, c.path)
		require.Equal(t, c.status, w.Code, "%s %s", c.method, c.path)
		require.Equal(t, c.kind, w.Header().Get("Content-Type"), c.path)
		if c.status != 200 {
			var said struct {
				Error struct{ Message, Type, Code string }
			}
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &said))
			require.NotEmpty(t, said.Error.Message)
			require.Equal(t, "invalid_request_error", said.Error.Type)
			continue
		}
		require.Equal(t, c.method == "HEAD", w.Body.Len() == 0, c.path)
		tag := w.Header().Get("Etag")
		require.Equal(t, http.StatusNotModified, get(c.method, c.path, "If-None-Match", tag).Code)
		require.Equal(t, policy, w.Header().Get("Content-Security-Policy"))
		require.Equal(t, "nosniff", w.Header().Get("X-Content-Type-Options"))
	}
}

// The policy of the page forbids what these look for; a browser would leave it out in silence.
func TestFilesKeepThePolicy(t *testing.T) {
	entries, err := fs.ReadDir(page, "page")
	require.NoError(t, err)
	for _, e := range entries {
		require.NotEmpty(t, types[path.Ext(e.Name())], e.Name())
		b, err := page.ReadFile("page/" + e.Name())
		require.NoError(t, err)
		text := strings.ReplaceAll(string(b), "http://www.w3.org/2000/svg", "")
		require.NotRegexp(t, `https?://|@import|url\(`, text, "%s fetches something", e.Name())
		require.NotRegexp(t, `innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|localStorage|sessionStorage|document\.cookie`, text, e.Name())
		if strings.HasSuffix(e.Name(), ".html") {
			require.NotRegexp(t, `\son\w+=|\sstyle=|<style|<script[^>]*>[^<]`, text, "%s has code or style within", e.Name())
		}
	}
}

// Every file is asked for by another, and every file asked for is there.
func TestFilesAreUsed(t *testing.T) {
	var all strings.Builder
	entries, err := fs.ReadDir(page, "page")
	require.NoError(t, err)
	names := map[string]bool{"index.html": true}
	for _, e := range entries {
		b, err := page.ReadFile("page/" + e.Name())
		require.NoError(t, err)
		all.Write(b)
	}
	for _, m := range regexp.MustCompile(`(?:href|src)="([a-z]+\.[a-z]+)"|from "\./([a-z]+\.js)"`).FindAllStringSubmatch(all.String(), -1) {
		names[m[1]+m[2]] = true
	}
	for _, e := range entries {
		require.True(t, names[e.Name()], "%s is used nowhere", e.Name())
		delete(names, e.Name())
	}
	require.Empty(t, names, "not there")
}
