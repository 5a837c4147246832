package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// long asks for the long forms of these tests: a minute of load, ten thousand requests.
var long = os.Getenv("SERVE_LONG") != ""

// TestManyStreams has 64 clients stream for a while: each answer is what the same request gets alone, and
// nothing is left afterwards.
func TestManyStreams(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	s := inside(t)
	s.ready(t)
	body := func(i int) string {
		q := map[string]any{"prompt": fmt.Sprintf("Text number %d", i), "max_tokens": 8 + i, "stream": true, "seed": i, "logprobs": 2, "temperature": 0}
		switch i % 4 {
		case 1:
			q["temperature"], q["top_p"] = 0.9, 0.9
		case 2:
			q["temperature"], q["min_p"], q["repetition_penalty"] = 1.0, 0.05, 1.2
		case 3:
			q["stop"], q["presence_penalty"] = []string{"e "}, 0.5
		}
		b, err := json.Marshal(q)
		require.NoError(t, err)
		return string(b)
	}
	const kinds = 16
	var want [kinds]string
	for i := range want {
		var err error
		want[i], err = s.stream(body(i))
		require.NoError(t, err)
		require.NotEmpty(t, want[i])
	}
	http.DefaultClient.CloseIdleConnections()
	goroutines, memory := settled(1<<30), resident()
	t.Logf("before: %d goroutines, %d MB", goroutines, memory>>20)
	last := 3 * time.Second
	if long {
		last = time.Minute
	}
	var answers atomic.Int64
	var wrong atomic.Pointer[string]
	var all sync.WaitGroup
	end := time.Now().Add(last)
	for c := range 64 {
		all.Go(func() {
			for i := c; wrong.Load() == nil; i++ {
				got, err := s.stream(body(i % kinds))
				if err != nil || got != want[i%kinds] {
					x := fmt.Sprintf("request %d: %v\ngot  %s\nwant %s", i%kinds, err, got, want[i%kinds])
					wrong.Store(&x)
					return
				}
				answers.Add(1)
				if time.Now().After(end) {
					return
				}
			}
		})
	}
	half := time.AfterFunc(last/2, func() { t.Logf("half way: %d MB", resident()>>20) })
	all.Wait()
	half.Stop()
	if x := wrong.Load(); x != nil {
		require.Fail(t, *x)
	}
	http.DefaultClient.CloseIdleConnections()
	s.idle(t)
	left := settled(goroutines)
	t.Logf("%d answers; after: %d goroutines, %d MB", answers.Load(), left, resident()>>20)
	require.LessOrEqual(t, left, goroutines)
	s.stop()
	require.Zero(t, s.wait(t), s.String())
}

// TestAnything sends requests of all kinds, most of them damaged: every one is answered, none with a 500.
func TestAnything(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	s := inside(t, "--log-level", "info", "--timeout", "20s")
	s.ready(t)
	n := 2000
	if long {
		n = 10000
	}
	var next atomic.Int64
	codes := struct {
		sync.Mutex
		of map[int]int
	}{of: map[int]int{}}
	var bad atomic.Pointer[string]
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for bad.Load() == nil {
				i := next.Add(1)
				if i > int64(n) {
					return
				}
				r := rand.New(rand.NewPCG(7, uint64(i)))
				if i%50 == 0 {
					s.noise(r)
					continue
				}
				method, path, body, kind := anything(r)
				q, err := http.NewRequest(method, s.base+path, bytes.NewReader(body))
				if err != nil { // no URL, no request
					continue
				}
				q.Header.Set("Content-Type", kind)
				resp, err := http.DefaultClient.Do(q)
				if err == nil {
					_, err = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
				}
				if err != nil || resp.StatusCode == http.StatusInternalServerError {
					x := fmt.Sprintf("request %d: %s %s %s: %v %+v", i, method, path, body, err, resp)
					bad.Store(&x)
					return
				}
				codes.Lock()
				codes.of[resp.StatusCode]++
				codes.Unlock()
			}
		})
	}
	all.Wait()
	t.Log(codes.of)
	if x := bad.Load(); x != nil {
		require.Fail(t, *x, s.String())
	}
	require.Positive(t, codes.of[http.StatusOK])
	require.Positive(t, codes.of[http.StatusBadRequest])
	require.NotContains(t, s.String(), "panic")
	s.idle(t)
	require.Equal(t, http.StatusOK, s.status("/ready"))
	s.stop()
	require.Zero(t, s.wait(t), s.String())
}

