package ckpt

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/gomlx/compute/dtypes"
)

// maxHeader is the largest header that the format allows, in bytes.
const maxHeader = 100_000_000

// metadataKey holds free text instead of a tensor.
const metadataKey = "__metadata__"

// Info describes one tensor of a file.
type Info struct {
	Name   string
	Format string       // element type as the file spells it, e.g. "BF16"
	DType  dtypes.DType // the same for our graphs; InvalidDType where they have no such type
	Shape  []int        // row-major, little-endian
	Offset int64        // position of the first byte in the file
	Bytes  int64
}

// readHeader reads and checks the header of a file:
//
//	[8] length N of the text, little-endian   [N] JSON text   [rest] the tensors, without gap or overlap
//
// If the file ends before its tensors do, the error is ErrTruncated and infos are returned all the same.
func readHeader(r region) (infos []Info, metadata map[string]string, err error) {
	if r.size() < 8 {
		return nil, nil, fmt.Errorf("%w: file of %d bytes has no header", ErrTruncated, r.size())
	}
	b, err := r.view(0, 8)
	if err != nil {
		return nil, nil, err
	}
	n := binary.LittleEndian.Uint64(b)
	if n > maxHeader {
		return nil, nil, fmt.Errorf("%w: header of %d bytes, want at most %d", ErrFormat, n, maxHeader)
	}
	if int64(n) > r.size()-8 {
		return nil, nil, fmt.Errorf("%w: header of %d bytes in a file of %d", ErrTruncated, n, r.size())
	}
	text, err := r.view(8, int64(n))
	if err != nil {
		return nil, nil, err
	}
	infos, metadata, err = parseHeader(text)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: header: %w", ErrFormat, err)
	}
	end := 8 + int64(n)
	for i := range infos {
		t := &infos[i]
		t.Offset += 8 + int64(n)
		end = t.Offset + t.Bytes
		if end > r.size() {
			return infos, metadata, fmt.Errorf("%w: tensor %s ends at byte %d of a file of %d", ErrTruncated, quote(t.Name), end, r.size())
		}
	}
	if end < r.size() {
		return nil, nil, fmt.Errorf("%w: %d bytes after the last tensor, want none", ErrFormat, r.size()-end)
	}
	return infos, metadata, nil
}

// parseHeader reads the JSON text. Infos come in the order of their bytes; Offset counts from the end
// of the header.
func parseHeader(text []byte) (infos []Info, metadata map[string]string, err error) {
	if !bytes.HasPrefix(text, []byte("{")) {
		return nil, nil, errors.New("does not begin with {")
	}
	r, err := newReader(text)
	if err != nil {
		return nil, nil, err
	}
	metadata = map[string]string{}
	err = r.object(func(name string) error {
		if name == metadataKey {
			return wrap(r.object(func(key string) error {
				v, err := r.text()
				metadata[key] = v
				return wrap(err, key)
			}), name)
		}
		t, err := parseTensor(r)
		t.Name = name
		infos = append(infos, t)
		return wrap(err, name)
	})
	if err != nil {
		return nil, nil, err
	}
	slices.SortStableFunc(infos, func(a, b Info) int {
		return cmp.Or(cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.Bytes, b.Bytes))
	})
	at := int64(0)
	for _, t := range infos {
		switch {
		case t.Offset < at:
			return nil, nil, fmt.Errorf("tensor %s begins at %d, inside the one before it, which ends at %d", quote(t.Name), t.Offset, at)
		case t.Offset > at:
			return nil, nil, fmt.Errorf("tensor %s begins at %d, want %d where the one before it ends", quote(t.Name), t.Offset, at)
		}
		at += t.Bytes
	}
	return infos, metadata, nil
}

// parseTensor reads {"dtype": …, "shape": […], "data_offsets": [begin, end]}.
func parseTensor(r reader) (t Info, err error) {
	var offsets []int
	err = r.object(func(key string) (err error) {
		switch key {
		case "dtype":
			t.Format, err = r.text()
		case "shape":
			t.Shape, err = r.counts()
		case "data_offsets":
			offsets, err = r.counts()
		default:
			return fmt.Errorf("unknown field %s, want dtype, shape and data_offsets", quote(key))
		}
		return wrap(err, key)
	})
	if err != nil {
		return t, err
	}
	f, known := formatNamed(t.Format)
	switch {
	case !known:
		return t, fmt.Errorf("dtype %s is not one of the format's", quote(t.Format))
	case t.Shape == nil:
		return t, errors.New("no shape")
	case len(offsets) != 2:
		return t, fmt.Errorf("data_offsets of %d numbers, want 2", len(offsets))
	case offsets[0] > offsets[1]:
		return t, fmt.Errorf("data_offsets [%d, %d] run backwards", offsets[0], offsets[1])
	}
	t.DType, t.Offset = f.dtype, int64(offsets[0])
	if t.Bytes, err = f.bytes(t.Shape); err != nil {
		return t, err
	}
	if have := int64(offsets[1]) - t.Offset; have != t.Bytes {
		return t, fmt.Errorf("data_offsets [%d, %d] hold %d bytes, want %d for %s %s",
			offsets[0], offsets[1], have, t.Bytes, t.Format, shapeText(t.Shape))
	}
	if t.Offset+t.Bytes > 1<<62 {
		return t, fmt.Errorf("data_offsets [%d, %d] overflow", offsets[0], offsets[1])
	}
	return t, nil
}

// wrap puts the name of a JSON key before an error.
func wrap(err error, key string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", quote(key), err)
}

// sortedKeys lists the keys of a map in order.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
