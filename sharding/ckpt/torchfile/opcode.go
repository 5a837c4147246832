package torchfile

import (
	"fmt"
	"strconv"
)

// op is an opcode of a pickle.
type op byte

const opStop op = '.'

// refusals names the opcodes that are known and not followed.
var refusals = map[op]string{
	'P': "PERSID", 'i': "INST", 'o': "OBJ", '\x82': "EXT1", '\x83': "EXT2", '\x84': "EXT4", '\x92': "NEWOBJ_EX",
	'\x96': "BYTEARRAY8", '\x97': "NEXT_BUFFER", '\x98': "READONLY_BUFFER",
}

// step follows one opcode, which is at the given byte.
func (m *machine) step(at int, o op) error {
	for _, part := range []func(int, op) (bool, error){m.scalars, m.texts, m.containers, m.stacking, m.objects} {
		if known, err := part(at, o); known || err != nil {
			return err
		}
	}
	if name, ok := refusals[o]; ok {
		return fmt.Errorf("%w: byte %d: opcode %s, which tensors do not need", ErrRefused, at, name)
	}
	return m.wrong(at, "opcode %#02x, want one of a pickle", byte(o))
}

// scalars follows opcodes that make numbers.
func (m *machine) scalars(at int, o op) (known bool, err error) {
	var v any
	var b []byte
	switch o {
	case 'N': // NONE
	case '\x88', '\x89': // NEWTRUE, NEWFALSE
		v = o == '\x88'
	case 'K', 'M': // BININT1, BININT2: without a sign
		var n uint64
		n, err = m.uint(map[op]int{'K': 1, 'M': 2}[o])
		v = int64(n)
	case 'J': // BININT
		b, err = m.take(4)
		v = integer(b)
	case '\x8a', '\x8b': // LONG1, LONG4
		b, err = m.counted(map[op]int{'\x8a': 1, '\x8b': 4}[o])
		if len(b) > 255 {
			err = m.wrong(at, "integer of %d bytes", len(b))
		}
		v = integer(b)
	case 'I', 'L': // INT, LONG
		v, err = m.decimal(at)
	case 'G': // BINFLOAT
		if b, err = m.take(8); err == nil {
			v = float(b)
		}
	case 'F': // FLOAT
		var s string
		if s, err = m.line(); err == nil {
			if v, err = strconv.ParseFloat(s, 64); err != nil {
				err = m.wrong(at, "float %.40q", s)
			}
		}
	default:
		return false, nil
	}
	if err == nil {
		m.push(v)
	}
	return true, err
}

// texts follows opcodes that make text and bytes.
func (m *machine) texts(at int, o op) (known bool, err error) {
	width := map[op]int{
		'X': 4, '\x8c': 1, '\x8d': 8, // BINUNICODE, SHORT_BINUNICODE, BINUNICODE8
		'T': 4, 'U': 1, // BINSTRING, SHORT_BINSTRING
		'B': 4, 'C': 1, '\x8e': 8, // BINBYTES, SHORT_BINBYTES, BINBYTES8
	}[o]
	if width == 0 {
		return false, nil
	}
	b, err := m.counted(width)
	if err != nil {
		return true, err
	}
	switch o {
	case 'B', 'C', '\x8e':
		m.push(append([]byte{}, b...))
	default:
		s, err := m.unicode(at, b)
		if err != nil {
			return true, err
		}
		m.push(s)
	}
	return true, nil
}

// containers follows opcodes that make or fill tuples, lists and dictionaries.
func (m *machine) containers(at int, o op) (known bool, err error) {
	switch o {
	case ')': // EMPTY_TUPLE
		m.push(Tuple{})
	case ']', '\x8f': // EMPTY_LIST, EMPTY_SET
		m.push(&List{})
	case '}': // EMPTY_DICT
		m.push(&Dict{})
	case '\x85', '\x86', '\x87': // TUPLE1 to TUPLE3
		return true, m.tuple(at, int(o-'\x84'))
	case 'a': // APPEND
		v, err := m.pop(at)
		if err != nil {
			return true, err
		}
		return true, m.items(at, []any{v})
	case 's': // SETITEM
		if err := m.tuple(at, 2); err != nil {
			return true, err
		}
		v, err := m.pop(at)
		if err != nil {
			return true, err
		}
		return true, m.pairs(at, v.(Tuple))
	case 't', 'l', 'd', 'e', '\x90', 'u', '\x91': // TUPLE, LIST, DICT, APPENDS, ADDITEMS, SETITEMS, FROZENSET
		list, err := m.popMark(at)
		if err != nil {
			return true, err
		}
		switch o {
		case 't':
			m.push(Tuple(list))
		case 'l', '\x91':
			m.push(&List{Items: list})
		case 'd':
			m.push(&Dict{})
			return true, m.pairs(at, list)
		case 'u':
			return true, m.pairs(at, list)
		default:
			return true, m.items(at, list)
		}
	default:
		return false, nil
	}
	return true, nil
}

