// Package data brings tokens to the trainer: datasets in Megatron's format, samples in Megatron's order,
// conversations, and batches prepared ahead of the device.
//
//	jsonl ── Preprocess ── .bin/.idx ── Open ─┬─ NewDataset ─┬─ NewBlend ── NewLoader ── batches
//	jsonl ── ReadText ────────────────────────┤              │
//	jsonl ── ReadChat ────────────────────────┴─ NewPacked ──┘
//
// OpenSets does all of it for a run: training, validation and test from a Spec.
//
// A sample has a number, and the number alone says what is in it: position and seed are all that an exact
// resume needs. In comments S is the length of a sample and B the samples of a batch.
package data

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
)

// ErrFormat is wrapped by what Open finds wrong inside files.
var ErrFormat = errors.New("not an indexed dataset")

// A Source is a list of token sequences. It is safe for concurrent use.
type Source interface {
	// Sequences is how many there are.
	Sequences() int

	// Length of sequence i in tokens.
	Length(i int) int

	// Read fills dst with the tokens of sequence i from offset on; it fails if there are not as many.
	Read(dst []int32, i, offset int) error

	// Where names a token for an error.
	Where(i, offset int) string
}

// Indexed is a dataset in Megatron's format, PREFIX.bin and PREFIX.idx, mapped into memory.
type Indexed struct {
	prefix string
	index
	bin      []byte
	unmap    []func() error
	manifest *Manifest
}

// Open maps PREFIX.idx and PREFIX.bin and checks every length and offset of the index; what it refuses
// in them wraps ErrFormat and names file, offset, value and what was wanted. PREFIX.json, which our own
// preprocessing leaves, is read where it is there.
func Open(prefix string) (_ *Indexed, err error) {
	x := &Indexed{prefix: prefix}
	defer func() {
		if err != nil {
			x.Close()
		}
	}()
	idx, err := x.open(prefix + ".idx")
	if err != nil {
		return nil, err
	}
	if x.bin, err = x.open(prefix + ".bin"); err != nil {
		return nil, err
	}
	if x.index, err = parseIndex(idx, int64(len(x.bin))); err != nil {
		return nil, fmt.Errorf("%w: %s.idx: %w", ErrFormat, prefix, err)
	}
	x.manifest, err = readManifest(prefix + ".json")
	return x, err
}

func (x *Indexed) open(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: not a file", path)
	}
	if err != nil || info.Size() == 0 {
		return nil, err
	}
	b, unmap, err := mapFile(f, info.Size())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	x.unmap = append(x.unmap, unmap)
	return b, nil
}

// Close unmaps the files; nothing may read from x any more.
func (x *Indexed) Close() error {
	var all error
	for _, unmap := range x.unmap {
		all = errors.Join(all, unmap())
	}
	x.unmap, x.bin, x.index = nil, nil, index{}
	return all
}

// Manifest tells how the dataset was made, nil where that is not known.
func (x *Indexed) Manifest() *Manifest { return x.manifest }

// Read implements Source. It fails for a dataset of floats, and for a token that is no int32.
func (x *Indexed) Read(dst []int32, i, offset int) error {
	if err := bounds(x, len(dst), i, offset); err != nil {
		return err
	}
	if !x.dtype.integer() {
		return fmt.Errorf("%s.bin: dtype is %s, want integers", x.prefix, x.dtype)
	}
	from := x.pointer(i) + int64(offset*x.dtype.Bytes())
	if bad, v := x.dtype.decode(dst, x.bin[from:]); bad >= 0 {
		return fmt.Errorf("%s: token id %d, want an int32", x.Where(i, offset+bad), v)
	}
	return nil
}

// bounds refuses a read that leaves a sequence.
func bounds(s Source, n, i, offset int) error {
	if i < 0 || i >= s.Sequences() {
		return fmt.Errorf("sequence %d, want 0 to %d", i, s.Sequences()-1)
	}
	if l := s.Length(i); offset < 0 || n > l-offset {
		return fmt.Errorf("sequence %d: tokens [%d, %d), want within [0, %d)", i, offset, offset+n, l)
	}
	return nil
}

// Where implements Source: the .bin file and the byte.
func (x *Indexed) Where(i, offset int) string {
	return fmt.Sprintf("%s.bin: offset %d: sequence %d, token %d", x.prefix, x.pointer(i)+int64(offset*x.dtype.Bytes()), i, offset)
}

// index is the contents of an .idx file, read in place.
type index struct {
	dtype     DType
	lengths   []byte // int32 a sequence
	pointers  []byte // int64 a sequence, bytes
	documents []byte // int64 a boundary, from 0 to the number of sequences
	modes     []byte // int8 a sequence, or empty
}

// DType is how tokens are stored.
func (x *index) DType() DType { return x.dtype }

