package main

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// scrape reads the metrics: the name with its further labels, sorted as they are written, to its value.
func (s *server) scrape(t *testing.T) map[string]float64 {
	resp, err := http.Get(s.base + "/metrics")
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	all := map[string]float64{}
	for line := range strings.Lines(string(body)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "} ")
		if !ok || !strings.HasPrefix(name, "vllm:") && !strings.HasPrefix(name, "mix_") {
			continue
		}
		require.Contains(t, name, `engine="0"`)
		require.Contains(t, name, `model_name="demo"`)
		name = strings.NewReplacer(`engine="0"`, "", `model_name="demo"`, "", ",", "").Replace(name)
		v, err := strconv.ParseFloat(value, 64)
		require.NoError(t, err, line)
		all[strings.TrimSuffix(name, "{")] = v
	}
	return all
}

// TestMetricsAfterLoad holds every number that dashboards read to what was asked for and answered.
func TestMetricsAfterLoad(t *testing.T) {
	began := time.Now()
	s := inside(t, "--max-concurrent", "4", "--speculative-ngram", "3")
	s.ready(t)
	const requests = 24
	var mu sync.Mutex
	var prompt, made, cached float64
	var clients sync.WaitGroup
	for client := range 6 {
		clients.Go(func() {
			for i := range requests / 6 {
				var got struct {
					Usage struct {
						Prompt  float64 `json:"prompt_tokens"`
						Made    float64 `json:"completion_tokens"`
						Details struct {
							Cached float64 `json:"cached_tokens"`
						} `json:"prompt_tokens_details"`
					}
				}
				text := strings.Repeat("and the earth was without form, and void; ", 9) + strings.Repeat("x ", client)
				s.call(t, http.MethodPost, "/v1/completions", map[string]any{"prompt": text, "max_tokens": 10 + i, "temperature": 0, "ignore_eos": true}, &got)
				mu.Lock()
				prompt, made, cached = prompt+got.Usage.Prompt, made+got.Usage.Made, cached+got.Usage.Details.Cached
				mu.Unlock()
			}
		})
	}
	clients.Wait()
	m := s.scrape(t)
	for name, want := range map[string]float64{
		"vllm:num_requests_running": 0, "vllm:num_requests_waiting": 0, "vllm:kv_cache_usage_perc": 0, "vllm:num_preemptions_total": 0,
		"vllm:prompt_tokens_total": prompt, "vllm:generation_tokens_total": made,
		"vllm:prefix_cache_queries_total": prompt, "vllm:prefix_cache_hits_total": cached,
		`vllm:request_success_total{finished_reason="length"`: requests, `vllm:request_success_total{finished_reason="error"`: 0,
		`vllm:request_success_total{finished_reason="stop"`: 0, `vllm:request_success_total{finished_reason="abort"`: 0,
		"vllm:time_to_first_token_seconds_count": requests, "vllm:inter_token_latency_seconds_count": made - requests,
		"vllm:e2e_request_latency_seconds_count": requests, "vllm:request_queue_time_seconds_count": requests,
		"vllm:request_prefill_time_seconds_count": requests, "vllm:request_decode_time_seconds_count": requests,
	} {
		got, found := m[name]
		require.True(t, found, "no metric %s", name)
		require.Equal(t, want, got, name)
	}
	require.Positive(t, m["vllm:prefix_cache_hits_total"], "all begin alike")
	whole, first := m["vllm:e2e_request_latency_seconds_sum"], m["vllm:time_to_first_token_seconds_sum"]
	queue, prefill, decode := m["vllm:request_queue_time_seconds_sum"], m["vllm:request_prefill_time_seconds_sum"], m["vllm:request_decode_time_seconds_sum"]
	for _, x := range []float64{queue, prefill, decode} {
		require.Positive(t, x)
	}
	require.Less(t, queue+prefill, first+0.1)
	require.InDelta(t, whole, first+decode, 0.1)
	require.InDelta(t, decode, m["vllm:inter_token_latency_seconds_sum"], 0.1)

	proposed, accepted := m["vllm:spec_decode_num_draft_tokens_total"], m["vllm:spec_decode_num_accepted_tokens_total"]
	require.Positive(t, proposed)
	require.LessOrEqual(t, accepted, proposed)
	require.Positive(t, m["mix_program_seconds_total"])
	require.Less(t, m["mix_program_seconds_total"], time.Since(began).Seconds())
	require.Positive(t, m["mix_compile_cache_hits_total"]+m["mix_compile_cache_misses_total"])
	layers := map[string]float64{}
	for name, n := range m {
		if of, ok := strings.CutPrefix(name, "mix_expert_tokens_total{expert="); ok {
			_, layer, _ := strings.Cut(of, "layer=")
			layers[layer] += n
		}
	}
	require.Len(t, layers, 4)
	for _, n := range layers {
		require.Equal(t, layers[`"0"`], n, "each layer sends each token to as many experts")
		require.GreaterOrEqual(t, n, 2*(prompt-cached+made-requests), "the last token of a text is not computed")
	}
	s.stop()
	require.Zero(t, s.wait(t), s.String())
}
