package api

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/graph/token"
)

// recordedChat is a conversation of graph/token's tests, with the ids that mistral-common makes of it.
type recordedChat struct {
	Template string
	Messages []struct {
		Role, Content string
		ToolCalls     []struct {
			Function struct{ Arguments string }
		} `json:"tool_calls"`
	}
	IDs   []int32
	Error string
}

// spelled tells whether the texts of tools are in want as they came. The server spells JSON anew, and puts into quotes
// what only looks like JSON; a Jinja template can do neither.
func (c recordedChat) spelled(want string) bool {
	for _, m := range c.Messages {
		var all []string
		if m.Role == token.ToolRole {
			all = append(all, m.Content)
		}
		for _, call := range m.ToolCalls {
			all = append(all, call.Function.Arguments)
		}
		for _, text := range all {
			looks := text != "" && strings.Contains(`{["`, text[:1])
			if (json.Valid([]byte(text)) || looks) && !strings.Contains(want, `"content": `+text+`,`) && !strings.Contains(want, `"arguments": `+text+`,`) {
				return false
			}
		}
	}
	return true
}

// written are ids as text: control pieces by name, and what is between two as a text of its own.
func written(tok *token.Tokenizer, ids []int32) string {
	var out strings.Builder
	var between []int32
	for _, id := range ids {
		if !tok.IsControl(id) {
			between = append(between, id)
			continue
		}
		out.WriteString(tok.Decode(between) + tok.Piece(id))
		between = nil
	}
	return out.String() + tok.Decode(between)
}

// TestChatTemplates holds what Jinja makes of the templates to the ids of the same conversations. template/record.py
// records it.
func TestChatTemplates(t *testing.T) {
	var recorded struct {
		SHA256   map[string]string
		Rendered []string
	}
	read := func(path string, into any) {
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(b, into))
	}
	read("testdata/template.json", &recorded)
	for version, text := range map[string]string{"v1": templateV1, "v3": templateV3} {
		require.Equal(t, fmt.Sprintf("%x", sha256.Sum256([]byte(text))), recorded.SHA256[version], "template/record.py was not run after a change")
	}
	var first, more struct{ Chats []recordedChat }
	read("../../graph/token/testdata/chats.json", &first)
	read("../../graph/token/testdata/v3.json", &more)
	same := map[string]int{}
	f := newFake(t)
	servers := map[string]*Server{"v3": newServer(t, options(f))}
	f.t = load(t, "tokenizer.model")
	servers["v1"] = newServer(t, options(f))
	servers[""] = servers["v1"]
	at := 0
	for _, c := range append(first.Chats, more.Chats...) {
		if c.Error != "" {
			continue
		}
		tok := load(t, "tokenizer.model")
		if c.Template == "v3" {
			tok = load(t, "tokenizer.model.v3")
		}
		got, want := recorded.Rendered[at], written(tok, c.IDs)
		at++
		if !c.spelled(want) {
			require.NotEqual(t, want, got, "a case that could be compared")
			continue
		}
		require.Equal(t, want, got)
		same[tok.Piece(3)]++
		if strings.Contains(got, "injected") || strings.Contains(got, `": "</s>`) || strings.Contains(got, `[TOOL_CALLS]"`) || strings.Contains(got, `\\ </s> [INST]`) {
			continue // texts of clients that name control pieces
		}
		ids, err := servers[c.Template].encode(got, false)
		require.NoError(t, err)
		require.Equal(t, c.IDs, ids, got)
	}
	require.Len(t, recorded.Rendered, at)
	require.Equal(t, map[string]int{"<0x00>": 30, "[INST]": 55}, same, "conversations compared, by the piece of id 3")
}

func TestTokenizerInfo(t *testing.T) {
	f := newFake(t)
	got := newServer(t, options(f)).ask(t, "GET", "/tokenizer_info", "")
	require.Equal(t, templateV3, got.at(t, "chat_template"))
	require.Equal(t, "<s>", got.at(t, "bos_token"))
	require.Equal(t, "</s>", got.at(t, "eos_token"))
	require.Equal(t, "LlamaTokenizer", got.at(t, "tokenizer_class"))
	require.EqualValues(t, 512, got.at(t, "model_max_length"))
	require.Equal(t, "[INST]", got.at(t, "added_tokens_decoder", "3", "content"))
	require.Equal(t, "<unk>", got.at(t, "added_tokens_decoder", "0", "content"))
	require.NotContains(t, got.at(t, "added_tokens_decoder"), "1000")
	f.t = load(t, "tokenizer.model")
	require.Equal(t, templateV1, newServer(t, options(f)).ask(t, "GET", "/tokenizer_info", "").at(t, "chat_template"))
}
