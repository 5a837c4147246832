package api

import (
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"mix/serve/infer"
)

// Stats is what an engine knows of itself at one moment. Counts only grow.
type Stats struct {
	Running, Waiting          int     // requests
	CacheUsage                float64 // of the KV blocks, 0 to 1
	Preemptions               uint64
	PrefixQueries, PrefixHits uint64     // tokens looked for in the prefix cache, and found
	ExpertTokens              [][]uint64 // [layer][expert] tokens routed
	CompileHits, CompileMiss  uint64     // of the cache of compiled programs
	ProgramSeconds            float64    // the device spent in programs
	Proposed, Accepted        uint64     // tokens guessed by speculation, and those that were right
}

// Metrics counts for Prometheus, in the names that dashboards of vLLM know, and ours beside them.
type Metrics struct {
	Registry *prometheus.Registry

	labels                  prometheus.Labels
	prompt, generation      prometheus.Counter
	success                 *prometheus.CounterVec
	first, between, whole   prometheus.Histogram
	queue, prefill, decoded prometheus.Histogram
}

// NewMetrics returns the metrics of a model. The engine tells Queued and Prefilled; the server all else.
func NewMetrics(model string) *Metrics {
	m := &Metrics{Registry: prometheus.NewRegistry(), labels: prometheus.Labels{"model_name": model, "engine": "0"}}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "vllm:" + name, Help: help, ConstLabels: m.labels})
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: "vllm:" + name, Help: help, ConstLabels: m.labels, Buckets: buckets})
	}
	long := []float64{.003, .01, .03, .1, .3, .5, .8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480}
	m.prompt = counter("prompt_tokens_total", "Tokens of prompts.")
	m.generation = counter("generation_tokens_total", "Tokens generated.")
	m.success = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "vllm:request_success_total",
		Help: "Texts that ended, by reason.", ConstLabels: m.labels}, []string{"finished_reason"})
	m.first = histogram("time_to_first_token_seconds", "From the request to its first token.",
		[]float64{.001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80})
	m.between = histogram("inter_token_latency_seconds", "Between two tokens of a text.",
		[]float64{.001, .0025, .005, .01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1, 2.5, 5, 10})
	m.whole = histogram("e2e_request_latency_seconds", "From the request to its end.", long)
	m.queue = histogram("request_queue_time_seconds", "Waiting for a slot.", long)
	m.prefill = histogram("request_prefill_time_seconds", "From the slot to the first token.", long)
	m.decoded = histogram("request_decode_time_seconds", "From the first token to the end.", long)
	m.Registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.Registry.MustRegister(m.prompt, m.generation, m.success, m.first, m.between, m.whole, m.queue, m.prefill, m.decoded)
	for _, f := range []infer.Finish{infer.FinishStop, infer.FinishLength, infer.FinishCancelled, infer.FinishError} {
		m.success.WithLabelValues(string(f))
	}
	return m
}

// Queued notes how long a request waited for a slot.
func (m *Metrics) Queued(d time.Duration) { m.queue.Observe(d.Seconds()) }

// Prefilled notes how long a request's prompt took.
func (m *Metrics) Prefilled(d time.Duration) { m.prefill.Observe(d.Seconds()) }

// token notes that a token of a text has come, before it is counted there. The nil Metrics note nothing.
func (m *Metrics) token(t *text) {
	if m == nil {
		return
	}
	if t.generated == 0 {
		m.first.Observe(t.begun.Sub(t.start).Seconds())
	} else {
		m.between.Observe(time.Since(t.last).Seconds())
	}
	m.generation.Inc()
}

// ended notes the end of a text.
func (m *Metrics) ended(t *text, e *ending) {
	if m == nil {
		return
	}
	m.end(t.start, len(t.job.Prompt), e.finish)
	if t.generated > 0 {
		m.decoded.Observe(time.Since(t.begun).Seconds())
	}
}

// made notes a text that was made in many requests to the engine, none of which is counted.
func (m *Metrics) made(start time.Time, prompt, generated int, finish infer.Finish) {
	m.generation.Add(float64(generated))
	m.end(start, prompt, finish)
}

