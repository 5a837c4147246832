// Package corpus embeds the text that a training run takes when it is given none: English in the public
// domain, and conversations made from a part of it. README.md names the sources.
package corpus

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"fmt"
	"io"
	"strings"
)

var (
	//go:embed mix.txt.gz
	text []byte
	//go:embed chat.jsonl.gz
	chats []byte
)

// Documents returns the texts, mixed, so that any share of them has some of each source.
func Documents() ([]string, error) {
	all, err := unzip(text)
	if err != nil {
		return nil, fmt.Errorf("embedded text: %w", err)
	}
	return strings.Split(all, "\x00"), nil
}

// Chats returns one conversation a line, {"messages": [{"role", "content"}, …]}: a question for a word's
// meaning and its answer, in the order of the alphabet.
func Chats() (io.Reader, error) {
	all, err := unzip(chats)
	if err != nil {
		return nil, fmt.Errorf("embedded conversations: %w", err)
	}
	return strings.NewReader(all), nil
}

func unzip(b []byte) (string, error) {
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return "", err
	}
	var out strings.Builder
	_, err = io.Copy(&out, r)
	return out.String(), err
}
