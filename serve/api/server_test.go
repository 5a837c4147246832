package api

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"mix/serve/infer"
)

const small = `{"prompt":"a","max_tokens":2}`

func TestKeys(t *testing.T) {
	o := options(newFake(t))
	o.Keys = []string{"first", "second"}
	s := newServer(t, o)
	for _, x := range []struct {
		header []string
		status int
	}{
		{nil, 401},
		{[]string{"Authorization", "Bearer wrong"}, 401},
		{[]string{"Authorization", "second"}, 401},
		{[]string{"Authorization", "Bearer second"}, 200},
		{[]string{"Authorization", "bearer first"}, 200},
		{[]string{"X-Api-Key", "second"}, 200},
		{[]string{"X-Api-Key", ""}, 401},
	} {
		require.Equal(t, x.status, s.ask(t, "POST", "/v1/completions", small, x.header...).status, x.header)
	}
	got := s.ask(t, "GET", "/v1/models", "")
	require.Equal(t, "invalid_api_key", got.at(t, "error", "code"))
	require.Equal(t, "authentication_error", s.ask(t, "POST", "/v1/messages", small).at(t, "error", "type"))
	for _, open := range []string{"/health", "/ready", "/metrics", "/version", "/openapi.json"} {
		require.Equal(t, 200, s.ask(t, "GET", open, "").status, open)
	}
	require.Equal(t, 401, s.ask(t, "PUT", "/api", `{"prompts":["a"]}`).status)
}

func TestHostsAndOrigins(t *testing.T) {
	o := options(newFake(t))
	o.Local, o.Hosts, o.Origins = true, []string{"box.lan"}, []string{"https://page.example"}
	s := newServer(t, o)
	for host, status := range map[string]int{
		"localhost:5000": 200, "127.0.0.1:5000": 200, "[::1]:5000": 200, "::1": 200, "box.lan": 200, "app.localhost": 200,
		"evil.example": 403, "localhost.evil.example": 403, "127.0.0.1.evil.example:5000": 403, "10.0.0.1": 403, "": 403,
	} {
		require.Equal(t, status, s.ask(t, "GET", "/health", "", "Host", host).status, host)
	}
	got := s.ask(t, "OPTIONS", "/v1/completions", "", "Origin", "https://page.example", "Access-Control-Request-Method", "POST")
	require.Equal(t, "https://page.example", got.header.Get("Access-Control-Allow-Origin"))
	got = s.ask(t, "GET", "/v1/models", "", "Origin", "https://evil.example")
	require.Empty(t, got.header.Get("Access-Control-Allow-Origin"))
}

func TestLimits(t *testing.T) {
	f := newFake(t)
	o := options(f)
	o.Body = 100
	s := newServer(t, o)
	require.Equal(t, 413, s.ask(t, "POST", "/v1/completions", `{"prompt":"`+strings.Repeat("a", 100)+`"}`).status)
	require.Equal(t, 415, s.ask(t, "POST", "/v1/completions", small, "Content-Type", "text/plain").status)
	require.Equal(t, 415, s.ask(t, "POST", "/v1/completions", small, "Content-Type", "").status)
	require.Equal(t, 200, s.ask(t, "POST", "/v1/completions", small, "Content-Type", "application/json; charset=utf-8").status)
	require.Equal(t, 400, s.ask(t, "POST", "/v1/completions", `{"prompt":`).status)
	require.Equal(t, 400, s.ask(t, "POST", "/v1/completions", `[1]`).status)
	require.Equal(t, 400, s.ask(t, "POST", "/v1/completions", `null`).status)
	got := s.ask(t, "GET", "/v1/completions", "")
	require.Equal(t, 405, got.status)
	require.Equal(t, "POST", got.header.Get("Allow"))
	require.Equal(t, 404, s.ask(t, "GET", "/v2", "").status)

	f.busy = infer.ErrBusy
	got = s.ask(t, "POST", "/v1/completions", small)
	require.Equal(t, 429, got.status)
	require.Equal(t, "1", got.header.Get("Retry-After"))
	require.Equal(t, "overloaded", got.at(t, "error", "code"))
	require.Equal(t, "rate_limit_error", s.ask(t, "POST", "/v1/messages", `{"max_tokens":1,"messages":[{"role":"user","content":"x"}]}`).at(t, "error", "type"))
	f.starts = true
	require.Equal(t, 503, s.ask(t, "GET", "/ready", "").status)
	require.Equal(t, 200, s.ask(t, "GET", "/health", "").status)
	require.Equal(t, "not_ready", s.ask(t, "POST", "/v1/completions", small).at(t, "error", "code"))
}

