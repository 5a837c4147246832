package torchfile

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"math/big"
	"strconv"
	"strings"
)

// Part is a stretch of a file that is to be written: a tensor's elements, or text that depends on the
// checksums of tensors and so can only be made after them.
type Part struct {
	Bytes  int64
	Tensor *Tensor                    // nil for text
	Text   func(sums []uint32) []byte // of Bytes bytes; sums are IEEE CRC-32s of the tensors, in the order of their parts
}

// Plan lays out a zip archive of torch's form that holds a value: the parts in the order of the file. Each
// tensor in the value becomes one part with a storage of its own, row-major and aligned to 64 bytes; its
// place in the file is noted in it. No element is needed to plan. Unpicklers that are restricted to weights
// take it if the value's objects are of classes they allow.
func Plan(archive string, value any) ([]Part, error) {
	if archive == "" || strings.ContainsAny(archive, "/\\") {
		return nil, fmt.Errorf("archive named %q, want a name without slashes", archive)
	}
	p := &pickler{}
	p.text.WriteString("\x80\x02")
	if err := p.value(value, 0); err != nil {
		return nil, err
	}
	p.text.WriteByte(byte(opStop))
	a := &archiver{}
	a.text(archive+"/data.pkl", p.text.Bytes())
	a.text(archive+"/.format_version", []byte("1"))
	a.text(archive+"/.storage_alignment", []byte(strconv.Itoa(alignment)))
	a.text(archive+"/byteorder", []byte("little"))
	for i, t := range p.tensors {
		a.tensor(archive+"/data/"+strconv.Itoa(i), t)
	}
	a.text(archive+"/version", []byte("3\n"))
	a.directory()
	return a.parts, nil
}

// Write writes a planned file in one go. data gives the elements of a tensor.
func Write(w io.Writer, parts []Part, data func(w io.Writer, t *Tensor) error) error {
	// Text before a tensor holds its checksum, so every tensor is asked for twice.
	var sums []uint32
	for _, p := range parts {
		if p.Tensor != nil {
			crc := crc32.NewIEEE()
			if err := data(crc, p.Tensor); err != nil {
				return err
			}
			sums = append(sums, crc.Sum32())
		}
	}
	for _, p := range parts {
		if p.Tensor != nil {
			if err := data(w, p.Tensor); err != nil {
				return err
			}
		} else if _, err := w.Write(p.Text(sums)); err != nil {
			return err
		}
	}
	return nil
}

// pickler writes a value in protocol 2.
type pickler struct {
	text    bytes.Buffer
	tensors []*Tensor
}

// maxDepth ends values that hold themselves.
const maxDepth = 100

func (p *pickler) value(v any, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("values are nested more than %d deep", maxDepth)
	}
	switch v := v.(type) {
	case nil:
		p.text.WriteByte('N')
	case bool:
		p.text.WriteByte(map[bool]byte{true: '\x88', false: '\x89'}[v])
	case int:
		p.integer(int64(v))
	case int64:
		p.integer(v)
	case float64:
		p.text.WriteByte('G')
		p.text.Write(binary.BigEndian.AppendUint64(nil, math.Float64bits(v)))
	case string:
		p.string(v)
	case Global:
		p.global(v)
	case Tuple:
		return p.tuple(v, depth)
	case *List:
		p.text.WriteString("](")
		for _, x := range v.Items {
			if err := p.value(x, depth+1); err != nil {
				return err
			}
		}
		p.text.WriteByte('e')
	case *Dict:
		p.text.WriteString("}(")
		for i, k := range v.Keys {
			if err := p.value(k, depth+1); err != nil {
				return err
			}
			if err := p.value(v.Values[i], depth+1); err != nil {
				return err
			}
		}
		p.text.WriteByte('u')
	case *Object:
		p.global(v.Class)
		if err := p.tuple(v.Args, depth); err != nil {
			return err
		}
		p.text.WriteByte('\x81')
		if v.State != nil {
			if err := p.value(v.State, depth+1); err != nil {
				return err
			}
			p.text.WriteByte('b')
		}
	case *Tensor:
		return p.tensor(v, depth)
	case *big.Int:
		return fmt.Errorf("integer %s, want one of 64 bits", v)
	default:
		return fmt.Errorf("a value of type %T cannot be written", v)
	}
	return nil
}

