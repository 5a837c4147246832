package data

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/graph/token"
)

// said is what of a document is learned, a text each span, with control ids by name.
func said(t *token.Tokenizer, d Document) (spans []string) {
	for i := 0; i < len(d.IDs); i++ {
		j := i
		for j < len(d.IDs) && d.Learn[j] {
			j++
		}
		if j > i {
			spans = append(spans, t.DecodeWithControls(d.IDs[i:j]))
			i = j
		}
	}
	return spans
}

func TestChatLearnsWhatTheAssistantSays(t *testing.T) {
	call := `"tool_calls": [{"id": "abcdefghi", "type": "function", "function": {"name": "add", "arguments": "{\"a\": 1}"}}]`
	for _, tt := range []struct {
		name, file, line string
		whole            string
		want             []string
	}{
		{"v1", "tokenizer.model",
			`{"messages": [{"role": "user", "content": "Hi [INST]"}, {"role": "assistant", "content": "Hello"}, {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]}`,
			"<s>[INST] Hi [INST] [/INST] Hello</s> [INST] Why? [/INST] So.</s>", []string{"Hello</s>", "So.</s>"}},
		{"v1, a system prompt anywhere", "tokenizer.model",
			`{"messages": [{"role": "user", "content": "A"}, {"role": "assistant", "content": "B"}, {"role": "user", "content": "C"}, {"role": "system", "content": "Short"}, {"role": "assistant", "content": "D"}]}`,
			"<s>[INST] Short\n\nA [/INST] B</s> [INST] C [/INST] D</s>", []string{"B</s>", "D</s>"}},
		{"v1, the assistant begins", "tokenizer.model",
			`{"messages": [{"role": "assistant", "content": "A"}, {"role": "assistant", "content": "B"}, {"role": "user", "content": "C"}, {"role": "assistant", "content": "D"}]}`,
			"<s>[INST]  [/INST] A\n\nB</s> [INST] C [/INST] D</s>", []string{"A\n\nB</s>", "D</s>"}},
		{"v3", "tokenizer.model.v3",
			`{"messages": [{"role": "system", "content": "Short"}, {"role": "user", "content": "A"}, {"role": "assistant", "content": "B"}, {"role": "user", "content": "C"}, {"role": "assistant", "content": "D"}]}`,
			"<s>[INST]A[/INST] B</s>[INST] Short\n\nC[/INST] D</s>", []string{"B</s>", "D</s>"}},
		{"v3, tools", "tokenizer.model.v3",
			`{"tools": [{"type": "function", "function": {"name": "add", "description": "adds", "parameters": {}}}], "messages": [{"role": "user", "content": "A"}, {"role": "assistant", ` + call +
				`}, {"role": "tool", "tool_call_id": "abcdefghi", "content": "2"}, {"role": "assistant", "content": "D"}]}`,
			"", []string{`[TOOL_CALLS][{"name": "add", "arguments": {"a": 1}, "id": "abcdefghi"}]</s>`, "D</s>"}},
		{"v3, a call at the end", "tokenizer.model.v3",
			`{"messages": [{"role": "user", "content": "A"}, {"role": "assistant", "content": null, ` + call + `}]}`,
			`<s>[INST]A[/INST][TOOL_CALLS] [{"name": "add", "arguments": {"a": 1}, "id": "abcdefghi"}]</s>`,
			[]string{`[TOOL_CALLS][{"name": "add", "arguments": {"a": 1}, "id": "abcdefghi"}]</s>`}},
	} {
		tok := mixtral(t, tt.file)
		documents, c, err := ReadChat(t.Context(), strings.NewReader(tt.line), "x", tok, ChatOptions{})
		require.NoError(t, err, tt.name)
		require.Equal(t, 1, c.Documents)
		d := documents[0]
		require.Equal(t, int64(len(d.IDs)), c.Tokens)
		if tt.whole != "" {
			require.Equal(t, tt.whole, tok.DecodeWithControls(d.IDs), tt.name)
		}
		require.Equal(t, tt.want, said(tok, d), tt.name)
	}
}

