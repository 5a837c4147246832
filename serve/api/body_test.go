package api

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// begunBody opens a connection and sends a request without the end of its body.
func begunBody(t *testing.T, h *httptest.Server) net.Conn {
	c, err := net.Dial("tcp", h.Listener.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	_, err = fmt.Fprintf(c, "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"prompt\":")
	require.NoError(t, err)
	return c
}

func inWork(s *Server) int {
	s.work.Lock()
	defer s.work.Unlock()
	return s.inWork
}

// TestDrainGivesUpBodies has a client stop in the middle of its body: the end of draining does not wait for the rest.
func TestDrainGivesUpBodies(t *testing.T) {
	s := newServer(t, options(newFake(t)))
	h := httptest.NewServer(s)
	defer h.Close()
	c := begunBody(t, h)
	require.Eventually(t, func() bool { return inWork(s) == 1 }, 10*time.Second, time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	drained := make(chan error, 1)
	go func() { drained <- s.Drain(ctx) }()
	select {
	case err := <-drained:
		require.ErrorIs(t, err, context.DeadlineExceeded)
	case <-time.After(20 * time.Second):
		require.Fail(t, "draining waits for a client that sends nothing")
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	require.NoError(t, err)
	require.Equal(t, 503, resp.StatusCode)
}

// TestBodiesThatDoNotCome are refused, and do not stay in work.
func TestBodiesThatDoNotCome(t *testing.T) {
	o := options(newFake(t))
	o.Read = 30 * time.Millisecond
	s := newServer(t, o)
	h := httptest.NewServer(s)
	defer h.Close()
	resp, err := http.ReadResponse(bufio.NewReader(begunBody(t, h)), nil)
	require.NoError(t, err)
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, 400, resp.StatusCode, string(b))
	require.Contains(t, string(b), "did not come within 30ms")
	require.Eventually(t, func() bool { return inWork(s) == 0 }, 10*time.Second, time.Millisecond)
}

// TestLongAnswersAfterTheBody go on past the time that the body had.
func TestLongAnswersAfterTheBody(t *testing.T) {
	f, _, h := stepped(t, func(o *Options) { o.Read = 100 * time.Millisecond })
	go func() {
		time.Sleep(300 * time.Millisecond)
		for range 3 {
			f.step <- struct{}{}
		}
	}()
	resp := post(t, t.Context(), h, `{"prompt":"a","max_tokens":3}`)
	defer resp.Body.Close()
	require.Equal(t, 200, resp.StatusCode)
}

// TestClientsThatDoNotRead are given up, whether the answer comes at once or as a stream.
func TestClientsThatDoNotRead(t *testing.T) {
	o := options(newFake(t))
	o.Write = 50 * time.Millisecond
	s := newServer(t, o)
	h := httptest.NewUnstartedServer(s)
	h.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		require.NoError(t, c.(*net.TCPConn).SetWriteBuffer(4096))
		return ctx
	}
	h.Start()
	defer h.Close()
	prompt := strings.Repeat("word ", 400)
	for _, body := range []string{
		fmt.Sprintf(`{"prompt":[%q,%q,%q,%q],"max_tokens":1,"prompt_logprobs":20}`, prompt, prompt, prompt, prompt),
		fmt.Sprintf(`{"prompt":%q,"max_tokens":100,"n":64,"logprobs":20,"stream":true}`, "a"),
	} {
		c, err := net.Dial("tcp", h.Listener.Addr().String())
		require.NoError(t, err)
		defer c.Close()
		require.NoError(t, c.(*net.TCPConn).SetReadBuffer(4096))
		_, err = fmt.Fprintf(c, "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		require.NoError(t, err)
		require.Eventually(t, func() bool { return inWork(s) == 1 }, 10*time.Second, 100*time.Microsecond)
		require.Eventually(t, func() bool { return inWork(s) == 0 }, 20*time.Second, time.Millisecond)
		all, _ := io.ReadAll(c) // the connection may be reset
		require.NotContains(t, string(all), "[DONE]", "what was not read in time is lost")
	}
}