func TestRequestIDs(t *testing.T) {
	s := newServer(t, options(newFake(t)))
	require.Equal(t, "abc-1", s.ask(t, "GET", "/health", "", "X-Request-Id", "abc-1").header.Get("X-Request-Id"))
	for _, bad := range []string{"", "with space", "ü", strings.Repeat("x", 129)} {
		require.Regexp(t, "^[a-zA-Z0-9]{24}$", s.ask(t, "GET", "/health", "", "X-Request-Id", bad).header.Get("X-Request-Id"))
	}
}

func TestModels(t *testing.T) {
	s := newServer(t, options(newFake(t)))
	got := s.ask(t, "GET", "/v1/models", "")
	require.Equal(t, "mixtral", got.at(t, "data", 0, "id"))
	require.EqualValues(t, 512, got.at(t, "data", 0, "max_model_len"))
	require.EqualValues(t, 2, got.at(t, "data", 0, "layers"))
	require.EqualValues(t, 8, got.at(t, "data", 0, "experts"))
	require.Equal(t, "mistralai/Mixtral", s.ask(t, "GET", "/v1/models/mistralai/Mixtral", "").at(t, "id"))
	got = s.ask(t, "GET", "/v1/models/gpt-4", "")
	require.Equal(t, 404, got.status)
	require.Equal(t, "model_not_found", got.at(t, "error", "code"))
	require.Equal(t, "test", s.ask(t, "GET", "/version", "").at(t, "version"))
	require.Equal(t, 200, s.ask(t, "HEAD", "/health", "").status)
}

func TestTokenizer(t *testing.T) {
	s := newServer(t, options(newFake(t)))
	got := s.ask(t, "POST", "/tokenize", `{"prompt":"Hello world","return_token_strs":true}`)
	require.Equal(t, []any{"<s>", "▁Hello", "▁world"}, got.at(t, "token_strs"))
	require.EqualValues(t, 3, got.at(t, "count"))
	got = s.ask(t, "POST", "/tokenize", `{"prompt":"","add_special_tokens":false}`)
	require.Equal(t, []any{}, got.at(t, "tokens"))
	for prompt, want := range map[string][]any{"</s>": {2.0}, "[INST]": {3.0}, "a</s>": {1032.0, 1468.0, 29481.0, 29535.0}} {
		got = s.ask(t, "POST", "/tokenize", `{"prompt":"`+prompt+`","add_special_tokens":false}`)
		require.Equal(t, want, got.at(t, "tokens"), "%s: control ids alone are made from their names", prompt)
	}
	got = s.ask(t, "POST", "/tokenize", `{"messages":[{"role":"user","content":"Hello"}]}`)
	require.EqualValues(t, 4, got.at(t, "count"))
	require.Equal(t, 400, s.ask(t, "POST", "/tokenize", `{}`).status)
	ids := s.ask(t, "POST", "/tokenize", `{"prompt":"Hello 世界","add_special_tokens":false}`)
	back := s.ask(t, "POST", "/detokenize", `{"tokens":`+ids.body[strings.Index(ids.body, "["):strings.Index(ids.body, "]")+1]+`}`)
	require.Equal(t, "Hello 世界", back.at(t, "prompt"))
	require.Equal(t, 400, s.ask(t, "POST", "/detokenize", `{"tokens":[null]}`).status)
	require.Equal(t, 400, s.ask(t, "POST", "/detokenize", `{"tokens":[-1]}`).status)
	require.Equal(t, "</s>", s.ask(t, "GET", "/tokenizer_info", "").at(t, "eos_token"))
}

