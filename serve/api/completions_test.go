package api

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEchoScoresThePrompt(t *testing.T) {
	f := newFake(t)
	s := newServer(t, options(f))
	for _, n := range []string{"0", "1"} {
		got := s.ask(t, "POST", "/v1/completions", `{"prompt":"one two 世界","max_tokens":`+n+`,"echo":true,"logprobs":3,"temperature":0}`)
		require.Equal(t, 200, got.status, got.body)
		text := got.at(t, "choices", 0, "text").(string)
		require.True(t, strings.HasPrefix(text, "one two 世界"), text)
		tokens := got.at(t, "choices", 0, "logprobs", "tokens").([]any)
		chosen := got.at(t, "choices", 0, "logprobs", "token_logprobs").([]any)
		top := got.at(t, "choices", 0, "logprobs", "top_logprobs").([]any)
		offsets := got.at(t, "choices", 0, "logprobs", "text_offset").([]any)
		extra, _ := strconv.Atoi(n)
		require.Len(t, tokens, len(f.requests()[0].Prompt)+extra)
		require.Len(t, offsets, len(tokens))
		require.Equal(t, "<s>", tokens[0])
		require.Nil(t, chosen[0])
		require.Nil(t, top[0])
		for i := 1; i < len(tokens); i++ {
			require.Equal(t, chosen[i], top[i].(map[string]any)[tokens[i].(string)], "the same number in both lists")
		}
	}
}

func TestPromptForms(t *testing.T) {
	f := newFake(t)
	s := newServer(t, options(f))
	tests := []struct {
		prompt string
		texts  int
		param  string
	}{
		{`"a"`, 1, ""},
		{`""`, 1, ""}, // only the id that begins a sequence
		{`["a","b"]`, 2, ""},
		{`[1,5,6]`, 1, ""},
		{`[[1,5],[1,6],[7]]`, 3, ""},
		{`[]`, 0, "prompt"},
		{`null`, 0, "prompt"},
		{`[[]]`, 0, "prompt"},
		{`[1,null]`, 0, "prompt"},
		{`["a",null]`, 0, "prompt"},
		{`["a",1]`, 0, "prompt"},
		{`[-1]`, 0, "prompt"},
		{`[99999]`, 0, "prompt"},
		{`[1.5]`, 0, "prompt"},
		{`{}`, 0, "prompt"},
		{`true`, 0, "prompt"},
	}
	for _, x := range tests {
		got := s.ask(t, "POST", "/v1/completions", `{"prompt":`+x.prompt+`,"max_tokens":2}`)
		if x.param != "" {
			require.Equal(t, 400, got.status, x.prompt)
			require.Equal(t, x.param, got.at(t, "error", "param"), x.prompt)
			continue
		}
		require.Equal(t, 200, got.status, got.body)
		require.Len(t, got.at(t, "choices"), x.texts)
	}
}

func TestRefusals(t *testing.T) {
	f := newFake(t)
	s := newServer(t, options(f))
	tests := []struct {
		field, param string
		status       int
	}{
		{`"temperature":-0.1`, "temperature", 400},
		{`"temperature":"1"`, "temperature", 400},
		{`"top_p":0`, "top_p", 400},
		{`"top_p":1.01`, "top_p", 400},
		{`"top_k":-2`, "top_k", 400},
		{`"min_p":1`, "min_p", 400},
		{`"repetition_penalty":0.001`, "repetition_penalty", 400},
		{`"presence_penalty":2.5`, "presence_penalty", 400},
		{`"repetition_penalty":0`, "repetition_penalty", 400},
		{`"max_tokens":-1`, "max_tokens", 400},
		{`"max_tokens":1.5`, "max_tokens", 400},
		{`"max_tokens":1e99`, "max_tokens", 400},
		{`"max_tokens":511`, "max_tokens", 400},
		{`"n":0`, "n", 400},
		{`"n":2000`, "n", 400},
		{`"n":3,"best_of":2`, "best_of", 400},
		{`"best_of":2,"stream":true`, "best_of", 400},
		{`"logprobs":21`, "logprobs", 400},
		{`"prompt_logprobs":-1`, "prompt_logprobs", 400},
		{`"logit_bias":{"x":1}`, "logit_bias", 400},
		{`"logit_bias":{"5":101}`, "logit_bias", 400},
		{`"stop":""`, "stop", 400},
		{`"stop":[1]`, "stop", 400},
		{`"stop_token_ids":[-1]`, "stop_token_ids", 400},
		{`"suffix":"x"`, "suffix", 400},
		{`"stop_token_ids":[null]`, "stop_token_ids", 400},
		{`"min_tokens":5,"max_tokens":2`, "min_tokens", 400},
		{`"response_format":{"type":"xml"}`, "response_format", 400},
		{`"model":"gpt-4"`, "model", 404},
	}
	for _, x := range tests {
		got := s.ask(t, "POST", "/v1/completions", `{"prompt":"a",`+x.field+`}`)
		require.Equal(t, x.status, got.status, "%s: %s", x.field, got.body)
		require.Equal(t, x.param, got.at(t, "error", "param"), "%s: %s", x.field, got.body)
	}
	require.Empty(t, f.requests())
	got := s.ask(t, "POST", "/v1/completions", `{"prompt":"`+strings.Repeat("word ", 600)+`"}`)
	require.Equal(t, "context_length_exceeded", got.at(t, "error", "code"))
	got = s.ask(t, "POST", "/v1/completions", `{"model":"`+strings.Repeat("x", 5000)+`","prompt":"a"}`)
	require.Less(t, len(got.body), 400, "messages echo little of the input")
}

