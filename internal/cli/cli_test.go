package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

type command struct {
	Text *string
	fail error
}

func (c *command) Run(ctx context.Context, streams *IO) error {
	if c.Text != nil {
		fmt.Fprint(streams.Out, *c.Text)
	}
	return c.fail
}

func TestExitCodes(t *testing.T) {
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	for _, tt := range []struct {
		name     string
		ctx      context.Context
		fail     error
		args     []string
		code     int
		out, err string
	}{
		{"success", nil, nil, []string{"--text", "hello"}, 0, "hello", ""},
		{"text is passed on byte for byte", nil, nil, []string{"--text", "a\xffb"}, 0, "a\xffb", ""},
		{"an error is one line", nil, errors.New("first\nsecond"), nil, 1, "", "x: first; second\n"},
		{"usage", nil, fmt.Errorf("%w: no", ErrUsage), nil, 2, "", "x: usage: no\n"},
		{"an unknown flag", nil, nil, []string{"--nope"}, 2, "", "x: unknown flag --nope\n"},
		{"a flag without its value", nil, nil, []string{"--text"}, 2, "", "x: --text: expected a value but the line ends\n"},
		{"a value that says so", nil, nil, []string{"--text", "EOL"}, 0, "EOL", ""},
		{"an empty value", nil, nil, []string{"--text="}, 0, "", ""},
		{"interrupted", cancelled, context.Canceled, nil, 130, "", ""},
	} {
		ctx := tt.ctx
		if ctx == nil {
			ctx = context.Background()
		}
		var out, err strings.Builder
		code := Run(ctx, &command{fail: tt.fail}, "x", "", tt.args, IO{Out: &out, Err: &err})
		require.Equal(t, tt.code, code, tt.name)
		require.Equal(t, tt.out, out.String(), tt.name)
		require.Equal(t, tt.err, err.String(), tt.name)
	}
	var out strings.Builder
	require.Zero(t, Run(context.Background(), &command{}, "x", "What it does.", []string{"--help"}, IO{Out: &out, Err: &out}))
	require.Contains(t, out.String(), "What it does.")
}

func TestWriteFileAppearsWholeOrNotAtAll(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	require.NoError(t, WriteFile(path, []byte("one")))
	require.NoError(t, WriteFile(path, []byte("two")))
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "two", string(b))
	require.Error(t, WriteFile(filepath.Join(dir, "none", "f"), nil))
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, files, 1, "no temporary file is left")
}
