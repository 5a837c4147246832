package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/stretchr/testify/require"

	"mix/internal/cli"
)

// stub is a server that keeps what it was asked.
type stub struct {
	*httptest.Server
	mu    sync.Mutex
	asked []map[string]any
	hang  bool          // chat answers send one piece and wait for the client to leave
	left  chan struct{} // told of each client that waits for the rest
}

func serve(t *testing.T) *stub {
	s := &stub{left: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /api", func(w http.ResponseWriter, r *http.Request) {
		ask := s.keep(t, r)
		switch prompt := ask["prompts"].([]any)[0]; prompt {
		case "":
			io.WriteString(w, "\"Empty prompts require add_BOS=true\"\n")
		case "busy":
			w.WriteHeader(503)
			io.WriteString(w, `{"message": "not ready"}`)
		default:
			fmt.Fprintf(w, `{"logprobs":null,"segments":[[]],"text":["%s and so on"]}`, prompt)
		}
	})
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "Bearer wrong" {
			w.WriteHeader(401)
			io.WriteString(w, `{"error":{"message":"bad key"}}`)
			return
		}
		io.WriteString(w, `{"data":[{"id":"mixtral"},{"id":"other"}]}`)
	})
	send := func(w http.ResponseWriter, format string, args ...any) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprintf(w, "data: "+format+"\n\n", args...)
		w.(http.Flusher).Flush()
	}
	mux.HandleFunc("POST /v1/completions", func(w http.ResponseWriter, r *http.Request) {
		ask := s.keep(t, r)
		if ask["prompt"] == "breaks" {
			send(w, `{"choices":[{"text":" here"}]}`)
			send(w, `{"error":{"message":"engine lost"}}`)
			return
		}
		for _, word := range []string{" and", " so", " on"} {
			send(w, `{"choices":[{"text":"%s"}]}`, word)
		}
		send(w, "[DONE]")
	})
	mux.HandleFunc("POST /v1/chat/completions", func(w http.ResponseWriter, r *http.Request) {
		ask := s.keep(t, r)
		messages := ask["messages"].([]any)
		last := messages[len(messages)-1].(map[string]any)["content"]
		if last == "too long" {
			w.WriteHeader(400)
			io.WriteString(w, `{"error":{"message":"context of 4096 tokens"}}`)
			return
		}
		send(w, `{"choices":[{"delta":{"role":"assistant","content":""}}]}`)
		send(w, `{"choices":[{"delta":{"content":"answer "}}]}`)
		if s.hang {
			select {
			case s.left <- struct{}{}:
			case <-r.Context().Done():
			}
			<-r.Context().Done()
			return
		}
		send(w, `{"choices":[{"delta":{"content":"%d"},"finish_reason":"stop"}]}`, len(messages))
		send(w, "[DONE]")
	})
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func (s *stub) keep(t *testing.T, r *http.Request) map[string]any {
	var ask map[string]any
	if err := json.NewDecoder(r.Body).Decode(&ask); err != nil {
		t.Error(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, ask)
	return ask
}

// run is the command in this process. presses are given Ctrl-C by.
func run(in io.Reader, presses chan os.Signal, args ...string) (code int, out, err string) {
	ctx, leave := context.WithCancel(context.Background())
	defer leave()
	var o, e strings.Builder
	code = cli.Run(ctx, new(command), "chat", "", args, cli.IO{In: in, Out: &o, Err: &e}, kong.Bind(&interrupts{presses, leave}))
	return code, o.String(), e.String()
}

const (
	askPrompt = "Enter prompt: "
	askNumber = "Enter number of tokens to generate: "
)

func TestAsMegatronsClient(t *testing.T) {
	s := serve(t)
	host := strings.TrimPrefix(s.URL, "http://")
	code, out, log := run(strings.NewReader("In the beginning\n12\n\n5\nbusy\nfive\n 5 \nlast"), nil, host, "--seed", "7", "--temperature", "0.5", "--top-k", "3")
	require.Zero(t, code)
	require.Equal(t, askPrompt+askNumber+"Megatron Response: \nIn the beginning and so on\n"+
		askPrompt+askNumber+"Error 200: Empty prompts require add_BOS=true\n"+
		askPrompt+askNumber+askNumber+"Error 503: not ready\n"+
		askPrompt+askNumber+"\n", out)
	require.Equal(t, "number of tokens is \"five\", want an integer\n", log)
	require.Equal(t, map[string]any{"prompts": []any{"In the beginning"}, "tokens_to_generate": 12., "random_seed": 7., "temperature": 0.5, "top_k": 3.}, s.asked[0])
	require.Len(t, s.asked, 3)
}

func TestPlainAskHasNoOtherFields(t *testing.T) {
	s := serve(t)
	code, _, _ := run(strings.NewReader("a\n1\n"), nil, s.URL)
	require.Zero(t, code)
	require.Equal(t, []map[string]any{{"prompts": []any{"a"}, "tokens_to_generate": 1.}}, s.asked)
}

func TestStream(t *testing.T) {
	s := serve(t)
	code, out, log := run(strings.NewReader("In the beginning\n12\nbreaks\n0\n"), nil, s.URL, "--stream", "--top-p", "0.9")
	require.Zero(t, code, log)
	require.Equal(t, askPrompt+askNumber+"Megatron Response: \nIn the beginning and so on\n"+
		askPrompt+askNumber+"Megatron Response: \nbreaks here\nError 200: engine lost\n"+askPrompt+"\n", out)
	require.Equal(t, map[string]any{"model": "mixtral", "prompt": "In the beginning", "max_tokens": 12., "top_p": 0.9, "stream": true, "add_special_tokens": false}, s.asked[0])
	require.Equal(t, 0., s.asked[1]["max_tokens"], "no tokens is not the server's default")
}

func TestTurns(t *testing.T) {
	s := serve(t)
	code, out, log := run(strings.NewReader("one\n\n/system Be brief.\ntwo\ntoo long\n//three\n/reset\n/system\nfour\n/nonsense\n/help\n/quit\nnever\n"), nil,
		s.URL, "--chat", "--system", "Be kind.", "--model", "m", "--max-tokens", "9")
	require.Zero(t, code)
	require.Equal(t, "answer 2\nanswer 4\nanswer 6\nanswer 1\n", out)
	require.Contains(t, log, "> Error 400: context of 4096 tokens\n> ")
	require.Contains(t, log, "/nonsense is no command")
	require.Contains(t, log, "/reset  ")
	message := func(role, content string) any { return map[string]any{"role": role, "content": content} }
	require.Equal(t, map[string]any{"model": "m", "stream": true, "max_tokens": 9., "messages": []any{message("system", "Be kind."), message("user", "one")}}, s.asked[0])
	require.Equal(t, []any{message("system", "Be brief."), message("user", "one"), message("assistant", "answer 2"), message("user", "two"),
		message("assistant", "answer 4"), message("user", "/three")}, s.asked[3]["messages"], "what was refused is not of the conversation")
	require.Equal(t, []any{message("user", "four")}, s.asked[4]["messages"])
	require.Len(t, s.asked, 5)
}

func TestWrongKey(t *testing.T) {
	s := serve(t)
	code, out, log := run(strings.NewReader("hi\n"), nil, s.URL, "--chat", "--api-key", "wrong")
	require.Zero(t, code)
	require.Empty(t, out)
	require.Equal(t, "> Error 401: bad key\n> \n", log)
}

func TestNoServer(t *testing.T) {
	s := serve(t)
	s.Close()
	code, out, _ := run(strings.NewReader("a\n1\n"), nil, s.URL)
	require.Zero(t, code)
	require.Contains(t, out, "Error: Put ")
	require.True(t, strings.HasSuffix(out, askPrompt+"\n"), "it asks again")
}

// script is an input whose lines come when they are sent.
func script(t *testing.T) (io.Reader, func(string)) {
	r, w := io.Pipe()
	t.Cleanup(func() { w.Close() })
	return r, func(line string) { io.WriteString(w, line+"\n") }
}

// watched is an output that tells when the first text has come.
type watched struct {
	text strings.Builder
	once sync.Once
	some chan struct{}
}

func (w *watched) Write(b []byte) (int, error) {
	defer w.once.Do(func() { close(w.some) })
	return w.text.Write(b)
}

func TestInterruptStopsAnAnswer(t *testing.T) {
	s := serve(t)
	s.hang = true
	in, say := script(t)
	out := watched{some: make(chan struct{})}
	var log strings.Builder
	i := &interrupts{make(chan os.Signal), func() {}}
	go func() {
		say("hello")
		<-s.left
		<-out.some
		i.got <- os.Interrupt
		say("again")
		<-s.left
		i.got <- os.Interrupt
		say("/quit")
	}()
	code := cli.Run(context.Background(), new(command), "chat", "", []string{s.URL, "--chat"}, cli.IO{In: in, Out: &out, Err: &log}, kong.Bind(i))
	require.Zero(t, code)
	require.Equal(t, 2, strings.Count(log.String(), "(stopped)"), log.String())
	require.True(t, strings.HasPrefix(out.text.String(), "answer \n"), "what was shown stays")
	said := s.asked[1]["messages"].([]any)
	require.Len(t, said, 3, "a stopped answer is of the conversation")
	require.Equal(t, "answer ", said[1].(map[string]any)["content"])
}

func TestInterruptAtThePrompt(t *testing.T) {
	s := serve(t)
	for _, tt := range []struct {
		args    []string
		presses int
	}{
		{[]string{s.URL}, 1},
		{[]string{s.URL, "--chat"}, 2},
	} {
		in, _ := script(t)
		presses := make(chan os.Signal, 2)
		for range tt.presses {
			presses <- os.Interrupt
		}
		code, _, log := run(in, presses, tt.args...)
		require.Equal(t, 130, code, log)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{
		{},
		{"ftp://x"},
		{"localhost:1", "--max-tokens", "3"},
		{"localhost:1", "--system", "x"},
		{"localhost:1", "--chat", "--max-tokens", "-3"},
		{"localhost:1", "--nonsense"},
	} {
		code, out, log := run(strings.NewReader(""), nil, args...)
		require.Equal(t, 2, code, args)
		require.Empty(t, out)
		require.Equal(t, 1, strings.Count(log, "\n"), log)
	}
}

// broken is an output that is gone.
type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("gone") }

func TestOutputThatIsGoneEnds(t *testing.T) {
	s := serve(t)
	var log strings.Builder
	code := cli.Run(context.Background(), new(command), "chat", "", []string{s.URL, "--chat"},
		cli.IO{In: strings.NewReader("a\nb\n"), Out: broken{}, Err: &log}, kong.Bind(&interrupts{nil, func() {}}))
	require.Equal(t, 1, code)
	require.Contains(t, log.String(), "chat: output: gone")
	require.Len(t, s.asked, 1)
}
