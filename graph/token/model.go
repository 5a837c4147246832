package token

import (
	"fmt"
	"math"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// modelProto is what FromModel reads of a sentencepiece ModelProto. Fields that change the
// ids and that this package does not follow are read to be refused.
//
// Source: sentencepiece_model.proto of github.com/google/sentencepiece.
type modelProto struct {
	pieces []piece
	scores []float32

	algorithm    uint64 // 1 unigram, 2 BPE, 3 word, 4 char
	byteFallback bool
	suffix       bool // the space is at the end of pieces
	unknownText  string
	bos, eos     string

	charsmap     int // bytes of the table of character normalization
	dummyPrefix  bool
	trimSpaces   bool
	escapeSpaces bool
}

// FromModel reads a sentencepiece model, the contents of tokenizer.model.
//
// It fails if the bytes are not a whole model, or if the model is not like Mixtral's: BPE
// with byte fallback, spaces kept and escaped, no normalization of characters.
func FromModel(proto []byte) (*Tokenizer, error) {
	t, err := fromModel(proto)
	if err != nil {
		return nil, fmt.Errorf("sentencepiece model of %d bytes: %w", len(proto), err)
	}
	return t, nil
}

func fromModel(proto []byte) (*Tokenizer, error) {
	// The defaults of the proto's optional fields.
	m := modelProto{
		algorithm: 1, unknownText: " \u2047 ", bos: "<s>", eos: "</s>",
		dummyPrefix: true, trimSpaces: true, escapeSpaces: true,
	}
	if err := m.read(proto); err != nil {
		return nil, err
	}
	if err := m.supported(); err != nil {
		return nil, err
	}
	t := &Tokenizer{pieces: m.pieces, unknownText: m.unknownText, dropSpace: m.dummyPrefix}
	if m.dummyPrefix {
		t.prefix = prefixAlways
	}
	if err := t.index(); err != nil {
		return nil, err
	}
	if t.unknown < 0 {
		return nil, fmt.Errorf("none of the %d pieces is the unknown piece", len(t.pieces))
	}
	t.bos, t.eos = t.controlID(m.bos), t.controlID(m.eos)
	t.merges = newMerger(t.pieces)
	t.merges.pairByScore(t.pieces, m.scores, t.ids)
	return t, nil
}

func (m *modelProto) supported() error {
	if len(m.pieces) == 0 {
		return fmt.Errorf("no pieces")
	}
	if m.algorithm != 2 {
		names := map[uint64]string{1: "unigram", 3: "word", 4: "char"}
		return fmt.Errorf("model type %d (%s), want 2 (BPE)", m.algorithm, names[m.algorithm])
	}
	switch {
	case !m.byteFallback:
		return fmt.Errorf("byte_fallback is false, want true")
	case m.suffix:
		return fmt.Errorf("treat_whitespace_as_suffix is true, want false")
	case m.charsmap > 0:
		return fmt.Errorf("a normalization table of %d bytes, want none (identity)", m.charsmap)
	case m.trimSpaces:
		return fmt.Errorf("remove_extra_whitespaces is true, want false")
	case !m.escapeSpaces:
		return fmt.Errorf("escape_whitespaces is false, want true")
	case !utf8.ValidString(m.unknownText):
		return fmt.Errorf("unk_surface %q is not UTF-8", m.unknownText)
	}
	return nil
}

// field is one field of a message: value for numbers, bytes for strings and messages.
type field struct {
	number protowire.Number
	wire   protowire.Type
	value  uint64
	bytes  []byte
}

// eachField calls f for every field of a message, in order.
func eachField(message []byte, f func(field) error) error {
	for rest := message; len(rest) > 0; {
		at := len(message) - len(rest)
		number, wire, n := protowire.ConsumeTag(rest)
		if n < 0 {
			return fmt.Errorf("bad field at byte %d of %d: %w", at, len(message), protowire.ParseError(n))
		}
		rest = rest[n:]
		v := field{number: number, wire: wire}
		switch wire {
		case protowire.VarintType:
			v.value, n = protowire.ConsumeVarint(rest)
		case protowire.Fixed32Type:
			var bits uint32
			bits, n = protowire.ConsumeFixed32(rest)
			v.value = uint64(bits)
		case protowire.BytesType:
			v.bytes, n = protowire.ConsumeBytes(rest)
		default:
			n = protowire.ConsumeFieldValue(number, wire, rest)
		}
		if n < 0 {
			return fmt.Errorf("field %d at byte %d of %d: %w", number, at, len(message), protowire.ParseError(n))
		}
		rest = rest[n:]
		if err := f(v); err != nil {
			return fmt.Errorf("field %d at byte %d: %w", number, at, err)
		}
	}
	return nil
}

// want checks the wire type of a field that is about to be read.
func (f field) want(wire protowire.Type) error {
	if f.wire != wire {
		return fmt.Errorf("field %d has wire type %d, want %d", f.number, f.wire, wire)
	}
	return nil
}

func (m *modelProto) read(proto []byte) error {
	return eachField(proto, func(f field) error {
		var read func([]byte) error
		switch f.number {
		case 1:
			read = m.readPiece
		case 2:
			read = m.readTrainer
		case 3:
			read = m.readNormalizer
		case 5:
			read = m.readDenormalizer
		default:
			return nil
		}
		if err := f.want(protowire.BytesType); err != nil {
			return err
		}
		return read(f.bytes)
	})
}

// kinds is sentencepiece's numbering. Type 5, unused, is not supported.
var kinds = [...]kind{1: normal, 2: unknown, 3: control, 4: userDefined, 6: byteValue}

func (m *modelProto) readPiece(message []byte) error {
	p, score, number := piece{}, float32(0), uint64(1)
	err := eachField(message, func(f field) error {
		switch f.number {
		case 1:
			p.text = string(f.bytes)
			return f.want(protowire.BytesType)
		case 2:
			score = math.Float32frombits(uint32(f.value))
			return f.want(protowire.Fixed32Type)
		case 3:
			number = f.value
			return f.want(protowire.VarintType)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if score != score {
		return fmt.Errorf("piece %d, %q, has the score NaN", len(m.pieces), p.text)
	}
	if number < uint64(len(kinds)) {
		p.kind = kinds[number]
	}
	if p.kind == 0 {
		return fmt.Errorf("piece %d, %q, has type %d, want 1 (normal), 2 (unknown), 3 (control), 4 (user-defined) or 6 (byte)", len(m.pieces), p.text, number)
	}
	m.pieces = append(m.pieces, p)
	m.scores = append(m.scores, score)
	return nil
}

func (m *modelProto) readTrainer(message []byte) error {
	return readFields(message, map[protowire.Number]any{
		3: &m.algorithm, 24: &m.suffix, 35: &m.byteFallback,
		44: &m.unknownText, 46: &m.bos, 47: &m.eos,
	})
}

func (m *modelProto) readNormalizer(message []byte) error {
	return readFields(message, map[protowire.Number]any{
		2: &m.charsmap, 3: &m.dummyPrefix, 4: &m.trimSpaces, 5: &m.escapeSpaces,
	})
}

// readDenormalizer looks for a table that would change decoded text.
func (m *modelProto) readDenormalizer(message []byte) error {
	return readFields(message, map[protowire.Number]any{2: &m.charsmap})
}

// readFields stores the fields of a message: a number or a bool from a varint, a string from
// bytes, an int from the length of bytes.
func readFields(message []byte, targets map[protowire.Number]any) error {
	return eachField(message, func(f field) error {
		switch target := targets[f.number].(type) {
		case *uint64:
			*target = f.value
			return f.want(protowire.VarintType)
		case *bool:
			*target = f.value != 0
			return f.want(protowire.VarintType)
		case *string:
			*target = string(f.bytes)
			return f.want(protowire.BytesType)
		case *int:
			*target += len(f.bytes)
			return f.want(protowire.BytesType)
		}
		return nil
	})
}