func (m *Metrics) end(start time.Time, prompt int, finish infer.Finish) {
	m.prompt.Add(float64(prompt))
	m.success.WithLabelValues(string(finish)).Inc()
	m.whole.Observe(time.Since(start).Seconds())
}

// engineStats reads an engine's own numbers whenever they are asked for.
type engineStats struct {
	read  func() Stats
	descs []*prometheus.Desc
	load  *prometheus.Desc
}

// watch adds an engine's numbers.
func (m *Metrics) watch(read func() Stats) error {
	e := &engineStats{read: read}
	for _, v := range values {
		e.descs = append(e.descs, prometheus.NewDesc(v.name, v.help, nil, m.labels))
	}
	e.load = prometheus.NewDesc("mix_expert_tokens_total", "Tokens routed to an expert.", []string{"layer", "expert"}, m.labels)
	return m.Registry.Register(e)
}

// values are the numbers of Stats, each with its name.
var values = []struct {
	name, help string
	kind       prometheus.ValueType
	of         func(Stats) float64
}{
	{"vllm:num_requests_running", "Requests in slots.", prometheus.GaugeValue, func(s Stats) float64 { return float64(s.Running) }},
	{"vllm:num_requests_waiting", "Requests in the queue.", prometheus.GaugeValue, func(s Stats) float64 { return float64(s.Waiting) }},
	{"vllm:kv_cache_usage_perc", "Share of the KV blocks in use, 0 to 1.", prometheus.GaugeValue, func(s Stats) float64 { return s.CacheUsage }},
	{"vllm:num_preemptions_total", "Requests put back for want of blocks.", prometheus.CounterValue, func(s Stats) float64 { return float64(s.Preemptions) }},
	{"vllm:prefix_cache_queries_total", "Tokens looked for in the prefix cache.", prometheus.CounterValue, func(s Stats) float64 { return float64(s.PrefixQueries) }},
	{"vllm:prefix_cache_hits_total", "Tokens found in the prefix cache.", prometheus.CounterValue, func(s Stats) float64 { return float64(s.PrefixHits) }},
	{"vllm:spec_decode_num_draft_tokens_total", "Tokens proposed by speculation.", prometheus.CounterValue, func(s Stats) float64 { return float64(s.Proposed) }},
	{"vllm:spec_decode_num_accepted_tokens_total", "Proposed tokens that were drawn.", prometheus.CounterValue, func(s Stats) float64 { return float64(s.Accepted) }},
	{"mix_compile_cache_hits_total", "Programs found in the compile cache.", prometheus.CounterValue, func(s Stats) float64 { return float64(s.CompileHits) }},
	{"mix_compile_cache_misses_total", "Programs that were compiled.", prometheus.CounterValue, func(s Stats) float64 { return float64(s.CompileMiss) }},
	{"mix_program_seconds_total", "Time of the device in programs.", prometheus.CounterValue, func(s Stats) float64 { return s.ProgramSeconds }},
}

// Describe and Collect make engineStats a prometheus.Collector.
func (e *engineStats) Describe(out chan<- *prometheus.Desc) {
	for _, d := range e.descs {
		out <- d
	}
	out <- e.load
}

// Collect sends the numbers of this moment.
func (e *engineStats) Collect(out chan<- prometheus.Metric) {
	// The registry collects in goroutines of its own, where a panic would end the process.
	defer func() {
		if v := recover(); v != nil {
			out <- prometheus.NewInvalidMetric(e.load, fmt.Errorf("%w: %v", errPanic, v))
		}
	}()
	s := e.read()
	for i, v := range values {
		out <- prometheus.MustNewConstMetric(e.descs[i], v.kind, v.of(s))
	}
	for l, experts := range s.ExpertTokens {
		for k, n := range experts {
			out <- prometheus.MustNewConstMetric(e.load, prometheus.CounterValue, float64(n), strconv.Itoa(l), strconv.Itoa(k))
		}
	}
}

// scrape handles GET /metrics.
func (s *Server) scrape(w http.ResponseWriter, r *http.Request) error {
	promhttp.HandlerFor(s.metrics.Registry, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, // what can be told is told
		ErrorLog:      slog.NewLogLogger(s.o.Log.Handler(), slog.LevelError),
	}).ServeHTTP(w, r)
	return nil
}
