package api

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"mix/graph/token"
	"mix/serve/infer"
)

func TestMegatronTexts(t *testing.T) {
	f := newFake(t)
	f.says("world\n\nmore")
	s := newServer(t, options(f))
	got := s.ask(t, "PUT", "/api", `{"prompts":["Hello","Bye"],"tokens_to_generate":20,"logprobs":true,"add_BOS":true,"top_k":1,"random_seed":3}`)
	require.Equal(t, 200, got.status)
	require.Equal(t, "Hello world\n\nmore", got.at(t, "text", 0))
	require.Equal(t, "<s>", got.at(t, "segments", 1, 0))
	require.Len(t, got.at(t, "logprobs", 1), len(got.at(t, "segments", 1).([]any))-1)
	require.Zero(t, f.requests()[0].Sampling.Temperature, "top_k 1 is greedy")

	for field, want := range map[string]string{
		`"stop_on_eol":true`:        "Hello world\n",
		`"stop_on_double_eol":true`: "Hello world\n\n",
		`"tokens_to_generate":1`:    "Hello world",
		`"stop_token":99999`:        "Hello world\n\nmore",
	} {
		got = s.ask(t, "PUT", "/api", `{"prompts":["Hello"],`+field+`}`)
		require.Equal(t, want, got.at(t, "text", 0), field)
	}
	got = s.ask(t, "PUT", "/api", `{"prompts":["Hello there"],"tokens_to_generate":0,"logprobs":true}`)
	require.Equal(t, "Hello there", got.at(t, "text", 0))
	require.Len(t, got.at(t, "logprobs", 0), 1)
	got = s.ask(t, "PUT", "/api", `{"prompts":["Hello"],"tokens_to_generate":600}`)
	require.Equal(t, "\"Length of prompt + tokens_to_generate longer than allowed\"\n", got.body)
	got = s.ask(t, "PUT", "/api", `{"prompts":["Hello"],"beam_width":1025}`)
	require.Equal(t, "\"beam_width must be an integer <= 1024\"\n", got.body)
	f.busy = infer.ErrBusy
	require.Equal(t, 429, s.ask(t, "PUT", "/api", `{"prompts":["Hello"]}`).status)
}

func TestMegatronStepByStep(t *testing.T) {
	f := newFake(t)
	f.script = func(r infer.Request) []int32 {
		text := "list:"
		if strings.HasSuffix(f.t.Decode(r.Prompt), ":") {
			text = " \n"
			if len(r.Sampling.Bias) > 0 {
				text = "x"
			}
		}
		ids, err := f.t.Encode(text, token.EncodeOptions{})
		require.NoError(t, err)
		return ids[len(ids)-1:]
	}
	s := newServer(t, options(f))
	got := s.ask(t, "PUT", "/api", `{"prompts":["a:"],"tokens_to_generate":2,"prevent_newline_after_colon":true,"top_p":0.8,"top_p_decay":0.5,"top_p_bound":0.3,"logprobs":true}`)
	require.Equal(t, "a: x:", strings.ReplaceAll(got.at(t, "text", 0).(string), ":x", ": x"), got.body)
	require.Len(t, got.at(t, "logprobs", 0), len(got.at(t, "segments", 0).([]any))-1)
	s.ask(t, "PUT", "/api", `{"prompts":["a"],"tokens_to_generate":4,"top_p":0.8,"top_p_decay":0.5,"top_p_bound":0.3}`)
	all := f.requests()
	var topP []float32
	for _, r := range all[len(all)-4:] {
		topP = append(topP, r.Sampling.TopP)
	}
	require.Equal(t, []float32{0.8, 0.4, 0.3, 0.3}, topP)
}

// TestBeamSearch holds the search to one that scores every text of the fake's candidates.
func TestBeamSearch(t *testing.T) {
	f := newFake(t)
	s := newServer(t, options(f))
	prompt, err := f.t.Encode("Hello", token.EncodeOptions{})
	require.NoError(t, err)
	for _, width := range []int{1, 2, 19, 20, 37, 60} {
		got := s.ask(t, "PUT", "/api", fmt.Sprintf(`{"prompts":["Hello"],"tokens_to_generate":2,"beam_width":%d,"length_penalty":0.7}`, width))
		require.Equal(t, 200, got.status)
		var all []beam
		for _, a := range f.best(prompt)[:width] {
			next := append(slices.Clone(prompt), a.ID)
			for _, b := range f.best(next) {
				all = append(all, beam{ids: []int32{a.ID, b.ID}, sum: float64(a.LogProb) + float64(b.LogProb)})
			}
		}
		slices.SortStableFunc(all, func(a, b beam) int { return cmp.Compare(b.sum, a.sum) })
		require.Len(t, got.at(t, "text"), width)
		for i, b := range all[:width] {
			require.InDelta(t, b.sum/math.Pow(2, 0.7), got.at(t, "scores", i), 1e-6)
			require.Equal(t, f.t.Piece(b.ids[1]), got.at(t, "segments", i, len(prompt)+1))
		}
	}
	got := s.ask(t, "PUT", "/api", `{"prompts":["Hello"],"tokens_to_generate":0,"logprobs":true,"beam_width":2}`)
	require.Equal(t, []any{"Hello"}, got.at(t, "text"))
	require.Eventually(t, func() bool { return f.running.Load() == 0 }, 10*time.Second, time.Millisecond)
}

func TestBeamsEnd(t *testing.T) {
	f := newFake(t)
	s := newServer(t, options(f))
	ids, err := f.t.Encode("Hello", token.EncodeOptions{})
	require.NoError(t, err)
	best := f.best(ids)[0]
	got := s.ask(t, "PUT", "/api", fmt.Sprintf(`{"prompts":["Hello"],"tokens_to_generate":5,"beam_width":1,"stop_token":%d}`, best.ID))
	require.Equal(t, []any{"Hello"}, got.at(t, "text"), "the best beam ends at once")
	require.InDelta(t, best.LogProb, got.at(t, "scores", 0), 1e-6)
}

func TestPythonJSON(t *testing.T) {
	b, err := encode(map[string]any{"t": "a\"<é☃🙂\x7f\u2028\n", "f": floats([]float32{-0.5, 1, -1e-5, 0, float32(math.Inf(-1)), 0.1, float32(math.NaN()), -123456})})
	require.NoError(t, err)
	require.Equal(t, `{"f":[-0.5,1.0,-9.999999747378752e-06,0.0,-9999.0,0.10000000149011612,-9999.0,-123456.0],"t":"a\"<\u00e9\u2603\ud83d\ude42\u007f\u2028\n"}`, string(ascii(b)))
}
