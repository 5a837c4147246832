package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"path/filepath"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/trace"

	"mix/cmd/internal/flags"
	"mix/internal/cli"
	"mix/lower/target"
	"mix/serve"
	"mix/serve/api"
	"mix/serve/grammar"
	"mix/serve/web"
)

// block is how many positions a block of the pool has.
const block = 16

// Run listens at once, compiles meanwhile, and serves until ctx ends; then it drains.
func (c *command) Run(ctx context.Context, streams *cli.IO) error {
	if err := c.check(); err != nil {
		return fmt.Errorf("%w: %w", cli.ErrUsage, err)
	}
	log, err := logger(c.LogLevel, streams.Err)
	if err != nil {
		return err
	}
	model, err := c.Model.Open(streams.Err)
	if err != nil {
		return err
	}
	defer model.Weights.Close()
	if model.Tokenizer == nil {
		return model.TokenizerErr
	}
	metrics := api.NewMetrics(c.name())
	options, err := c.batch(model)
	if err != nil {
		return fmt.Errorf("%w: %w", cli.ErrUsage, err)
	}
	options.Watch, options.Log = metrics, log
	tracer, sent, err := c.tracing(ctx, log)
	if err != nil {
		return err
	}
	defer sent()
	engine := newLater(model, options)
	handler, err := c.handler(engine, model, metrics, tracer, log)
	if err != nil {
		return err
	}
	listener, err := c.listen()
	if err != nil {
		return err
	}
	log.Info("listening", "address", listener.Addr().String(), "model", c.name(), "context", options.Context)
	if err := c.profile(log); err != nil {
		return errors.Join(err, listener.Close())
	}
	return c.serve(ctx, listener, handler, engine, func() (*serve.Batcher, func(), error) {
		return c.start(ctx, model, options, streams.Err)
	}, log)
}

func (c *command) check() error {
	switch {
	case c.Port < 0 || c.Port > 65535:
		return fmt.Errorf("--port is %d, want 0 to 65535", c.Port)
	case (c.TLSCert == "") != (c.TLSKey == ""):
		return errors.New("--tls-cert and --tls-key: want both or neither")
	case c.Concurrent < 1 || c.Concurrent > 1024:
		return fmt.Errorf("--max-concurrent is %d, want 1 to 1024", c.Concurrent)
	case c.Queue < 0:
		return fmt.Errorf("--max-queue is %d, want at least 0", c.Queue)
	case c.Blocks < 0:
		return fmt.Errorf("--kv-blocks is %d, want at least 1, or 0 for enough for all", c.Blocks)
	case c.Chunk < 0 || c.Chunk%block != 0:
		return fmt.Errorf("--prefill-chunk is %d, want a multiple of %d", c.Chunk, block)
	case c.Speculate < 0 || c.Speculate > 16:
		return fmt.Errorf("--speculative-ngram is %d, want 0 to 16", c.Speculate)
	case c.Timeout < 0 || c.Drain < 0:
		return fmt.Errorf("--timeout is %s and --drain %s, want at least 0", c.Timeout, c.Drain)
	}
	if c.Traces != "" {
		_, err := collector(c.Traces)
		return err
	}
	return nil
}

// batch is the shape of the engine.
func (c *command) batch(m *flags.Opened) (serve.BatchOptions, error) {
	o := serve.BatchOptions{Slots: c.Concurrent, Chunk: c.Chunk, Block: block, Context: c.Context, Blocks: c.Blocks, Queue: c.Queue, Speculate: c.Speculate}
	if o.Queue == 0 {
		o.Queue = -1
	}
	if o.Context == 0 {
		o.Context = min(m.Config.Context, 4096)
	}
	if o.Context < 2 || o.Context > m.Config.Context {
		return o, fmt.Errorf("--max-model-len is %d, want 2 to the model's context, %d", o.Context, m.Config.Context)
	}
	if o.Chunk == 0 {
		platform, err := c.Platform()
		if err != nil {
			return o, err
		}
		o.Chunk, err = target.PromptChunk(platform, o.Context, block)
		return o, err
	}
	return o, nil
}

