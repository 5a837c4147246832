package data

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gofrs/flock"
	"github.com/stretchr/testify/require"
)

// manyLines writes jsonl of ten chunks, with empty documents and lists among them, and returns its path.
func manyLines(t *testing.T) string {
	var text strings.Builder
	for i := range 10 * chunkLines {
		switch i % 3 {
		case 0:
			fmt.Fprintf(&text, "{\"text\": \"%d %s\"}\n", i, strings.Repeat(" 7", i%13))
		case 1:
			fmt.Fprintf(&text, "{\"text\": [\"%d\", \"\", \"1 2 3\"]}\n", i)
		default:
			text.WriteString("{\"text\": \"\"}\n")
		}
	}
	path := filepath.Join(t.TempDir(), "in.jsonl")
	require.NoError(t, os.WriteFile(path, []byte(text.String()), 0o644))
	return path
}

// interrupt runs a job that is cancelled when three chunks are done.
func interrupt(t *testing.T, path, prefix string, o TextOptions, every time.Duration) {
	ctx, cancel := context.WithCancel(t.Context())
	calls := 0
	o.Progress = func(int64) {
		if calls++; calls == 3 {
			cancel()
		}
	}
	_, err := o.resumable(ctx, path, prefix, numbers(1<<20), every)
	require.ErrorIs(t, err, context.Canceled)
	require.NoFileExists(t, prefix+".idx")
	require.NoFileExists(t, prefix+".bin")
}

func TestAnInterruptedRunGoesOn(t *testing.T) {
	path := manyLines(t)
	o := TextOptions{AppendEOD: true, Workers: 3}
	want := filepath.Join(t.TempDir(), "want")
	whole, err := PreprocessFile(t.Context(), path, want, numbers(1<<20), o)
	require.NoError(t, err)
	require.Zero(t, whole.Resumed)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, info.Size(), whole.Bytes)
	append7 := func(t *testing.T, file string) {
		f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0o644)
		require.NoError(t, err)
		_, err = f.WriteString("garbage")
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	for _, tt := range []struct {
		name    string
		every   time.Duration
		between func(t *testing.T, prefix string)
		o       TextOptions // of the second run
		resumed bool
	}{
		{"after a signal", time.Hour, nil, o, true},
		{"with other workers", 0, nil, TextOptions{AppendEOD: true, Workers: 1}, true},
		{"killed in the midst of writing", 0, func(t *testing.T, prefix string) {
			append7(t, prefix+".bin.part")
			append7(t, prefix+".doc.part")
		}, o, true},
		{"what was saved is gone", 0, func(t *testing.T, prefix string) { require.NoError(t, os.Remove(prefix+".bin.part")) }, o, false},
		{"lengths that were cut off", 0, func(t *testing.T, prefix string) { require.NoError(t, os.Truncate(prefix+".doc.part", 9)) }, o, false},
		{"a state that is torn", 0, func(t *testing.T, prefix string) { require.NoError(t, os.Truncate(prefix+".part", 20)) }, o, false},
		{"other options", 0, nil, TextOptions{AppendEOD: true, SkipBad: true}, false},
	} {
		prefix := filepath.Join(t.TempDir(), "x")
		interrupt(t, path, prefix, o, tt.every)
		if tt.between != nil {
			tt.between(t, prefix)
		}
		c, err := PreprocessFile(t.Context(), path, prefix, numbers(1<<20), tt.o)
		require.NoError(t, err, tt.name)
		require.Equal(t, tt.resumed, c.Resumed > 0, tt.name)
		c.Resumed = 0
		require.Equal(t, whole, c, tt.name)
		for _, ext := range []string{".idx", ".bin", ".json"} {
			require.Equal(t, readFile(t, want+ext), readFile(t, prefix+ext), "%s: %s", tt.name, ext)
		}
		left, err := os.ReadDir(filepath.Dir(prefix))
		require.NoError(t, err)
		require.Len(t, left, 3, "%s: nothing but the dataset is left", tt.name)
	}
}

func TestAnotherInputStartsAnew(t *testing.T) {
	path, prefix := manyLines(t), filepath.Join(t.TempDir(), "x")
	interrupt(t, path, prefix, TextOptions{}, 0)
	require.NoError(t, os.WriteFile(path, []byte(`{"text": "1 2"}`), 0o644))
	c, err := PreprocessFile(t.Context(), path, prefix, numbers(1<<20), TextOptions{})
	require.NoError(t, err)
	require.Equal(t, Counts{Documents: 1, Sequences: 1, Tokens: 2, Lines: 1, Bytes: 15}, c)
}

func TestWhatPreprocessFileRefuses(t *testing.T) {
	dir := t.TempDir()
	path, prefix := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	_, err := PreprocessFile(t.Context(), path, prefix, numbers(5), TextOptions{})
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoError(t, os.WriteFile(path, []byte("{\"text\": \"1\"}\nx"), 0o644))
	_, err = PreprocessFile(t.Context(), path, prefix, numbers(5), TextOptions{})
	require.ErrorContains(t, err, path+": line 2: not a JSON object")
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 1, "only the input is left")
	_, err = PreprocessFile(t.Context(), path, filepath.Join(dir, "none", "out"), numbers(5), TextOptions{})
	require.ErrorIs(t, err, os.ErrNotExist)
	lock := flock.New(prefix + ".bin.part")
	mine, err := lock.TryLock()
	require.NoError(t, err)
	require.True(t, mine)
	_, err = PreprocessFile(t.Context(), path, prefix, numbers(5), TextOptions{SkipBad: true})
	require.EqualError(t, err, prefix+".bin.part: another process is writing it")
	require.NoError(t, lock.Unlock())
	c, err := PreprocessFile(t.Context(), path, prefix, numbers(5), TextOptions{SkipBad: true})
	require.NoError(t, err)
	require.Equal(t, 1, c.BadLines)
}
