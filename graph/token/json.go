package token

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// jsonFile is what FromJSON reads of a Hugging Face tokenizer.json. The post-processor only
// adds BOS, which EncodeOptions decides here; truncation and padding belong to batches.
//
// Source: github.com/huggingface/tokenizers, the serialized form of its components.
type jsonFile struct {
	AddedTokens  []jsonToken `json:"added_tokens"`
	Normalizer   *component  `json:"normalizer"`
	PreTokenizer *component  `json:"pre_tokenizer"`
	Decoder      *component  `json:"decoder"`
	Model        jsonModel   `json:"model"`
}

type jsonToken struct {
	ID      int32  `json:"id"`
	Content string `json:"content"`
	Special bool   `json:"special"`
}

type jsonModel struct {
	Type         string           `json:"type"`
	Dropout      *float64         `json:"dropout"`
	Unknown      *string          `json:"unk_token"`
	Prefix       *string          `json:"continuing_subword_prefix"`
	Suffix       *string          `json:"end_of_word_suffix"`
	ByteFallback bool             `json:"byte_fallback"`
	IgnoreMerges bool             `json:"ignore_merges"`
	Vocab        map[string]int32 `json:"vocab"`
	Merges       []jsonMerge      `json:"merges"`
}

// jsonMerge is a pair of pieces, written ["a", "b"] or "a b".
type jsonMerge [2]string

func (m *jsonMerge) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		var text string
		if err := json.Unmarshal(b, &text); err != nil {
			return err
		}
		left, right, ok := strings.Cut(text, " ")
		if !ok || strings.Contains(right, " ") {
			return fmt.Errorf("merge %q, want two pieces with a space between", text)
		}
		*m = jsonMerge{left, right}
		return nil
	}
	var parts []string
	if err := json.Unmarshal(b, &parts); err != nil {
		return err
	}
	if len(parts) != 2 {
		return fmt.Errorf("merge of %d pieces, want 2", len(parts))
	}
	*m = jsonMerge(parts)
	return nil
}

// component is a normalizer, pre-tokenizer or decoder of any kind: the union of the fields
// that the kinds used by Mixtral have.
type component struct {
	Type          string      `json:"type"`
	Normalizers   []component `json:"normalizers"`
	Decoders      []component `json:"decoders"`
	Prepend       string      `json:"prepend"`
	Pattern       pattern     `json:"pattern"`
	Content       string      `json:"content"`
	Start         int         `json:"start"`
	Stop          int         `json:"stop"`
	Replacement   string      `json:"replacement"`
	PrependScheme string      `json:"prepend_scheme"`
	AddPrefix     *bool       `json:"add_prefix_space"`
	Split         *bool       `json:"split"`
}

type pattern struct {
	String string `json:"String"`
	Regex  string `json:"Regex"`
}

// FromJSON reads a Hugging Face tokenizer.json of the shape that Mixtral has: BPE with byte
// fallback, spaces written as ▁ by a normalizer or by Metaspace. Other kinds are refused.
//
// Merges follow the file's list, as in Hugging Face's library. Decoding follows
// sentencepiece, which differs from that library in broken characters only.
func FromJSON(b []byte) (*Tokenizer, error) {
	t, err := fromJSON(b)
	if err != nil {
		return nil, fmt.Errorf("tokenizer.json of %d bytes: %w", len(b), err)
	}
	return t, nil
}

func fromJSON(b []byte) (*Tokenizer, error) {
	var f jsonFile
	if err := unmarshal(b, &f); err != nil {
		return nil, err
	}
	if err := f.Model.supported(); err != nil {
		return nil, err
	}
	t := &Tokenizer{unknownText: " \u2047 "}
	var err error
	if t.prefix, err = spaces(f.Normalizer, f.PreTokenizer); err != nil {
		return nil, err
	}
	if t.dropSpace, err = decoderDrops(f.Decoder); err != nil {
		return nil, err
	}
	if t.pieces, err = f.vocabulary(); err != nil {
		return nil, err
	}
	if err := t.index(); err != nil {
		return nil, err
	}
	t.bos, t.eos = t.controlID("<s>"), t.controlID("</s>")
	t.merges = newMerger(t.pieces)
	return t, t.pairByOrder(f.Model.Merges)
}

