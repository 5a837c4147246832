// Package openai asks servers that speak OpenAI's HTTP, whichever they are, and reads their streams.
package openai

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
)

// Client asks one server.
type Client struct {
	Base string // http://host:port, with what is before /v1
	Key  string // shown as a bearer token; "" for none
	HTTP *http.Client
}

// Base makes a Client's Base of HOST:PORT or of a URL, which may end in /v1.
func Base(address string, https bool) (string, error) {
	if !strings.Contains(address, "://") {
		scheme := "http://"
		if https {
			scheme = "https://"
		}
		address = scheme + address
	}
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return "", fmt.Errorf("address %q: %w", address, errors.Unwrap(err))
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return "", fmt.Errorf("address is %q, want HOST:PORT or a URL of http or https", address)
	case u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return "", fmt.Errorf("address is %q, want no user, query or fragment", u.Redacted())
	}
	return strings.TrimSuffix(strings.TrimRight(u.String(), "/"), "/v1"), nil
}

// Message is one turn of a chat.
type Message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// Ask is a request for one text: to /v1/chat/completions where it has messages, else to /v1/completions.
type Ask struct {
	Model            string         `json:"model,omitempty"`
	Prompt           *string        `json:"prompt,omitempty"`
	Messages         any            `json:"messages,omitempty"` // []Message, or their JSON
	MaxTokens        *int           `json:"max_tokens,omitempty"`
	Temperature      *float64       `json:"temperature,omitempty"`
	TopK             *int           `json:"top_k,omitempty"`
	TopP             *float64       `json:"top_p,omitempty"`
	Seed             *int64         `json:"seed,omitempty"`
	IgnoreEOS        bool           `json:"ignore_eos,omitempty"`
	AddSpecialTokens *bool          `json:"add_special_tokens,omitempty"`
	Stream           bool           `json:"stream,omitempty"`
	StreamOptions    *StreamOptions `json:"stream_options,omitempty"`
}

// StreamOptions ask for the usage at the end of a stream.
type StreamOptions struct {
	IncludeUsage bool `json:"include_usage"`
}

// Usage counts tokens.
type Usage struct {
	Prompt     int `json:"prompt_tokens"`
	Completion int `json:"completion_tokens"`
}

// Answer is one text. Finish is "" and Usage nil where the server did not tell.
type Answer struct {
	Text   string
	Finish string
	Usage  *Usage
}

// Error is what a server says instead of an answer. Status is 200 where it came within a stream.
type Error struct {
	Status  int
	Message string
}

func (e *Error) Error() string { return fmt.Sprintf("Error %d: %s", e.Status, e.Message) }

// ErrMalformed is wrapped by errors of answers that are not OpenAI's.
var ErrMalformed = errors.New("malformed answer")

// limits of what is read of an error's text and of one event or answer, in bytes.
const (
	errorLimit  = 1 << 16
	answerLimit = 1 << 26
)

// Do asks and gives each piece of text as it comes. The answer holds what came also where an error ended it.
func (c *Client) Do(ctx context.Context, a Ask, each func(text string) error) (Answer, error) {
	path := "/v1/completions"
	if a.Messages != nil {
		path = "/v1/chat/completions"
	}
	r, err := c.Send(ctx, http.MethodPost, path, a)
	if err != nil {
		return Answer{}, err
	}
	defer r.Body.Close()
	if media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); media == "text/event-stream" {
		return follow(r.Body, each)
	}
	b, err := io.ReadAll(io.LimitReader(r.Body, answerLimit))
	if err != nil {
		return Answer{}, err
	}
	var answer Answer
	if err := answer.add(b, each); err != nil {
		return answer, err
	}
	if answer.Finish == "" && answer.Text == "" && answer.Usage == nil {
		return answer, fmt.Errorf("%w: no choice in %.100q", ErrMalformed, b)
	}
	return answer, nil
}

// Models are the names that the server knows its models by.
func (c *Client) Models(ctx context.Context) ([]string, error) {
	r, err := c.Send(ctx, http.MethodGet, "/v1/models", nil)
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	var list struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	if err := json.NewDecoder(io.LimitReader(r.Body, answerLimit)).Decode(&list); err != nil {
		return nil, fmt.Errorf("/v1/models: %w: %w", ErrMalformed, err)
	}
	var names []string
	for _, m := range list.Data {
		names = append(names, m.ID)
	}
	return names, nil
}

// Send sends a value, unless it is nil, as JSON. An answer that is not 200 is an *Error.
func (c *Client) Send(ctx context.Context, method, path string, value any) (*http.Response, error) {
	var body io.Reader
	if value != nil {
		b, err := json.Marshal(value)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, c.Base+path, body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if c.Key != "" {
		r.Header.Set("Authorization", "Bearer "+c.Key)
	}
	client := c.HTTP
	if client == nil {
		client = http.DefaultClient
	}
	response, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	if response.StatusCode == http.StatusOK {
		return response, nil
	}
	defer response.Body.Close()
	b, err := io.ReadAll(io.LimitReader(response.Body, errorLimit))
	if err != nil {
		b = nil // the status alone tells most
	}
	return nil, &Error{response.StatusCode, message(b, response.StatusCode)}
}

// message finds what an error's body says, in OpenAI's form or in Megatron's.
func message(body []byte, status int) string {
	var said struct {
		Error   json.RawMessage `json:"error"`
		Message string          `json:"message"`
	}
	_ = json.Unmarshal(body, &said) // what is not JSON is shown as it is
	var inner struct {
		Message string `json:"message"`
	}
	_ = json.Unmarshal(said.Error, &inner)
	text := strings.TrimSpace(string(body))
	var bare string
	switch {
	case inner.Message != "":
		return inner.Message
	case json.Unmarshal(said.Error, &bare) == nil && bare != "":
		return bare
	case said.Message != "":
		return said.Message
	case text == "":
		return http.StatusText(status)
	case len(text) > 400:
		return strings.ToValidUTF8(text[:400], "") + "…"
	}
	return text
}