func TestMetrics(t *testing.T) {
	f := newFake(t)
	o := options(f)
	o.Stats = func() Stats {
		return Stats{Running: 3, CacheUsage: 0.5, PrefixHits: 7, ExpertTokens: [][]uint64{{1, 2}, {3, 4}}}
	}
	o.Metrics = NewMetrics(o.Model)
	s := newServer(t, o)
	s.ask(t, "POST", "/v1/completions", small)
	o.Metrics.Queued(time.Second)
	o.Metrics.Prefilled(time.Second)
	got := s.ask(t, "GET", "/metrics", "").body
	const labels = `{engine="0",model_name="mixtral"}`
	for _, line := range []string{
		`vllm:num_requests_running` + labels + ` 3`, `vllm:num_requests_waiting` + labels + ` 0`, `vllm:kv_cache_usage_perc` + labels + ` 0.5`,
		`vllm:prompt_tokens_total` + labels + ` 2`, `vllm:generation_tokens_total` + labels + ` 2`, `vllm:num_preemptions_total` + labels + ` 0`,
		`vllm:prefix_cache_queries_total` + labels + ` 0`, `vllm:prefix_cache_hits_total` + labels + ` 7`,
		`vllm:request_success_total{engine="0",finished_reason="length",model_name="mixtral"} 1`,
		`vllm:time_to_first_token_seconds_count` + labels + ` 1`, `vllm:inter_token_latency_seconds_count` + labels + ` 1`,
		`vllm:e2e_request_latency_seconds_count` + labels + ` 1`, `vllm:request_queue_time_seconds_count` + labels + ` 1`,
		`vllm:request_prefill_time_seconds_count` + labels + ` 1`, `vllm:request_decode_time_seconds_count` + labels + ` 1`,
		`mix_expert_tokens_total{engine="0",expert="1",layer="1",model_name="mixtral"} 4`,
	} {
		require.Contains(t, got, line+"\n")
	}
}

// stepped is a server over a real connection whose engine waits for each token.
func stepped(t *testing.T, change func(*Options)) (*fake, *Server, *httptest.Server) {
	f := newFake(t)
	f.step = make(chan struct{})
	o := options(f)
	if change != nil {
		change(&o)
	}
	s := newServer(t, o)
	h := httptest.NewServer(s)
	t.Cleanup(h.Close)
	return f, s, h
}

func post(t *testing.T, ctx context.Context, h *httptest.Server, body string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, "POST", h.URL+"/v1/completions", strings.NewReader(body))
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/json")
	resp, err := h.Client().Do(r)
	require.NoError(t, err)
	return resp
}

func TestDisconnectFreesTheEngine(t *testing.T) {
	f, s, h := stepped(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	resp := post(t, ctx, h, `{"prompt":"a","max_tokens":100,"n":3,"stream":true}`)
	f.step <- struct{}{}
	_, err := bufio.NewReader(resp.Body).ReadString('\n')
	require.NoError(t, err)
	require.EqualValues(t, 3, f.running.Load())
	cancel()
	require.Eventually(t, func() bool { return f.running.Load() == 0 }, 10*time.Second, time.Millisecond)
	require.Eventually(t, func() bool { s.work.Lock(); defer s.work.Unlock(); return s.inWork == 0 }, 10*time.Second, time.Millisecond)
	_ = resp.Body.Close()
}

func TestKeepAlive(t *testing.T) {
	f, _, h := stepped(t, func(o *Options) { o.KeepAlive = time.Millisecond })
	resp := post(t, t.Context(), h, `{"prompt":"a","max_tokens":1,"stream":true}`)
	line, err := bufio.NewReader(resp.Body).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, ": keep-alive\n", line)
	f.step <- struct{}{}
	rest, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.True(t, strings.HasSuffix(string(rest), "data: [DONE]\n\n"))
}

