package lora

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/gomlx/compute/dtypes"

	"mix/graph"
	"mix/sharding/axis"
	"mix/sharding/ckpt"
)

// Adapters is an open PEFT folder. Its methods may be called from several goroutines at once.
type Adapters struct {
	options Options
	base    string
	params  map[string]axis.Param // by path
	lead    map[string]int        // leading axes that number matrices, by path
	names   map[string]string     // of a tensor, by axis.SliceName

	mu   sync.RWMutex // held for reading while the file is read
	file *ckpt.File   // nil when closed
}

// Open opens a PEFT folder for a model: rank and alpha are those of its configuration, targets those that it
// has tensors for. Every tensor must be the adapter of a weight, and every layer and expert of a target
// must have its adapters, of F32, BF16 or F16; else the error names the first tensor that is wrong, and is
// one of ckpt's ErrMissing, ErrExtra, ErrShape and ErrDType.
//
// Not supported, and refused by name: adapters of fused experts (target_parameters), ranks or alphas that
// differ between layers, a subset of the layers, DoRA and other variants, biases, whole modules beside the
// adapters, and inits that change the base.
func Open(dir string, c graph.Config) (*Adapters, error) {
	text, err := os.ReadFile(filepath.Join(dir, configFile))
	if err != nil {
		return nil, fmt.Errorf("adapters: %w", err)
	}
	a := &Adapters{params: map[string]axis.Param{}, lead: map[string]int{}, names: map[string]string{}}
	if a.options, a.base, err = parseConfig(text); err != nil {
		return nil, fmt.Errorf("adapters %s: %s: %w", dir, configFile, err)
	}
	if a.file, err = ckpt.OpenFile(filepath.Join(dir, weightsFile)); err != nil {
		return nil, fmt.Errorf("adapters: %w", err)
	}
	if err := a.match(c); err != nil {
		a.file.Close()
		return nil, fmt.Errorf("adapters %s: %w", dir, err)
	}
	return a, nil
}

// match finds the targets, and the use of every tensor.
func (a *Adapters) match(c graph.Config) error {
	listed := a.options.Targets
	all := a.options
	all.Targets = []string{AllLinear}
	ps, err := pairs(c, all)
	if err != nil {
		return fmt.Errorf("%s: %w", configFile, err)
	}
	possible := map[string]part{}
	for _, t := range parts(ps) {
		possible[t.name] = t
	}
	var found []string
	for _, name := range a.file.Names() {
		t, ok := possible[name]
		if !ok {
			return extra(name)
		}
		if target := ps[t.pair].name; !slices.Contains(found, target) {
			found = append(found, target)
		}
		info, err := a.file.Info(name)
		if err != nil {
			return err
		}
		switch {
		case !slices.Equal(info.Shape, t.shape):
			return fmt.Errorf("%w: tensor %q is %v, want %v", ckpt.ErrShape, name, info.Shape, t.shape)
		case info.DType != dtypes.Float32 && info.DType != dtypes.BFloat16 && info.DType != dtypes.Float16:
			return fmt.Errorf("%w: tensor %q is %s, want F32, BF16 or F16", ckpt.ErrDType, name, info.Format)
		}
	}
	a.options.Targets = nil
	for _, t := range targets {
		asked := slices.ContainsFunc(listed, func(s string) bool { return s == t.name || strings.HasSuffix(s, "."+t.name) })
		if asked || slices.Contains(found, t.name) {
			a.options.Targets = append(a.options.Targets, t.name)
		}
	}
	if len(a.options.Targets) == 0 {
		return fmt.Errorf("%w: no adapter of %s", ckpt.ErrMissing, strings.Join(names(), ", "))
	}
	return a.use(c)
}

// use notes which tensor holds which matrix of the targets. All of them must be there.
func (a *Adapters) use(c graph.Config) error {
	ps, err := pairs(c, a.options)
	if err != nil {
		return err
	}
	for _, p := range ps {
		a.params[p.a.Path], a.params[p.b.Path] = p.a, p.b
		a.lead[p.a.Path], a.lead[p.b.Path] = p.lead, p.lead
	}
	for _, t := range parts(ps) {
		if _, err := a.file.Info(t.name); err != nil {
			return err
		}
		a.names[axis.SliceName(t.param.Path, t.lead...)] = t.name
	}
	return nil
}

// extra refuses a tensor that is no adapter of this model's.
func extra(name string) error {
	if strings.Contains(name, ".mlp.experts.") {
		return fmt.Errorf("%w %q: adapters of fused experts are not supported, only those of w1, w2, w3 by expert", ckpt.ErrExtra, name)
	}
	return fmt.Errorf("%w %q: not an adapter of this model's layers and experts", ckpt.ErrExtra, name)
}

// Options are what the folder was made with; Seed is not known.
func (a *Adapters) Options() Options {
	o := a.options
	o.Targets = slices.Clone(o.Targets)
	return o
}

// Base is the name of the base model, "" where the folder has none.
func (a *Adapters) Base() string { return a.base }

// Read fills dst with a piece of an adapter of Params, as float32, bfloat16 or float16, rounded to nearest
// with ties to even.
func (a *Adapters) Read(q axis.Piece, dst []byte) error {
	a.mu.RLock()
	defer a.mu.RUnlock()
	p, ok := a.params[q.Path]
	switch {
	case a.file == nil:
		return fmt.Errorf("adapters: piece %s: %w", q.Name, fs.ErrClosed)
	case !ok:
		return fmt.Errorf("adapters: piece %s: no adapter %q", q.Name, q.Path)
	}
	if err := check(q, p, dst); err != nil {
		return err
	}
	lead := a.lead[q.Path]
	offset, size, dims := q.Offset[lead:], q.Size[lead:], p.Dims[lead:]
	bytes := axis.Count(size) * int(q.DType.Size())
	for i := range axis.Count(q.Size[:lead]) {
		at := axis.Unravel(i, q.Size[:lead])
		for k := range at {
			at[k] += q.Offset[k]
		}
		v, err := a.file.Float32s(a.names[axis.SliceName(q.Path, at...)])
		if err != nil {
			return err
		}
		ckpt.PutFloat32(dst[i*bytes:(i+1)*bytes], q.DType, cut(v, dims, offset, size))
	}
	return nil
}

// Close waits for reads that are under way and lets go of the file. Later reads fail.
func (a *Adapters) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.file == nil {
		return errors.New("adapters: closed twice")
	}
	f := a.file
	a.file = nil
	return f.Close()
}
