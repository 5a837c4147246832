package api

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/graph/token"
	"mix/serve/infer"
)

// TestTextsInManyStepsCountOnce asks for texts that take many requests to the engine.
func TestTextsInManyStepsCountOnce(t *testing.T) {
	f := newFake(t)
	o := options(f)
	o.Metrics = NewMetrics(o.Model)
	s := newServer(t, o)
	const labels = `{engine="0",model_name="mixtral"}`
	holds := func(lines ...string) {
		t.Helper()
		got := s.ask(t, "GET", "/metrics", "").body
		for _, line := range lines {
			require.Contains(t, got, line+"\n")
		}
	}
	s.ask(t, "PUT", "/api", `{"prompts":["Hello there"],"tokens_to_generate":6,"top_p":0.8,"top_p_decay":0.5,"top_p_bound":0.3}`)
	prompt, err := f.t.Encode("Hello there", token.EncodeOptions{})
	require.NoError(t, err)
	n := len(prompt)
	holds(`vllm:request_success_total{engine="0",finished_reason="length",model_name="mixtral"} 1`, `vllm:generation_tokens_total`+labels+` 6`,
		fmt.Sprintf(`vllm:prompt_tokens_total%s %d`, labels, n), `vllm:e2e_request_latency_seconds_count`+labels+` 1`)
	s.ask(t, "PUT", "/api", `{"prompts":["Hello there"],"tokens_to_generate":6,"beam_width":3}`)
	holds(`vllm:request_success_total{engine="0",finished_reason="length",model_name="mixtral"} 4`, `vllm:generation_tokens_total`+labels+` 24`,
		fmt.Sprintf(`vllm:prompt_tokens_total%s %d`, labels, 4*n), `vllm:e2e_request_latency_seconds_count`+labels+` 4`)
}

// whole is an engine that tells of the end with the last token, as engines may.
type whole struct{ *fake }

func (w whole) Submit(ctx context.Context, r infer.Request) (<-chan infer.Event, error) {
	in, err := w.fake.Submit(ctx, r)
	if err != nil {
		return nil, err
	}
	out := make(chan infer.Event, r.Max+2)
	go func() {
		defer close(out)
		last := <-in
		for e := range in {
			if !e.Has && e.Finish == infer.FinishLength {
				e.Token, e.Has, e.Place = last.Token, true, last.Place
			} else {
				out <- last
			}
			last = e
		}
		out <- last
	}()
	return out, nil
}

// TestStopInTheLastToken has a stop string come with the token that is the last anyway: the usage is the engine's.
func TestStopInTheLastToken(t *testing.T) {
	f := newFake(t)
	f.says("one two three four")
	o := options(f)
	o.Engine = whole{f}
	s := newServer(t, o)
	prompt := strings.Repeat("a long prompt ", 12)
	got := s.ask(t, "POST", "/v1/completions", fmt.Sprintf(`{"prompt":%q,"max_tokens":3,"stop":"three"}`, prompt))
	require.Equal(t, "stop", got.at(t, "choices", 0, "finish_reason"), got.body)
	require.EqualValues(t, 3, got.at(t, "usage", "completion_tokens"))
	require.Positive(t, got.at(t, "usage", "prompt_tokens_details", "cached_tokens"))
}

// TestBeamsOfMoreThanTheRoom searches on an engine that takes a few requests at once: the texts are those of one that
// takes all.
func TestBeamsOfMoreThanTheRoom(t *testing.T) {
	f := newFake(t)
	const body = `{"prompts":["Hello"],"tokens_to_generate":3,"beam_width":40}`
	want := newServer(t, options(f)).ask(t, "PUT", "/api", body)
	require.Equal(t, 200, want.status)
	o := options(f)
	o.Engine = narrow{f, 5}
	got := newServer(t, o).ask(t, "PUT", "/api", body)
	require.Equal(t, want.body, got.body)
}

// crowded is an engine that others fill every second time that it is asked, but for the first.
type crowded struct {
	*fake
	asked *atomic.Int64
}

func (c crowded) Submit(ctx context.Context, r infer.Request) (<-chan infer.Event, error) {
	if c.asked.Add(1)%2 == 0 {
		return nil, infer.ErrBusy
	}
	return c.fake.Submit(ctx, r)
}

// TestBegunTextsWaitForRoom has texts that take many requests go on where a first request would be refused.
func TestBegunTextsWaitForRoom(t *testing.T) {
	f := newFake(t)
	o := options(f)
	for _, body := range []string{
		`{"prompts":["Hello"],"tokens_to_generate":3,"beam_width":2}`,
		`{"prompts":["Hello","you"],"tokens_to_generate":3,"random_seed":4,"top_p":0.8,"top_p_decay":0.5,"top_p_bound":0.3}`,
	} {
		o.Engine = f
		want := newServer(t, o).ask(t, "PUT", "/api", body)
		o.Engine = crowded{f, new(atomic.Int64)}
		require.Equal(t, want.body, newServer(t, o).ask(t, "PUT", "/api", body).body)
	}
}
