package train

import (
	"fmt"
	"unsafe"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"

	"mix/graph"
	"mix/lower"
	"mix/sharding"
	"mix/sharding/axis"
	"mix/sharding/ckpt"
	"mix/train/lora"
)

// Reader gives the elements of a weight's piece: a checkpoint, or anything that can make them up.
type Reader = ckpt.Reader

// Fresh is the Reader of newly initialized weights, float32.
func Fresh(c graph.Config, seed uint64) Reader { return fresh{c, seed} }

type fresh struct {
	c    graph.Config
	seed uint64
}

func (f fresh) Read(q axis.Piece, dst []byte) error {
	if q.DType != dtypes.Float32 || len(dst) != q.Bytes() {
		return fmt.Errorf("weight %s: %d bytes of %s, want %d of Float32", q.Name, len(dst), q.DType, 4*q.Elements())
	}
	return graph.Init(f.c, q, f.seed, unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(dst))), q.Elements()))
}

// freshAdapters is the Reader of adapters before the first step, float32.
type freshAdapters struct {
	c graph.Config
	o lora.Options
}

func (f freshAdapters) Read(q axis.Piece, dst []byte) error {
	if q.DType != dtypes.Float32 || len(dst) != q.Bytes() {
		return fmt.Errorf("adapter %s: %d bytes of %s, want %d of Float32", q.Name, len(dst), q.DType, 4*q.Elements())
	}
	return lora.Init(f.c, f.o, q, unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(dst))), q.Elements()))
}

// zeros is the Reader of moments before the first step.
type zeros struct{}

func (zeros) Read(_ axis.Piece, dst []byte) error {
	clear(dst)
	return nil
}

// Groups of a checkpoint.
const (
	groupWeights = ""
	groupFirst   = "optimizer/first"
	groupSecond  = "optimizer/second"
)

var groups = []string{groupWeights, groupFirst, groupSecond}

// device is a run's state as it lies there.
type device struct {
	be     *lower.Backend
	m      model
	state  []*lower.Buffer // weights, first moments, second moments, updates
	frozen []*lower.Buffer
}

// newDevice puts a state onto the device: of readers, one a group, and of the frozen weights.
func newDevice(be *lower.Backend, m model, readers map[string]Reader, frozen Reader, updates int32) (d *device, err error) {
	d = &device{be: be, m: m}
	defer func() {
		if err != nil {
			d.free()
		}
	}()
	for _, name := range groups {
		for _, q := range m.trained {
			b, err := m.upload(be, readers[name], q, sharding.Moments)
			if err != nil {
				return nil, err
			}
			d.state = append(d.state, b)
		}
	}
	for _, q := range m.frozen {
		b, err := m.upload(be, frozen, q, sharding.Weights)
		if err != nil {
			return nil, err
		}
		d.frozen = append(d.frozen, b)
	}
	b, err := be.Upload(shapes.Make(dtypes.Int32), []int32{updates})
	if err != nil {
		return nil, err
	}
	d.state = append(d.state, b)
	return d, nil
}

func (d *device) free() {
	free(d.state)
	free(d.frozen)
	d.state, d.frozen = nil, nil
}

// weights are the arguments of a program that only reads.
func (d *device) weights() []*lower.Buffer {
	return append(append([]*lower.Buffer{}, d.state[:len(d.m.trained)]...), d.frozen...)
}

// host is a copy of a state's groups in memory.
type host struct {
	params map[string]axis.Param
	pieces []axis.Piece
	data   map[string][][]byte // [group][piece]
}

// copyTo copies the state, into the memory of an older copy where there is one.
func (d *device) copyTo(h *host) (*host, error) {
	if h == nil {
		h = &host{params: map[string]axis.Param{}, pieces: d.m.trained, data: map[string][][]byte{}}
		for _, p := range d.m.params {
			h.params[p.Path] = p
		}
		for _, name := range groups {
			for _, q := range h.pieces {
				h.data[name] = append(h.data[name], make([]byte, q.Bytes()))
			}
		}
	}
	n := len(h.pieces)
	for i, name := range groups {
		for j, b := range d.state[i*n : (i+1)*n] {
			if err := b.ReadInto(h.data[name][j]); err != nil {
				return nil, fmt.Errorf("copy of %s %s: %w", name, h.pieces[j].Name, err)
			}
		}
	}
	return h, nil
}

// group is the Reader of one group.
func (h *host) group(name string) Reader { return hostGroup{h, h.data[name]} }

type hostGroup struct {
	*host
	data [][]byte
}

// Read implements Reader for float32 pieces of any box.
func (h hostGroup) Read(q axis.Piece, dst []byte) error {
	p, ok := h.params[q.Path]
	if !ok {
		return fmt.Errorf("state: no weight %q", q.Path)
	}
	if err := q.Check(p); err != nil {
		return err
	}
	if q.DType != dtypes.Float32 || len(dst) != q.Bytes() {
		return fmt.Errorf("state: %s: %d bytes of %s, want %d of Float32", q.Name, len(dst), q.DType, 4*q.Elements())
	}
	copied := 0
	for i, from := range h.pieces {
		if from.Path == q.Path {
			c, _ := axis.Intersect(from.Offset, from.Size, q)
			for run := range c.Count {
				src, at := c.Run(run)
				copied += copy(dst[4*at:4*(at+c.Length)], h.data[i][4*src:])
			}
		}
	}
	if copied != len(dst) {
		return fmt.Errorf("state: %s: %d bytes of %d are there", q.Name, copied, len(dst))
	}
	return nil
}
