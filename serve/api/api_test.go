package api

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"
	"github.com/stretchr/testify/require"

	"mix/serve/infer"
)

// options are those of tests: the model "mixtral", no logs.
func options(f *fake) Options {
	return Options{Engine: f, Tokenizer: f.t, Model: "mixtral", Aliases: []string{"mistralai/Mixtral"}, Version: "test",
		Log: slog.New(slog.DiscardHandler), Created: time.Unix(1700000000, 0)}
}

func newServer(t testing.TB, o Options) *Server {
	t.Helper()
	s, err := New(o)
	require.NoError(t, err)
	return s
}

// reply is an answer whose body was read.
type reply struct {
	status int
	header http.Header
	body   string
}

func (r reply) json(t testing.TB) map[string]any {
	t.Helper()
	var v map[string]any
	require.NoError(t, json.Unmarshal([]byte(r.body), &v), r.body)
	return v
}

// at walks down maps and lists.
func (r reply) at(t testing.TB, path ...any) any {
	t.Helper()
	var v any = r.json(t)
	for _, p := range path {
		switch p := p.(type) {
		case string:
			v = v.(map[string]any)[p]
		case int:
			v = v.([]any)[p]
		}
	}
	return v
}

// ask sends a request and holds the answer to the OpenAPI document.
func (s *Server) ask(t testing.TB, method, path, body string, headers ...string) reply {
	t.Helper()
	r := httptest.NewRequest(method, "http://localhost"+path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
		}
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	out := reply{w.Code, w.Header(), w.Body.String()}
	checkDocument(t, r, out)
	return out
}

var contract = sync.OnceValues(func() (routers.Router, error) {
	doc, err := openapi3.NewLoader().LoadFromData(Document())
	if err != nil {
		return nil, err
	}
	openapi3filter.RegisterBodyDecoder("text/event-stream", openapi3filter.PlainBodyDecoder)
	if err := doc.Validate(context.Background()); err != nil {
		return nil, err
	}
	return legacy.NewRouter(doc)
})

// checkDocument validates an answer of a documented path.
func checkDocument(t testing.TB, r *http.Request, got reply) {
	t.Helper()
	router, err := contract()
	require.NoError(t, err)
	route, params, err := router.FindRoute(r)
	if err != nil {
		return // 404 and 405 of paths and methods that are not in the document
	}
	in := &openapi3filter.RequestValidationInput{Request: r, PathParams: params, Route: route}
	err = openapi3filter.ValidateResponse(r.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: in, Status: got.status, Header: got.header, Body: io.NopCloser(strings.NewReader(got.body)),
		Options: &openapi3filter.Options{IncludeResponseStatus: true},
	})
	require.NoError(t, err, "%s %s: %d %s", r.Method, r.URL.Path, got.status, got.body)
	if strings.HasPrefix(got.header.Get("Content-Type"), "text/event-stream") {
		checkEvents(t, r.URL.Path, got.body)
	}
}

// checkEvents validates each chunk of a stream of OpenAI's routes.
func checkEvents(t testing.TB, path, body string) {
	t.Helper()
	name := map[string]string{"/v1/completions": "Completion", "/v1/chat/completions": "ChatChunk"}[path]
	if name == "" {
		return
	}
	doc, err := openapi3.NewLoader().LoadFromData(Document())
	require.NoError(t, err)
	for _, data := range chunks(body) {
		var v map[string]any
		require.NoError(t, json.Unmarshal([]byte(data), &v), data)
		if v["error"] != nil {
			name = "Error"
		}
		require.NoError(t, doc.Components.Schemas[name].Value.VisitJSON(v), data)
	}
}

// chunks are the data of events, without the last word.
func chunks(body string) []string {
	var out []string
	for line := range strings.Lines(body) {
		if data, ok := strings.CutPrefix(strings.TrimSpace(line), "data: "); ok && data != "[DONE]" {
			out = append(out, data)
		}
	}
	return out
}

