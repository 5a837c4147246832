package main

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// call sends a JSON body and reads a JSON answer.
func (s *server) call(t *testing.T, method, path string, body, into any) {
	b, err := json.Marshal(body)
	require.NoError(t, err)
	q, err := http.NewRequest(method, s.base+path, strings.NewReader(string(b)))
	require.NoError(t, err)
	q.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(q)
	require.NoError(t, err)
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, resp.StatusCode, string(got))
	require.NoError(t, json.Unmarshal(got, into), string(got))
}

// TestWideBeams asks for more beams than an engine reports tokens: those of one step are the likeliest tokens, which a
// client finds one by one when it forbids those it knows.
func TestWideBeams(t *testing.T) {
	s := inside(t, "--max-concurrent", "4", "--max-queue", "40")
	s.ready(t)
	const prompt, width, reported = "In the beginning", 26, 20
	var ids struct{ Tokens []int }
	s.call(t, http.MethodPost, "/tokenize", map[string]any{"prompt": prompt, "add_special_tokens": false}, &ids)

	// What is told of a token more in the prompt is what may come after the prompt.
	var told struct {
		Choices []struct {
			PromptLogProbs []map[string]struct{ LogProb float64 } `json:"prompt_logprobs"`
		}
	}
	s.call(t, http.MethodPost, "/v1/completions", map[string]any{"prompt": append(ids.Tokens, 0), "max_tokens": 0, "prompt_logprobs": reported}, &told)
	places := told.Choices[0].PromptLogProbs
	known := map[string]float64{}
	for id, p := range places[len(places)-1] {
		if id != "0" {
			known[id] = p.LogProb
		}
	}
	require.Len(t, known, reported)
	for len(known) < width {
		bias := map[string]float64{}
		for id := range known {
			bias[id] = -100
		}
		var next struct {
			Choices []struct {
				TokenIDs []int `json:"token_ids"`
				LogProbs struct {
					Chosen []float64 `json:"token_logprobs"`
				} `json:"logprobs"`
			}
		}
		s.call(t, http.MethodPost, "/v1/completions", map[string]any{"prompt": ids.Tokens, "max_tokens": 1, "temperature": 0, "logprobs": 0,
			"ignore_eos": true, "return_token_ids": true, "logit_bias": bias}, &next)
		known[strconv.Itoa(next.Choices[0].TokenIDs[0])] = next.Choices[0].LogProbs.Chosen[0]
	}
	want := slices.Sorted(maps.Values(known))
	slices.Reverse(want)

	var beams struct {
		Scores   []float64
		Segments [][]string
	}
	s.call(t, http.MethodPut, "/api", map[string]any{"prompts": []string{prompt}, "tokens_to_generate": 1, "beam_width": width}, &beams)
	require.InDeltaSlice(t, want, beams.Scores, 1e-5)
	s.call(t, http.MethodPut, "/api", map[string]any{"prompts": []string{prompt}, "tokens_to_generate": 4, "beam_width": 64}, &beams)
	require.Len(t, beams.Scores, 64, "more than the queue holds")
	texts := map[string]bool{}
	for _, x := range beams.Segments {
		texts[strings.Join(x, "|")] = true
	}
	require.Len(t, texts, 64)
	s.stop()
	require.Zero(t, s.wait(t), s.String())
}
