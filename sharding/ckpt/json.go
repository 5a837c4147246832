package ckpt

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"
)

// reader walks a JSON text of known form. Whatever deviates from the form is an error, a key given
// twice too, which the standard decoder would let pass.
type reader struct{ dec *json.Decoder }

// newReader checks that text is one well-formed JSON value in UTF-8.
func newReader(text []byte) (reader, error) {
	if !utf8.Valid(text) {
		return reader{}, errors.New("not UTF-8")
	}
	if !json.Valid(text) {
		return reader{}, errors.New("not valid JSON")
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	return reader{dec}, nil
}

// object reads { … } and calls each for every key, which must read the value.
func (r reader) object(each func(key string) error) error {
	if err := r.open('{', "an object"); err != nil {
		return err
	}
	seen := map[string]bool{}
	for r.dec.More() {
		t, err := r.dec.Token()
		if err != nil {
			return err
		}
		key, ok := t.(string)
		if !ok {
			return fmt.Errorf("key %v, want a string", t)
		}
		if seen[key] {
			return fmt.Errorf("%s is there twice", quote(key))
		}
		seen[key] = true
		if err := each(key); err != nil {
			return err
		}
	}
	_, err := r.dec.Token()
	return err
}

// text reads a string.
func (r reader) text() (string, error) {
	t, err := r.dec.Token()
	if err != nil {
		return "", err
	}
	s, ok := t.(string)
	if !ok {
		return "", fmt.Errorf("%v, want a string", t)
	}
	return s, nil
}

// counts reads an array of integers from 0 up.
func (r reader) counts() ([]int, error) {
	if err := r.open('[', "an array"); err != nil {
		return nil, err
	}
	list := []int{}
	for r.dec.More() {
		t, err := r.dec.Token()
		if err != nil {
			return nil, err
		}
		n, ok := t.(json.Number)
		if !ok {
			return nil, fmt.Errorf("%v, want an integer", t)
		}
		v, err := strconv.ParseInt(n.String(), 10, 0)
		if err != nil || v < 0 {
			return nil, fmt.Errorf("%s, want an integer from 0 to %d", quote(n.String()), math.MaxInt)
		}
		list = append(list, int(v))
	}
	_, err := r.dec.Token()
	return list, err
}

// skip reads any value and forgets it.
func (r reader) skip() error {
	var v json.RawMessage
	return r.dec.Decode(&v)
}

func (r reader) open(want json.Delim, name string) error {
	t, err := r.dec.Token()
	if err != nil {
		return err
	}
	if t != want {
		return fmt.Errorf("%T, want %s", t, name)
	}
	return nil
}