func TestTimeout(t *testing.T) {
	f, s, h := stepped(t, func(o *Options) { o.Timeout = 20 * time.Millisecond })
	got := s.ask(t, "POST", "/v1/completions", small)
	require.Equal(t, 504, got.status, got.body)
	require.Equal(t, "timeout", got.at(t, "error", "code"))
	resp := post(t, t.Context(), h, `{"prompt":"a","max_tokens":1,"stream":true}`)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Contains(t, string(body), `"code":"timeout"`)
	require.Eventually(t, func() bool { return f.running.Load() == 0 }, 10*time.Second, time.Millisecond)
}

func TestConcurrencyLimit(t *testing.T) {
	f, s, h := stepped(t, func(o *Options) { o.Concurrent = 1 })
	resp := post(t, t.Context(), h, `{"prompt":"a","max_tokens":1,"stream":true}`)
	require.Equal(t, 429, s.ask(t, "POST", "/v1/completions", small).status)
	require.Equal(t, 200, s.ask(t, "GET", "/v1/models", "").status)
	f.step <- struct{}{}
	_, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
}

func TestDrain(t *testing.T) {
	f, s, h := stepped(t, nil)
	resp := post(t, t.Context(), h, `{"prompt":"a","max_tokens":2,"stream":true}`)
	done := make(chan error, 1)
	go func() { done <- s.Drain(t.Context()) }()
	require.Eventually(t, func() bool { return s.ask(t, "GET", "/ready", "").status == 503 }, 10*time.Second, time.Millisecond)
	got := s.ask(t, "POST", "/v1/completions", small)
	require.Equal(t, "shutting_down", got.at(t, "error", "code"))
	require.Equal(t, 200, s.ask(t, "GET", "/health", "").status)
	require.Empty(t, done)
	f.step <- struct{}{}
	f.step <- struct{}{}
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Contains(t, string(body), `"finish_reason":"length"`)
	require.NoError(t, <-done)
	require.NoError(t, s.Drain(t.Context()), "again")
}

func TestDrainOutOfTime(t *testing.T) {
	_, s, h := stepped(t, nil)
	resp := post(t, t.Context(), h, `{"prompt":"a","max_tokens":2,"stream":true}`)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, s.Drain(ctx), context.Canceled)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Contains(t, string(body), `"code":"shutting_down"`)
}

func TestEngineFailure(t *testing.T) {
	f := newFake(t)
	f.failAt = 2
	s := newServer(t, options(f))
	got := s.ask(t, "POST", "/v1/completions", `{"prompt":"a","max_tokens":9}`)
	require.Equal(t, 500, got.status)
	require.Equal(t, "internal error", got.at(t, "error", "message"), "details are for the log")
	got = s.ask(t, "POST", "/v1/completions", `{"prompt":"a","max_tokens":9,"stream":true}`)
	require.Contains(t, got.body, `"code":"internal_error"`)
}

// panicking is an engine that is broken.
type panicking struct{ *fake }

func (panicking) Submit(context.Context, infer.Request) (<-chan infer.Event, error) {
	panic("broken " + "engine")
}

func TestPanicsAndLogs(t *testing.T) {
	var log strings.Builder
	f := newFake(t)
	o := options(f)
	o.Engine, o.Log = panicking{f}, slog.New(slog.NewJSONHandler(&log, nil))
	o.Page = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "page") })
	o.Keys = []string{"sesame"}
	s := newServer(t, o)
	key := []string{"X-Api-Key", "sesame", "X-Request-Id", "id-7"}
	require.Equal(t, "internal_error", s.ask(t, "POST", "/v1/completions", `{"prompt":"private words"}`, key...).at(t, "error", "code"))
	got := s.ask(t, "POST", "/v1/messages", `{"max_tokens":1,"messages":[{"role":"user","content":"private words"}]}`, key...)
	require.Equal(t, "api_error", got.at(t, "error", "type"))
	require.Equal(t, `{"message": "internal error"}`+"\n", s.ask(t, "PUT", "/api", `{"prompts":["private words"]}`, key...).body)
	require.Contains(t, log.String(), "broken engine")
	require.Contains(t, log.String(), "id-7")
	require.NotContains(t, log.String(), "private")
	require.NotContains(t, log.String(), "sesame")
	require.Equal(t, "page", s.ask(t, "GET", "/", "").body)
	require.Equal(t, 404, s.ask(t, "POST", "/", "{}").status)
	require.Zero(t, s.inWork, "a panic leaves nothing in work")
}

