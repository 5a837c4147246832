package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"mix/graph/token"
	"mix/serve/infer"
)

// failure is an error that a client is told of.
type failure struct {
	status  int
	code    string // stable, for programs; "" is null
	param   string // the field at fault; "" is null
	message string
	err     error // what it comes from, for the log
}

func (f *failure) Error() string {
	if f.err != nil {
		return f.err.Error()
	}
	return f.message
}

func (f *failure) Unwrap() error { return f.err }

// refuse is a 400 for a field.
func refuse(param, format string, args ...any) *failure {
	return &failure{status: http.StatusBadRequest, param: param, message: fmt.Sprintf(format, args...)}
}

var (
	errNotReady = errors.New("the model is being prepared")
	errFailed   = errors.New("the engine has failed, the server has to be started again")
	errGone     = errors.New("the client is gone")
	errPanic    = errors.New("panic")
)

// answers maps errors to HTTP, first match wins. An error not listed is our fault: the client sees 500 and
// no detail, the log sees everything.
var answers = []struct {
	err    error
	status int
	code   string
	param  string
}{
	{infer.ErrTooLong, http.StatusBadRequest, "context_length_exceeded", ""},
	{infer.ErrRequest, http.StatusBadRequest, "", ""},
	{infer.ErrBusy, http.StatusTooManyRequests, "overloaded", ""},
	{infer.ErrDraining, http.StatusServiceUnavailable, "shutting_down", ""},
	{errFailed, http.StatusServiceUnavailable, "engine_failed", ""},
	{errNotReady, http.StatusServiceUnavailable, "not_ready", ""},
	{token.ErrChat, http.StatusBadRequest, "", "messages"},
	{context.DeadlineExceeded, http.StatusGatewayTimeout, "timeout", ""},
	{errGone, statusGone, "", ""},
}

// statusGone is logged for clients that left; nobody receives it.
const statusGone = 499

// asFailure finds what a client is told of an error.
func asFailure(err error) *failure {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	for _, a := range answers {
		if errors.Is(err, a.err) {
			return &failure{status: a.status, code: a.code, param: a.param, message: err.Error(), err: err}
		}
	}
	return &failure{status: http.StatusInternalServerError, code: "internal_error", message: "internal error", err: err}
}

// shape is the form in which a route's clients expect errors.
type shape int

const (
	openAI shape = iota
	anthropic
	flask // Megatron's framework
)

// kinds are the types of errors in the two dialects.
func (f *failure) kind(s shape) string {
	type pair struct{ openAI, anthropic string }
	p, ok := map[int]pair{
		http.StatusUnauthorized:          {"authentication_error", "authentication_error"},
		http.StatusForbidden:             {"permission_error", "permission_error"},
		http.StatusNotFound:              {"invalid_request_error", "not_found_error"},
		http.StatusRequestEntityTooLarge: {"invalid_request_error", "request_too_large"},
		http.StatusTooManyRequests:       {"rate_limit_error", "rate_limit_error"},
		http.StatusServiceUnavailable:    {"server_error", "overloaded_error"},
		http.StatusGatewayTimeout:        {"server_error", "timeout_error"},
		http.StatusInternalServerError:   {"server_error", "api_error"},
	}[f.status]
	if !ok {
		p = pair{"invalid_request_error", "invalid_request_error"}
	}
	if s == anthropic {
		return p.anthropic
	}
	return p.openAI
}

// body is the failure as JSON in a shape.
func (f *failure) body(s shape, id string) any {
	message := short(f.message, 400)
	if s == anthropic {
		return map[string]any{"type": "error", "request_id": id, "error": map[string]any{"type": f.kind(s), "message": message}}
	}
	return map[string]any{"error": map[string]any{
		"message": message, "type": f.kind(s), "param": orNull(f.param), "code": orNull(f.code),
	}}
}

// write answers a request with the failure.
func (f *failure) write(w http.ResponseWriter, s shape) {
	h := w.Header()
	if f.status == http.StatusTooManyRequests || f.status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	}
	if f.code == "shutting_down" {
		h.Set("Connection", "close")
	}
	if f.status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
	if s == flask {
		f.writeFlask(w)
		return
	}
	writeJSON(w, f.status, f.body(s, h.Get(requestID)))
}

// writeFlask writes the failure byte for byte as Megatron's framework does: unlike its answers, with a space.
func (f *failure) writeFlask(w http.ResponseWriter) {
	text, _ := encode(short(f.message, 400)) // a string is always JSON
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(f.status)
	_, _ = fmt.Fprintf(w, "{\"message\": %s}\n", ascii(text)) // a client that left is no error
}

// writeJSON answers with a value, written as compact JSON.
func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := encode(v)
	if err != nil {
		status, b = http.StatusInternalServerError, []byte(`{"error":{"message":"internal error","type":"server_error","param":null,"code":"internal_error"}}`)
	}
	b = append(b, '\n')
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	_, _ = w.Write(b) // a client that left is no error
}

// encode is json.Marshal without the escapes that are for HTML.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// short cuts a text to at most n bytes, between characters, so that messages echo little of what came in.
func short(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return strings.ToValidUTF8(s[:n], "?") + "…"
}
