package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"mix/internal/cli"
)

// child names the variable that makes the test's own program the server, for tests that need a process.
const child = "SERVE_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(child) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// journal is what a server writes to standard error.
type journal struct {
	mu   sync.Mutex
	text strings.Builder
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(b)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

var address = regexp.MustCompile(`msg=listening address=(\S+)`)

// server is a server under test.
type server struct {
	*journal
	base  string // http://host:port
	stop  func() // as SIGTERM
	ended chan int
	pid   int // of a process of its own, else 0
}

// inside starts the command in this process.
func inside(t *testing.T, args ...string) *server {
	ctx, cancel := context.WithCancel(context.Background())
	s := &server{journal: &journal{}, stop: cancel, ended: make(chan int, 1)}
	go func() {
		s.ended <- cli.Run(ctx, new(command), "serve", "", append([]string{"--port", "0"}, args...), cli.IO{In: strings.NewReader(""), Out: io.Discard, Err: s.journal})
	}()
	s.listening(t, "http")
	t.Cleanup(cancel)
	return s
}

// process starts the command in a process of its own.
func process(t *testing.T, args ...string) *server {
	s := &server{journal: &journal{}, ended: make(chan int, 1)}
	cmd := exec.Command(os.Args[0], append([]string{"--port", "0"}, args...)...)
	cmd.Env = append(os.Environ(), child+"=1")
	cmd.Stderr = s.journal
	require.NoError(t, cmd.Start())
	s.pid = cmd.Process.Pid
	s.stop = func() { _ = cmd.Process.Signal(syscall.SIGTERM) }
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		s.ended <- cmd.ProcessState.ExitCode()
		close(done)
	}()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-done })
	s.listening(t, "http")
	return s
}