// narrow is an engine with room for a few requests.
type narrow struct {
	*fake
	room int64
}

func (n narrow) Submit(ctx context.Context, r infer.Request) (<-chan infer.Event, error) {
	if n.running.Load() >= n.room {
		return nil, infer.ErrBusy
	}
	return n.fake.Submit(ctx, r)
}

// TestMoreTextsThanRoom asks for more texts at once than the engine takes: they follow each other, and are those of an
// engine that takes all.
func TestMoreTextsThanRoom(t *testing.T) {
	f := newFake(t)
	const body = `{"prompt":["a","b c"],"n":9,"max_tokens":5,"seed":4,"temperature":0.7}`
	want := newServer(t, options(f)).ask(t, "POST", "/v1/completions", body).at(t, "choices")
	o := options(f)
	o.Engine = narrow{f, 4}
	s := newServer(t, o)
	require.Equal(t, want, s.ask(t, "POST", "/v1/completions", body).at(t, "choices"))
	stream := s.ask(t, "POST", "/v1/completions", strings.Replace(body, `{`, `{"stream":true,`, 1))
	require.Equal(t, 18, strings.Count(stream.body, `"finish_reason":"length"`))
	o.Engine = narrow{f, 0}
	require.Equal(t, 429, newServer(t, o).ask(t, "POST", "/v1/completions", body).status)
	require.Eventually(t, func() bool { return f.running.Load() == 0 }, 10*time.Second, time.Millisecond)
}

// TestPanicInAText has the goroutine of a text fail, which no handler's recovery sees.
func TestPanicInAText(t *testing.T) {
	var log strings.Builder
	events := make(chan infer.Event, 1)
	events <- infer.Event{Has: true, Token: 5}
	pieces := make(chan piece, 1)
	stopped := false
	ctx := context.WithValue(t.Context(), idKey{}, "id-8")
	x := &text{index: 3, events: events, out: pieces, end: func() { stopped = true }, metrics: NewMetrics("m"), log: slog.New(slog.NewTextHandler(&log, nil))} // no stream
	x.run(ctx)
	require.True(t, stopped, "the engine's work is ended")
	p := <-pieces
	require.Equal(t, 3, p.index)
	require.ErrorIs(t, broken(t.Context(), p.end), errPanic)
	require.Equal(t, http.StatusInternalServerError, asFailure(p.end.err).status)
	require.Contains(t, log.String(), "request=id-8")
	require.Contains(t, log.String(), "serve/api/generate.go")
}

func TestPanicInStats(t *testing.T) {
	var log strings.Builder
	o := options(newFake(t))
	o.Stats, o.Log = func() Stats { panic("broken statistics") }, slog.New(slog.NewTextHandler(&log, nil))
	got := newServer(t, o).ask(t, "GET", "/metrics", "")
	require.Equal(t, 200, got.status)
	require.Contains(t, got.body, "vllm:prompt_tokens_total")
	require.NotContains(t, got.body, "vllm:num_requests_running")
	require.Contains(t, log.String(), "broken statistics")
}

func TestOptionsAreChecked(t *testing.T) {
	f := newFake(t)
	for name, change := range map[string]func(*Options){
		"no engine":     func(o *Options) { o.Engine = nil },
		"no model":      func(o *Options) { o.Model = "" },
		"negative body": func(o *Options) { o.Body = -1 },
		"no such era":   func(o *Options) { o.Megatron = 7 },
		"empty key":     func(o *Options) { o.Keys = []string{""} },
	} {
		o := options(f)
		change(&o)
		_, err := New(o)
		require.Error(t, err, name)
	}
}