// unmarshal decodes one JSON value and nothing after it.
func unmarshal(b []byte, to any) error {
	if !utf8.Valid(b) {
		return errors.New("not UTF-8")
	}
	d := json.NewDecoder(strings.NewReader(string(b)))
	if err := d.Decode(to); err != nil {
		return fmt.Errorf("not readable as JSON: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("not readable as JSON: more text after byte %d", d.InputOffset())
	}
	return nil
}

func (m jsonModel) supported() error {
	text := func(s *string) string {
		if s == nil {
			return ""
		}
		return *s
	}
	switch {
	case m.Type != "BPE" && m.Type != "":
		return fmt.Errorf("model type %q, want \"BPE\"", m.Type)
	case len(m.Vocab) == 0:
		return errors.New("model has no vocab")
	case !m.ByteFallback:
		return errors.New("byte_fallback is false, want true")
	case m.IgnoreMerges:
		return errors.New("ignore_merges is true, want false")
	case m.Dropout != nil && *m.Dropout != 0:
		return fmt.Errorf("dropout is %g, want none", *m.Dropout)
	case text(m.Prefix) != "":
		return fmt.Errorf("continuing_subword_prefix is %q, want none", *m.Prefix)
	case text(m.Suffix) != "":
		return fmt.Errorf("end_of_word_suffix is %q, want none", *m.Suffix)
	}
	return nil
}

// vocabulary lists the pieces of model and added tokens by id. Ids must leave no hole.
func (f *jsonFile) vocabulary() ([]piece, error) {
	size := len(f.Model.Vocab)
	for _, a := range f.AddedTokens {
		if _, in := f.Model.Vocab[a.Content]; !in {
			size++
		}
	}
	pieces := make([]piece, size)
	put := func(text string, id int32, k kind) error {
		if id < 0 || int(id) >= size {
			return fmt.Errorf("piece %q has id %d, want 0 to %d, as there are %d pieces", text, id, size-1, size)
		}
		if p := pieces[id]; p.kind != 0 && p.text != text {
			return fmt.Errorf("id %d is both %q and %q", id, p.text, text)
		}
		pieces[id] = piece{text: text, kind: k}
		return nil
	}
	for text, id := range f.Model.Vocab {
		k := normal
		if _, ok := parseByte(text); ok {
			k = byteValue
		}
		if f.Model.Unknown != nil && text == *f.Model.Unknown {
			k = unknown
		}
		if err := put(text, id, k); err != nil {
			return nil, err
		}
	}
	for _, a := range f.AddedTokens {
		id, in := f.Model.Vocab[a.Content]
		if in && id != a.ID {
			return nil, fmt.Errorf("added token %q has id %d, and id %d in the vocab", a.Content, a.ID, id)
		}
		k := added
		switch {
		case in && (!a.Special || pieces[id].kind == unknown || pieces[id].kind == byteValue):
			continue
		case a.Special:
			k = control
		}
		if err := put(a.Content, a.ID, k); err != nil {
			return nil, err
		}
	}
	for id, p := range pieces {
		if p.kind == 0 {
			return nil, fmt.Errorf("no piece has id %d of %d", id, size)
		}
	}
	return pieces, nil
}

// pairByOrder fills the pairs from a merge list, the first merge first. Merges that make a
// piece other than ordinary text are left out: no text becomes a control id.
func (t *Tokenizer) pairByOrder(merges []jsonMerge) error {
	for i, m := range merges {
		left, okLeft := t.ids[m[0]]
		right, okRight := t.ids[m[1]]
		whole, ok := t.ids[m[0]+m[1]]
		if !okLeft || !okRight || !ok {
			return fmt.Errorf("merge %d of %q and %q: the vocab lacks one of them or %q", i, m[0], m[1], m[0]+m[1])
		}
		p := pair{left, right}
		if _, twice := t.merges.pairs[p]; twice {
			return fmt.Errorf("merge %d of %q and %q is there twice", i, m[0], m[1])
		}
		if t.pieces[whole].kind == normal {
			t.merges.pairs[p] = merge{whole, int32(i)}
		}
	}
	return nil
}

// spaces finds how a file puts a space before a text, and checks that it writes spaces as ▁.
func spaces(normalizer, preTokenizer *component) (prefix, error) {
	steps, err := steps("normalizer", normalizer)
	if err != nil {
		return 0, err
	}
	result, replaced := prefixNever, false
	for _, s := range steps {
		switch {
		case s.Type == "Prepend" && s.Prepend == string(space):
			result = prefixAlways
		case s.Type == "Replace" && s.Pattern.String == " " && s.Content == string(space):
			replaced = true
		default:
			return 0, fmt.Errorf("normalizer %s, want Prepend \"▁\" and Replace \" \" by \"▁\"", describe(s))
		}
	}
	if preTokenizer == nil {
		if !replaced {
			return 0, errors.New("neither normalizer nor pre_tokenizer writes spaces as \"▁\"")
		}
		return result, nil
	}
	m := *preTokenizer
	if m.Type != "Metaspace" || m.Replacement != string(space) || len(steps) > 0 {
		return 0, fmt.Errorf("pre_tokenizer %s after %d normalizers, want none after a normalizer or Metaspace \"▁\" alone", describe(m), len(steps))
	}
	if m.Split == nil || *m.Split {
		return 0, errors.New("pre_tokenizer Metaspace splits at spaces, want \"split\": false")
	}
	switch {
	case m.PrependScheme == "never" || m.PrependScheme == "" && m.AddPrefix != nil && !*m.AddPrefix:
		return prefixNever, nil
	case m.PrependScheme == "always" || m.PrependScheme == "first" || m.PrependScheme == "":
		return prefixUnlessSpace, nil
	}
	return 0, fmt.Errorf("pre_tokenizer Metaspace has prepend_scheme %q, want always, first or never", m.PrependScheme)
}

// decoderDrops checks the decoder and reports whether it takes away the leading space.
func decoderDrops(decoder *component) (bool, error) {
	const want = "Replace \"▁\" by \" \", ByteFallback, Fuse and perhaps Strip of one leading \" \""
	steps, err := steps("decoder", decoder)
	if err != nil {
		return false, err
	}
	var kinds []string
	for _, s := range steps {
		ok := true
		switch s.Type {
		case "Replace":
			ok = s.Pattern.String == string(space) && s.Content == " "
		case "Strip":
			ok = s.Content == " " && s.Start == 1 && s.Stop == 0
		}
		if !ok {
			return false, fmt.Errorf("decoder %s, want %s", describe(s), want)
		}
		kinds = append(kinds, s.Type)
	}
	switch {
	case slices.Equal(kinds, []string{"Replace", "ByteFallback", "Fuse", "Strip"}):
		return true, nil
	case slices.Equal(kinds, []string{"Replace", "ByteFallback", "Fuse"}):
		return false, nil
	}
	return false, fmt.Errorf("decoder of steps %q, want %s", kinds, want)
}

// steps returns the parts of a Sequence, or the one component itself, or nothing.
func steps(what string, c *component) ([]component, error) {
	if c == nil {
		return nil, nil
	}
	if c.Type != "Sequence" {
		return []component{*c}, nil
	}
	all := slices.Concat(c.Normalizers, c.Decoders)
	for _, s := range all {
		if s.Type == "Sequence" {
			return nil, fmt.Errorf("%s has a Sequence inside a Sequence, want a flat one", what)
		}
	}
	return all, nil
}

// describe names a component and its text settings for an error.
func describe(c component) string {
	s := fmt.Sprintf("%q", c.Type)
	for _, text := range []string{c.Prepend, c.Pattern.String, c.Pattern.Regex, c.Content, c.Replacement} {
		if text != "" {
			s += fmt.Sprintf(" %q", text)
		}
	}
	return s
}
