package api

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"mix/serve/infer"
)

const (
	parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	family = "0af7651916cd43dd8448eb211c80319c"
)

func tracedServer(t *testing.T, f *fake) (*Server, *tracetest.SpanRecorder) {
	spans := tracetest.NewSpanRecorder()
	o := options(f)
	o.Tracer = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	return newServer(t, o), spans
}

// attributes are those of a span, by name.
func attributes(s sdktrace.ReadOnlySpan) map[string]any {
	all := map[string]any{}
	for _, a := range s.Attributes() {
		all[string(a.Key)] = a.Value.AsInterface()
	}
	return all
}

func TestSpans(t *testing.T) {
	f := newFake(t)
	f.queued = 50 * time.Nanosecond
	s, recorded := tracedServer(t, f)
	got := s.ask(t, "POST", "/v1/chat/completions", `{"messages":[{"role":"user","content":"private words"}],"max_tokens":5,"temperature":0.5,"top_p":0.75,"n":2,"seed":3}`,
		"traceparent", parent, "X-Request-Id", "id-7")
	require.Equal(t, 200, got.status)
	spans := map[string][]sdktrace.ReadOnlySpan{}
	for _, x := range recorded.Ended() {
		spans[x.Name()] = append(spans[x.Name()], x)
		require.Equal(t, family, x.SpanContext().TraceID().String(), x.Name())
		for _, a := range x.Attributes() {
			require.NotContains(t, a.Value.String(), "private")
		}
	}
	require.Len(t, spans["POST /v1/chat/completions"], 1)
	request := spans["POST /v1/chat/completions"][0]
	require.Equal(t, "b7ad6b7169203331", request.Parent().SpanID().String())
	require.EqualValues(t, 200, attributes(request)["http.response.status_code"])
	require.Len(t, spans["chat mixtral"], 2)
	for i, text := range spans["chat mixtral"] {
		require.Equal(t, request.SpanContext().SpanID(), text.Parent().SpanID())
		have := attributes(text)
		for name, want := range map[string]any{
			"gen_ai.operation.name": "chat", "gen_ai.request.model": "mixtral", "gen_ai.request.id": "id-7", "gen_ai.request.max_tokens": int64(5),
			"gen_ai.request.temperature": 0.5, "gen_ai.request.top_p": 0.75, "gen_ai.usage.input_tokens": int64(len(f.requests()[0].Prompt)),
			"gen_ai.usage.output_tokens": int64(5), "gen_ai.response.finish_reasons": []string{"length"},
		} {
			require.Equal(t, want, have[name], name)
		}
		require.Equal(t, codes.Unset, text.Status().Code)
		at := text.StartTime()
		for _, phase := range []string{"queue", "prefill", "decode"} {
			require.Len(t, spans[phase], 2)
			for _, x := range spans[phase] {
				if x.Parent().SpanID() == text.SpanContext().SpanID() {
					require.True(t, phase != "queue" || x.EndTime().Sub(at) == f.queued)
					require.Equal(t, at, x.StartTime(), "%s of text %d begins where the one before it ends", phase, i)
					at = x.EndTime()
				}
			}
		}
		require.Equal(t, text.EndTime(), at)
	}
	require.Contains(t, spans["prefill"][0].Attributes(), attribute.Int("gen_ai.usage.input_tokens", len(f.requests()[0].Prompt)))
	require.Contains(t, spans["decode"][0].Attributes(), attribute.Int("gen_ai.usage.output_tokens", 5))
}

func TestSpansOfFailures(t *testing.T) {
	f := newFake(t)
	f.failAt = 2
	s, recorded := tracedServer(t, f)
	last := func() (x sdktrace.ReadOnlySpan) {
		for _, x = range recorded.Ended() {
			if x.Name() == "text_completion mixtral" {
				return x
			}
		}
		require.Fail(t, "no span of the text")
		return nil
	}
	require.Equal(t, 500, s.ask(t, "POST", "/v1/completions", `{"prompt":"a","max_tokens":9}`).status)
	require.Equal(t, codes.Error, last().Status().Code)
	require.Equal(t, []string{"error"}, attributes(last())["gen_ai.response.finish_reasons"])
	require.EqualValues(t, 2, attributes(last())["gen_ai.usage.output_tokens"])

	recorded.Reset()
	f.busy = errors.Join(infer.ErrBusy)
	require.Equal(t, 429, s.ask(t, "POST", "/v1/completions", small).status)
	require.Equal(t, codes.Error, last().Status().Code)
	require.Equal(t, "429", attributes(last())["error.type"])

	recorded.Reset()
	s.ask(t, "GET", "/health", "")
	s.ask(t, "GET", "/metrics", "")
	s.ask(t, "GET", "/no/such/path", "")
	require.Empty(t, recorded.Ended(), "only requests to the engine have spans")
	s.ask(t, "POST", "/v1/completions", small, "traceparent", "00-"+family+"-b7ad6b7169203331-00")
	require.Empty(t, recorded.Ended(), "the caller keeps no trace of this request")
}
