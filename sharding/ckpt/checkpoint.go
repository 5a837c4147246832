package ckpt

import (
	"errors"
	"fmt"
	"io/fs"
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
	// Layout is Plain for weights under their own names; with "" it is found out what the folder holds.
	Layout string
}

// Checkpoint is an open checkpoint of a model whose weights are known, in any of the formats. Its methods may be
// called from several goroutines at once.
type Checkpoint struct {
	source  *source
	matched *matched
	list    []axis.Param
	params  map[string]axis.Param
	warn    func(string)
	once    sync.Once

	mu     sync.RWMutex // held for reading while the files are read
	closed bool
}

// Open opens the checkpoint in a folder and matches it with the weights of the model. The folder is found to
// be of Hugging Face, one model.safetensors or the files that its index names, ours, or Megatron's. If
// anything is wrong, the error is a *Problems that holds all of it, or an error of the file system.
func Open(dir string, params []axis.Param, o Options) (*Checkpoint, error) {
	_, s, match, err := openFolder(dir, params, o.Layout)
	if err != nil {
		return nil, err
	}
	return newCheckpoint(s, params, o, match)
}

// openFolder opens the files of a folder, whichever its format is. match brings them together with the weights.
func openFolder(dir string, params []axis.Param, layout string) (format string, s *source, match func() (*matched, []error), err error) {
	if format, err = Detect(dir); err != nil {
		return "", nil, nil, err
	}
	switch format {
	case Megatron:
		m := openMegatron(dir)
		return format, m.source, func() (*matched, []error) { return matchMegatron(m, params) }, nil
	case Mixtral:
		s, index := openBoxes(dir)
		return format, s, func() (*matched, []error) { return matchBoxes(s, index, params) }, nil
	}
	s = openSource(dir, inFolder(dir))
	return format, s, func() (*matched, []error) { return matchHF(s, params, layout) }, nil
}

// OpenFS is Open for the top folder of a file system, such as an embed.FS or a MemFS, of Hugging Face's format.
func OpenFS(fsys fs.FS, params []axis.Param, o Options) (*Checkpoint, error) {
	s := openSource("in memory", inFS(fsys))
	return newCheckpoint(s, params, o, func() (*matched, []error) { return matchHF(s, params, o.Layout) })
}

// matchHF is match, or matchPlain if that layout is asked for.
func matchHF(s *source, params []axis.Param, layout string) (*matched, []error) {
	switch layout {
	case "":
		return match(s, params)
	case Plain:
		return matchPlain(s, params)
	}
	return nil, []error{fmt.Errorf("layout %s, want %s or none", quote(layout), Plain)}
}

func newCheckpoint(s *source, params []axis.Param, o Options, match func() (*matched, []error)) (*Checkpoint, error) {
	c := &Checkpoint{source: s, list: params, params: pathsOf(params), warn: o.Warn}
	problems := s.problems
	if len(s.files) > 0 {
		var more []error
		c.matched, more = match()
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

// Params is the weights of the model.
func (c *Checkpoint) Params() []axis.Param { return c.list }

// Layout is Hub, Fused, Plain, Boxes or Megatron.
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
