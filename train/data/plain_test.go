package data

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"mix/graph/token"
)

func TestPiecesOfPlainText(t *testing.T) {
	paragraphs := strings.Repeat(strings.Repeat("word ", 30)+"\n\n", pieceBytes/100)
	lines := strings.Repeat(strings.Repeat("word ", 30)+"\n", pieceBytes/100)
	for _, tt := range []struct {
		name, text string
		ends       string // of every piece but the last of a document
		pieces     int
	}{
		{"nothing", "", "", 0},
		{"one document", "a b\nc", "", 1},
		{"two", "a\x00b", "", 2},
		{"an end after the last", "a\x00b\x00", "", 2},
		{"empty ones", "\x00\x00a", "", 3},
		{"paragraphs", paragraphs, "\n\n", 2},
		{"lines", lines, "\n", 2},
		{"words", strings.Repeat("word ", pieceBytes/4), "d", 2},
		{"no blanks", strings.Repeat("ö", pieceBytes), "ö", 2},
		{"characters of four bytes", "abc" + strings.Repeat("🙂", pieceBytes/4), "🙂", 2},
		{"a long document, then others", paragraphs + "\x00a\x00b", "\n\n", 4},
		{"exactly a piece", strings.Repeat("x", pieceBytes), "", 1},
		{"a piece and an end", strings.Repeat("x", pieceBytes) + "\x00y", "", 2},
		{"more than a piece", strings.Repeat("x", pieceBytes) + "y", "x", 2},
	} {
		for _, r := range []io.Reader{strings.NewReader(tt.text), iotest.OneByteReader(strings.NewReader(tt.text))} {
			l := newLines(r)
			l.plain = true
			var joined strings.Builder
			pieces, total, last := 0, int64(0), true
			for {
				piece, size, err := l.next()
				if err == io.EOF {
					break
				}
				require.NoError(t, err)
				pieces++
				total += size
				text, ends := strings.CutSuffix(string(piece), "\x00")
				last = ends
				require.LessOrEqual(t, len(text), pieceBytes)
				if !ends {
					require.True(t, strings.HasSuffix(text, tt.ends), "%s: %q", tt.name, text[max(0, len(text)-9):])
				}
				joined.Write(piece)
			}
			require.Equal(t, tt.pieces, pieces, tt.name)
			require.True(t, last, "%s: the last piece ends a document", tt.name)
			require.Equal(t, int64(len(tt.text)), total)
			require.Equal(t, strings.TrimSuffix(tt.text, "\x00"), strings.TrimSuffix(joined.String(), "\x00"), tt.name)
		}
	}
	l := newLines(io.MultiReader(strings.NewReader("a"), iotest.ErrReader(errors.New("broken"))))
	l.plain = true
	_, _, err := l.next()
	require.EqualError(t, err, "broken")
}

func TestPlainTextIsCutIntoSequences(t *testing.T) {
	text := strings.Repeat("5 ", 2*sequenceTokens+10) + "\x00" + "\x00" + "1 2"
	m, c, err := ReadText(t.Context(), strings.NewReader(text), "x", numbers(9), TextOptions{Plain: true, AppendEOD: true})
	require.NoError(t, err)
	var lengths []int
	for i := range m.Sequences() {
		lengths = append(lengths, m.Length(i))
	}
	require.Equal(t, []int{sequenceTokens, sequenceTokens, 11, 3}, lengths)
	require.Equal(t, Counts{Documents: 3, Sequences: 4, Tokens: 2*sequenceTokens + 14, Lines: 3, Bytes: int64(len(text))}, c)
	require.Equal(t, []int32{1, 2, 9}, m.sequences[3])
	require.Equal(t, int32(9), m.sequences[2][10], "the end is after the last part alone")
}

func TestInterruptedPlainTextGoesOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.txt")
	text := strings.Repeat(strings.Repeat("1 2 3 4 5 6 7 ", 200)+"\n\n", 1200)
	text = text + "\x00" + text
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	o := TextOptions{Plain: true, AppendEOD: true, Workers: 1}
	whole, broken := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
	_, err := PreprocessFile(t.Context(), path, whole, numbers(9), o)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	interrupted := o
	interrupted.Progress = func(done int64) {
		if done > int64(len(text)/2) {
			cancel()
		}
	}
	_, err = PreprocessFile(ctx, path, broken, numbers(9), interrupted)
	require.ErrorIs(t, err, context.Canceled)
	c, err := PreprocessFile(t.Context(), path, broken, numbers(9), o)
	require.NoError(t, err)
	require.NotZero(t, c.Resumed)
	wantIdx, wantBin := files(t, whole)
	idx, bin := files(t, broken)
	require.Equal(t, wantIdx, idx)
	require.Equal(t, wantBin, bin)
}

func FuzzPlainText(f *testing.F) {
	f.Add("a b\x00c\n\nd")
	f.Add("\xff\x00\x00")
	tok, err := token.FromModel(readFile(f, golden+"tok.model"))
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, text string) {
		m, c, err := ReadText(t.Context(), strings.NewReader(text), "x", tok, TextOptions{Plain: true, SkipBad: true})
		require.NoError(t, err)
		require.Equal(t, int64(len(text)), c.Bytes)
		var got strings.Builder
		for i := range m.Sequences() {
			got.WriteString(tok.Decode(m.sequences[i]))
		}
		if c.BadLines == 0 {
			require.Equal(t, strings.NewReplacer("\x00", "", "▁", " ").Replace(text), got.String()) // sentencepiece's sign for a space
		}
	})
}