// stacking follows opcodes that move values between stack and memo.
func (m *machine) stacking(at int, o op) (known bool, err error) {
	var n uint64
	switch o {
	case '\x80': // PROTO
		b, err := m.take(1)
		if err == nil && b[0] > 5 {
			err = m.wrong(at, "protocol %d, want at most 5", b[0])
		}
		return true, err
	case '\x95': // FRAME
		_, err := m.take(8)
		return true, err
	case '(': // MARK
		m.marks = append(m.marks, len(m.stack))
	case '1': // POP_MARK
		_, err := m.popMark(at)
		return true, err
	case '0': // POP
		if len(m.stack) == m.floor() && len(m.marks) > 0 {
			_, err := m.popMark(at)
			return true, err
		}
		_, err := m.pop(at)
		return true, err
	case '2': // DUP
		v, err := m.top(at)
		if err == nil {
			m.push(v)
		}
		return true, err
	case '\x94': // MEMOIZE
		return true, m.remember(at, uint64(len(m.memo)))
	case 'q', 'r', 'p': // BINPUT, LONG_BINPUT, PUT
		if n, err = m.index(at, o, 'q', 'r'); err == nil {
			err = m.remember(at, n)
		}
		return true, err
	case 'h', 'j', 'g': // BINGET, LONG_BINGET, GET
		if n, err = m.index(at, o, 'h', 'j'); err != nil {
			return true, err
		}
		v, ok := m.memo[uint32(n)]
		if !ok {
			return true, m.wrong(at, "nothing is remembered as %d", n)
		}
		m.push(v)
	default:
		return false, nil
	}
	return true, nil
}

// index is the argument of an opcode of the memo: of one byte, of four, or a line.
func (m *machine) index(at int, o, short, long op) (uint64, error) {
	switch o {
	case short:
		return m.uint(1)
	case long:
		return m.uint(4)
	}
	s, err := m.line()
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, m.wrong(at, "index %.40q", s)
	}
	return n, nil
}

func (m *machine) remember(at int, n uint64) error {
	v, err := m.top(at)
	if err == nil {
		m.memo[uint32(n)] = v
	}
	return err
}

// objects follows opcodes that name globals and make objects of them.
func (m *machine) objects(at int, o op) (known bool, err error) {
	switch o {
	case 'c': // GLOBAL
		module, err := m.line()
		if err != nil {
			return true, err
		}
		name, err := m.line()
		if err != nil {
			return true, err
		}
		return true, m.global(at, Global{module, name})
	case '\x93': // STACK_GLOBAL
		if err := m.tuple(at, 2); err != nil {
			return true, err
		}
		v, err := m.pop(at)
		if err != nil {
			return true, err
		}
		module, ok1 := v.(Tuple)[0].(string)
		name, ok2 := v.(Tuple)[1].(string)
		if !ok1 || !ok2 {
			return true, m.wrong(at, "a global whose name is not text")
		}
		return true, m.global(at, Global{module, name})
	case 'R', '\x81': // REDUCE, NEWOBJ: both are a call
		if err := m.tuple(at, 2); err != nil {
			return true, err
		}
		v, err := m.pop(at)
		if err != nil {
			return true, err
		}
		called, err := m.call(at, v.(Tuple)[0], v.(Tuple)[1])
		if err == nil {
			m.push(called)
		}
		return true, err
	case 'b': // BUILD
		state, err := m.pop(at)
		if err != nil {
			return true, err
		}
		v, err := m.top(at)
		if err != nil {
			return true, err
		}
		switch v := v.(type) {
		case *Object:
			v.State = state
		case *Dict, *Tensor: // attributes of an OrderedDict, such as _metadata, or of a parameter
		default:
			return true, m.wrong(at, "fields for a %s, want an object", kind(v))
		}
	case 'Q': // BINPERSID
		v, err := m.pop(at)
		if err != nil {
			return true, err
		}
		id, ok := v.(Tuple)
		if !ok {
			return true, m.wrong(at, "persistent id is a %s, want a tuple", kind(v))
		}
		s, err := m.storage(id)
		if err != nil {
			return true, fmt.Errorf("byte %d: %w", at, err)
		}
		m.push(s)
	default:
		return false, nil
	}
	return true, nil
}
