package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// handler answers a request, or returns the error that answers it.
type handler func(w http.ResponseWriter, r *http.Request) error

// route is one path and what it takes.
type route struct {
	path  string // of http.ServeMux, without a method
	by    map[string]handler
	shape shape
	open  bool // needs no key
	work  bool // asks the engine or holds the processor: counted, limited, refused while draining
}

func (s *Server) table() []route {
	get := func(h handler) map[string]handler { return map[string]handler{http.MethodGet: h} }
	post := func(h handler) map[string]handler { return map[string]handler{http.MethodPost: h} }
	return []route{
		{path: "/v1/completions", by: post(s.completions), work: true},
		{path: "/v1/chat/completions", by: post(s.chatCompletions), work: true},
		{path: "/v1/models", by: get(s.models)},
		{path: "/v1/models/{id...}", by: get(s.oneModel)},
		{path: "/v1/messages", by: post(s.messages), shape: anthropic, work: true},
		{path: "/v1/messages/count_tokens", by: post(s.countTokens), shape: anthropic, work: true},
		{path: "/tokenize", by: post(s.tokenize), work: true},
		{path: "/detokenize", by: post(s.detokenize), work: true},
		{path: "/tokenizer_info", by: get(s.tokenizerInfo)},
		{path: "/api", by: map[string]handler{http.MethodPut: s.megatron, http.MethodOptions: s.megatronOptions}, shape: flask, work: true},
		{path: "/health", by: get(s.health), open: true},
		{path: "/ready", by: get(s.ready), open: true},
		{path: "/metrics", by: get(s.scrape), open: true},
		{path: "/version", by: get(s.version), open: true},
		{path: "/openapi.json", by: get(s.openAPI), open: true},
	}
}

func (s *Server) routes() *http.ServeMux {
	mux := http.NewServeMux()
	for _, r := range s.table() {
		mux.Handle(r.path, s.serve(r))
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if s.o.Page != nil && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
			s.o.Page.ServeHTTP(w, r)
			return
		}
		(&failure{status: http.StatusNotFound, code: "not_found", message: "no such path: " + short(r.URL.Path, 100)}).write(w, openAI)
	})
	return mux
}

// serve checks method, key and limits, then lets the handler answer.
func (s *Server) serve(rt route) http.Handler {
	var allow []string
	for m := range rt.by {
		allow = append(allow, m)
	}
	if rt.by[http.MethodGet] != nil {
		allow = append(allow, http.MethodHead)
	}
	slices.Sort(allow)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rt.shape == anthropic {
			w.Header().Set("Request-Id", w.Header().Get(requestID))
		}
		err := func() error {
			method := r.Method
			if method == http.MethodHead {
				method = http.MethodGet
			}
			h := rt.by[method]
			if h == nil {
				w.Header().Set("Allow", strings.Join(allow, ", "))
				return &failure{status: http.StatusMethodNotAllowed, code: "method_not_allowed", message: notAllowed}
			}
			if !rt.open && !s.mayEnter(r) {
				return &failure{status: http.StatusUnauthorized, code: "invalid_api_key", message: "the API key is missing or wrong"}
			}
			if rt.work && r.Method != http.MethodOptions {
				if err := s.enter(); err != nil {
					return err
				}
				defer s.leave()
				ctx, cancel := s.limited(r.Context())
				defer cancel()
				r = r.WithContext(ctx)
			}
			return h(w, r)
		}()
		s.fail(w, r, rt.shape, err)
	})
}

const notAllowed = "The method is not allowed for the requested URL."

// fail answers with an error, unless there is none or the client is gone.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, sh shape, err error) {
	if err == nil {
		return
	}
	f := asFailure(err)
	log := s.o.Log.With("request", w.Header().Get(requestID), "path", short(r.URL.Path, 100))
	if f.status == statusGone {
		log.Debug("client left")
		return
	}
	if f.status == http.StatusInternalServerError {
		log.Error("request failed", "status", f.status, "error", err)
	} else {
		log.Debug("request refused", "status", f.status, "error", short(err.Error(), 400))
	}
	f.write(w, sh)
}

