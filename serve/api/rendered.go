package api

import (
	"regexp"
	"strings"

	"mix/graph/token"
)

// encode turns a prompt into ids. With specials, BOS comes first and the text is text, whatever it says: nobody can write
// a control piece into it. Without, clients write the special tokens themselves, as those do that render the chat
// template: in a text that begins with the name of BOS, and in one that is nothing but a name, the names of control
// pieces are their ids.
func (s *Server) encode(text string, specials bool) ([]int32, error) {
	t := s.o.Tokenizer
	id, ok := t.ID(text)
	bos := t.Piece(t.BOS())
	switch {
	case specials:
		return t.Encode(text, token.EncodeOptions{BOS: true})
	case ok && t.IsControl(id):
		return []int32{id}, nil
	case bos == "" || !strings.HasPrefix(text, bos):
		return t.Encode(text, token.EncodeOptions{})
	}
	var ids []int32
	at := 0
	for _, found := range append(s.controls.FindAllStringIndex(text, -1), []int{len(text), len(text)}) {
		part, err := t.Encode(text[at:found[0]], token.EncodeOptions{})
		if err != nil {
			return nil, err
		}
		ids = append(ids, part...)
		if name := text[found[0]:found[1]]; name != "" {
			id, _ := t.ID(name)
			ids = append(ids, id)
		}
		at = found[1]
	}
	return ids, nil
}

// controlNames matches the names of a tokenizer's control pieces.
func controlNames(t *token.Tokenizer) (*regexp.Regexp, error) {
	var names []string
	for id := range int32(t.VocabSize()) {
		if t.IsControl(id) && t.Piece(id) != "" {
			names = append(names, regexp.QuoteMeta(t.Piece(id)))
		}
	}
	return regexp.Compile(strings.Join(names, "|"))
}