func (p *pickler) integer(v int64) {
	if v == int64(int32(v)) {
		p.text.WriteByte('J')
		p.text.Write(binary.LittleEndian.AppendUint32(nil, uint32(v)))
		return
	}
	p.text.WriteString("\x8a\x08")
	p.text.Write(binary.LittleEndian.AppendUint64(nil, uint64(v)))
}

func (p *pickler) string(s string) {
	p.text.WriteByte('X')
	p.text.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(s))))
	p.text.WriteString(s)
}

func (p *pickler) global(g Global) { fmt.Fprintf(&p.text, "c%s\n%s\n", g.Module, g.Name) }

func (p *pickler) tuple(t Tuple, depth int) error {
	p.text.WriteByte('(')
	for _, x := range t {
		if err := p.value(x, depth+1); err != nil {
			return err
		}
	}
	p.text.WriteByte('t')
	return nil
}

func (p *pickler) tensor(t *Tensor, depth int) error {
	class := ""
	for name, dtype := range storages {
		if dtype == t.DType {
			class = name
		}
	}
	if class == "" {
		return fmt.Errorf("tensor of %s: torch has no storage of that type", t.DType)
	}
	shape, stride := Tuple{}, Tuple{}
	for i, n := range rowMajor(t.Shape) {
		shape, stride = append(shape, t.Shape[i]), append(stride, n)
	}
	p.global(Global{"torch._utils", "_rebuild_tensor_v2"})
	p.text.WriteByte('(')
	id := Tuple{"storage", Global{"torch", class}, strconv.Itoa(len(p.tensors)), "cpu", t.Elements()}
	if err := p.tuple(id, depth); err != nil {
		return err
	}
	p.text.WriteByte('Q')
	for _, v := range []any{0, shape, stride, false} {
		if err := p.value(v, depth+1); err != nil {
			return err
		}
	}
	p.global(Global{"collections", "OrderedDict"})
	p.text.WriteString(")RtR")
	p.tensors = append(p.tensors, t)
	return nil
}

// alignment of storages in the file, in bytes: torch's own.
const alignment = 64

// archiver lays out a zip archive of stored entries.
// Source: PKWARE, APPNOTE.TXT 6.3.10, sections 4.3 to 4.5.
type archiver struct {
	parts   []Part
	entries []entry
	at      int64
	sums    int // tensors so far
}

type entry struct {
	name  string
	at    int64 // of the local header
	bytes int64
	sum   func(sums []uint32) uint32
}

func (a *archiver) text(name string, b []byte) {
	sum := crc32.ChecksumIEEE(b)
	a.header(entry{name: name, bytes: int64(len(b)), sum: func([]uint32) uint32 { return sum }})
	a.add(int64(len(b)), func([]uint32) []byte { return b })
}

func (a *archiver) tensor(name string, t *Tensor) {
	i := a.sums
	a.sums++
	a.header(entry{name: name, bytes: int64(t.Elements()) * int64(t.DType.Size()), sum: func(sums []uint32) uint32 { return sums[i] }})
	t.Storage = &Storage{Key: strconv.Itoa(i), DType: t.DType, Elements: int64(t.Elements()), At: a.at, Bytes: int64(t.Elements()) * int64(t.DType.Size())}
	t.Offset, t.Stride = 0, rowMajor(t.Shape)
	a.parts = append(a.parts, Part{Bytes: t.Storage.Bytes, Tensor: t})
	a.at += t.Storage.Bytes
}

