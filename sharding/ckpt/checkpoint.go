package ckpt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"sync"

	"github.com/gomlx/compute/dtypes"

	"mix/sharding/axis"
)

// Options says how a checkpoint is read.
type Options struct {
	// Warn is told once, in one line, about the first tensor that gave a NaN or an Inf. Nil is silence.
	Warn func(message string)
	// Layout is Plain for a checkpoint of that layout; with "" it is found out whether it is Hub or Fused.
	Layout string
}

// Checkpoint is an open Hugging Face checkpoint of a model whose weights are known. Its methods may be
// called from several goroutines at once.
type Checkpoint struct {
	source  *source
	matched *matched
	params  map[string]axis.Param
	warn    func(string)
	once    sync.Once

	mu     sync.RWMutex // held for reading while the files are read
	closed bool
}

// Open opens the checkpoint in a folder, one model.safetensors or the files that its index names, and
// matches it with the weights of the model. If anything is wrong, the error is a *Problems that holds
// all of it, or an error of the file system.
func Open(dir string, params []axis.Param, o Options) (*Checkpoint, error) {
	st, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	if !st.IsDir() {
		return nil, fmt.Errorf("checkpoint %s: not a folder", dir)
	}
	return newCheckpoint(openSource(dir, inFolder(dir)), params, o)
}

// OpenFS is Open for the top folder of a file system, such as an embed.FS or a MemFS.
func OpenFS(fsys fs.FS, params []axis.Param, o Options) (*Checkpoint, error) {
	return newCheckpoint(openSource("in memory", inFS(fsys)), params, o)
}

func newCheckpoint(s *source, params []axis.Param, o Options) (*Checkpoint, error) {
	c := &Checkpoint{source: s, params: map[string]axis.Param{}, warn: o.Warn}
	for _, p := range params {
		c.params[p.Path] = p
	}
	problems := s.problems
	if len(s.files) > 0 {
		var more []error
		switch o.Layout {
		case "":
			c.matched, more = match(s, params)
		case Plain:
			c.matched, more = matchPlain(s, params)
		default:
			more = []error{fmt.Errorf("layout %s, want %s or none", quote(o.Layout), Plain)}
		}
		problems = slices.Concat(problems, more)
	}
	if len(problems) > 0 {
		s.close()
		return nil, &Problems{Where: s.where, List: problems}
	}
	return c, nil
}

// Read fills dst, of q.Bytes() bytes, with a piece in row-major order, each element converted to
// q.DType: float32, bfloat16 or float16, rounded to nearest with ties to even.
//
// Large pieces are read by several goroutines. What is in memory beside dst is at most what they have
// of one tensor each, and nothing where files are mapped.
func (c *Checkpoint) Read(q axis.Piece, dst []byte) error {
	c.mu.RLock()
	defer c.mu.RUnlock()
	p, ok := c.params[q.Path]
	switch {
	case c.closed:
		return fmt.Errorf("checkpoint %s: piece %s: %w", c.source.where, q.Name, fs.ErrClosed)
	case !ok:
		return fmt.Errorf("piece %s: no weight %q", q.Name, q.Path)
	case kernels[q.DType] == nil:
		return fmt.Errorf("piece %s: dtype %s, want Float32, BFloat16 or Float16", q.Name, q.DType)
	}
	if err := q.Check(p); err != nil {
		return err
	}
	if len(dst) != q.Bytes() {
		return fmt.Errorf("piece %s: buffer of %d bytes, want %d", q.Name, len(dst), q.Bytes())
	}
	var list []copying
	for _, x := range c.matched.extents[q.Path] {
		if k, ok := intersect(x, q); ok {
			list = append(list, k)
		}
	}
	var bad first
	err := eachChunk(list, runtime.GOMAXPROCS(0), func(k chunk) error {
		t := k.c.from.info
		found, err := k.copy(dst, kernels[t.DType][q.DType], bytesOf(t.DType), bytesOf(q.DType))
		if err != nil {
			return fmt.Errorf("%s: tensor %s: %w", k.c.from.file.name, quote(t.Name), err)
		}
		if found {
			bad.offer(k.c.from)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("checkpoint %s: %w", c.source.where, err)
	}
	if x := bad.extent; x != nil && c.warn != nil {
		c.once.Do(func() {
			c.warn(fmt.Sprintf("checkpoint %s: %s: tensor %s holds NaN or Inf as %s", c.source.where, x.file.name, quote(x.info.Name), q.DType))
		})
	}
	return nil
}

// first keeps the extent that lies first in the files' order, whichever goroutine finds one first.
type first struct {
	mu     sync.Mutex
	extent *extent
}

func (f *first) offer(x *extent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.extent == nil || x.file.name < f.extent.file.name || x.file == f.extent.file && x.at < f.extent.at {
		f.extent = x
	}
}

// Bytes is the size in the files of all tensors that are used.
func (c *Checkpoint) Bytes() int64 { return c.matched.bytes }

// DType is the type that most of those bytes have.
func (c *Checkpoint) DType() dtypes.DType { return c.matched.dtype }

// Layout is Hub, Fused or Plain.
func (c *Checkpoint) Layout() string { return c.matched.layout }

// Ignored lists the tensors that no weight needs.
func (c *Checkpoint) Ignored() []Ignored { return c.matched.ignored }

// Close waits for reads that are under way and lets go of the files. Later reads fail.
func (c *Checkpoint) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return errors.New("checkpoint: closed twice")
	}
	c.closed = true
	return c.source.close()
}