func TestCompletion(t *testing.T) {
	f := newFake(t)
	f.says("Hello there, world")
	s := newServer(t, options(f))
	got := s.ask(t, "POST", "/v1/completions", `{"model":"mixtral","prompt":"Say hello.","temperature":0,"seed":7}`)
	require.Equal(t, 200, got.status)
	require.Equal(t, " Hello there, world", got.at(t, "choices", 0, "text"))
	require.Equal(t, "stop", got.at(t, "choices", 0, "finish_reason"))
	require.EqualValues(t, f.t.EOS(), got.at(t, "choices", 0, "stop_reason"))
	require.EqualValues(t, 5, got.at(t, "usage", "prompt_tokens"))
	r := f.requests()[0]
	require.Equal(t, f.t.BOS(), r.Prompt[0])
	require.Equal(t, infer.Sampling{TopP: 1, Repetition: 1, Seed: 7}, r.Sampling)
	require.Equal(t, 16, r.Max)
}

func TestStreamAndWholeAreEqual(t *testing.T) {
	f := newFake(t)
	s := newServer(t, options(f))
	for _, text := range []string{"Grüße, 世界! 🙂🙃 STO STOP now", "🙂STOP", "plain", "", "almost STO"} {
		f.says(text)
		for _, body := range []string{
			`{"prompt":"a","max_tokens":100,"stop":["STOP","世界? no"],"logprobs":2`,
			`{"prompt":["a","b c"],"n":2,"max_tokens":100,"stop":"STOP","echo":true`,
			`{"prompt":"a","max_tokens":100,"stop":["TOP"],"include_stop_str_in_output":true`,
			`{"prompt":"a","max_tokens":3,"return_token_ids":true,"return_experts":true`,
		} {
			whole := s.ask(t, "POST", "/v1/completions", body+`}`)
			require.Equal(t, 200, whole.status, whole.body)
			stream := s.ask(t, "POST", "/v1/completions", body+`,"stream":true,"stream_options":{"include_usage":true}}`)
			require.Equal(t, 200, stream.status)
			require.True(t, strings.HasSuffix(stream.body, "data: [DONE]\n\n"), stream.body)
			require.NotContains(t, stream.body, "\ufffd")
			joined := map[int]*completionChoice{}
			var last completionAnswer
			for _, data := range chunks(stream.body) {
				last = completionAnswer{}
				require.NoError(t, json.Unmarshal([]byte(data), &last))
				for _, c := range last.Choices {
					if joined[c.Index] == nil {
						joined[c.Index] = &completionChoice{}
					}
					x := joined[c.Index]
					x.Text += c.Text
					x.TokenIDs = append(x.TokenIDs, c.TokenIDs...)
					x.Experts = append(x.Experts, c.Experts...)
					if c.LogProbs != nil {
						if x.LogProbs == nil {
							x.LogProbs = &legacyLogProbs{}
						}
						x.LogProbs.Tokens = append(x.LogProbs.Tokens, c.LogProbs.Tokens...)
						x.LogProbs.Offsets = append(x.LogProbs.Offsets, c.LogProbs.Offsets...)
					}
					if c.Finish != nil {
						x.Finish, x.Stop = c.Finish, c.Stop
					}
				}
			}
			var want completionAnswer
			require.NoError(t, json.Unmarshal([]byte(whole.body), &want))
			require.Equal(t, want.Usage, last.Usage)
			require.Len(t, joined, len(want.Choices))
			for i, w := range want.Choices {
				require.Equal(t, w.Text, joined[i].Text)
				require.Equal(t, w.Finish, joined[i].Finish)
				require.Equal(t, w.Stop, joined[i].Stop)
				require.Equal(t, w.TokenIDs, joined[i].TokenIDs)
				require.Equal(t, w.Experts, joined[i].Experts)
				if w.LogProbs != nil {
					require.Equal(t, append([]string{}, w.LogProbs.Tokens...), append([]string{}, joined[i].LogProbs.Tokens...))
					require.Equal(t, append([]int{}, w.LogProbs.Offsets...), append([]int{}, joined[i].LogProbs.Offsets...))
				}
			}
		}
	}
}
