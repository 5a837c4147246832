package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
)

// result is what eval prints.
type result struct {
	Sequences       int     `json:"sequences"`
	Tokens          int     `json:"tokens"` // that a loss was taken of
	Loss            number  `json:"loss"`   // mean, in nats a token
	Perplexity      number  `json:"perplexity"`
	BitsPerByte     number  `json:"bits_per_byte,omitempty"` // of --text
	TokensPerSecond float64 `json:"tokens_per_second"`
}

// number is null in JSON, which has no word for them, where it is NaN or infinite.
type number float64

// MarshalJSON writes the number or null.
func (n number) MarshalJSON() ([]byte, error) {
	if math.IsNaN(float64(n)) || math.IsInf(float64(n), 0) {
		return []byte("null"), nil
	}
	return json.Marshal(float64(n))
}

// print writes one line a value, or one JSON object.
func (r result) print(out io.Writer, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(out).Encode(r)
	}
	bits := ""
	if r.BitsPerByte > 0 {
		bits = fmt.Sprintf("bits/byte %.6g\n", r.BitsPerByte)
	}
	_, err := fmt.Fprintf(out, "sequences %d\ntokens %d\nloss %.9g\nperplexity %.9g\n%stokens/s %.1f\n",
		r.Sequences, r.Tokens, r.Loss, r.Perplexity, bits, r.TokensPerSecond)
	return err
}
