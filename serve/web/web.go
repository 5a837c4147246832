// Package web is the page of the server: chat and completion in a browser, with what the model says of each
// token: how likely it was, and which experts made it.
//
//	page/index.html   the elements
//	page/style.css    dark and light
//	page/app.js       what the elements do
//	page/client.js    the server's HTTP and its events
//	page/answer.js    an answer: its tokens as text, and the card that describes one
//	page/experts.js   the drawing of experts
//
// Nothing is built, and nothing comes from elsewhere. A content security policy lets scripts and styles come
// from these files alone and text be nothing but text; the page asks only the server that it came from.
package web

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/json"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
)

//go:embed page
var page embed.FS

// types of the files by the ends of their names.
var types = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// policy is what the page may do.
var policy = strings.Join([]string{
	"default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self'", "connect-src 'self'",
	"base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'", "trusted-types 'none'",
}, "; ")

// file is one of the page's.
type file struct {
	kind, tag string
	text      []byte
}

// Page answers GET and HEAD for / and for the files that the page needs. All else is 404, or 405, in OpenAI's
// form.
func Page() http.Handler {
	files := map[string]file{}
	entries, err := fs.ReadDir(page, "page")
	if err != nil {
		panic(err) // the folder is part of the program
	}
	for _, e := range entries {
		text, err := page.ReadFile("page/" + e.Name())
		if err != nil {
			panic(err)
		}
		sum := sha256.Sum256(text)
		files["/"+e.Name()] = file{types[path.Ext(e.Name())], `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`, text}
	}
	files["/"] = files["/index.html"]
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, ok := files[r.URL.Path]
		switch {
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			w.Header().Set("Allow", "GET, HEAD")
			refuse(w, http.StatusMethodNotAllowed, "method_not_allowed", "the page is only read")
		case !ok:
			refuse(w, http.StatusNotFound, "not_found", "no such path: "+short(r.URL.Path))
		default:
			f.send(w, r)
		}
	})
}

// send answers with a file, or with 304 for a client that has it.
func (f file) send(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-cache") // asks again, so that a new server's page is seen
	h.Set("Etag", f.tag)
	if strings.Contains(r.Header.Get("If-None-Match"), f.tag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", f.kind)
	h.Set("Content-Length", strconv.Itoa(len(f.text)))
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodGet {
		_, _ = w.Write(f.text) // a client that left is no error
	}
}

// refuse answers with an error in the form of the server's other routes.
func refuse(w http.ResponseWriter, status int, code, message string) {
	body, err := json.Marshal(map[string]any{"error": map[string]any{
		"message": message, "type": "invalid_request_error", "param": nil, "code": code}})
	if err != nil {
		panic(err) // strings are always written
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that left is no error
}

func short(s string) string { return strings.ToValidUTF8(s[:min(len(s), 100)], "") }