// sane are requests before they are damaged.
var sane = []struct{ method, path, body string }{
	{"POST", "/v1/completions", `{"prompt":"Once","max_tokens":3,"temperature":0.7,"top_p":0.9,"n":2,"logprobs":2,"echo":true,"stop":["a","b"],"seed":3}`},
	{"POST", "/v1/completions", `{"prompt":[1,5,9],"max_tokens":2,"stream":true,"stream_options":{"include_usage":true},"logit_bias":{"5":3}}`},
	{"POST", "/v1/completions", `{"prompt":["a","b"],"max_tokens":2,"min_tokens":1,"repetition_penalty":1.1,"stop_token_ids":[7],"structured_outputs":{"regex":"[ab]+"}}`},
	{"POST", "/v1/chat/completions", `{"messages":[{"role":"system","content":"s"},{"role":"user","content":"hi"}],"max_tokens":3,"logprobs":true,"top_logprobs":2}`},
	{"POST", "/v1/chat/completions", `{"messages":[{"role":"user","content":"hi"}],"max_tokens":4,"stream":true,"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]}}}}`},
	{"POST", "/v1/chat/completions", `{"messages":[{"role":"user","content":"hi"}],"max_tokens":4,"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}],"tool_choice":"auto"}`},
	{"POST", "/v1/messages", `{"model":"demo","max_tokens":3,"messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}],"stream":true}`},
	{"POST", "/v1/messages/count_tokens", `{"model":"demo","messages":[{"role":"user","content":"hi"}]}`},
	{"POST", "/tokenize", `{"prompt":"hello"}`},
	{"POST", "/detokenize", `{"tokens":[5,6,7]}`},
	{"PUT", "/api", `{"prompts":["a","b"],"tokens_to_generate":2,"logprobs":true,"top_k":3,"temperature":0.5,"random_seed":3}`},
	{"PUT", "/api", `{"prompts":["a"],"tokens_to_generate":2,"beam_width":2}`},
	{"GET", "/v1/models", ""}, {"GET", "/metrics", ""}, {"GET", "/tokenizer_info", ""}, {"GET", "/openapi.json", ""}, {"GET", "/", ""},
}

// odd are values that nobody expects somewhere.
var odd = []string{"null", "-1", "0", "1e999", "1e-38", "2.5", "99999999999999999999", `""`, `"x"`, "[]", "{}", "[[]]", "true", `"\ud800"`, "[null]", `{"a":{"a":{}}}`}

var value = regexp.MustCompile(`:("[^"]*"|-?[0-9.]+|true|\[[^\[\]]*\])`)

// anything makes a request, whole or damaged.
func anything(r *rand.Rand) (method, path string, body []byte, kind string) {
	x := sane[r.IntN(len(sane))]
	method, path, body, kind = x.method, x.path, []byte(x.body), "application/json"
	switch r.IntN(8) {
	case 0: // as it is
	case 1, 2, 3: // values are replaced
		body = value.ReplaceAllFunc(body, func(v []byte) []byte {
			if r.IntN(4) > 0 {
				return v
			}
			return []byte(":" + odd[r.IntN(len(odd))])
		})
	case 4: // bytes are replaced
		for range 1 + r.IntN(3) {
			if len(body) > 0 {
				body[r.IntN(len(body))] = byte(r.IntN(256))
			}
		}
	case 5:
		body = body[:r.IntN(len(body)+1)]
	case 6:
		method, kind = []string{"GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"}[r.IntN(6)], []string{"", "text/plain", "application/json; charset=x", "multipart/form-data"}[r.IntN(4)]
	case 7:
		path = strings.Repeat(path, 1+r.IntN(2)) + []string{"", "/", "?a=%zz", "/..", "%00"}[r.IntN(5)]
	}
	return method, path, body, kind
}

// noise sends bytes that are no HTTP, or the beginning of a request, and leaves.
func (s *server) noise(r *rand.Rand) {
	c, err := net.Dial("tcp", strings.TrimPrefix(s.base, "http://"))
	if err != nil {
		return
	}
	defer c.Close()
	_, _ = io.WriteString(c, []string{"\x16\x03\x01\x02\x00", "GET / HTTP/9.9\r\n\r\n", "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{\"prompt\"",
		"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n", strings.Repeat("A", 5000)}[r.IntN(5)])
}

// stream asks for a completion and joins what comes, without ids and times.
func (s *server) stream(body string) (string, error) {
	resp, err := http.Post(s.base+"/v1/completions", "application/json", strings.NewReader(body))
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("status %d: %s: %v", resp.StatusCode, b, err)
	}
	var out strings.Builder
	for line := range strings.Lines(string(b)) {
		var chunk struct{ Choices json.RawMessage }
		data, ok := strings.CutPrefix(strings.TrimSpace(line), "data: ")
		if !ok || data == "[DONE]" {
			continue
		}
		if err := json.Unmarshal([]byte(data), &chunk); err != nil {
			return "", err
		}
		out.Write(chunk.Choices)
	}
	if !strings.HasSuffix(string(b), "data: [DONE]\n\n") {
		return "", fmt.Errorf("the stream has no end: %s", b)
	}
	return out.String(), nil
}

// idle waits until no request has a slot, a block or a place in the queue.
func (s *server) idle(t *testing.T) {
	var text string
	for range 2000 {
		resp, err := http.Get(s.base + "/metrics")
		require.NoError(t, err)
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		text = string(b)
		busy := false
		for _, name := range []string{"vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"} {
			m := regexp.MustCompile(`(?m)^` + name + `\{.*\} (\S+)$`).FindStringSubmatch(text)
			require.NotNil(t, m, "%s in %s", name, text)
			busy = busy || m[1] != "0"
		}
		if !busy {
			http.DefaultClient.CloseIdleConnections()
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	require.Fail(t, "slots, blocks or places are left", text)
}

// settled waits until there are at most so many goroutines, or as few as there will be.
func settled(most int) (n int) {
	for same, last := 0, -1; same < 100; same++ {
		n = runtime.NumGoroutine()
		if n <= most && most < 1<<30 {
			return n
		}
		if n != last {
			same, last = 0, n
		}
		time.Sleep(10 * time.Millisecond)
	}
	return n
}

// resident is the memory of this process, in bytes; 0 where that is not known.
func resident() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	var size, pages int64
	_, _ = fmt.Sscan(string(b), &size, &pages)
	return pages * int64(os.Getpagesize())
}
