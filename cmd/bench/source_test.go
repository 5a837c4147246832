package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func write(t *testing.T, text string) string {
	path := filepath.Join(t.TempDir(), "prompts.jsonl")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestDataset(t *testing.T) {
	s := serve(t)
	path := write(t, "{\"prompt\":\"one\",\"max_tokens\":3}\n\n{\"text\":\"two\"}\n{\"messages\":[{\"role\":\"user\",\"content\":\"three\"}]}")
	r := measure(t, s.URL, "--dataset", path, "--requests", "4", "--concurrency", "1", "--max-tokens", "5")
	require.Equal(t, 4, r.Completed)
	require.Equal(t, "three", s.asked[0].Messages[0].Content, "the warm-up takes from the end")
	got := s.measured(1)
	require.Equal(t, "one", got[0].Prompt)
	require.Equal(t, 3, got[0].MaxTokens)
	require.Equal(t, "two", got[1].Prompt)
	require.Equal(t, 5, got[1].MaxTokens)
	require.Equal(t, "three", got[2].Messages[0].Content)
	require.Equal(t, "one", got[3].Prompt)
	for text, want := range map[string]string{
		"":                                     "has no prompt",
		"{\"prompt\":\"a\"}\n{\"prompt\":1}":   "line 2",
		"{\"other\":\"a\"}":                    "line 1 has neither",
		"{\"messages\":\"a\"}":                 "line 1 has neither",
		"{\"prompt\":\"a\",\"max_tokens\":-1}": "max_tokens is -1",
		"hello":                                "line 1",
	} {
		code, _, log := run(context.Background(), s.URL, "--dataset", write(t, text))
		require.Equal(t, 1, code)
		require.Contains(t, log, want)
	}
}
