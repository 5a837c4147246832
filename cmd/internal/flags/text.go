package flags

import (
	"fmt"

	"mix/graph/token"
)

// Prompt turns text into the ids of a prompt: with the beginning-of-text id, or as a user's message in the
// Instruct template of the tokenizer's version.
func (o *Opened) Prompt(text string, chat bool) ([]int32, error) {
	if o.Tokenizer == nil {
		return nil, o.TokenizerErr
	}
	if chat {
		ids, err := o.Tokenizer.EncodeChat([]token.Message{{Role: token.User, Content: text}}, token.TemplateFor(o.Tokenizer))
		if err != nil {
			return nil, fmt.Errorf("prompt: %w", err)
		}
		return ids, nil
	}
	ids, err := o.Tokenizer.Encode(text, token.EncodeOptions{BOS: true})
	if err != nil {
		return nil, fmt.Errorf("prompt: %w", err)
	}
	return ids, nil
}

// Stream decodes what follows a prompt: an answer begins a text of its own, a continuation does not.
func (o *Opened) Stream(prompt []int32, chat bool) *token.Stream {
	if chat {
		return o.Tokenizer.Stream()
	}
	return o.Tokenizer.StreamAfter(prompt)
}

// Ends are the ids that end a text: the config's and the tokenizer's.
func (o *Opened) Ends() map[int32]bool {
	ends := map[int32]bool{}
	for _, id := range o.Config.EOS {
		ends[int32(id)] = true
	}
	if o.Tokenizer != nil && o.Tokenizer.EOS() >= 0 {
		ends[o.Tokenizer.EOS()] = true
	}
	return ends
}