func (c *command) name() string {
	switch {
	case c.Name != "":
		return c.Name
	case c.Checkpoint == "":
		return "demo"
	}
	if path, err := filepath.Abs(c.Checkpoint); err == nil {
		return filepath.Base(path)
	}
	return filepath.Base(c.Checkpoint)
}

func (c *command) handler(e *later, m *flags.Opened, metrics *api.Metrics, tracer trace.TracerProvider, log *slog.Logger) (*api.Server, error) {
	compiler, err := grammar.New(m.Tokenizer, m.Config.Vocab, e.Model().Ends...)
	if err != nil {
		return nil, err
	}
	era := api.Era2024
	if c.MegatronEra == "head" {
		era = api.EraHead
	}
	ip := net.ParseIP(c.Host)
	return api.New(api.Options{Engine: e, Tokenizer: m.Tokenizer, Model: c.name(), Created: time.Now(), Version: version(), Grammar: api.Masks(compiler),
		Keys: c.APIKey, Origins: c.Origin, Local: c.Host == "localhost" || ip != nil && ip.IsLoopback(), Timeout: c.Timeout, Megatron: era, Stats: e.stats,
		Metrics: metrics, Tracer: tracer, Page: web.Page(), Log: log})
}

func (c *command) listen() (net.Listener, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(c.Host, strconv.Itoa(c.Port)))
	if err != nil || c.TLSCert == "" {
		return l, err
	}
	pair, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("--tls-cert %s and --tls-key %s: %w", c.TLSCert, c.TLSKey, err), l.Close())
	}
	return tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}), nil
}

// start loads the model and compiles its programs.
func (c *command) start(ctx context.Context, m *flags.Opened, o serve.BatchOptions, progress io.Writer) (*serve.Batcher, func(), error) {
	began := time.Now()
	e, stop, err := m.Start(ctx, c.Device, progress)
	if err != nil {
		return nil, nil, err
	}
	b, err := serve.NewBatcher(ctx, e, o, ends(m))
	if err != nil {
		stop()
		return nil, nil, err
	}
	o.Log.Info("ready", "seconds", time.Since(began).Seconds(), "slots", o.Slots, "chunk", o.Chunk)
	return b, func() { b.Close(); stop() }, nil
}

// serve answers until ctx ends, then lets running requests finish.
func (c *command) serve(ctx context.Context, l net.Listener, handler *api.Server, engine *later, start func() (*serve.Batcher, func(), error), log *slog.Logger) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}
	ended := make(chan error, 2)
	go func() { ended <- server.Serve(l) }()
	started := make(chan func(), 1)
	go func() {
		b, stop, err := start()
		if err != nil {
			started <- func() {}
			ended <- err
			return
		}
		engine.set(b)
		started <- stop
	}()
	var err error
	select {
	case err = <-ended:
		if ctx.Err() != nil && errors.Is(err, context.Canceled) { // a signal while programs were compiled
			err = nil
		}
	case <-ctx.Done():
		log.Info("draining", "at most", c.Drain.String())
		err = c.drain(handler, server)
	}
	server.Close()
	(<-started)()
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return err
}

// lastWords is how long the end of the process waits for answers to be sent of requests that it has ended.
const lastWords = time.Second

// drain lets running requests finish, as long as --drain says, and ends the others.
func (c *command) drain(handler *api.Server, server *http.Server) error {
	patience, cancel := context.WithTimeout(context.Background(), c.Drain)
	defer cancel()
	if err := handler.Drain(patience); err == nil {
		return server.Shutdown(patience)
	}
	patience, cancel = context.WithTimeout(context.Background(), lastWords)
	defer cancel()
	_ = server.Shutdown(patience) // whoever does not listen by now is left
	return fmt.Errorf("requests were ended: they still ran after --drain %s", c.Drain)
}

// profile serves Go's profiles on a port of their own, for this machine only.
func (c *command) profile(log *slog.Logger) error {
	if c.Pprof == 0 {
		return nil
	}
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(c.Pprof)))
	if err != nil {
		return fmt.Errorf("--pprof %d: %w", c.Pprof, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	go http.Serve(l, mux)
	log.Info("profiles", "address", l.Addr().String())
	return nil
}