func (s *server) listening(t *testing.T, scheme string) {
	for range 3000 {
		if m := address.FindStringSubmatch(s.String()); m != nil {
			s.base = scheme + "://" + m[1]
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	require.Fail(t, "the server does not listen", s.String())
}

// status asks for a page and returns what it was answered with, 0 for no answer.
func (s *server) status(path string) int {
	resp, err := http.Get(s.base + path)
	if err != nil {
		return 0
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return resp.StatusCode
}

// ready waits for /ready and returns the answers before it.
func (s *server) ready(t *testing.T) (before []int) {
	for range 12000 {
		if code := s.status("/ready"); code == http.StatusOK {
			return before
		} else {
			before = append(before, code)
		}
		time.Sleep(10 * time.Millisecond)
	}
	require.Fail(t, "the server does not get ready", s.String())
	return nil
}

func (s *server) wait(t *testing.T) int {
	select {
	case code := <-s.ended:
		return code
	case <-time.After(2 * time.Minute):
		require.Fail(t, "the server does not end", s.String())
		return -1
	}
}

func TestFlags(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct {
		args []string
		code int
		err  string
	}{
		{[]string{"--port", "70000"}, 2, "--port is 70000, want 0 to 65535"},
		{[]string{"--tls-cert", "a"}, 2, "--tls-cert and --tls-key: want both or neither"},
		{[]string{"--max-concurrent", "0"}, 2, "--max-concurrent is 0, want 1 to 1024"},
		{[]string{"--max-queue", "-1"}, 2, "--max-queue is -1, want at least 0"},
		{[]string{"--kv-blocks", "-1"}, 2, "--kv-blocks is -1, want at least 1"},
		{[]string{"--prefill-chunk", "20"}, 2, "--prefill-chunk is 20, want a multiple of 16"},
		{[]string{"--max-model-len", "257"}, 2, "--max-model-len is 257, want 2 to the model's context, 256"},
		{[]string{"--timeout", "-1s"}, 2, "--timeout is -1s"},
		{[]string{"--speculative-ngram", "17"}, 2, "--speculative-ngram is 17, want 0 to 16"},
		{[]string{"--otlp-traces-endpoint", "grpc://a:1"}, 2, `--otlp-traces-endpoint is "grpc://a:1", want http://`},
		{[]string{"--megatron", "2020"}, 2, "--megatron must be one of"},
		{[]string{"--dtype", "f8"}, 2, `dtype "f8", want f32 or bf16`},
		{[]string{"--no-such-flag"}, 2, "unknown flag"},
		{[]string{"--checkpoint", filepath.Join(dir, "none")}, 1, "none"},
		{[]string{"--port", "0", "--tls-cert", dir + "/c", "--tls-key", dir + "/k"}, 1, "--tls-cert " + dir + "/c"},
	} {
		t.Run(strings.Join(tt.args[:1], " "), func(t *testing.T) {
			var log strings.Builder
			code := cli.Run(t.Context(), new(command), "serve", "", tt.args, cli.IO{In: strings.NewReader(""), Out: io.Discard, Err: &log})
			require.Equal(t, tt.code, code, log.String())
			require.Contains(t, log.String(), tt.err)
			require.Equal(t, 1, strings.Count(log.String(), "\n"), "one line")
		})
	}
}

// TestStarts sees a server that compiles, with an empty cache, and one that is told to end meanwhile.
func TestStarts(t *testing.T) {
	s := inside(t, "--cache", t.TempDir(), "--max-concurrent", "2")
	require.Equal(t, http.StatusOK, s.status("/health"))
	before := s.ready(t)
	require.NotEmpty(t, before)
	for _, code := range before {
		require.Equal(t, http.StatusServiceUnavailable, code)
	}
	s.stop()
	require.Zero(t, s.wait(t), s.String())

	s = inside(t, "--cache", t.TempDir(), "--max-concurrent", "3")
	s.stop()
	require.Zero(t, s.wait(t), s.String())
	require.NotContains(t, s.String(), "msg=ready")
}

// TestTermDrains ends a process while it answers: the answer is whole, new requests are refused, and the exit
// code is 0.
func TestTermDrains(t *testing.T) {
	s := process(t)
	s.ready(t)
	resp, err := http.Post(s.base+"/v1/completions", "application/json",
		strings.NewReader(`{"prompt":"a","max_tokens":200,"stream":true,"ignore_eos":true,"stream_options":{"include_usage":true}}`))
	require.NoError(t, err)
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	require.True(t, lines.Scan())
	s.stop()
	var text strings.Builder
	for lines.Scan() {
		text.WriteString(lines.Text() + "\n")
	}
	require.NoError(t, lines.Err())
	require.Contains(t, text.String(), `"completion_tokens":200`)
	require.Contains(t, text.String(), "data: [DONE]")
	require.Zero(t, s.wait(t), s.String())
	require.Contains(t, s.String(), "msg=draining")
	require.Zero(t, s.status("/health"), "nobody listens any more")
}

// TestTermEndsStalledRequests ends a server that waits for the rest of a body: it does not outlast --drain, and the client
// is told.
func TestTermEndsStalledRequests(t *testing.T) {
	s := inside(t, "--max-concurrent", "2", "--drain", "50ms")
	s.ready(t)
	c, err := net.Dial("tcp", strings.TrimPrefix(s.base, "http://"))
	require.NoError(t, err)
	defer c.Close()
	_, err = io.WriteString(c, "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\nExpect: 100-continue\r\n\r\n")
	require.NoError(t, err)
	answers := bufio.NewReader(c)
	resp, err := http.ReadResponse(answers, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusContinue, resp.StatusCode, "the server reads the body")
	s.stop()
	require.Equal(t, 1, s.wait(t), s.String())
	require.Contains(t, s.String(), "requests were ended: they still ran after --drain 50ms")
	resp, err = http.ReadResponse(answers, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
}

func TestTLSAndKeys(t *testing.T) {
	cert, key, roots := certificate(t)
	s := inside(t, "--tls-cert", cert, "--tls-key", key, "--api-key", "sesame", "--api-key", "open")
	s.base = strings.Replace(s.base, "http:", "https:", 1)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}}
	defer client.CloseIdleConnections()
	ask := func(path, key string) (int, string) {
		q, err := http.NewRequest(http.MethodGet, s.base+path, nil)
		require.NoError(t, err)
		if key != "" {
			q.Header.Set("Authorization", "Bearer "+key)
		}
		resp, err := client.Do(q)
		require.NoError(t, err)
		defer resp.Body.Close()
		return resp.StatusCode, resp.Proto
	}
	code, proto := ask("/health", "")
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, "HTTP/2.0", proto)
	for key, want := range map[string]int{"": 401, "wrong": 401, "sesame": 200, "open": 200} {
		code, _ := ask("/v1/models", key)
		require.Equal(t, want, code, "key %q", key)
	}
	s.stop()
	require.Zero(t, s.wait(t), s.String())
}

// TestKilled kills a process with answers under way and starts another with the same compiled programs. How
// long that takes is logged.
func TestKilled(t *testing.T) {
	cache := t.TempDir()
	s := process(t, "--cache", cache)
	s.ready(t)
	var all sync.WaitGroup
	begun := make(chan struct{}, 32)
	for range 32 {
		all.Go(func() {
			resp, err := http.Post(s.base+"/v1/completions", "application/json", strings.NewReader(`{"prompt":"a","max_tokens":200,"stream":true,"ignore_eos":true}`))
			if err != nil {
				return
			}
			begun <- struct{}{}
			_, _ = io.Copy(io.Discard, resp.Body) // it breaks off
			_ = resp.Body.Close()
		})
	}
	<-begun
	require.NoError(t, syscall.Kill(s.pid, syscall.SIGKILL))
	require.Equal(t, -1, s.wait(t))
	all.Wait()
	start := time.Now()
	s = process(t, "--cache", cache)
	s.ready(t)
	t.Logf("ready %s after the restart", time.Since(start).Round(time.Millisecond))
	resp, err := http.Post(s.base+"/v1/completions", "application/json", strings.NewReader(`{"prompt":"a","max_tokens":3}`))
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusOK, resp.StatusCode, string(body))
	s.stop()
	require.Zero(t, s.wait(t), s.String())
}