// Sequences implements Source.
func (x *index) Sequences() int { return len(x.lengths) / 4 }

// Length implements Source.
func (x *index) Length(i int) int { return int(int32(binary.LittleEndian.Uint32(x.lengths[4*i:]))) }

// Documents is how many documents there are; empty ones count.
func (x *index) Documents() int { return max(0, len(x.documents)/8-1) }

// Document returns the sequences [begin, end) of a document.
func (x *index) Document(i int) (begin, end int) { return x.boundary(i), x.boundary(i + 1) }

// Tokens is the sum of all lengths.
func (x *index) Tokens() (n int64) {
	for i := range x.Sequences() {
		n += int64(x.Length(i))
	}
	return n
}

func (x *index) pointer(i int) int64 { return int64(binary.LittleEndian.Uint64(x.pointers[8*i:])) }
func (x *index) boundary(i int) int  { return int(int64(binary.LittleEndian.Uint64(x.documents[8*i:]))) }

// The head of an .idx file: magic, version, dtype code, sequences, boundaries.
const (
	magic   = "MMIDIDX\x00\x00"
	version = 1
	head    = len(magic) + 8 + 1 + 8 + 8
)

// parseIndex checks an .idx file against itself and the size of its .bin file, in bytes.
//
// Source: Megatron-LM, core/datasets/indexed_dataset.py, _IndexWriter.
func parseIndex(b []byte, bin int64) (x index, err error) {
	if len(b) < head {
		return x, fmt.Errorf("%d bytes, want a head of %d", len(b), head)
	}
	if got := string(b[:len(magic)]); got != magic {
		return x, fmt.Errorf("offset 0: begins with %q, want %q", got, magic)
	}
	at := len(magic)
	if v := binary.LittleEndian.Uint64(b[at:]); v != version {
		return x, fmt.Errorf("offset %d: version is %d, want %d", at, v, version)
	}
	at += 8
	if x.dtype = DType(b[at]); !x.dtype.valid() {
		return x, fmt.Errorf("offset %d: dtype code is %d, want %d to %d", at, b[at], Uint8, Uint16)
	}
	at++
	sequences, boundaries := binary.LittleEndian.Uint64(b[at:]), binary.LittleEndian.Uint64(b[at+8:])
	rest := uint64(len(b) - head)
	if sequences > rest/12 {
		return x, fmt.Errorf("offset %d: %d sequences, want at most %d in a file of %d bytes", at, sequences, rest/12, len(b))
	}
	rest -= 12 * sequences
	if boundaries < 1 || boundaries > rest/8 {
		return x, fmt.Errorf("offset %d: %d document boundaries, want 1 to %d in a file of %d bytes", at+8, boundaries, rest/8, len(b))
	}
	if rest -= 8 * boundaries; rest != 0 && rest != sequences {
		return x, fmt.Errorf("%d bytes, want %d for %d sequences and %d document boundaries, or %d with modes",
			len(b), uint64(len(b))-rest, sequences, boundaries, uint64(len(b))-rest+sequences)
	}
	cut := func(n uint64) (part []byte) { part, b = b[:n:n], b[n:]; return part }
	cut(uint64(head))
	x.lengths, x.pointers, x.documents = cut(4*sequences), cut(8*sequences), cut(8*boundaries)
	x.modes = b
	return x, x.check(bin)
}

// check holds lengths and pointers to the .bin file, and boundaries to the sequences.
func (x *index) check(bin int64) error {
	n := x.Sequences()
	size := int64(x.dtype.Bytes())
	for i := range n {
		l, p := int64(x.Length(i)), x.pointer(i)
		if l < 0 || l*size > bin {
			return fmt.Errorf("offset %d: length of sequence %d is %d, want 0 to %d in a .bin of %d bytes", head+4*i, i, l, bin/size, bin)
		}
		if p < 0 || p > bin-l*size {
			return fmt.Errorf("offset %d: sequence %d of %d tokens begins at byte %d, want 0 to %d in a .bin of %d bytes",
				head+4*n+8*i, i, l, p, bin-l*size, bin)
		}
	}
	before := 0
	for i := range x.Documents() + 1 {
		b := int64(binary.LittleEndian.Uint64(x.documents[8*i:]))
		at := head + 12*n + 8*i
		switch {
		case i == 0 && b != 0:
			return fmt.Errorf("offset %d: the first document begins at sequence %d, want 0", at, b)
		case b < int64(before) || b > int64(n):
			return fmt.Errorf("offset %d: document boundary %d is %d, want %d to %d", at, i, b, before, n)
		case i == x.Documents() && b != int64(n):
			return fmt.Errorf("offset %d: the last document ends at sequence %d, want %d", at, b, n)
		}
		before = int(b)
	}
	return nil
}