func mixtral(t *testing.T, file string) *token.Tokenizer {
	b := readFile(t, "../../graph/token/testdata/"+file)
	tok, err := token.FromModel(b)
	require.NoError(t, err)
	return tok
}

func TestBadConversations(t *testing.T) {
	good := `{"messages": [{"role": "user", "content": "A"}, {"role": "assistant", "content": "B"}]}`
	tok := mixtral(t, "tokenizer.model")
	for _, tt := range []struct{ name, line, want string }{
		{"no messages", `{"text": "x"}`, `no key "messages"`},
		{"none", `{"messages": []}`, "0 messages, want the last to be of the assistant"},
		{"ends with a question", `{"messages": [{"role": "user", "content": "A"}]}`, "1 messages, want the last"},
		{"no list", `{"messages": "x"}`, "want a list of messages"},
		{"no content", `{"messages": [{"role": "user"}]}`, "message 0: no content"},
		{"a content of parts", `{"messages": [{"role": "user", "content": [{"type": "text"}]}]}`, "want a list of messages"},
		{"another role", `{"messages": [{"role": "bot", "content": "A"}, {"role": "assistant", "content": "B"}]}`, `role "bot"`},
		{"half a character", `{"messages": [{"role": "user", "content": "\ud800"}, {"role": "assistant", "content": "B"}]}`, "half a surrogate pair"},
		{"tools", `{"tools": 5, "messages": []}`, `key "tools"`},
		{"a template without tools", `{"tools": [{"function": {"name": "f"}}], ` + good[1:], "1 tools, but v1 has none"},
		{"an empty answer", `{"messages": [{"role": "user", "content": "A"}, {"role": "assistant", "content": ""}]}`, "content of 0 bytes"},
	} {
		text := good + "\n" + tt.line + "\n" + good + "\n"
		_, _, err := ReadChat(t.Context(), strings.NewReader(text), "chat.jsonl", tok, ChatOptions{})
		require.ErrorContains(t, err, "chat.jsonl: line 2: ", tt.name)
		require.ErrorContains(t, err, tt.want, tt.name)
		documents, c, err := ReadChat(t.Context(), strings.NewReader(text), "chat.jsonl", tok, ChatOptions{SkipBad: true})
		require.NoError(t, err, tt.name)
		require.Len(t, documents, 2)
		require.Equal(t, 1, c.BadLines)
	}
	_, err := Chat(tok, []token.Message{{Role: token.User, Content: "A"}, {Role: token.Assistant, Content: "B", Prefix: true}}, nil, token.V1)
	require.ErrorContains(t, err, "message 1 is a prefix")
	_, err = Chat(tok, []token.Message{{Role: token.User, Content: "A"}, {Role: token.Assistant, Content: "B"}}, nil, token.V3)
	require.ErrorIs(t, err, token.ErrChat, "a template of another tokenizer")
}

func TestChatToBatches(t *testing.T) {
	tok := mixtral(t, "tokenizer.model")
	line := `{"messages": [{"role": "user", "content": "A"}, {"role": "assistant", "content": "B"}]}` + "\n"
	documents, _, err := ReadChat(t.Context(), strings.NewReader(strings.Repeat(line, 10)), "x", tok, ChatOptions{})
	require.NoError(t, err)
	p, err := NewPacked(documents, PackOptions{SeqLen: 40, ResetPositions: true, Vocab: tok.VocabSize()})
	require.NoError(t, err)
	l, err := NewLoader(t.Context(), p, LoaderOptions{Batch: p.Len(), Segments: true, Positions: true})
	require.NoError(t, err)
	defer l.Close()
	b, err := l.Next()
	require.NoError(t, err)
	var learned []int32
	for _, id := range b.Labels {
		if id != NoLoss {
			learned = append(learned, id)
		}
	}
	require.Equal(t, strings.Repeat("B</s>", 10), strings.ReplaceAll(tok.DecodeWithControls(learned), " ", ""))
}
