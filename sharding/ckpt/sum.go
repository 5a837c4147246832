package ckpt

import (
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"sync"
)

// CRC is a CRC-32C (Castagnoli polynomial), as text eight lower-case hexadecimal digits.
// Source: RFC 3720, section 12.1 and appendix B.4.
type CRC uint32

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// CRCOf is the checksum of b.
func CRCOf(b []byte) CRC { return CRC(crc32.Checksum(b, castagnoli)) }

func (c CRC) String() string { return fmt.Sprintf("%08x", uint32(c)) }

// MarshalText gives the digits.
func (c CRC) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText takes what MarshalText gives and nothing else.
func (c *CRC) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil || len(b) != 4 {
		return fmt.Errorf("CRC-32C %s, want eight hexadecimal digits", quote(string(text)))
	}
	v := CRC(uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3]))
	if v.String() != string(text) {
		return fmt.Errorf("CRC-32C %s, want %s in lower case", quote(string(text)), v)
	}
	*c = v
	return nil
}

// Sum is what identifies a file's content.
type Sum struct {
	Name   string `json:"name"` // path in the folder, with slashes
	Bytes  int64  `json:"bytes"`
	CRC32C CRC    `json:"crc32c"`
}

// summing passes on what is written and sums it up.
type summing struct {
	w     io.Writer
	bytes int64
	crc   CRC
}

func (s *summing) Write(b []byte) (int, error) {
	n, err := s.w.Write(b)
	s.crc = CRC(crc32.Update(uint32(s.crc), castagnoli, b[:n]))
	s.bytes += int64(n)
	return n, err
}

// sumRegion reads all of r, a window at a time.
func sumRegion(name string, r region) (s Sum, err error) {
	defer fault(name, &err)()
	const window = 8 << 20
	s.Name = name
	for s.Bytes < r.size() {
		n := min(window, r.size()-s.Bytes)
		b, err := r.view(s.Bytes, n)
		if err != nil {
			return s, err
		}
		s.CRC32C = CRC(crc32.Update(uint32(s.CRC32C), castagnoli, b))
		r.drop(s.Bytes, n)
		s.Bytes += n
	}
	return s, nil
}

// sumFile reads a file. An empty one cannot be mapped and is read all the same.
func sumFile(name, at string) (s Sum, err error) {
	r, err := openPath(at)
	if err != nil {
		return Sum{Name: name}, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	return sumRegion(name, r)
}

// SumFolder sums all files of a folder, under the name that the folder has in a manifest.
func SumFolder(dir, name string) (sums []Sum, err error) {
	err = filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		below, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		s, err := sumFile(path.Join(name, filepath.ToSlash(below)), file)
		sums = append(sums, s)
		return err
	})
	return sums, err
}

// zeroBytes extends a CRC by n bytes of zero in time that grows with the digits of n alone.
//
// Appending a zero bit is a linear map of the CRC over GF(2); squaring the map doubles the count of bits.
// Source: Mark Adler's crc32_combine in zlib states the idea.
func zeroBytes(poly, crc uint32, n int64) uint32 {
	crc = ^crc
	for i, m := range zeroMaps[poly]() {
		if n>>i&1 != 0 {
			crc = m.apply(crc)
		}
	}
	return ^crc
}

// joinCRC is the CRC of two runs of bytes from the CRC of each; n is the length of the second.
func joinCRC(poly, first, second uint32, n int64) uint32 {
	// The CRC of the second run alone begins with all ones; extending the first by zeros keeps its own.
	return zeroBytes(poly, first, n) ^ zeroBytes(poly, 0, n) ^ second
}

// bitMap is a linear map of 32 bits: entry i is the image of bit i.
type bitMap [32]uint32

func (m *bitMap) apply(v uint32) (image uint32) {
	for i := 0; v != 0; i, v = i+1, v>>1 {
		if v&1 != 0 {
			image ^= m[i]
		}
	}
	return image
}

func (m *bitMap) square() (s bitMap) {
	for i := range m {
		s[i] = m.apply(m[i])
	}
	return s
}

// zeroMaps are the maps of appending 2^i bytes of zero, by polynomial; made when they are first wanted.
var zeroMaps = map[uint32]func() *[62]bitMap{
	crc32.IEEE:       sync.OnceValue(func() *[62]bitMap { return makeZeroMaps(crc32.IEEE) }),
	crc32.Castagnoli: sync.OnceValue(func() *[62]bitMap { return makeZeroMaps(crc32.Castagnoli) }),
}

func makeZeroMaps(poly uint32) *[62]bitMap {
	var m bitMap // one bit
	for i := range m {
		m[i] = uint32(1) << i >> 1
	}
	m[0] = poly
	for range 3 {
		m = m.square()
	}
	list := new([62]bitMap)
	for i := range list {
		list[i] = m
		m = m.square()
	}
	return list
}
