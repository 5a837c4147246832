package token

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxPieceBytes bounds the length of a piece. The longest of Mixtral's has 48 bytes; the
// table of merges takes time in the square of the length.
const maxPieceBytes = 1024

// index fills ids, bytes and unknown from pieces, and checks them: every piece is UTF-8,
// occurs once, and each byte has one.
func (t *Tokenizer) index() error {
	t.ids = make(map[string]int32, len(t.pieces))
	t.unknown = -1
	for i := range t.bytes {
		t.bytes[i] = -1
	}
	for i := range t.pieces {
		p, id := &t.pieces[i], int32(i)
		switch {
		case p.text == "":
			return fmt.Errorf("piece %d is empty", id)
		case len(p.text) > maxPieceBytes:
			return fmt.Errorf("piece %d has %d bytes, want at most %d", id, len(p.text), maxPieceBytes)
		case !utf8.ValidString(p.text):
			return fmt.Errorf("piece %d, %q, is not UTF-8", id, p.text)
		}
		if first, twice := t.ids[p.text]; twice {
			return fmt.Errorf("pieces %d and %d are both %q", first, id, p.text)
		}
		t.ids[p.text] = id
		switch p.kind {
		case byteValue:
			b, ok := parseByte(p.text)
			if !ok {
				return fmt.Errorf("byte piece %d is %q, want <0x00> to <0xFF>", id, p.text)
			}
			p.b, t.bytes[b] = b, id
		case unknown:
			if t.unknown >= 0 {
				return fmt.Errorf("pieces %d and %d are both the unknown piece", t.unknown, id)
			}
			t.unknown = id
		case userDefined:
			if strings.ContainsAny(p.text, " "+string(space)) {
				return fmt.Errorf("user-defined piece %d, %q, contains a space, which is not supported", id, p.text)
			}
		}
	}
	for b, id := range t.bytes {
		if id < 0 {
			return fmt.Errorf("no piece for byte 0x%02X; want byte fallback with all 256", b)
		}
	}
	return nil
}

// parseByte reads "<0x0A>".
func parseByte(text string) (b byte, ok bool) {
	if len(text) != 6 || text[:3] != "<0x" || text[5] != '>' || strings.ToUpper(text[3:5]) != text[3:5] {
		return 0, false
	}
	v, err := strconv.ParseUint(text[3:5], 16, 8)
	return byte(v), err == nil
}

// controlID returns the id of a control piece, -1 if there is none of that name.
func (t *Tokenizer) controlID(text string) int32 {
	if id, ok := t.ids[text]; ok && t.pieces[id].kind == control {
		return id
	}
	return -1
}
