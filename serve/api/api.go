// Package api answers HTTP for an engine: OpenAI's completions and chat, Anthropic's messages, Megatron's
// PUT /api, the tokenizer, health and metrics.
//
//	request ── id, host, origin, key, limits ── decode, check ── ids ── engine ── text, stop strings ── JSON or events
//
// Every route answers errors in the form its clients know. Unknown fields are ignored and null means absent.
// What the server says of itself is in openapi.json, and tests hold it to that.
//
// Conversations are written in the model's own template (see token.EncodeChat), after these repairs, which
// keep the meaning: "developer" is "system"; a system message after the first answer joins the system prompt;
// an empty answer is left out; neighbours of one role are joined; an answer with both text and tool calls
// keeps the calls alone, because the template has no room for both; tool call ids that are not nine letters
// and digits are replaced by a hash. If the last message is the assistant's, the model goes on from it.
package api

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"sync"
	"time"

	"github.com/rs/cors"
	"go.opentelemetry.io/otel/trace"

	"mix/graph/token"
	"mix/serve/infer"
)

// Options says what is served and to whom. Engine, Tokenizer and Model are required.
type Options struct {
	Engine    infer.Engine
	Tokenizer *token.Tokenizer
	Model     string    // the name that clients ask for
	Aliases   []string  // other names of it
	Created   time.Time // of the model, for /v1/models
	Version   string    // for /version

	// Grammar compiles a constraint. What it returns makes one mask for each text. Nil refuses constraints.
	Grammar func(Constraint) (func() infer.Mask, error)

	Keys    []string // clients must show one of them; none lets everybody in
	Origins []string // of web pages that may ask, "*" for all; none allows no other origin
	Local   bool     // bound to this machine: other Host headers than its names, and Hosts, are refused
	Hosts   []string // further names for Local

	Body       int64         // bytes of a request, at most; 0 is 8 MiB
	Concurrent int           // requests in work, at most; 0 is no limit
	Texts      int           // n and best_of at most; 0 is 128. Over all prompts of a request 1024, or this if it is more
	Timeout    time.Duration // of one request; 0 is none
	Read       time.Duration // for a client to send its body; 0 is 60 s
	KeepAlive  time.Duration // between comments in a silent stream; 0 is 10 s
	Write      time.Duration // for a client to take one part of an answer, of 64 KiB at most; 0 is 30 s

	Megatron Era                  // whose PUT /api is answered
	Stats    func() Stats         // of the engine, for /metrics; nil leaves them out
	Metrics  *Metrics             // made by NewMetrics; nil makes one
	Tracer   trace.TracerProvider // makes spans of requests (OpenTelemetry); nil is none
	Page     http.Handler         // answers GET / and below, without a key; nil is none
	Log      *slog.Logger         // nil is slog's default; prompts and answers are never logged
}

// Server is an http.Handler.
type Server struct {
	o        Options
	model    infer.Model
	chat     token.Template
	controls *regexp.Regexp // names of control pieces
	metrics  *Metrics
	keys     [][sha256.Size]byte
	handler  http.Handler
	beam     func(context.Context, ask) (answer, error) // Megatron's work, replaced in tests
	texts    func(context.Context, ask) (answer, error)

	base     context.Context // ends when draining ran out of time
	kill     context.CancelFunc
	work     sync.Mutex // guards draining and inWork
	draining bool
	inWork   int
	idle     chan struct{} // closed when draining and nothing is in work
}

