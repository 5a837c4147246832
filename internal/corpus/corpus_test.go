package corpus

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestDocuments(t *testing.T) {
	all, err := Documents()
	require.NoError(t, err)
	require.Len(t, all, 2164)
	size, has := 0, map[string]int{}
	for i, d := range all {
		require.True(t, utf8.ValidString(d), "text %d", i)
		require.NotEmpty(t, strings.TrimSpace(d), "text %d", i)
		size += len(d)
		if i < len(all)/10 { // any share has every source
			for _, mark := range []string{"the LORD", "Experiment", ", n. "} {
				if strings.Contains(d, mark) {
					has[mark]++
				}
			}
		}
	}
	require.Equal(t, 4867207, size)
	require.Len(t, has, 3)
}

func TestChats(t *testing.T) {
	r, err := Chats()
	require.NoError(t, err)
	type message struct{ Role, Content string }
	asked, lines := map[string]string{}, 0
	for s := bufio.NewScanner(r); s.Scan(); {
		var line struct{ Messages []message }
		require.NoError(t, json.Unmarshal(s.Bytes(), &line))
		require.Len(t, line.Messages, 2)
		question, answer := line.Messages[0], line.Messages[1]
		require.Equal(t, "user", question.Role)
		require.Equal(t, "assistant", answer.Role)
		require.Regexp(t, `^Define .+\.$`, question.Content)
		require.NotEmpty(t, strings.TrimSpace(answer.Content))
		asked[question.Content] = answer.Content
		lines++
	}
	require.Equal(t, 881, lines)
	require.Equal(t, "A minor form of despair, disguised as a virtue.", asked["Define patience."])
}

func TestFilesCarryNoTime(t *testing.T) {
	for _, b := range [][]byte{text, chats} {
		r, err := gzip.NewReader(bytes.NewReader(b))
		require.NoError(t, err)
		require.True(t, r.ModTime.IsZero())
		require.Empty(t, r.Name)
		_, err = io.Copy(io.Discard, r)
		require.NoError(t, err)
	}
	_, err := unzip(text[:len(text)-9])
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
}