// mayEnter compares the key of a request with all keys, in a time that does not tell how near it came.
func (s *Server) mayEnter(r *http.Request) bool {
	if len(s.keys) == 0 {
		return true
	}
	key := r.Header.Get("X-Api-Key")
	if scheme, rest, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "Bearer") {
		key = strings.TrimSpace(rest)
	}
	sum, found := sha256.Sum256([]byte(key)), 0
	for _, k := range s.keys {
		found |= subtle.ConstantTimeCompare(sum[:], k[:])
	}
	return found == 1
}

// checkHost refuses names of other machines: a page of another site could have its own name point to this
// machine, and then ask us as if it were ours.
func (s *Server) checkHost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		host = strings.ToLower(strings.Trim(host, "[]"))
		ip := net.ParseIP(host)
		if host == "localhost" || strings.HasSuffix(host, ".localhost") || ip != nil && ip.IsLoopback() ||
			slices.ContainsFunc(s.o.Hosts, func(h string) bool { return strings.EqualFold(h, host) }) {
			next.ServeHTTP(w, r)
			return
		}
		(&failure{status: http.StatusForbidden, code: "host_not_allowed", message: "host " + short(host, 60) + " is not a name of this server"}).write(w, openAI)
	})
}

const requestID = "X-Request-Id"

// observe gives a request its id, logs it when it is done, and turns a panic into a 500.
func (s *Server) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.Header.Get(requestID)
		if !plain(id) {
			id = newID(24)
		}
		w.Header().Set(requestID, id)
		rec := &recorder{ResponseWriter: w, c: http.NewResponseController(w), patience: s.o.Write}
		start := time.Now()
		defer func() {
			if v := recover(); v != nil {
				if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
					panic(v)
				}
				s.o.Log.Error("panic", "request", id, "value", v, "stack", string(debug.Stack()))
				if rec.status == 0 {
					asFailure(errPanic).write(rec, s.shapeOf(r))
				}
			}
			if rec.status == 0 {
				rec.status = statusGone
			}
			level := slog.LevelInfo
			if r.Method == http.MethodGet && rec.status == http.StatusOK {
				level = slog.LevelDebug
			}
			s.o.Log.Log(context.WithoutCancel(r.Context()), level, "request", "request", id, "method", short(r.Method, 20),
				"path", short(r.URL.Path, 100), "status", rec.status, "bytes", rec.bytes, "seconds", time.Since(start).Seconds())
		}()
		next.ServeHTTP(rec, r.WithContext(context.WithValue(r.Context(), idKey{}, id)))
	})
}

// idKey finds the request's id in its context.
type idKey struct{}

func requestOf(ctx context.Context) string {
	id, _ := ctx.Value(idKey{}).(string)
	return id
}

// shapeOf is the form of errors at a path.
func (s *Server) shapeOf(r *http.Request) shape {
	for _, rt := range s.table() {
		if rt.path == r.URL.Path {
			return rt.shape
		}
	}
	return openAI
}

// plain tells whether an id of a client may be used in logs and headers.
func plain(id string) bool {
	return id != "" && len(id) <= 128 && !strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' })
}

// recorder notes what was answered, and gives up a client that does not take it.
type recorder struct {
	http.ResponseWriter
	c        *http.ResponseController
	patience time.Duration // with one part of what is written
	status   int
	bytes    int64
}

// part is how many bytes a client has to take in that time.
const part = 1 << 16

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (written int, err error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	for {
		now := b[:min(len(b), part)]
		// Writers of tests and of some wrappers know no deadlines; then there are none.
		_ = r.c.SetWriteDeadline(time.Now().Add(r.patience))
		n, err := r.ResponseWriter.Write(now)
		r.bytes += int64(n)
		written += n
		if b = b[len(now):]; err != nil || len(b) == 0 {
			return written, err
		}
	}
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
