package torchfile

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"strings"

	"github.com/gomlx/compute/dtypes"
)

// File is what a file says. It holds no tensor's elements: they are where the storages say.
type File struct {
	Root    any    // the pickled value
	Name    string // of the archive inside a zip file; "" in the older stream
	entries []*zip.File
}

// Parse reads the pickle of a file: a zip archive whose entries are stored, as torch has written since 1.6,
// or the stream that it wrote before. Errors wrap ErrFormat, ErrRefused or the reader's.
func Parse(r io.ReaderAt, size int64) (*File, error) {
	var magic [4]byte
	if size < int64(len(magic)) {
		return nil, fmt.Errorf("%w: %d bytes", ErrFormat, size)
	}
	if err := readAt(r, magic[:], 0); err != nil {
		return nil, err
	}
	if string(magic[:]) == "PK\x03\x04" {
		return parseZip(r, size)
	}
	return parseStream(r, size)
}

func readAt(r io.ReaderAt, b []byte, at int64) error {
	if _, err := io.ReadFull(io.NewSectionReader(r, at, int64(len(b))), b); err != nil {
		return fmt.Errorf("bytes %d to %d: %w", at, at+int64(len(b)), err)
	}
	return nil
}

// maxEntries bounds the archive's directory: a tensor is an entry.
const maxEntries = 1 << 20