func TestSamplingReachesTheEngine(t *testing.T) {
	f := newFake(t)
	s := newServer(t, options(f))
	got := s.ask(t, "POST", "/v1/completions", `{"prompt":"a","max_tokens":7,"min_tokens":2,"temperature":0.5,"top_p":0.9,"top_k":40,"min_p":0.05,
		"repetition_penalty":1.1,"presence_penalty":0.25,"frequency_penalty":-0.5,"seed":-3,"logit_bias":{"12":-100},"stop_token_ids":[9],
		"ignore_eos":true,"priority":-4,"cache_salt":"s","prompt_logprobs":1,"unknown":{"x":1},"user":null,"temperature":0.5}`)
	require.Equal(t, 200, got.status, got.body)
	r := f.requests()[0]
	require.Equal(t, 7, r.Max)
	require.Equal(t, 2, r.Min)
	require.Equal(t, []int32{9}, r.Stop)
	require.True(t, r.IgnoreEnd)
	require.Equal(t, -4, r.Priority)
	require.Equal(t, "s", r.Salt)
	seed := int64(-3)
	require.Equal(t, uint64(seed), r.Sampling.Seed)
	require.Equal(t, map[int32]float32{12: -100}, r.Sampling.Bias)
	require.Equal(t, float32(0.05), r.Sampling.MinP)
	require.Len(t, got.at(t, "choices", 0, "prompt_logprobs"), 2)
}

func TestBestOfKeepsTheLikeliest(t *testing.T) {
	f := newFake(t)
	s := newServer(t, options(f))
	all := s.ask(t, "POST", "/v1/completions", `{"prompt":"a","max_tokens":4,"n":6,"logprobs":0,"seed":1}`)
	best := s.ask(t, "POST", "/v1/completions", `{"prompt":"a","max_tokens":4,"n":2,"best_of":6,"logprobs":0,"seed":1}`)
	var a, b completionAnswer
	require.NoError(t, json.Unmarshal([]byte(all.body), &a))
	require.NoError(t, json.Unmarshal([]byte(best.body), &b))
	require.Len(t, b.Choices, 2)
	require.Equal(t, 24, b.Usage.Completion, "all texts count")
	require.Equal(t, a.Usage.Prompt, b.Usage.Prompt)
	mean := func(c completionChoice) (sum float64) {
		for _, l := range c.LogProbs.Chosen {
			sum += float64(*l)
		}
		return sum / float64(len(c.LogProbs.Chosen))
	}
	better := 0
	for _, c := range a.Choices {
		if mean(c) > mean(b.Choices[1]) {
			better++
		}
	}
	require.Equal(t, 1, better, "only the first is better than the second")
	require.GreaterOrEqual(t, mean(b.Choices[0]), mean(b.Choices[1]))
}

func TestStopper(t *testing.T) {
	tests := []struct {
		stops   []string
		include bool
		pieces  []string
		want    string
		stop    string
	}{
		{[]string{"END"}, false, []string{"a E", "N", "D b"}, "a ", "END"},
		{[]string{"END"}, true, []string{"a E", "N", "D b"}, "a END", "END"},
		{[]string{"END"}, false, []string{"a E", "N", "X b"}, "a ENX b", ""},
		{[]string{"END"}, false, []string{"ENEN", "EN"}, "ENENEN", ""},
		{[]string{"b", "abc"}, false, []string{"xa", "bc"}, "x", "abc"},
		{[]string{"ab", "abc"}, false, []string{"xabc"}, "x", "abc"},
		{[]string{"世界"}, false, []string{"a世", "界b"}, "a", "世界"},
		{[]string{"aab"}, false, []string{"a", "a", "a", "b"}, "a", "aab"},
	}
	for _, x := range tests {
		s := stopper{stops: x.stops, include: x.include}
		got, stop := "", ""
		for _, p := range x.pieces {
			var out string
			if out, stop = s.push(p); stop != "" {
				got += out
				break
			}
			got += out
		}
		got += s.flush()
		require.Equal(t, x.want, got, x.pieces)
		require.Equal(t, x.stop, stop, x.pieces)
	}
}
