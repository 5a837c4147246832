package api

import (
	_ "embed"
	"net/http"
	"strconv"

	"mix/graph/token"
)

//go:embed template/v1.jinja
var templateV1 string

//go:embed template/v3.jinja
var templateV3 string

// template is the model's chat template as Jinja, for clients that write prompts themselves. It writes what the server writes,
// with two limits: it does not refuse conversations that the server refuses, and results and arguments of tools
// stay as they are spelled, where the server spells JSON anew.
func (s *Server) template() string {
	if s.chat == token.V3 {
		return templateV3
	}
	return templateV1
}

// tokenizerInfo handles GET /tokenizer_info: what evaluation harnesses ask of a tokenizer_config.json.
func (s *Server) tokenizerInfo(w http.ResponseWriter, _ *http.Request) error {
	t := s.o.Tokenizer
	controls := map[string]any{}
	for id := range int32(t.VocabSize()) {
		if t.IsControl(id) || id == t.Unknown() {
			controls[strconv.Itoa(int(id))] = map[string]any{
				"content": t.Piece(id), "lstrip": false, "normalized": false, "rstrip": false, "single_word": false, "special": true,
			}
		}
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"tokenizer_class":               "LlamaTokenizer",
		"bos_token":                     orNull(t.Piece(t.BOS())),
		"eos_token":                     orNull(t.Piece(t.EOS())),
		"unk_token":                     orNull(t.Piece(t.Unknown())),
		"pad_token":                     nil,
		"bos_token_id":                  t.BOS(),
		"eos_token_id":                  t.EOS(),
		"add_bos_token":                 true,
		"add_eos_token":                 false,
		"add_prefix_space":              nil,
		"added_tokens_decoder":          controls,
		"additional_special_tokens":     []string{},
		"clean_up_tokenization_spaces":  false,
		"legacy":                        false,
		"sp_model_kwargs":               map[string]any{},
		"spaces_between_special_tokens": false,
		"use_default_system_prompt":     false,
		"vocab_size":                    t.VocabSize(),
		"model_max_length":              s.model.Context,
		"chat_template":                 s.template(),
		"template":                      s.chat.String(),
	})
	return nil
}
