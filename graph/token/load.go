package token

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// files are the names that Load looks for; the first one present is read.
var files = []struct {
	name string
	read func([]byte) (*Tokenizer, error)
}{
	{"tokenizer.model.v3", FromModel},
	{"tokenizer.model", FromModel},
	{"tokenizer.json", FromJSON},
	{"tokenizer.model.v1", FromModel},
}

// Load reads the tokenizer of a checkpoint folder: tokenizer.model.v3, tokenizer.model,
// tokenizer.json or tokenizer.model.v1, the first that is there.
//
// If the folder has tokenizer_config.json, the tokens that it adds after the vocabulary are
// added, and its bos_token and eos_token are taken; special_tokens_map.json is asked for
// those that it does not name. Its chat template is not read: see TemplateFor.
//
// Errors name the file; without any file, the names looked for.
func Load(dir string) (*Tokenizer, error) {
	var names []string
	for _, f := range files {
		path := filepath.Join(dir, f.name)
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			names = append(names, f.name)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("tokenizer: %w", err)
		}
		t, err := f.read(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if err := t.configure(dir); err != nil {
			return nil, err
		}
		return t, nil
	}
	return nil, fmt.Errorf("no tokenizer in %s: looked for %s", dir, strings.Join(names, ", "))
}

// tokenConfig is what Load reads of tokenizer_config.json and special_tokens_map.json.
type tokenConfig struct {
	Added map[int32]jsonToken `json:"added_tokens_decoder"`
	BOS   *tokenName          `json:"bos_token"`
	EOS   *tokenName          `json:"eos_token"`
}

// tokenName is the text of a token, written "<s>" or {"content": "<s>", …}.
type tokenName string

func (n *tokenName) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '{' {
		var t jsonToken
		err := json.Unmarshal(b, &t)
		*n = tokenName(t.Content)
		return err
	}
	var text string
	err := json.Unmarshal(b, &text)
	*n = tokenName(text)
	return err
}

// configure applies the two configuration files of a folder, if they are there.
func (t *Tokenizer) configure(dir string) error {
	var haveBOS, haveEOS bool
	for _, name := range []string{"tokenizer_config.json", "special_tokens_map.json"} {
		path := filepath.Join(dir, name)
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("tokenizer: %w", err)
		}
		var c tokenConfig
		if err := unmarshal(b, &c); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if err := t.add(c.Added); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if err := t.set(&t.bos, &haveBOS, "bos_token", c.BOS); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if err := t.set(&t.eos, &haveEOS, "eos_token", c.EOS); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

// add appends the tokens whose ids follow the vocabulary; the others must agree with it.
func (t *Tokenizer) add(tokens map[int32]jsonToken) error {
	ids := make([]int32, 0, len(tokens))
	for id := range tokens {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	grown := false
	for _, id := range ids {
		text := tokens[id].Content
		switch {
		case t.has(id) && t.Piece(id) == text:
			continue
		case t.has(id):
			return fmt.Errorf("added token %d is %q, and %q in the vocabulary", id, text, t.Piece(id))
		case int(id) != len(t.pieces):
			return fmt.Errorf("added token %q has id %d, want %d, the first after the vocabulary", text, id, len(t.pieces))
		}
		k := added
		if tokens[id].Special {
			k = control
		}
		t.pieces = append(t.pieces, piece{text: text, kind: k})
		grown = true
	}
	if !grown {
		return nil
	}
	return t.index()
}

// set takes an id from a token's name, unless an earlier file has set it. A token without
// text can end a sequence, so one that reads as text becomes a control piece.
func (t *Tokenizer) set(id *int32, have *bool, what string, name *tokenName) error {
	if name == nil || *have {
		return nil
	}
	found, ok := t.ids[string(*name)]
	if !ok {
		return fmt.Errorf("%s is %q, which is not one of the %d pieces", what, string(*name), len(t.pieces))
	}
	switch t.pieces[found].kind {
	case control:
	case added:
		t.pieces[found].kind = control
	default:
		return fmt.Errorf("%s is %q, piece %d, which is ordinary text; want a control piece", what, string(*name), found)
	}
	*id, *have = found, true
	return nil
}
