package api

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestManyAtOnce holds what many clients get at once to what one gets alone, and leaves nothing behind.
func TestManyAtOnce(t *testing.T) {
	f := newFake(t)
	s := newServer(t, options(f))
	body := func(i int) string {
		return fmt.Sprintf(`{"prompt":"p %d","max_tokens":40,"temperature":0.7,"seed":%d,"n":2,"stream":%t,"stop":["ing"]}`, i, i, i%2 == 0)
	}
	// ids and times differ from answer to answer
	same := func(text string) string {
		var out strings.Builder
		for _, part := range strings.Split(text, `"choices":`)[1:] {
			part, _, _ = strings.Cut(part, `,"usage"`)
			part, _, _ = strings.Cut(part, "data: ")
			out.WriteString(strings.TrimSpace(part) + "\n")
		}
		return out.String()
	}
	perChoice := func(text string) (out [2]string) {
		for line := range strings.Lines(same(text)) {
			out[strings.Count(line[:min(len(line), 14)], `"index":1`)] += line
		}
		return out
	}
	const clients = 64
	want := make([][2]string, clients)
	for i := range want {
		want[i] = perChoice(s.ask(t, "POST", "/v1/completions", body(i)).body)
	}
	h := httptest.NewServer(s)
	before := runtime.NumGoroutine()
	var all sync.WaitGroup
	got := make([][2]string, clients)
	for i := range clients {
		all.Go(func() {
			resp, err := http.Post(h.URL+"/v1/completions", "application/json", strings.NewReader(body(i)))
			if err != nil {
				return
			}
			b, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			got[i] = perChoice(string(b))
		})
	}
	all.Wait()
	require.Equal(t, want, got)
	http.DefaultClient.CloseIdleConnections()
	h.Close()
	require.Eventually(t, func() bool { return runtime.NumGoroutine() <= before }, 10*time.Second, time.Millisecond)
	require.Zero(t, f.running.Load())
	require.Zero(t, s.inWork)
}
