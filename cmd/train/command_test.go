package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/stretchr/testify/require"

	"mix/graph/token"
	"mix/internal/cli"
	"mix/internal/demo"
)

// parsed is a command after its command line, and the error of that or of the plan.
func parsed(t *testing.T, args ...string) (*command, plan, error) {
	c := new(command)
	values, embed := embedFixed()
	c.fixed = values
	parser, err := kong.New(c, embed, kong.Exit(func(int) {}))
	require.NoError(t, err)
	if _, err := parser.Parse(args); err != nil {
		return c, plan{}, err
	}
	p, err := c.plan()
	return c, p, err
}

// output returns exit code, stdout and stderr.
func output(t *testing.T, args ...string) (code int, out, err string) {
	var o, e strings.Builder
	code = run(t.Context(), args, cli.IO{In: strings.NewReader(""), Out: &o, Err: &e})
	return code, o.String(), e.String()
}

// write makes a file in a folder of the test.
func write(t *testing.T, dir, name, text string) string {
	path := filepath.Join(dir, name)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
	require.NoError(t, os.WriteFile(path, []byte(text), 0o666))
	return path
}

// demoFolder is a folder with the demo's config.json and tokenizer: all that a plan reads.
func demoFolder(t *testing.T) string {
	dir := t.TempDir()
	write(t, dir, "config.json", string(demo.Config()))
	write(t, dir, "tokenizer.model", string(demo.Tokenizer()))
	return dir
}

// bigTokenizer makes a tokenizer.model of n pieces: the demo's and more.
func bigTokenizer(t *testing.T, n int) string {
	tok, err := token.FromModel(demo.Tokenizer())
	require.NoError(t, err)
	model := demo.Tokenizer()
	for id := tok.VocabSize(); id < n; id++ {
		piece := "piece" + strings.Repeat("x", id%7) + string(rune('a'+id%26)) + strings.Repeat("y", id/26%30) + strings.Repeat("z", id/780)
		// ModelProto.pieces = 1 { piece = 1, score = 2 }
		inner := append([]byte{0x0a, byte(len(piece))}, piece...)
		inner = append(inner, 0x15, 0, 0, 0x80, 0xc7) // -65536
		model = append(model, 0x0a, byte(len(inner)))
		model = append(model, inner...)
	}
	return write(t, t.TempDir(), "tokenizer.model", string(model))
}