func (a *archiver) add(n int64, text func([]uint32) []byte) {
	a.parts = append(a.parts, Part{Bytes: n, Text: text})
	a.at += n
}

const (
	full32 = math.MaxUint32 // in place of what stands in the extra field
	full16 = math.MaxUint16
)

// header adds a local header. Its extra field is filled up so that the entry is aligned.
func (a *archiver) header(e entry) {
	e.at = a.at
	a.entries = append(a.entries, e)
	var extra []byte
	small := uint32(e.bytes)
	if e.bytes >= full32 {
		small = full32
		extra = field(1, uint64(e.bytes), uint64(e.bytes))
	}
	fixed := 30 + len(e.name) + len(extra) + 4
	pad := (alignment - int(a.at+int64(fixed))%alignment) % alignment
	extra = append(extra, field(0x4246)...) // as torch names its padding
	binary.LittleEndian.PutUint16(extra[len(extra)-2:], uint16(pad))
	extra = append(extra, make([]byte, pad)...)
	a.add(int64(30+len(e.name)+len(extra)), func(sums []uint32) []byte {
		b := le32(nil, 0x04034b50)
		b = le16(b, version(e.bytes), utf8Names, 0, 0, 0)
		b = le32(b, e.sum(sums), small, small)
		b = le16(b, uint16(len(e.name)), uint16(len(extra)))
		return append(append(b, e.name...), extra...)
	})
}

// directory adds the list of entries and what ends it.
func (a *archiver) directory() {
	at := a.at
	size := int64(0)
	extras := make([][]byte, len(a.entries))
	for i, e := range a.entries {
		var wide []uint64
		if e.bytes >= full32 {
			wide = append(wide, uint64(e.bytes), uint64(e.bytes))
		}
		if e.at >= full32 {
			wide = append(wide, uint64(e.at))
		}
		if len(wide) > 0 {
			extras[i] = field(1, wide...)
		}
		size += int64(46 + len(e.name) + len(extras[i]))
	}
	a.add(size, func(sums []uint32) (b []byte) {
		for i, e := range a.entries {
			small := uint32(min(e.bytes, full32))
			b = le32(b, 0x02014b50)
			b = le16(b, version(e.bytes), version(e.bytes), utf8Names, 0, 0, 0)
			b = le32(b, e.sum(sums), small, small)
			b = le16(b, uint16(len(e.name)), uint16(len(extras[i])), 0, 0, 0)
			b = le32(b, 0, uint32(min(e.at, full32)))
			b = append(append(b, e.name...), extras[i]...)
		}
		return b
	})
	end := a.at
	var b []byte
	count := len(a.entries)
	if count >= full16 || at >= full32 || size >= full32 {
		b = le64(le32(b, 0x06064b50), 44)
		b = le32(le16(b, 45, 45), 0, 0)
		b = le64(b, uint64(count), uint64(count), uint64(size), uint64(at))
		b = le32(le64(le32(b, 0x07064b50, 0), uint64(end)), 1)
	}
	n := uint16(min(count, full16))
	b = le16(le32(b, 0x06054b50), 0, 0, n, n)
	b = le16(le32(b, uint32(min(size, full32)), uint32(min(at, full32))), 0)
	a.add(int64(len(b)), func([]uint32) []byte { return b })
}

// utf8Names is the flag of names in UTF-8.
const utf8Names = 1 << 11

// version is that of the format needed to read an entry.
func version(bytes int64) uint16 {
	if bytes >= full32 {
		return 45
	}
	return 20
}

// field is an extra field of the given kind.
func field(kind uint16, values ...uint64) []byte {
	return le64(le16(nil, kind, uint16(8*len(values))), values...)
}

func le16(b []byte, values ...uint16) []byte {
	for _, v := range values {
		b = binary.LittleEndian.AppendUint16(b, v)
	}
	return b
}

func le32(b []byte, values ...uint32) []byte {
	for _, v := range values {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}

func le64(b []byte, values ...uint64) []byte {
	for _, v := range values {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}
