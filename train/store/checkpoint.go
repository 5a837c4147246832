package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"sync"

	"mix/sharding/axis"
	"mix/sharding/ckpt"
)

// Checkpoint is a checkpoint whose files are all as they were written.
type Checkpoint struct {
	dir    string
	state  envelope
	params []axis.Param // the store's

	mu     sync.Mutex
	closed bool
	open   map[string]*ckpt.Checkpoint // by group
	more   []io.Closer
}

// Latest is the newest checkpoint whose files are all as they were written: it reads them. Others are
// passed over with a warning that says what is wrong. Without any checkpoint it is nil, without a whole one
// an error. It waits for a save in the background; that one's error is left to Wait.
func (s *Store) Latest() (*Checkpoint, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fmt.Errorf("save folder %s: %w", s.dir, fs.ErrClosed)
	}
	if s.running != nil {
		<-s.running
	}
	steps := slices.Sorted(maps.Keys(s.known))
	slices.Reverse(steps)
	var wrong []error
	for _, step := range steps {
		c, err := s.verified(step)
		if err == nil {
			return c, nil
		}
		s.known[step] = entry{damaged: true}
		s.o.Log.Warn("checkpoint passed over: "+err.Error(), "step", step)
		wrong = append(wrong, err)
	}
	switch len(wrong) {
	case 0:
		return nil, nil
	case 1:
		return nil, fmt.Errorf("save folder %s: its only checkpoint cannot be used: %w", s.dir, wrong[0])
	}
	return nil, &allDamaged{s.dir, wrong}
}

// allDamaged is the error of a folder without a whole checkpoint.
type allDamaged struct {
	dir  string
	list []error // newest first
}

func (a *allDamaged) Error() string {
	return fmt.Sprintf("save folder %s: none of its %d checkpoints can be used, the newest because: %v", a.dir, len(a.list), a.list[0])
}

func (a *allDamaged) Unwrap() []error { return a.list }

// verified opens a checkpoint after reading all of it.
func (s *Store) verified(step int) (*Checkpoint, error) {
	dir := s.path(step)
	m, err := ckpt.Verify(dir)
	if err != nil {
		return nil, err
	}
	x, err := parseEnvelope(m.State)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", filepath.Join(dir, ckpt.ManifestFile), ckpt.ErrDamaged, err)
	}
	if x.Step != step {
		return nil, fmt.Errorf("%s: %w: it is of step %d, its folder's name says %d", filepath.Join(dir, ckpt.ManifestFile), ckpt.ErrDamaged, x.Step, step)
	}
	return &Checkpoint{dir: dir, state: x, params: s.o.Params, open: map[string]*ckpt.Checkpoint{}}, nil
}

// Step is the number of steps done.
func (c *Checkpoint) Step() int { return c.state.Step }

// State is the state of the run that was saved, perhaps with other white space.
func (c *Checkpoint) State() json.RawMessage { return c.state.Run }

// Dir is the checkpoint's folder.
func (c *Checkpoint) Dir() string { return c.dir }

// Groups lists the names of the groups in the order in which they were saved.
func (c *Checkpoint) Groups() []string {
	var names []string
	for _, g := range c.state.Groups {
		names = append(names, g.Name)
	}
	return names
}

// Reader gives the weights of a group, "" for the model's. It fails if there is no such group or, where the
// group has the store's weights, if these are of other shapes than those that were saved.
func (c *Checkpoint) Reader(group string) (Reader, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, fmt.Errorf("checkpoint %s: %w", c.dir, fs.ErrClosed)
	}
	if r, ok := c.open[group]; ok {
		return r, nil
	}
	i := slices.IndexFunc(c.state.Groups, func(g record) bool { return g.Name == group })
	if i < 0 {
		return nil, fmt.Errorf("checkpoint %s: no group %q, it has %q", c.dir, group, c.Groups())
	}
	g := c.state.Groups[i]
	params, o := g.catalogue(), ckpt.Options{}
	if params == nil {
		params = c.params
	}
	if g.Plain {
		o.Layout = ckpt.Plain
	}
	r, err := ckpt.Open(filepath.Join(c.dir, filepath.FromSlash(group)), params, o)
	if err != nil {
		return nil, err
	}
	c.open[group] = r
	return r, nil
}

// Params is the catalogue of a group as it was saved, nil where it is the store's or there is no such group.
func (c *Checkpoint) Params(group string) []axis.Param {
	for _, g := range c.state.Groups {
		if g.Name == group {
			return g.catalogue()
		}
	}
	return nil
}

// Closes hands over what is to be closed with the checkpoint: another reader of its files.
func (c *Checkpoint) Closes(x io.Closer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.more = append(c.more, x)
}

// Close lets go of the files. Readers fail after it.
func (c *Checkpoint) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return fmt.Errorf("checkpoint %s: %w", c.dir, fs.ErrClosed)
	}
	c.closed = true
	var errs []error
	for _, r := range c.open {
		errs = append(errs, r.Close())
	}
	for _, x := range c.more {
		errs = append(errs, x.Close())
	}
	return errors.Join(errs...)
}
