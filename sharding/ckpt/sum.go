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
