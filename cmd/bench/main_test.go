package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestClosedLoop(t *testing.T) {
	s := serve(t)
	r := measure(t, s.URL, "--concurrency", "3", "--requests", "10", "--prompt-tokens", "20", "--max-tokens", "8", "--ignore-eos")
	require.Equal(t, 10, r.Completed)
	require.Zero(t, r.Failed)
	require.LessOrEqual(t, r.InFlight, 3)
	require.LessOrEqual(t, s.most, 3)
	require.Equal(t, &stats{10, 20, 20, 20, 20, 20}, r.Prompts, "calibrated by the usage")
	require.Equal(t, &stats{10, 8, 8, 8, 8, 8}, r.Answers)
	require.Equal(t, "usage", r.CountedBy)
	require.Equal(t, 10, r.First.Count)
	require.Equal(t, 30, r.Gap.Count, "four pieces have three gaps")
	require.Equal(t, 10, r.Token.Count)
	require.InDelta(t, r.OutputRate, 8*r.RequestRate, 1e-9)
	asked := s.measured(3)
	require.Len(t, asked, 10)
	prompts := map[string]bool{}
	for _, a := range asked {
		require.True(t, a.Stream && a.IgnoreEOS && a.Options.Usage && a.Model == "m" && a.MaxTokens == 8)
		prompts[a.Prompt] = true
	}
	require.Len(t, prompts, 10, "no two are alike")
}

func TestTheSameSeedAsksTheSame(t *testing.T) {
	texts := func(args ...string) (all []string) {
		s := serve(t)
		measure(t, append(args, s.URL, "--requests", "5", "--max-tokens", "1-9", "--warmup", "0")...)
		for _, a := range s.measured(2) {
			all = append(all, fmt.Sprint(a.MaxTokens, a.Prompt))
		}
		return all
	}
	require.ElementsMatch(t, texts("--rate", "500"), texts("--concurrency", "1"))
	require.NotEqual(t, texts("--concurrency", "1"), texts("--concurrency", "1", "--seed", "2"))
}

// An open loop must not wait for the server: all requests arrive although none is answered before the last has come,
// and the wait counts from when they were due.
func TestOpenLoopDoesNotWait(t *testing.T) {
	s := serve(t)
	const n = 12
	came := make(chan struct{})
	s.before = func(number int, w http.ResponseWriter, r *http.Request) bool {
		if number > 2 { // the first two calibrate
			if number == 2+n {
				close(came)
			}
			<-came
		}
		return false
	}
	r := measure(t, s.URL, "--rate", "200", "--requests", fmt.Sprint(n), "--warmup", "0")
	require.Equal(t, n, r.Completed)
	require.Equal(t, n, r.InFlight)
	require.Equal(t, "open", r.Loop)
}

func TestDuration(t *testing.T) {
	s := serve(t)
	for _, loop := range [][]string{{"--rate", "100"}, {"--concurrency", "1"}} {
		r := measure(t, append(loop, s.URL, "--duration", "100ms")...)
		require.Positive(t, r.Completed)
		require.Zero(t, r.Failed)
	}
}

func TestErrorsByKind(t *testing.T) {
	s := serve(t)
	leave := make(chan struct{})
	t.Cleanup(func() { close(leave) })
	s.before = func(n int, w http.ResponseWriter, r *http.Request) bool {
		event := func(text string) {
			w.Header().Set("Content-Type", "text/event-stream")
			io.WriteString(w, "data: "+text+"\n\n")
			w.(http.Flusher).Flush()
		}
		switch n - 2 {
		case 1:
			w.WriteHeader(429)
			io.WriteString(w, `{"error":{"message":"queue full"}}`)
		case 2:
			event(`{"choices":[{"text":"x"}]}`)
		case 3:
			event(`{"error":{"message":"no memory"}}`)
		case 4:
			event("what?")
		case 5:
			select {
			case <-r.Context().Done():
			case <-leave:
			}
		case 6:
			event(`{"choices":[{"text":"x"}]}`)
			panic(http.ErrAbortHandler)
		default:
			return false
		}
		return true
	}
	r := measure(t, s.URL, "--concurrency", "1", "--requests", "7", "--warmup", "0", "--timeout", "1s")
	require.Equal(t, 1, r.Completed)
	require.Equal(t, 6, r.Failed)
	var kinds []string
	for _, e := range r.Errors {
		kinds = append(kinds, fmt.Sprintf("%d %s", e.Count, e.Kind))
	}
	require.Equal(t, []string{"2 stream cut", "1 error in the stream", "1 malformed answer", "1 status 429", "1 timeout"}, kinds)
}

func TestNobodyAnswers(t *testing.T) {
	s := serve(t)
	s.Close()
	code, out, log := run(context.Background(), s.URL)
	require.Equal(t, 1, code)
	require.Empty(t, out)
	require.Contains(t, log, "/v1/models")
	require.Equal(t, 1, strings.Count(log, "\n"))

	code, out, log = run(context.Background(), s.URL, "--model", "m", "--dataset", write(t, `{"prompt":"a"}`), "--requests", "2")
	require.Equal(t, 1, code)
	require.Contains(t, out, "2 × no connection")
	require.Contains(t, log, "none of 2 requests was answered")
}

func TestWithoutUsageAndStream(t *testing.T) {
	s := serve(t)
	s.usage = false
	code, _, log := run(context.Background(), s.URL, "--requests", "1")
	require.Zero(t, code)
	require.Contains(t, log, "tells no usage")
	r := measure(t, s.URL, "--requests", "4", "--max-tokens", "8", "--no-usage")
	require.Equal(t, "chunks", r.CountedBy)
	require.Equal(t, 4., r.Answers.Mean, "a piece counts as a token")
	require.Nil(t, r.Prompts)

	s = serve(t)
	r = measure(t, s.URL, "--requests", "4", "--max-tokens", "8", "--no-stream", "--endpoint", "chat")
	require.False(t, s.asked[4].Stream)
	require.Len(t, s.asked[4].Messages, 1)
	require.Equal(t, "usage", r.CountedBy)
	require.Nil(t, r.First)
	require.Nil(t, r.Gap)
	require.Zero(t, r.Textless)
	require.Equal(t, 4, r.Whole.Count)
}

func TestInterruptedReportsWhatItHas(t *testing.T) {
	s := serve(t)
	ctx, cancel := context.WithCancel(context.Background())
	s.before = func(n int, w http.ResponseWriter, r *http.Request) bool {
		if n == 2+5 {
			cancel()
			<-r.Context().Done()
			return true
		}
		return false
	}
	code, out, log := run(ctx, s.URL, "--concurrency", "1", "--warmup", "0", "--requests", "100")
	require.Equal(t, 130, code, log)
	require.Contains(t, out, "4 requests in ")
	require.Contains(t, out, " 4 answered, 0 failed, at most 1 at once\n  1 more were in flight")
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{
		{},
		{"ftp://x"},
		{"x:1", "--rate", "-1"},
		{"x:1", "--rate", "NaN"},
		{"x:1", "--concurrency", "-1"},
		{"x:1", "--rate", "1", "--concurrency", "1"},
		{"x:1", "--requests", "-1"},
		{"x:1", "--timeout", "0s"},
		{"x:1", "--plot", "a.png"},
		{"x:1", "--plot", "a"},
		{"x:1", "--endpoint", "api"},
		{"x:1", "--max-tokens", "0"},
	} {
		code, out, log := run(context.Background(), args...)
		require.Equal(t, 2, code, args)
		require.Empty(t, out)
		require.Equal(t, 1, strings.Count(log, "\n"), log)
	}
}
