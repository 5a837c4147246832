package ckpt

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"
	"unsafe"
)

// region is the bytes of one file.
type region interface {
	size() int64
	// view is n bytes at off, in place where the file is in memory, else a copy. The caller stays
	// inside the size, does not write, and is done before close.
	view(off, n int64) ([]byte, error)
	drop(off, n int64) // they will not be read again soon
	// filled says, without reading them, how many of the bytes may be other than zero: all, some or, where
	// they are a hole of a sparse file, neither.
	filled(off, n int64) (all, some bool)
	close() error
}

// span is the bytes [from, to) of a file.
type span struct{ from, to int64 }

// memory is a file held in memory, such as one embedded in the program.
type memory []byte

func (m memory) size() int64                        { return int64(len(m)) }
func (m memory) view(off, n int64) ([]byte, error)  { return m[off : off+n], nil }
func (memory) drop(int64, int64)                    {}
func (memory) filled(int64, int64) (all, some bool) { return true, true }
func (memory) close() error                         { return nil }

// stream is a file that is read piece by piece into fresh memory.
type stream struct {
	io.ReaderAt
	io.Closer
	length int64
}

func (s stream) size() int64 { return s.length }

func (s stream) view(off, n int64) ([]byte, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(io.NewSectionReader(s, off, n), b); err != nil {
		return nil, fmt.Errorf("%w: bytes %d to %d: %w", ErrTruncated, off, off+n, err)
	}
	return b, nil
}

func (stream) drop(int64, int64)                    {}
func (stream) filled(int64, int64) (all, some bool) { return true, true }
func (s stream) close() error                       { return s.Close() }

// opener opens a file of a checkpoint by its name in the folder.
type opener func(name string) (region, error)

// inFolder opens files of a folder on disk, mapped into memory where the system can.
func inFolder(dir string) opener {
	return func(name string) (region, error) { return openPath(dir + string(os.PathSeparator) + name) }
}

func openPath(path string) (region, error) {
	st, err := os.Stat(path) // first: opening a pipe waits for who writes to it
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if st, err = f.Stat(); err != nil {
		f.Close()
		return nil, err
	}
	if r, ok := mapFile(f, st.Size()); ok {
		return r, f.Close() // the mapping outlives the descriptor
	}
	return stream{f, f, st.Size()}, nil
}

// inFS opens files of a file system, in place where they are a MemFS's.
func inFS(fsys fs.FS) opener {
	return func(name string) (region, error) {
		f, err := fsys.Open(name)
		if err != nil {
			return nil, err
		}
		st, err := f.Stat()
		if err != nil {
			f.Close()
			return nil, err
		}
		if !st.Mode().IsRegular() {
			f.Close()
			return nil, fmt.Errorf("%s: not a regular file", name)
		}
		switch g := f.(type) {
		case *memFile:
			return memory(g.data), nil
		case io.ReaderAt:
			return stream{g, f, st.Size()}, nil
		}
		defer f.Close()
		data, err := io.ReadAll(f)
		return memory(data), err
	}
}

// MemFS is a file system of files held in memory, by path. Files embedded as strings are read from it
// without a copy; those of an embed.FS are copied box by box.
type MemFS map[string]string

// Open opens a file; folders cannot be opened.
func (m MemFS) Open(name string) (fs.File, error) {
	s, ok := m[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	data := unsafe.Slice(unsafe.StringData(s), len(s)) // never written to: nothing here writes to a view
	return &memFile{Reader: bytes.NewReader(data), data: data, name: name}, nil
}

type memFile struct {
	*bytes.Reader
	data []byte
	name string
}

func (f *memFile) Close() error               { return nil }
func (f *memFile) Stat() (fs.FileInfo, error) { return memInfo{f}, nil }

type memInfo struct{ f *memFile }

func (i memInfo) Name() string     { return i.f.name[strings.LastIndexByte(i.f.name, '/')+1:] }
func (i memInfo) Size() int64      { return int64(len(i.f.data)) }
func (memInfo) Mode() fs.FileMode  { return 0o444 }
func (memInfo) ModTime() time.Time { return time.Time{} }
func (memInfo) IsDir() bool        { return false }
func (memInfo) Sys() any           { return nil }
