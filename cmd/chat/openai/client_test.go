package openai

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

func TestBase(t *testing.T) {
	for _, tt := range []struct {
		address string
		https   bool
		want    string // "" for an error
	}{
		{"localhost:5000", false, "http://localhost:5000"},
		{"localhost:5000", true, "https://localhost:5000"},
		{"[::1]:5000", false, "http://[::1]:5000"},
		{"https://example.org/v1", false, "https://example.org"},
		{"http://example.org/models/v1/", false, "http://example.org/models"},
		{"ftp://example.org", false, ""},
		{"http://:5000", false, ""},
		{"http://user:secret@example.org", false, ""},
		{"http://example.org/?a=b", false, ""},
		{"a b:c", false, ""},
		{"", false, ""},
	} {
		got, err := Base(tt.address, tt.https)
		require.Equal(t, tt.want, got, tt.address)
		require.Equal(t, tt.want == "", err != nil, tt.address)
		if err != nil {
			require.NotContains(t, err.Error(), "secret")
		}
	}
}

func TestFollow(t *testing.T) {
	long := strings.Repeat("x", 50_000)
	for _, tt := range []struct {
		name, stream string
		want         Answer
		pieces       int
		err          string // part of it
	}{
		{"chat with usage", "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n" +
			": keep-alive\n\nevent: x\ndata:{\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\r\n\r\n" +
			"data: {\"choices\":[{\"delta\":{\"content\":\"b\"},\"finish_reason\":\"stop\"}],\"usage\":null}\n\n" +
			"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n",
			Answer{"ab", "stop", &Usage{3, 2}}, 2, ""},
		{"completions", "data: {\"choices\":[{\"text\":\"a\"}]}\n\ndata: [DONE]\n\n", Answer{Text: "a"}, 1, ""},
		{"data on several lines", "data: {\"choices\":\ndata: [{\"text\":\"a\"}]}\n\ndata: [DONE]\n\n", Answer{Text: "a"}, 1, ""},
		{"a line longer than the buffer", "data: {\"choices\":[{\"text\":\"" + long + "\"}]}\n\ndata: [DONE]\n\n", Answer{Text: long}, 1, ""},
		{"only the first choice", "data: {\"choices\":[{\"index\":1,\"text\":\"b\"},{\"index\":0,\"text\":\"a\"}]}\n\ndata: [DONE]\n\n", Answer{Text: "a"}, 1, ""},
		{"ended without DONE", "data: {\"choices\":[{\"text\":\"a\",\"finish_reason\":\"length\"}]}\n\n", Answer{Text: "a", Finish: "length"}, 1, ""},
		{"cut", "data: {\"choices\":[{\"text\":\"a\"}]}\n\n", Answer{Text: "a"}, 1, "cut"},
		{"cut in an event", "data: {\"choices\":[{\"te", Answer{}, 0, "cut"},
		{"an error", "data: {\"choices\":[{\"text\":\"a\"}]}\n\ndata: {\"error\":{\"message\":\"no memory\"}}\n\n", Answer{Text: "a"}, 1, "Error 200: no memory"},
		{"not JSON", "data: hello\n\n", Answer{}, 0, "malformed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, r := range []io.Reader{strings.NewReader(tt.stream), iotest.OneByteReader(strings.NewReader(tt.stream))} {
				pieces := 0
				got, err := follow(r, func(string) error { pieces++; return nil })
				require.Equal(t, tt.want, got)
				require.Equal(t, tt.pieces, pieces)
				if tt.err == "" {
					require.NoError(t, err)
				} else {
					require.ErrorContains(t, err, tt.err)
				}
			}
		})
	}
	stop := errors.New("enough")
	_, err := follow(strings.NewReader("data: {\"choices\":[{\"text\":\"a\"}]}\n\n"), func(string) error { return stop })
	require.ErrorIs(t, err, stop)
}

func FuzzFollow(f *testing.F) {
	f.Add("data: {\"choices\":[{\"text\":\"a\"}]}\n\ndata: [DONE]\n\n")
	f.Add("data:\ndata\n:\n\n")
	f.Fuzz(func(t *testing.T, stream string) {
		var got strings.Builder
		a, _ := follow(strings.NewReader(stream), func(s string) error { got.WriteString(s); return nil })
		require.Equal(t, a.Text, got.String())
	})
}

func TestDo(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status int
		body   string
		want   Answer
		err    string
	}{
		{"whole answer", 200, `{"choices":[{"message":{"content":"a"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1}}`,
			Answer{"a", "stop", &Usage{1, 1}}, ""},
		{"OpenAI's error", 429, `{"error":{"message":"queue full","code":"overloaded"}}`, Answer{}, "Error 429: queue full"},
		{"an error that is a string", 404, `{"error":"no such model"}`, Answer{}, "Error 404: no such model"},
		{"Megatron's error", 405, `{"message": "The method is not allowed"}`, Answer{}, "Error 405: The method is not allowed"},
		{"a proxy's page", 502, "<h1>Bad Gateway</h1>\n", Answer{}, "Error 502: <h1>Bad Gateway</h1>"},
		{"nothing", 503, "", Answer{}, "Error 503: Service Unavailable"},
		{"another API", 200, `{"hello":1}`, Answer{}, "malformed answer: no choice"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				b, _ := io.ReadAll(r.Body)
				if r.Header.Get("Authorization") != "Bearer k" || r.URL.Path != "/v1/chat/completions" || string(b) != `{"messages":[{"role":"user","content":"hi"}],"max_tokens":0}` {
					t.Errorf("%s %s %s", r.URL, r.Header, b)
				}
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(tt.status)
				io.WriteString(w, tt.body)
			}))
			defer s.Close()
			c := Client{Base: s.URL, Key: "k"}
			got, err := c.Do(context.Background(), Ask{Messages: []Message{{"user", "hi"}}, MaxTokens: new(int)}, func(string) error { return nil })
			require.Equal(t, tt.want, got)
			if tt.err == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, tt.err)
			}
		})
	}
}