// parseZip reads {archive}/data.pkl; storage k is entry {archive}/data/k.
// Source: torch/serialization.py, _load, and caffe2/serialize/inline_container.h.
func parseZip(r io.ReaderAt, size int64) (*File, error) {
	z, err := zip.NewReader(r, size)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if len(z.File) > maxEntries {
		return nil, fmt.Errorf("%w: archive of %d entries, want at most %d", ErrFormat, len(z.File), maxEntries)
	}
	f := &File{entries: z.File}
	entries := map[string]*zip.File{}
	for _, e := range z.File {
		if entries[e.Name] != nil {
			return nil, fmt.Errorf("%w: entry %.200q is there twice", ErrFormat, e.Name)
		}
		if name, ok := strings.CutSuffix(e.Name, "/data.pkl"); ok && !strings.Contains(name, "/") {
			f.Name = name
		}
		entries[e.Name] = e
	}
	text, err := small(r, size, entries[f.Name+"/data.pkl"], "data.pkl")
	if err != nil {
		return nil, err
	}
	if entries[f.Name+"/byteorder"] != nil {
		order, err := small(r, size, entries[f.Name+"/byteorder"], "byteorder")
		if err != nil {
			return nil, err
		}
		if string(order) != "little" {
			return nil, fmt.Errorf("%w: byte order %.20q, want \"little\"", ErrFormat, order)
		}
	}
	known := map[string]*Storage{}
	f.Root, _, err = unpickle(text, func(id Tuple) (*Storage, error) {
		s, err := identity(id, 5)
		if err != nil {
			return nil, err
		}
		if old := known[s.Key]; old != nil {
			if old.DType != s.DType || old.Elements != s.Elements {
				return nil, fmt.Errorf("%w: storage %.40q is %s and %s", ErrFormat, s.Key, old.DType, s.DType)
			}
			return old, nil
		}
		name := "data/" + s.Key
		at, length, err := stored(size, entries[f.Name+"/"+name], name)
		if err != nil {
			return nil, err
		}
		if length != s.Bytes {
			return nil, fmt.Errorf("%w: entry %.40q of %d bytes, want %d", ErrFormat, name, length, s.Bytes)
		}
		s.At = at
		known[s.Key] = s
		return s, nil
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

// stored is where an entry's bytes lie. They are neither compressed nor encrypted, and inside the file.
func stored(size int64, e *zip.File, name string) (at, length int64, err error) {
	if e == nil {
		return 0, 0, fmt.Errorf("%w: no entry %.200q", ErrFormat, name)
	}
	length = int64(e.UncompressedSize64)
	if e.Method != zip.Store || e.Flags&1 != 0 || e.CompressedSize64 != e.UncompressedSize64 || length < 0 {
		return 0, 0, fmt.Errorf("%w: entry %.200q has method %d and flags %#x, want it stored", ErrFormat, name, e.Method, e.Flags)
	}
	if at, err = e.DataOffset(); err != nil {
		return 0, 0, fmt.Errorf("%w: entry %.200q: %w", ErrFormat, name, err)
	}
	if at < 0 || at > size || length > size-at {
		return 0, 0, fmt.Errorf("%w: entry %.200q is at byte %d, %d bytes long, in a file of %d", ErrFormat, name, at, length, size)
	}
	return at, length, nil
}

// small is the content of an entry that is no tensor.
func small(r io.ReaderAt, size int64, e *zip.File, name string) ([]byte, error) {
	at, length, err := stored(size, e, name)
	if err != nil {
		return nil, err
	}
	if length > maxPickle {
		return nil, fmt.Errorf("%w: entry %s of %d bytes, want at most %d", ErrFormat, name, length, maxPickle)
	}
	b := make([]byte, length)
	if err := readAt(r, b, at); err != nil {
		return nil, err
	}
	if crc32.ChecksumIEEE(b) != e.CRC32 {
		return nil, fmt.Errorf("%w: entry %s: the checksum is %08x, want %08x", ErrFormat, name, crc32.ChecksumIEEE(b), e.CRC32)
	}
	return b, nil
}

// Entry is a part of the archive with its checksum.
type Entry struct {
	Name      string
	At, Bytes int64
	CRC32     uint32 // IEEE
}

// Entries lists the parts of the archive, none in the older stream.
func (f *File) Entries() (list []Entry, err error) {
	for _, e := range f.entries {
		at, err := e.DataOffset()
		if err != nil {
			return nil, fmt.Errorf("%w: entry %.200q: %w", ErrFormat, e.Name, err)
		}
		list = append(list, Entry{e.Name, at, int64(e.UncompressedSize64), e.CRC32})
	}
	return list, nil
}

// What the older stream begins with.
// Source: torch/serialization.py, _legacy_save.
const streamProtocol = 1001

var streamMagic = []byte{0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19}

// parseStream reads the older form: pickles of a magic number, a version and the system's sizes, then the
// pickle of the value, the list of storage keys, and for every key the count of its elements and these.
func parseStream(r io.ReaderAt, size int64) (*File, error) {
	at := int64(0)
	known := map[string]*Storage{}
	next := func() (any, error) {
		text := make([]byte, min(size-at, maxPickle))
		if err := readAt(r, text, at); err != nil {
			return nil, err
		}
		v, n, err := unpickle(text, func(id Tuple) (*Storage, error) {
			s, err := identity(id, 6)
			if err == nil && known[s.Key] == nil {
				known[s.Key] = s
			}
			if err == nil && (known[s.Key].DType != s.DType || known[s.Key].Elements != s.Elements) {
				err = fmt.Errorf("%w: storage %.40q is there twice", ErrFormat, s.Key)
			}
			if err != nil {
				return nil, err
			}
			return known[s.Key], nil
		})
		at += int64(n)
		return v, err
	}
	b := make([]byte, min(size, int64(len(streamMagic)+5)))
	if err := readAt(r, b, 0); err != nil {
		return nil, err
	}
	if !bytes.Contains(b, streamMagic) {
		return nil, fmt.Errorf("%w: neither a zip archive nor torch's older stream", ErrFormat)
	}
	if _, err := next(); err != nil {
		return nil, err
	}
	switch v, err := next(); {
	case err != nil:
		return nil, err
	case v != int64(streamProtocol):
		return nil, fmt.Errorf("%w: version of the stream is %s, want %d", ErrFormat, Show(v), streamProtocol)
	}
	system, err := next()
	if err != nil {
		return nil, err
	}
	if d, ok := system.(*Dict); ok {
		if little, ok := d.Get("little_endian"); ok && little != true {
			return nil, fmt.Errorf("%w: the stream is not little-endian", ErrFormat)
		}
	}
	root, err := next()
	if err != nil {
		return nil, err
	}
	keys, err := next()
	if err != nil {
		return nil, err
	}
	list, ok := keys.(*List)
	if !ok || len(list.Items) != len(known) {
		return nil, fmt.Errorf("%w: keys of the storages are a %s, want a list of %d", ErrFormat, kind(keys), len(known))
	}
	placed := map[*Storage]bool{}
	for _, item := range list.Items {
		key, _ := item.(string)
		s := known[key]
		if s == nil || placed[s] || s.DType == dtypes.InvalidDType {
			return nil, fmt.Errorf("%w: storage %s has no tensor, or is there twice", ErrFormat, Show(item))
		}
		var count [8]byte
		if err := readAt(r, count[:], at); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrFormat, err)
		}
		if n := int64(binary.LittleEndian.Uint64(count[:])); n != s.Elements || s.Bytes > size-at-8 {
			return nil, fmt.Errorf("%w: storage %.40q of %d elements at byte %d of %d, want %d", ErrFormat, key, n, at, size, s.Elements)
		}
		s.At = at + 8
		placed[s] = true
		at = s.At + s.Bytes
	}
	return &File{Root: root}, nil
}