// New checks the options and returns a server.
func New(o Options) (*Server, error) {
	switch {
	case o.Engine == nil || o.Tokenizer == nil || o.Model == "":
		return nil, errors.New("api: engine, tokenizer or model name is missing, want all three")
	case o.Body < 0 || o.Concurrent < 0 || o.Texts < 0 || o.Timeout < 0 || o.Read < 0 || o.KeepAlive < 0 || o.Write < 0:
		return nil, fmt.Errorf("api: a limit is negative: body %d, concurrent %d, texts %d, timeout %s, read %s, keep-alive %s, write %s",
			o.Body, o.Concurrent, o.Texts, o.Timeout, o.Read, o.KeepAlive, o.Write)
	case o.Megatron != Era2024 && o.Megatron != EraHead:
		return nil, fmt.Errorf("api: no Megatron era %d", o.Megatron)
	}
	setDefault(&o.Body, 8<<20)
	setDefault(&o.Texts, 128)
	setDefault(&o.Read, time.Minute)
	setDefault(&o.KeepAlive, 10*time.Second)
	setDefault(&o.Write, 30*time.Second)
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics(o.Model)
	}
	if o.Created.IsZero() {
		o.Created = time.Now()
	}
	s := &Server{o: o, model: o.Engine.Model(), chat: token.TemplateFor(o.Tokenizer), metrics: o.Metrics, idle: make(chan struct{})}
	var err error
	if s.controls, err = controlNames(o.Tokenizer); err != nil {
		return nil, fmt.Errorf("api: names of control pieces: %w", err)
	}
	s.base, s.kill = context.WithCancel(context.Background())
	s.texts, s.beam = s.megatronTexts, s.megatronBeam
	for _, k := range o.Keys {
		if k == "" {
			return nil, errors.New("api: a key is empty")
		}
		s.keys = append(s.keys, sha256.Sum256([]byte(k)))
	}
	if o.Stats != nil {
		if err := s.metrics.watch(o.Stats); err != nil {
			return nil, fmt.Errorf("api: metrics: %w", err)
		}
	}
	var h http.Handler = s.routes()
	if len(o.Origins) > 0 {
		h = cors.New(cors.Options{
			AllowedOrigins: o.Origins,
			AllowedMethods: []string{http.MethodGet, http.MethodPost, http.MethodPut},
			AllowedHeaders: []string{"*"},
			ExposedHeaders: []string{requestID, "Retry-After"},
			MaxAge:         600,
		}).Handler(h)
	}
	if o.Local {
		h = s.checkHost(h)
	}
	if o.Tracer != nil {
		h = s.traced(h)
	}
	s.handler = s.observe(h)
	return s, nil
}

func setDefault[T int | int64 | time.Duration](v *T, to T) {
	if *v == 0 {
		*v = to
	}
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Drain refuses new work and waits for what is in work. When ctx ends first, that is cancelled, and Drain
// returns ctx's error after it has ended.
func (s *Server) Drain(ctx context.Context) error {
	s.work.Lock()
	if !s.draining {
		s.draining = true
		if s.inWork == 0 {
			close(s.idle)
		}
	}
	s.work.Unlock()
	select {
	case <-s.idle:
		return nil
	case <-ctx.Done():
	}
	s.kill()
	<-s.idle
	return ctx.Err()
}

// enter counts a request into the work, or says why not. leave takes it out again.
func (s *Server) enter() error {
	s.work.Lock()
	defer s.work.Unlock()
	switch {
	case s.draining:
		return infer.ErrDraining
	case s.failed():
		return errFailed
	case !s.o.Engine.Ready():
		return errNotReady
	case s.o.Concurrent > 0 && s.inWork >= s.o.Concurrent:
		return fmt.Errorf("%w: %d requests are in work", infer.ErrBusy, s.inWork)
	}
	s.inWork++
	return nil
}

// failed tells that the engine will never be ready again.
func (s *Server) failed() bool {
	e, ok := s.o.Engine.(infer.Failing)
	return ok && e.Failed() != nil
}

func (s *Server) leave() {
	s.work.Lock()
	defer s.work.Unlock()
	s.inWork--
	if s.draining && s.inWork == 0 {
		close(s.idle)
	}
}

// limited is the context of a request's work: it ends with the client, the timeout, or the end of draining.
func (s *Server) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(s.base, func() { cancel(infer.ErrDraining) })
	done := func() { stop(); cancel(nil) }
	if s.o.Timeout == 0 {
		return ctx, done
	}
	ctx, end := context.WithTimeout(ctx, s.o.Timeout)
	return ctx, func() { end(); done() }
}
