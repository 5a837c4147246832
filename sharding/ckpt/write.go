package ckpt

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"unicode/utf8"

	"github.com/gomlx/compute/dtypes"
)

// Tensor is one tensor to be written. Write gives its elements, row-major and little-endian, all of
// them and no more; it is called once.
type Tensor struct {
	Name  string
	DType dtypes.DType
	Shape []int
	Write func(w io.Writer) error
}

// Float32Tensor is a tensor of F32 whose elements are at hand.
func Float32Tensor(name string, shape []int, data []float32) Tensor {
	return Tensor{name, dtypes.Float32, shape, func(w io.Writer) error {
		b := make([]byte, 0, 64<<10)
		for part := range slices.Chunk(data, cap(b)/4) {
			b = b[:0]
			for _, v := range part {
				b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
			}
			if _, err := w.Write(b); err != nil {
				return err
			}
		}
		return nil
	}}
}

// RawTensor is a tensor whose bytes are at hand as they shall lie in the file.
func RawTensor(name string, dtype dtypes.DType, shape []int, data []byte) Tensor {
	return Tensor{name, dtype, shape, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	}}
}

// WriteFile writes a safetensors file. Tensors are laid out and asked for in the given order, wider
// types first, so that each is aligned to its elements. The file appears under its name when all of it
// is on the disk, in place of an older one, through symbolic links; anything there but a regular file is
// refused. After an error nothing has changed.
func WriteFile(path string, tensors []Tensor, metadata map[string]string) error {
	_, err := writeFile(path, tensors, metadata)
	return err
}

// writeFile is WriteFile, and says what it wrote. The sum's name is the path's last element.
func writeFile(path string, tensors []Tensor, metadata map[string]string) (Sum, error) {
	tensors = slices.Clone(tensors)
	slices.SortStableFunc(tensors, func(a, b Tensor) int { return cmp.Compare(widthOf(b), widthOf(a)) })
	header, err := makeHeader(tensors, metadata)
	if err != nil {
		return Sum{}, fmt.Errorf("%s: %w", path, err)
	}
	return replace(path, func(w io.Writer) error {
		if _, err := w.Write(header); err != nil {
			return err
		}
		for _, t := range tensors {
			if err := writeTensor(w, t); err != nil {
				return fmt.Errorf("tensor %s: %w", quote(t.Name), err)
			}
		}
		return nil
	})
}

// replace makes a file of what write gives it, as WriteFile says. Errors name the path.
func replace(path string, write func(w io.Writer) error) (sum Sum, err error) {
	if path, err = Target(path); err != nil {
		return Sum{}, err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", path, err)
		}
	}()
	dir, name := filepath.Split(path)
	temp := filepath.Join(dir, fmt.Sprintf(".%s.%08x.tmp", name, rand.Uint32()))
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return Sum{}, err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(temp)
		}
	}()
	counted := &summing{w: f}
	w := bufio.NewWriterSize(counted, 1<<20)
	if err := write(w); err != nil {
		return Sum{}, err
	}
	if err := w.Flush(); err != nil {
		return Sum{}, err
	}
	if err := f.Sync(); err != nil {
		return Sum{}, err
	}
	if err := f.Close(); err != nil {
		return Sum{}, err
	}
	if err := os.Rename(temp, path); err != nil {
		return Sum{}, err
	}
	return Sum{Name: name, Bytes: counted.bytes, CRC32C: counted.crc}, syncFolder(dir)
}

// replaceText makes a file of text.
func replaceText(path string, text []byte) (Sum, error) {
	return replace(path, func(w io.Writer) error {
		_, err := w.Write(text)
		return err
	})
}

