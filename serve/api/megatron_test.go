package api

import (
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// recording is a run of Megatron's own server with a stub in place of the model.
type recording struct {
	Put []struct {
		Request     json.RawMessage `json:"request"`
		Status      int             `json:"status"`
		ContentType string          `json:"content_type"`
		Body        string          `json:"body"`
	} `json:"put_api"`
	Other []struct {
		Request     string `json:"request"`
		Status      int    `json:"status"`
		ContentType string `json:"content_type"`
		Body        string `json:"body"`
	} `json:"other"`
}

// stub answers as the recorder's stub did.
func stub(_ context.Context, a ask) (answer, error) {
	if a.tokens > 500 {
		return answer{}, errLong
	}
	var out answer
	for i := range max(len(a.prompts), a.beams) {
		out.text = append(out.text, a.prompts[min(i, len(a.prompts)-1)]+" out")
		out.segments = append(out.segments, []string{"a", "b", "c"})
		out.tokens = append(out.tokens, []int32{1, 2, 3})
		out.logprobs = append(out.logprobs, []float32{-0.5, -0.25})
		out.scores = append(out.scores, -0.125*float32(i+1))
	}
	return out, nil
}

// mended are requests that the recorded server answers with 500, and what we answer instead.
var mended = map[string]string{
	`{"prompts":[1]}`:      "\"prompts is not a list of strings\"\n",
	`{"prompts":[["hi"]]}`: "\"prompts is not a list of strings\"\n",
}

func TestMegatronRecordings(t *testing.T) {
	for name, era := range map[string]Era{"put_api_v2024": Era2024, "put_api_head": EraHead} {
		b, err := os.ReadFile("testdata/" + name + ".json")
		require.NoError(t, err)
		var rec recording
		require.NoError(t, json.Unmarshal(b, &rec))
		require.Len(t, rec.Put, 60)
		o := options(newFake(t))
		o.Megatron = era
		s := newServer(t, o)
		s.texts, s.beam = stub, stub
		for _, c := range rec.Put {
			body := string(c.Request)
			if strings.Contains(body, "129 x 'a'") {
				body = `{"prompts":["a"` + strings.Repeat(`,"a"`, 128) + `]}`
			}
			got := s.ask(t, "PUT", "/api", body)
			if want, ok := mended[compact(t, c.Request)]; ok {
				require.Equal(t, 500, c.Status)
				require.Equal(t, 400, got.status)
				require.Equal(t, want, got.body)
				continue
			}
			require.Equal(t, c.Status, got.status, "%s %s", name, body)
			require.Equal(t, c.ContentType, got.header.Get("Content-Type"), body)
			require.Equal(t, c.Body, got.body, "%s %s", name, body)
		}
	}
}

func compact(t *testing.T, raw json.RawMessage) string {
	var v any
	require.NoError(t, json.Unmarshal(raw, &v))
	b, err := json.Marshal(v)
	require.NoError(t, err)
	return string(b)
}

// TestMegatronOther replays what else was asked of the 2024 server. GET /api and unknown paths are left out:
// there an incomplete checkout answered with pages of its framework; here 405 and 404 are JSON.
func TestMegatronOther(t *testing.T) {
	b, err := os.ReadFile("testdata/put_api_v2024.json")
	require.NoError(t, err)
	var rec recording
	require.NoError(t, json.Unmarshal(b, &rec))
	s := newServer(t, options(newFake(t)))
	asks := map[string]func() reply{
		"PUT /api with body not JSON, application/json": func() reply { return s.ask(t, "PUT", "/api", "{") },
		"PUT /api valid JSON with text/plain":           func() reply { return s.ask(t, "PUT", "/api", "{}", "Content-Type", "text/plain") },
		"POST /api":                                     func() reply { return s.ask(t, "POST", "/api", "{}") },
		"OPTIONS /api":                                  func() reply { return s.ask(t, "OPTIONS", "/api", "") },
	}
	n := 0
	for _, c := range rec.Other {
		if do, ok := asks[c.Request]; ok {
			n++
			got := do()
			require.Equal(t, c.Status, got.status, c.Request)
			require.Equal(t, c.ContentType, got.header.Get("Content-Type"), c.Request)
			require.Equal(t, c.Body, got.body, c.Request)
			if strings.Contains(c.Body, "not allowed") || c.Request == "OPTIONS /api" {
				require.Equal(t, "OPTIONS, PUT", got.header.Get("Allow"))
			}
		}
	}
	require.Equal(t, len(asks), n)
	require.Equal(t, 405, s.ask(t, "GET", "/api", "").status)
	require.Equal(t, 404, s.ask(t, "PUT", "/nope", "{}").status)
}
