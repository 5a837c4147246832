package ckpt

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/gomlx/compute/dtypes"

	"mix/sharding/axis"
)

// A Reader gives any box of a catalogue's weights, as Checkpoint does: it fills dst, of q.Bytes() bytes,
// row-major and little-endian, with elements of q.DType.
type Reader interface {
	Read(q axis.Piece, dst []byte) error
}

// DefaultShard is the most bytes of tensors in a file unless WriteOptions say otherwise.
const DefaultShard = 5_000_000_000

// WriteOptions says how a checkpoint is written.
type WriteOptions struct {
	Layout     string            // Hub, Fused or Plain; "" is Hub
	DType      dtypes.DType      // of all tensors: Float32 (also if none is given), BFloat16 or Float16
	ShardBytes int64             // most bytes of tensors in a file that has more than one; 0 is DefaultShard
	Files      map[string][]byte // further files of the folder by name, such as config.json
	Written    func(Sum)         // told of every file that was written; may be nil
}

// WriteHF writes the weights of a catalogue as a Hugging Face folder: model.safetensors, or shards and the
// index that names them, and o.Files.
//
// It asks from for Float32 and rounds to o.DType, to nearest with ties to even. Shards are written by up to
// GOMAXPROCS goroutines, so from is read by several at once; each holds at most window elements.
//
// A folder that is not there appears when all of it is on the disk, or not at all. In a folder that is there
// no weights may be; files appear one by one, the index last, and weights are removed again after an error.
func WriteHF(dir string, params []axis.Param, from Reader, o WriteOptions) error {
	o, tensors, err := o.plan(params)
	if err != nil {
		return fmt.Errorf("write %s: %w", dir, err)
	}
	switch st, err := os.Stat(dir); {
	case errors.Is(err, fs.ErrNotExist):
		return inNewFolder(dir, func(temp string) error { return writeFolder(temp, tensors, from, o) })
	case err != nil:
		return fmt.Errorf("write: %w", err)
	case !st.IsDir():
		return fmt.Errorf("write %s: a file is there, want a folder or none", dir)
	}
	old, err := weightFiles(dir)
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if len(old) > 0 {
		return fmt.Errorf("write %s: %s is there, want a folder without weights", dir, old[0])
	}
	return writeFolder(dir, tensors, from, o)
}

// Check says whether WriteHF could write the weights of a catalogue, without writing them.
func (o WriteOptions) Check(params []axis.Param) error {
	_, _, err := o.plan(params)
	return err
}

func (o WriteOptions) plan(params []axis.Param) (WriteOptions, []planned, error) {
	o, err := o.complete()
	if err != nil {
		return o, nil, err
	}
	tensors, err := plan(params, o.Layout)
	return o, tensors, err
}

// complete fills in defaults and refuses what cannot be.
func (o WriteOptions) complete() (WriteOptions, error) {
	if o.Layout == "" {
		o.Layout = Hub
	}
	if o.DType == dtypes.InvalidDType {
		o.DType = dtypes.Float32
	}
	if o.ShardBytes == 0 {
		o.ShardBytes = DefaultShard
	}
	if o.Written == nil {
		o.Written = func(Sum) {}
	}
	switch {
	case o.Layout != Hub && o.Layout != Fused && o.Layout != Plain:
		return o, fmt.Errorf("layout %s, want %s, %s or %s", quote(o.Layout), Hub, Fused, Plain)
	case kernels[o.DType] == nil:
		return o, fmt.Errorf("dtype %s, want Float32, BFloat16 or Float16", o.DType)
	case o.ShardBytes < 0:
		return o, fmt.Errorf("shards of %d bytes, want at least 1", o.ShardBytes)
	}
	for _, name := range sortedKeys(o.Files) {
		if !plainName(name) || isWeightFile(name) || name == ManifestFile {
			return o, fmt.Errorf("file %s, want the name of a file that is not written here anyway", quote(name))
		}
	}
	return o, nil
}

// plainName says whether name is of a file in the same folder and prints as it is.
func plainName(name string) bool {
	return filepath.IsLocal(name) && !strings.ContainsAny(name, "/\\:\x00") && name != "." && printable(name) == name
}

// isWeightFile says whether reading a folder could take a file for weights or for their index.
func isWeightFile(name string) bool {
	return strings.HasSuffix(name, ".safetensors") || strings.HasSuffix(name, ".safetensors.index.json")
}

