package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/internal/cli"
)

// stub is a server whose tokens are words: a prompt of n words has n+3, an answer has as many as are asked for.
type stub struct {
	*httptest.Server
	usage  bool
	before func(n int, w http.ResponseWriter, r *http.Request) bool // n counts from 1; true where it has answered

	mu     sync.Mutex
	asked  []request
	now    int
	most   int
	number int
}

// request is a request that the stub got.
type request struct {
	Model     string
	Prompt    string
	Messages  []struct{ Role, Content string }
	MaxTokens int  `json:"max_tokens"`
	IgnoreEOS bool `json:"ignore_eos"`
	Stream    bool
	Options   *struct {
		Usage bool `json:"include_usage"`
	} `json:"stream_options"`
}

func serve(t *testing.T) *stub {
	s := &stub{usage: true}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, `{"data":[{"id":"m"}]}`) })
	mux.HandleFunc("POST /v1/completions", func(w http.ResponseWriter, r *http.Request) { s.answer(t, w, r) })
	mux.HandleFunc("POST /v1/chat/completions", func(w http.ResponseWriter, r *http.Request) { s.answer(t, w, r) })
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func (s *stub) answer(t *testing.T, w http.ResponseWriter, r *http.Request) {
	var a request
	if err := json.NewDecoder(r.Body).Decode(&a); err != nil {
		t.Error(err)
	}
	s.mu.Lock()
	s.asked = append(s.asked, a)
	s.now++
	s.most = max(s.most, s.now)
	s.number++
	n := s.number
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.now--
		s.mu.Unlock()
	}()
	if s.before != nil && s.before(n, w, r) {
		return
	}
	text := a.Prompt
	if len(a.Messages) > 0 {
		text = a.Messages[0].Content
	}
	usage := "null"
	if s.usage {
		usage = fmt.Sprintf(`{"prompt_tokens":%d,"completion_tokens":%d}`, len(strings.Fields(text))+3, a.MaxTokens)
	}
	if !a.Stream {
		fmt.Fprintf(w, `{"choices":[{"text":"x","finish_reason":"length"}],"usage":%s}`, usage)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	for range (a.MaxTokens + 1) / 2 { // two tokens a piece
		fmt.Fprint(w, "data: {\"choices\":[{\"text\":\" x\"}]}\n\n")
		w.(http.Flusher).Flush()
	}
	if a.Options != nil && a.Options.Usage {
		fmt.Fprintf(w, "data: {\"choices\":[],\"usage\":%s}\n\n", usage)
	}
	fmt.Fprint(w, "data: [DONE]\n\n")
}

// measured are the requests after those that calibrate and warm up.
func (s *stub) measured(before int) []request { return s.asked[before:] }

// run is the command in this process.
func run(ctx context.Context, args ...string) (code int, out, err string) {
	var o, e strings.Builder
	code = cli.Run(ctx, new(command), "bench", "", append([]string{"load"}, args...), cli.IO{In: strings.NewReader(""), Out: &o, Err: &e})
	return code, o.String(), e.String()
}

func measure(t *testing.T, args ...string) (r summary) {
	code, out, log := run(context.Background(), append(args, "--json")...)
	require.Zero(t, code, log)
	require.NoError(t, json.Unmarshal([]byte(out), &r))
	return r
}
