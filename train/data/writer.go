package data

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// A Writer makes a dataset in Megatron's format, byte for byte as Megatron's own writer does. The files
// appear when Commit succeeds, the .idx last: before that there is no dataset under the name.
type Writer struct {
	prefix    string
	dtype     DType
	bin       *os.File
	buf       *bufio.Writer
	scratch   []byte
	lengths   []int32
	documents []int64
	manifest  *Manifest
	err       error // the first failure; nothing is written after it
}

// Create begins a dataset. It fails if dtype is none for tokens or if the folder cannot be written.
// Commit or Abort must follow.
func Create(prefix string, dtype DType) (*Writer, error) {
	if !dtype.integer() {
		return nil, fmt.Errorf("%s: dtype is %s, want integers", prefix, dtype)
	}
	f, err := temporary(prefix + ".bin")
	if err != nil {
		return nil, err
	}
	return &Writer{prefix: prefix, dtype: dtype, bin: f, buf: bufio.NewWriterSize(f, 1<<20), documents: []int64{0}}, nil
}

// temporary makes a file beside path that may become path.
func temporary(path string) (*os.File, error) {
	return os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
}

// writeFile writes a file that appears whole or not at all.
func writeFile(path string, b []byte) error {
	f, err := temporary(path)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone already when all went well
	_, err = f.Write(b)
	if err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// Describe puts a manifest beside the dataset.
func (w *Writer) Describe(m Manifest) { w.manifest = &m }

// Add appends a sequence. An id that the dtype cannot hold is refused.
func (w *Writer) Add(ids []int32) error {
	if w.err != nil {
		return w.err
	}
	b, bad := w.dtype.encode(w.scratch[:0], ids)
	if bad >= 0 {
		row := dtypes[w.dtype]
		return fmt.Errorf("%s.bin: sequence %d, token %d: id %d, want %d to %d in %s",
			w.prefix, len(w.lengths), bad, ids[bad], row.min, row.max, w.dtype)
	}
	w.scratch = b
	if _, w.err = w.buf.Write(b); w.err == nil {
		w.lengths = append(w.lengths, int32(len(ids)))
	}
	return w.err
}

// EndDocument makes the sequences since the last call, perhaps none, a document.
func (w *Writer) EndDocument() { w.documents = append(w.documents, int64(len(w.lengths))) }

// Commit finishes the files and gives them their names. On failure nothing is left of them, and a
// dataset that had the name before is there as it was, unless renaming itself failed.
func (w *Writer) Commit() (err error) {
	if w.bin == nil {
		return fmt.Errorf("%s: committed or aborted before", w.prefix)
	}
	defer w.Abort()
	if err = errors.Join(w.err, w.buf.Flush(), w.bin.Chmod(0o644), w.bin.Sync()); err != nil {
		return err
	}
	idx, err := temporary(w.prefix + ".idx")
	if err != nil {
		return err
	}
	defer os.Remove(idx.Name()) // gone already when all went well
	if err = errors.Join(w.writeIndex(idx), idx.Chmod(0o644), idx.Sync(), idx.Close()); err != nil {
		return err
	}
	// The old .idx goes first: at no moment does an .idx describe a .bin that is not its own.
	for _, old := range []string{".idx", ".json"} {
		if err = os.Remove(w.prefix + old); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err = os.Rename(w.bin.Name(), w.prefix+".bin"); err != nil {
		return err
	}
	if w.manifest != nil {
		if err = w.manifest.write(w.prefix + ".json"); err != nil {
			return err
		}
	}
	return os.Rename(idx.Name(), w.prefix+".idx")
}

// Abort drops what was written. After Commit it does nothing.
func (w *Writer) Abort() {
	if w.bin != nil {
		w.bin.Close()
		os.Remove(w.bin.Name())
		w.bin = nil
	}
}

func (w *Writer) writeIndex(f *os.File) error {
	b := bufio.NewWriterSize(f, 1<<20)
	var word [8]byte
	put := func(v uint64, bytes int) {
		binary.LittleEndian.PutUint64(word[:], v)
		b.Write(word[:bytes]) // an error stays and Flush returns it
	}
	b.WriteString(magic)
	put(version, 8)
	put(uint64(w.dtype), 1)
	put(uint64(len(w.lengths)), 8)
	put(uint64(len(w.documents)), 8)
	for _, l := range w.lengths {
		put(uint64(uint32(l)), 4)
	}
	at := uint64(0)
	for _, l := range w.lengths {
		put(at, 8)
		at += uint64(l) * uint64(w.dtype.Bytes())
	}
	for _, d := range w.documents {
		put(uint64(d), 8)
	}
	return b.Flush()
}