// Target is the file that writing to path would replace or make, symbolic links followed. It is refused
// where something else than a regular file stands in its place, or where its folder is not there.
func Target(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		dir, err := filepath.EvalSymlinks(filepath.Dir(path))
		if err != nil {
			return "", fmt.Errorf("%s: %w", path, err)
		}
		return filepath.Join(dir, filepath.Base(path)), nil
	}
	if err != nil {
		return "", err
	}
	st, err := os.Stat(real)
	if err != nil {
		return "", err
	}
	if !st.Mode().IsRegular() {
		return "", fmt.Errorf("%s: a %s is there, want a regular file or none", path, kind(st.Mode()))
	}
	return real, nil
}

func kind(m fs.FileMode) string {
	switch {
	case m.IsDir():
		return "folder"
	case m&fs.ModeDevice != 0:
		return "device"
	}
	return "pipe or socket"
}

// makeHeader is the length and the text of the header, padded with spaces to a multiple of 8 bytes.
func makeHeader(tensors []Tensor, metadata map[string]string) ([]byte, error) {
	type entry struct {
		DType   string   `json:"dtype"`
		Shape   []int    `json:"shape"`
		Offsets [2]int64 `json:"data_offsets"`
	}
	text := []byte("{")
	if len(metadata) > 0 {
		text = appendEntry(text, metadataKey, metadata)
	}
	at, seen := int64(0), map[string]bool{metadataKey: true}
	for _, t := range tensors {
		switch {
		case seen[t.Name]:
			return nil, fmt.Errorf("tensor %s: the name is taken", quote(t.Name))
		case !utf8.ValidString(t.Name):
			return nil, fmt.Errorf("tensor %s: the name is not UTF-8", quote(t.Name))
		}
		seen[t.Name] = true
		n, err := sizeOf(t)
		if err != nil {
			return nil, fmt.Errorf("tensor %s: %w", quote(t.Name), err)
		}
		if at > math.MaxInt64/2-n {
			return nil, fmt.Errorf("tensor %s: the file would be too large", quote(t.Name))
		}
		f, _ := formatOf(t.DType)
		text = appendEntry(text, t.Name, entry{f.name, append([]int{}, t.Shape...), [2]int64{at, at + n}})
		at += n
	}
	text = append(text, '}')
	for len(text)%8 != 0 {
		text = append(text, ' ')
	}
	if len(text) > maxHeader {
		return nil, fmt.Errorf("header of %d bytes, want at most %d", len(text), maxHeader)
	}
	return append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...), nil
}

// appendEntry appends one "key": value to the text of an object that is still open.
func appendEntry(text []byte, key string, value any) []byte {
	if len(text) > 1 {
		text = append(text, ',')
	}
	for i, v := range []any{key, value} {
		b, err := json.Marshal(v)
		if err != nil {
			panic(err) // strings, integers and maps of strings always have a text
		}
		text = append(text, b...)
		if i == 0 {
			text = append(text, ':')
		}
	}
	return text
}

// widthOf is the bits of an element, 0 where the container has no such type.
func widthOf(t Tensor) int {
	f, _ := formatOf(t.DType)
	return f.bits
}

func sizeOf(t Tensor) (int64, error) {
	f, ok := formatOf(t.DType)
	if !ok {
		return 0, fmt.Errorf("%w: safetensors has no %s", ErrDType, t.DType)
	}
	return f.bytes(t.Shape)
}

// writeTensor asks for the elements and counts them.
func writeTensor(w io.Writer, t Tensor) error {
	want, err := sizeOf(t)
	if err != nil {
		return err
	}
	m := &meter{w: w, left: want}
	if err := t.Write(m); err != nil {
		return err
	}
	if m.left != 0 {
		return fmt.Errorf("wrote %d bytes, want %d", want-m.left, want)
	}
	return nil
}

// meter passes on what fits.
type meter struct {
	w    io.Writer
	left int64
}

func (m *meter) Write(b []byte) (int, error) {
	if int64(len(b)) > m.left {
		return 0, fmt.Errorf("wrote %d bytes more than its shape holds", int64(len(b))-m.left)
	}
	n, err := m.w.Write(b)
	m.left -= int64(n)
	return n, err
}
