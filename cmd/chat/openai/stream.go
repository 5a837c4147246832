package openai

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// ErrCut is the error of a stream that ends without its end having been told.
var ErrCut = errors.New("the stream was cut")

// follow reads a stream of events until [DONE].
func follow(r io.Reader, each func(string) error) (a Answer, err error) {
	events := reader{in: bufio.NewReaderSize(r, 1<<14)}
	for {
		data, err := events.next()
		switch {
		case errors.Is(err, io.EOF) && a.Finish != "": // some servers send no [DONE]
			return a, nil
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return a, ErrCut
		case err != nil:
			return a, err
		case string(data) == "[DONE]":
			return a, nil
		}
		if err := a.add(data, each); err != nil {
			return a, err
		}
	}
}

// add takes an answer, or one event of a streamed one.
func (a *Answer) add(data []byte, each func(string) error) error {
	type text struct {
		Content string `json:"content"`
	}
	var e struct {
		Error   json.RawMessage `json:"error"`
		Usage   *Usage          `json:"usage"`
		Choices []struct {
			Index   int     `json:"index"`
			Text    string  `json:"text"`
			Message text    `json:"message"`
			Delta   text    `json:"delta"`
			Finish  *string `json:"finish_reason"`
		} `json:"choices"`
	}
	if err := json.Unmarshal(data, &e); err != nil {
		return fmt.Errorf("%w: %w in %.100q", ErrMalformed, err, data)
	}
	if len(e.Error) > 0 && string(e.Error) != "null" {
		return &Error{http.StatusOK, message(data, http.StatusOK)}
	}
	if e.Usage != nil {
		a.Usage = e.Usage
	}
	for _, c := range e.Choices {
		if c.Index != 0 {
			continue
		}
		if c.Finish != nil {
			a.Finish = *c.Finish
		}
		piece := c.Text + c.Message.Content + c.Delta.Content // one of them
		if piece == "" {
			continue
		}
		a.Text += piece
		if err := each(piece); err != nil {
			return err
		}
	}
	return nil
}

// reader splits a stream into events. Lines end in \n or \r\n.
type reader struct {
	in   *bufio.Reader
	line []byte
	data []byte
}

// next is the data of the next event that has any, until the call after. Comments and other fields are passed over.
func (r *reader) next() ([]byte, error) {
	r.data = r.data[:0]
	some := false
	for {
		line, err := r.read()
		if err != nil {
			return nil, err
		}
		if len(line) == 0 {
			if some {
				return r.data, nil
			}
			continue
		}
		value, is := bytes.CutPrefix(line, []byte("data:"))
		if !is {
			continue
		}
		if some {
			r.data = append(r.data, '\n')
		}
		some = true
		r.data = append(r.data, bytes.TrimPrefix(value, []byte(" "))...)
		if len(r.data) > answerLimit {
			return nil, fmt.Errorf("%w: an event of more than %d bytes", ErrMalformed, answerLimit)
		}
	}
}

func (r *reader) read() ([]byte, error) {
	r.line = r.line[:0]
	for {
		part, err := r.in.ReadSlice('\n')
		r.line = append(r.line, part...)
		switch {
		case err == nil:
			return bytes.TrimSuffix(bytes.TrimSuffix(r.line, []byte("\n")), []byte("\r")), nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		case len(r.line) > answerLimit:
			return nil, fmt.Errorf("%w: a line of more than %d bytes", ErrMalformed, answerLimit)
		}
	}
}