func weightFiles(dir string) (names []string, err error) {
	list, err := os.ReadDir(dir)
	for _, e := range list {
		if isWeightFile(e.Name()) && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// inNewFolder lets write fill a folder that is dir once all of it is there.
func inNewFolder(dir string, write func(temp string) error) (err error) {
	parent, name := filepath.Split(filepath.Clean(dir))
	if parent != "" {
		if err := os.MkdirAll(parent, 0o777); err != nil {
			return err
		}
	}
	temp := filepath.Join(parent, fmt.Sprintf(".%s.%08x.tmp", name, rand.Uint32()))
	if err := os.Mkdir(temp, 0o777); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(temp)
		}
	}()
	if err := write(temp); err != nil {
		return err
	}
	return Publish(temp, dir)
}

// Publish gives a folder its final name, where nothing may be, after everything in it is on the disk.
func Publish(temp, dir string) error {
	err := filepath.WalkDir(temp, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = syncFolder(path)
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := os.Rename(temp, dir); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(filepath.Clean(dir)))
}

// shard is a file of a checkpoint and its tensors.
type shard struct {
	name    string
	tensors []planned
	bytes   int64
}

// split deals the tensors out to files, in order.
func split(tensors []planned, most int64) []shard {
	shards := []shard{{}}
	for _, t := range tensors {
		n := t.bytes()
		last := &shards[len(shards)-1]
		if last.bytes > 0 && last.bytes+n > most {
			shards = append(shards, shard{})
			last = &shards[len(shards)-1]
		}
		last.tensors = append(last.tensors, t)
		last.bytes += n
	}
	for i := range shards {
		shards[i].name = singleFile
		if len(shards) > 1 {
			shards[i].name = fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, len(shards))
		}
		// Hugging Face's own writer sorts names too, so files are equal to its byte for byte.
		slices.SortFunc(shards[i].tensors, func(a, b planned) int { return strings.Compare(a.name, b.name) })
	}
	return shards
}

// writeFolder writes the files into a folder that is there.
func writeFolder(dir string, tensors []planned, from Reader, o WriteOptions) (err error) {
	for i := range tensors {
		tensors[i].dtype = o.DType
	}
	shards := split(tensors, o.ShardBytes)
	var mu sync.Mutex
	wrote := func(s Sum, err error) error {
		if err == nil {
			mu.Lock()
			defer mu.Unlock()
			o.Written(s)
		}
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(filepath.Join(dir, indexFile))
			for _, s := range shards {
				os.Remove(filepath.Join(dir, s.name))
			}
		}
	}()
	var failed atomic.Bool // ends the other shards early
	err = inParallel(len(shards), runtime.GOMAXPROCS(0), func(_, i int) error {
		s := shards[i]
		var list []Tensor
		buffer := new(buffers)
		for _, t := range s.tensors {
			list = append(list, Tensor{t.name, o.DType, t.shape, func(w io.Writer) error {
				return t.write(w, from, o.DType, buffer, failed.Load)
			}})
		}
		err := wrote(writeFile(filepath.Join(dir, s.name), list, map[string]string{"format": "pt"}))
		if err != nil {
			failed.Store(true)
		}
		return err
	})
	if err != nil {
		return err
	}
	write := func(name string, b []byte) error { return wrote(replaceText(filepath.Join(dir, name), b)) }
	for _, name := range sortedKeys(o.Files) {
		if err := write(name, o.Files[name]); err != nil {
			return err
		}
	}
	if len(shards) > 1 {
		return write(indexFile, makeIndex(shards))
	}
	return nil
}

// makeIndex is the text of the index of a sharded checkpoint.
func makeIndex(shards []shard) []byte {
	var x struct {
		Metadata struct {
			Parameters int64 `json:"total_parameters"`
			Size       int64 `json:"total_size"` // bytes of all tensors
		} `json:"metadata"`
		Files map[string]string `json:"weight_map"`
	}
	x.Files = map[string]string{}
	for _, s := range shards {
		x.Metadata.Size += s.bytes
		for _, t := range s.tensors {
			x.Files[t.name] = s.name
			x.Metadata.Parameters += int64(axis.Count(t.shape))
		}
	}
	b, err := json.MarshalIndent(x, "", "  ")
	if err != nil {
		panic(err) // integers and maps of strings always have a text
	}
	return append(b, '\n')
}
