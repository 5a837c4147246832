package torchfile

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Bounds of a pickle. Megatron's own for a model of 8x22B is below a megabyte.
const (
	maxPickle = 16 << 20 // bytes
	maxValues = 1 << 21  // values that are ever made
)

// machine follows the opcodes of one pickle.
//
// Source: the opcodes and their arguments are documented in CPython's pickletools module, protocols 0 to 5.
type machine struct {
	text    []byte
	at      int // of the next byte
	stack   []any
	marks   []int
	memo    map[uint32]any
	made    int
	storage func(id Tuple) (*Storage, error) // what a persistent id names
}

// wrong is an error at an opcode.
func (m *machine) wrong(at int, form string, args ...any) error {
	return fmt.Errorf("%w: pickle, byte %d: %s", ErrFormat, at, fmt.Sprintf(form, args...))
}

// unpickle reads one pickle from the beginning of text and says how long it is.
func unpickle(text []byte, storage func(Tuple) (*Storage, error)) (v any, length int, err error) {
	m := &machine{text: text, memo: map[uint32]any{}, storage: storage}
	for {
		at := m.at
		b, err := m.take(1)
		if err != nil {
			return nil, 0, err
		}
		if op(b[0]) == opStop {
			v, err := m.pop(at)
			if err == nil && len(m.stack)+len(m.marks) > 0 {
				err = m.wrong(at, "%d values are left over", len(m.stack)+1)
			}
			return v, m.at, err
		}
		if err := m.step(at, op(b[0])); err != nil {
			return nil, 0, err
		}
		if m.made++; m.made > maxValues {
			return nil, 0, m.wrong(at, "more than %d values", maxValues)
		}
	}
}

// take is the next n bytes.
func (m *machine) take(n int) ([]byte, error) {
	if n < 0 || n > len(m.text)-m.at {
		return nil, m.wrong(m.at, "the pickle ends, %d bytes are wanted and %d are left", n, len(m.text)-m.at)
	}
	b := m.text[m.at : m.at+n]
	m.at += n
	return b, nil
}

// counted is the bytes after a little-endian length of the given width.
func (m *machine) counted(width int) ([]byte, error) {
	b, err := m.take(width)
	if err != nil {
		return nil, err
	}
	n := uint64(0)
	for i := width - 1; i >= 0; i-- {
		n = n<<8 | uint64(b[i])
	}
	if n > maxPickle {
		return nil, m.wrong(m.at, "text of %d bytes", n)
	}
	return m.take(int(n))
}

// line is the text up to the end of the line.
func (m *machine) line() (string, error) {
	n := bytes.IndexByte(m.text[m.at:], '\n')
	if n < 0 {
		return "", m.wrong(m.at, "a line without an end")
	}
	b, err := m.take(n + 1)
	if err != nil {
		return "", err
	}
	return string(b[:n]), nil
}

func (m *machine) push(v any) { m.stack = append(m.stack, v) }

// floor is where values above the last mark begin.
func (m *machine) floor() int {
	if len(m.marks) == 0 {
		return 0
	}
	return m.marks[len(m.marks)-1]
}

func (m *machine) pop(at int) (any, error) {
	if len(m.stack) <= m.floor() {
		return nil, m.wrong(at, "nothing on the stack")
	}
	v := m.stack[len(m.stack)-1]
	m.stack = m.stack[:len(m.stack)-1]
	return v, nil
}

// top is the value that stays.
func (m *machine) top(at int) (any, error) {
	v, err := m.pop(at)
	if err == nil {
		m.push(v)
	}
	return v, err
}

// popMark is the values above the last mark, which goes.
func (m *machine) popMark(at int) ([]any, error) {
	if len(m.marks) == 0 {
		return nil, m.wrong(at, "no mark on the stack")
	}
	from := m.floor()
	m.marks = m.marks[:len(m.marks)-1]
	list := append([]any(nil), m.stack[from:]...)
	m.stack = m.stack[:from]
	return list, nil
}

// tuple replaces the last n values by their tuple.
func (m *machine) tuple(at, n int) error {
	t := make(Tuple, n)
	for i := n - 1; i >= 0; i-- {
		v, err := m.pop(at)
		if err != nil {
			return err
		}
		t[i] = v
	}
	m.push(t)
	return nil
}

// items adds values to the list below them.
func (m *machine) items(at int, list []any) error {
	v, err := m.top(at)
	if err != nil {
		return err
	}
	l, ok := v.(*List)
	if !ok {
		return m.wrong(at, "items for a %s, want a list", kind(v))
	}
	l.Items = append(l.Items, list...)
	return nil
}

// pairs adds keys and values to the dictionary below them.
func (m *machine) pairs(at int, list []any) error {
	v, err := m.top(at)
	if err != nil {
		return err
	}
	d, ok := v.(*Dict)
	if !ok || len(list)%2 != 0 {
		return m.wrong(at, "%d keys and values for a %s, want pairs for a dictionary", len(list), kind(v))
	}
	for i := 0; i < len(list); i += 2 {
		if err := d.Set(list[i], list[i+1]); err != nil {
			return m.wrong(at, "%v", err)
		}
	}
	return nil
}

// uint reads a little-endian number.
func (m *machine) uint(width int) (uint64, error) {
	b, err := m.take(width)
	if err != nil {
		return 0, err
	}
	var wide [8]byte
	copy(wide[:], b)
	return binary.LittleEndian.Uint64(wide[:]), nil
}

// integer is a number in two's complement, little-endian.
func integer(b []byte) any {
	if len(b) <= 8 {
		var wide [8]byte
		if len(b) > 0 && b[len(b)-1]&0x80 != 0 {
			wide = [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
		}
		copy(wide[:], b)
		return int64(binary.LittleEndian.Uint64(wide[:]))
	}
	big1 := make([]byte, len(b))
	for i := range b {
		big1[len(b)-1-i] = b[i]
	}
	v := new(big.Int).SetBytes(big1)
	if b[len(b)-1]&0x80 != 0 {
		v.Sub(v, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
	}
	return v
}

// decimal is a number in the text form of protocol 0.
func (m *machine) decimal(at int) (any, error) {
	s, err := m.line()
	if err != nil {
		return nil, err
	}
	switch s {
	case "00":
		return false, nil
	case "01":
		return true, nil
	}
	n, err := strconv.ParseInt(strings.TrimSuffix(s, "L"), 10, 64)
	if err != nil {
		return nil, m.wrong(at, "integer %.40q", s)
	}
	return n, nil
}

// unicode is text, or a refusal of bytes that are none.
func (m *machine) unicode(at int, b []byte) (string, error) {
	if !utf8.Valid(b) {
		return "", m.wrong(at, "text that is not UTF-8")
	}
	return string(b), nil
}

func float(b []byte) float64 { return math.Float64frombits(binary.BigEndian.Uint64(b)) }
