package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	collected "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
)

// TestTraces has a collector take the spans of a request.
func TestTraces(t *testing.T) {
	var mu sync.Mutex
	names, services := map[string]string{}, map[string]bool{}
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var got collected.ExportTraceServiceRequest
		if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(body, &got) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		for _, r := range got.ResourceSpans {
			for _, a := range r.Resource.Attributes {
				if a.Key == "service.name" {
					services[a.Value.GetStringValue()] = true
				}
			}
			for _, scope := range r.ScopeSpans {
				for _, s := range scope.Spans {
					names[s.Name] = string(s.TraceId)
				}
			}
		}
	}))
	defer h.Close()
	s := inside(t, "--otlp-traces-endpoint", h.URL, "--max-concurrent", "2")
	s.ready(t)
	const family = "0123456789abcdef"
	q, err := http.NewRequest(http.MethodPost, s.base+"/v1/completions", strings.NewReader(`{"prompt":"a","max_tokens":3}`))
	require.NoError(t, err)
	q.Header.Set("Content-Type", "application/json")
	q.Header.Set("traceparent", "00-30313233343536373839616263646566-b7ad6b7169203331-01") // the digits of family in ASCII
	resp, err := http.DefaultClient.Do(q)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusOK, resp.StatusCode)
	s.stop()
	require.Zero(t, s.wait(t), s.String())
	mu.Lock()
	defer mu.Unlock()
	require.Equal(t, map[string]string{"POST /v1/completions": family, "text_completion demo": family, "queue": family, "prefill": family, "decode": family}, names)
	require.Equal(t, map[string]bool{"mix": true}, services)
}

// TestNoCollector has none that answers: requests are answered, and the process ends.
func TestNoCollector(t *testing.T) {
	hang := make(chan struct{})
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-hang }))
	defer h.Close()
	defer close(hang)
	s := inside(t, "--otlp-traces-endpoint", h.URL+"/some/path", "--max-concurrent", "2")
	s.ready(t)
	for range 3 {
		resp, err := http.Post(s.base+"/v1/completions", "application/json", strings.NewReader(`{"prompt":"a","max_tokens":3}`))
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, http.StatusOK, resp.StatusCode)
	}
	s.stop()
	require.Zero(t, s.wait(t), s.String())
	require.Contains(t, s.String(), "level=WARN msg=traces error=")
}

func TestCollector(t *testing.T) {
	for address, want := range map[string]string{
		"http://localhost:4318":            "http://localhost:4318/v1/traces",
		"https://otel.example/":            "https://otel.example/v1/traces",
		"http://localhost:4318/otlp/spans": "http://localhost:4318/otlp/spans",
		"grpc://localhost:4317":            "",
		"localhost:4318":                   "",
		"http://":                          "",
	} {
		got, err := collector(address)
		require.Equal(t, want, got)
		require.Equal(t, want == "", err != nil, address)
	}
}
