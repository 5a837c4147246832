package api

import (
	"encoding/json"
	"net/http"
)

// tokenizeRequest is the body of POST /tokenize: a prompt, or a conversation.
type tokenizeRequest struct {
	chatRequest
	Prompt     *string `json:"prompt"`
	ReturnStrs bool    `json:"return_token_strs"`
}

// tokenize handles POST /tokenize.
func (s *Server) tokenize(w http.ResponseWriter, r *http.Request) error {
	var c tokenizeRequest
	if err := s.readJSON(w, r, &c); err != nil {
		return err
	}
	if _, err := s.modelName(c.Model); err != nil {
		return err
	}
	ids, err := s.idsOf(&c)
	if err != nil {
		return err
	}
	var names []string
	if c.ReturnStrs {
		names = []string{}
		for _, id := range ids {
			names = append(names, s.o.Tokenizer.Piece(id))
		}
	}
	if ids == nil {
		ids = []int32{}
	}
	writeJSON(w, http.StatusOK, map[string]any{"count": len(ids), "max_model_len": s.model.Context, "tokens": ids, "token_strs": names})
	return nil
}

func (s *Server) idsOf(c *tokenizeRequest) ([]int32, error) {
	switch {
	case c.Prompt != nil && c.Messages != nil:
		return nil, refuse("prompt", "both prompt and messages are given, want one")
	case c.Prompt != nil:
		ids, err := s.encode(*c.Prompt, or(c.AddSpecialTokens, true))
		if err != nil {
			return nil, refuse("prompt", "prompt: %s", short(err.Error(), 100))
		}
		return ids, nil
	case c.Messages == nil:
		return nil, refuse("prompt", "neither prompt nor messages are given, want one")
	}
	messages, err := conversation(c.Messages)
	if err != nil {
		return nil, err
	}
	use, err := c.toolUse()
	if err != nil {
		return nil, err
	}
	return s.o.Tokenizer.EncodeChatWithTools(messages, use.shown, s.chat)
}

// detokenize handles POST /detokenize.
func (s *Server) detokenize(w http.ResponseWriter, r *http.Request) error {
	var c struct {
		Model  string          `json:"model"`
		Tokens json.RawMessage `json:"tokens"`
	}
	if err := s.readJSON(w, r, &c); err != nil {
		return err
	}
	if _, err := s.modelName(c.Model); err != nil {
		return err
	}
	var ids []*int32
	if absent(c.Tokens) || !one(c.Tokens, &ids) {
		return refuse("tokens", "tokens is not a list of token ids")
	}
	flat := make([]int32, len(ids))
	for i, id := range ids {
		if id == nil || *id < 0 || int(*id) >= s.o.Tokenizer.VocabSize() {
			return refuse("tokens", "token %d is not an id of 0 to %d", i, s.o.Tokenizer.VocabSize()-1)
		}
		flat[i] = *id
	}
	writeJSON(w, http.StatusOK, map[string]any{"prompt": s.o.Tokenizer.Decode(flat)})
	return nil
}
