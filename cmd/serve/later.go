package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"sync/atomic"

	"mix/cmd/internal/flags"
	"mix/serve"
	"mix/serve/api"
	"mix/serve/infer"
)

// later is an engine that is still being compiled: it knows its model, and is not ready.
type later struct {
	model infer.Model
	ready atomic.Pointer[serve.Batcher]
}

func newLater(m *flags.Opened, o serve.BatchOptions) *later {
	c := m.Config
	return &later{model: infer.Model{Vocab: c.Vocab, Context: o.Context, Layers: c.Layers, Experts: c.Experts, Ends: ends(m)}}
}

func ends(m *flags.Opened) (all []int32) {
	for id := range m.Ends() {
		all = append(all, id)
	}
	return all
}

func (l *later) set(b *serve.Batcher) { l.ready.Store(b) }

// Model implements infer.Engine.
func (l *later) Model() infer.Model { return l.model }

// Ready implements infer.Engine.
func (l *later) Ready() bool {
	b := l.ready.Load()
	return b != nil && b.Ready()
}

// Failed implements infer.Failing.
func (l *later) Failed() error {
	if b := l.ready.Load(); b != nil {
		return b.Failed()
	}
	return nil
}

// Submit implements infer.Engine.
func (l *later) Submit(ctx context.Context, r infer.Request) (<-chan infer.Event, error) {
	b := l.ready.Load()
	if b == nil {
		return nil, fmt.Errorf("%w: the programs are being compiled", infer.ErrBusy)
	}
	return b.Submit(ctx, r)
}

// stats are the engine's, for /metrics.
func (l *later) stats() (x api.Stats) {
	b := l.ready.Load()
	if b == nil {
		return x
	}
	s := b.Stats()
	return api.Stats{Running: s.Running, Waiting: s.Waiting, CacheUsage: s.Usage(), Preemptions: uint64(s.Preemptions),
		PrefixQueries: uint64(s.PrefixQueries), PrefixHits: uint64(s.PrefixHits),
		ExpertTokens: s.ExpertTokens, CompileHits: uint64(s.CompileHits), CompileMiss: uint64(s.CompileMisses), ProgramSeconds: s.Busy.Seconds(),
		Proposed: uint64(s.Proposed), Accepted: uint64(s.Accepted)}
}

func logger(level string, to io.Writer) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, err
	}
	return slog.New(slog.NewTextHandler(to, &slog.HandlerOptions{Level: l})), nil
}

// version is the module's, where it is known.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
