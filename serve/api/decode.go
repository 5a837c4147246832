package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"strings"
	"time"
)

// readJSON decodes the body of a request. Errors are failures: 415, 413 or 400 with the field.
func (s *Server) readJSON(w http.ResponseWriter, r *http.Request, into any) error {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/json" && !(strings.HasPrefix(media, "application/") && strings.HasSuffix(media, "+json")) {
		return &failure{status: http.StatusUnsupportedMediaType, code: "unsupported_media_type",
			message: "Content-Type is " + short(r.Header.Get("Content-Type"), 60) + ", want application/json"}
	}
	b, err := s.readBody(w, r)
	if tooBig, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return &failure{status: http.StatusRequestEntityTooLarge, code: "request_too_large",
			message: "the body is larger than " + itoa(tooBig.Limit) + " bytes"}
	}
	switch over := ended(r.Context()); {
	case err == nil:
		return parse(b, into)
	case r.Context().Err() != nil && (over != errGone || !errors.Is(err, os.ErrDeadlineExceeded)):
		return over
	case errors.Is(err, os.ErrDeadlineExceeded): // which ends the context too, as if the client had left
		return &failure{status: http.StatusBadRequest, message: "the body did not come within " + s.o.Read.String(), err: err}
	}
	return &failure{status: http.StatusBadRequest, message: "the body could not be read", err: err}
}

// readBody reads all of a body, as long as the request may be at work: a client that stops sending is given up.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	// Writers of tests and of some wrappers know no deadlines; then there are none.
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Now().Add(s.o.Read))
	stop := context.AfterFunc(r.Context(), func() { _ = c.SetReadDeadline(time.Now()) })
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.o.Body))
	if stop() && err == nil {
		_ = c.SetReadDeadline(time.Time{}) // from now on reading only notes that the client leaves
	}
	return b, err
}

// parse decodes one JSON value.
func parse(b []byte, into any) error {
	if bytes.Equal(bytes.TrimSpace(b), []byte("null")) {
		return refuse("", "the body is null, want a JSON object")
	}
	err := json.Unmarshal(b, into)
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		field := strings.TrimPrefix(strings.TrimPrefix(wrong.Field, "params."), "params")
		return refuse(field, "%s is a JSON %s, want %s", orBody(field), short(wrong.Value, 40), wanted(wrong))
	}
	if err != nil {
		return refuse("", "the body is not JSON: %s", short(err.Error(), 100))
	}
	return nil
}

func orBody(field string) string {
	if field == "" {
		return "the body"
	}
	return field
}

// wanted names a Go type in the words of JSON.
func wanted(e *json.UnmarshalTypeError) string {
	switch kind := e.Type.Kind().String(); {
	case strings.HasPrefix(kind, "int"), strings.HasPrefix(kind, "uint"):
		return "an integer"
	case strings.HasPrefix(kind, "float"):
		return "a number"
	case kind == "bool":
		return "true or false"
	case kind == "slice":
		return "a list"
	case kind == "string":
		return "a string"
	}
	return "an object"
}

// absent tells whether a field was left out or null.
func absent(raw json.RawMessage) bool { return len(raw) == 0 || bytes.Equal(raw, []byte("null")) }

// one decodes raw into v and tells whether it fits.
func one(raw json.RawMessage, v any) bool { return json.Unmarshal(raw, v) == nil }

// newID returns n random letters and digits.
func newID(n int) string {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	for i, c := range b {
		b[i] = letters[int(c)%len(letters)]
	}
	return string(b)
}
