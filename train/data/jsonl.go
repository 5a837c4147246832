package data

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode/utf8"
)

// longestLine is the most bytes that a line of jsonl may have.
const longestLine = 1 << 30

// lines reads r line by line, or plain text piece by piece. The slice that next returns is the caller's
// to keep.
type lines struct {
	r     *bufio.Reader
	line  int // number of the last line, from 1
	plain bool
}

func newLines(r io.Reader) *lines { return &lines{r: bufio.NewReaderSize(r, pieceBytes+1)} }

// next returns a line without its end, and its bytes with it; io.EOF after the last.
func (l *lines) next() (line []byte, size int64, err error) {
	if l.plain {
		return l.piece()
	}
	for {
		part, err := l.r.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > longestLine {
			return nil, 0, fmt.Errorf("line %d has more than %d bytes", l.line+1, longestLine)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err == io.EOF && len(line) > 0, err == nil:
			l.line++
			return bytes.TrimSuffix(line, []byte("\n")), int64(len(line)), nil
		}
		return nil, 0, err
	}
}

// object parses a line as a JSON object. Of a key that comes twice the last counts.
func object(line []byte) (map[string]json.RawMessage, error) {
	if i := invalid(line); i >= 0 {
		return nil, fmt.Errorf("byte %d is no UTF-8", i)
	}
	var o map[string]json.RawMessage
	if err := json.Unmarshal(line, &o); err != nil {
		return nil, fmt.Errorf("not a JSON object: %.60q: %w", line, err)
	}
	if o == nil {
		return nil, fmt.Errorf("not a JSON object: %.60q", line)
	}
	return o, nil
}

// invalid is the place of the first byte that is no UTF-8, or -1.
func invalid(b []byte) int {
	if utf8.Valid(b) {
		return -1
	}
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

// texts returns the text of a line, or its texts where the key holds a list.
func texts(line []byte, key string) ([]string, error) {
	o, err := object(line)
	if err != nil {
		return nil, err
	}
	value, found := o[key]
	if !found {
		return nil, fmt.Errorf("no key %q: %.60q", key, line)
	}
	var all []*string
	if value[0] == '[' {
		err = json.Unmarshal(value, &all)
	} else {
		all = make([]*string, 1)
		err = json.Unmarshal(value, &all[0])
	}
	if err != nil {
		return nil, fmt.Errorf("key %q: want a text or a list of texts: %w", key, err)
	}
	out := make([]string, len(all))
	for i, s := range all {
		if s == nil {
			return nil, fmt.Errorf("key %q: null, want a text or a list of texts", key)
		}
		out[i] = *s
	}
	return out, wholeCharacters(value, out)
}

// wholeCharacters refuses half a surrogate pair in value, such as \ud800 alone, which the decoder has
// turned into U+FFFD.
func wholeCharacters(value json.RawMessage, texts []string) error {
	n := 0
	for _, s := range texts {
		n += strings.Count(s, "\uFFFD")
	}
	if n == 0 {
		return nil
	}
	n -= bytes.Count(value, []byte("\uFFFD"))
	for _, written := range escaped.FindAll(value, -1) {
		if strings.EqualFold(string(written), `\ufffd`) {
			n--
		}
	}
	if n > 0 {
		return fmt.Errorf("half a surrogate pair in %.60q", value)
	}
	return nil
}

// escaped is a backslash and what belongs to it.
var escaped = regexp.MustCompile(`\\(u.{4}|.)`)
