package api

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"mix/serve/infer"
)

// tracer is the name under which spans are made.
const tracer = "mix/serve/api"

// traced makes a span of each request that asks the engine, under the caller's (W3C traceparent). Under that span
// each text has one, and it has three: queue, prefill, decode. Prompts and answers are in none. Texts
// that take many requests to the engine, as those of a beam search, have no span.
//
//	POST /v1/chat/completions ── chat mixtral ── queue, prefill, decode
//
// Source: OpenTelemetry's semantic conventions for generative AI, attributes gen_ai.*.
func (s *Server) traced(next http.Handler) http.Handler {
	work := map[string]bool{}
	for _, rt := range s.table() {
		work[rt.path] = rt.work
	}
	return otelhttp.NewHandler(next, "request",
		otelhttp.WithTracerProvider(s.o.Tracer),
		otelhttp.WithPropagators(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})),
		otelhttp.WithFilter(func(r *http.Request) bool { return work[r.URL.Path] }),
		otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string { return r.Method + " " + r.URL.Path }))
}

// span follows one text. The nil span follows nothing.
type span struct {
	trace.Span
	ctx   context.Context
	t     trace.Tracer
	start time.Time // of the wait for a slot
}

// span begins the span of a job's text.
func (s *Server) span(ctx context.Context, j job) *span {
	if s.o.Tracer == nil {
		return nil
	}
	p := &span{t: s.o.Tracer.Tracer(tracer), start: time.Now()}
	sampling := j.Sampling
	p.ctx, p.Span = p.t.Start(ctx, j.kind+" "+s.o.Model, trace.WithTimestamp(p.start), trace.WithAttributes(
		attribute.String("gen_ai.operation.name", j.kind),
		attribute.String("gen_ai.provider.name", "mix"),
		attribute.String("gen_ai.request.model", s.o.Model),
		attribute.String("gen_ai.request.id", requestOf(ctx)),
		attribute.Int("gen_ai.request.max_tokens", j.Max),
		attribute.Float64("gen_ai.request.temperature", float64(sampling.Temperature)),
		attribute.Float64("gen_ai.request.top_p", float64(sampling.TopP)),
		attribute.Int("gen_ai.request.top_k", sampling.TopK),
		attribute.Float64("gen_ai.request.presence_penalty", float64(sampling.Presence)),
		attribute.Float64("gen_ai.request.frequency_penalty", float64(sampling.Frequency)),
		attribute.Int64("gen_ai.request.seed", int64(sampling.Seed)),
	))
	return p
}

// refused ends the span of a text that the engine did not take.
func (p *span) refused(err error) {
	if p == nil {
		return
	}
	p.SetAttributes(attribute.String("error.type", strconv.Itoa(asFailure(err).status)))
	p.SetStatus(codes.Error, "the engine refused the request")
	p.End()
}

// end ends the span of a text, and makes those of its phases, which are known by now.
func (p *span) end(t *text, e *ending) {
	if p == nil {
		return
	}
	now := time.Now()
	read := []attribute.KeyValue{
		attribute.Int("gen_ai.usage.input_tokens", len(t.job.Prompt)),
		attribute.Int("gen_ai.usage.cache_read.input_tokens", e.usage.Cached),
	}
	written := attribute.Int("gen_ai.usage.output_tokens", t.generated)
	p.SetAttributes(append(read, written, attribute.StringSlice("gen_ai.response.finish_reasons", []string{string(e.finish)}))...)
	if e.finish == infer.FinishError {
		p.SetStatus(codes.Error, "the engine failed") // why is for the log
	}
	first := t.begun
	if first.IsZero() {
		first = now
	}
	seated := p.start.Add(min(e.usage.Queued, first.Sub(p.start)))
	if e.usage.Queued == 0 && t.generated == 0 { // it never got a slot
		seated = first
	}
	p.phase("queue", p.start, seated)
	if seated.Before(first) {
		p.phase("prefill", seated, first, read...)
	}
	if t.generated > 0 {
		p.SetAttributes(attribute.Float64("gen_ai.response.time_to_first_chunk", first.Sub(t.start).Seconds()))
		p.phase("decode", first, now, written)
	}
	p.End(trace.WithTimestamp(now))
}

func (p *span) phase(name string, from, to time.Time, more ...attribute.KeyValue) {
	_, x := p.t.Start(p.ctx, name, trace.WithTimestamp(from), trace.WithAttributes(more...))
	x.End(trace.WithTimestamp(to))
}
