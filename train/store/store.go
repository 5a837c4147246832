// Package store keeps the checkpoints of a training run.
//
//	snapshot → groups of tensors, files → manifest → renamed into place → older ones pruned
//
// A run's folder has one folder a checkpoint, such as step-00000060. It is a Hugging Face folder, with the
// state of the optimizer in folders below it and a manifest beside it that says what every file must be. It
// is there whole or not at all, at whatever moment the process is killed or the disk is full.
package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"

	"mix/sharding/axis"
	"mix/sharding/ckpt"
)

// Options says what a store keeps.
type Options struct {
	KeepLast   int               // newest checkpoints that stay, 0 for all
	KeepBest   bool              // the one of the lowest score stays too
	Params     []axis.Param      // the model's weights
	Files      map[string][]byte // files of every checkpoint by name: config.json, the tokenizer's
	ShardBytes int64             // most bytes of tensors a file, 0 for ckpt.DefaultShard
	Log        *slog.Logger      // told of damaged and removed checkpoints; nil for none
	// Saved is told of every checkpoint that is on the disk, how long that took and where it is. It may be
	// nil, is called in the background and may not call the store.
	Saved func(step int, took time.Duration, dir string)
}

// Store is the open folder of a run. One process has it at a time. Its methods may be called from several
// goroutines.
type Store struct {
	dir  string
	o    Options
	lock *flock.Flock

	mu      sync.Mutex // held by every method
	closed  bool
	running chan struct{} // closed when the save in the background is done, nil without one
	failed  error         // of a save in the background, not yet returned
	known   map[int]entry // whole checkpoints and damaged ones by step; the running save changes it, others wait for that
}

// entry is what is known of a checkpoint without reading its tensors.
type entry struct {
	score   *float64 // nil for unknown
	damaged bool
}

// lockFile is held by the process that has the folder. It stays: removing it would let two hold it.
const lockFile = ".lock"

// Open makes the folder if it is not there, locks it and clears away what a killed process left. It fails
// if another process has it or if it cannot be written to, which it tries.
func Open(dir string, o Options) (s *Store, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("save folder %s: %w", dir, err)
		}
	}()
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Saved == nil {
		o.Saved = func(int, time.Duration, string) {}
	}
	switch {
	case dir == "":
		return nil, errors.New("no name")
	case o.KeepLast < 0:
		return nil, fmt.Errorf("keep the last %d checkpoints, want 0 for all or at least 1", o.KeepLast)
	}
	if o.Params != nil { // else every group has its own
		if err := (ckpt.WriteOptions{ShardBytes: o.ShardBytes, Files: o.Files}).Check(o.Params); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	lock := flock.New(filepath.Join(dir, lockFile))
	switch ok, err := lock.TryLock(); {
	case err != nil:
		return nil, fmt.Errorf("cannot be locked: %w", err)
	case !ok:
		return nil, errors.New("another run has it: its lock is held")
	}
	s = &Store{dir: dir, o: o, lock: lock, known: map[int]entry{}}
	if err = s.recover(); err == nil {
		err = probe(dir)
	}
	if err != nil {
		lock.Unlock()
		return nil, err
	}
	return s, nil
}

// probes are the names of the files that probe makes.
const probes = ".probe-"

// probe writes a file to the folder, as a save will, and removes it.
func probe(dir string) error {
	f, err := os.CreateTemp(dir, probes+"*")
	if err != nil {
		return fmt.Errorf("cannot be written to: %w", err)
	}
	_, err = f.Write(make([]byte, 4096))
	for _, then := range []func() error{f.Sync, f.Close, func() error { return os.Remove(f.Name()) }} {
		if e := then(); err == nil {
			err = e
		}
	}
	if err != nil {
		return fmt.Errorf("cannot be written to: %w", err)
	}
	return nil
}

// recover removes what is half written or half removed, puts back what was about to be replaced, and looks
// at the checkpoints that there are.
func (s *Store) recover() error {
	list, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range list {
		path := filepath.Join(s.dir, e.Name())
		step, suffix, ok := parseName(e.Name())
		switch {
		case strings.HasPrefix(e.Name(), probes):
		case !ok || suffix == "":
			continue
		case suffix == replaced:
			if _, err := os.Lstat(s.path(step)); errors.Is(err, fs.ErrNotExist) {
				if err := os.Rename(path, s.path(step)); err != nil {
					return err
				}
				continue
			}
		}
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	if list, err = os.ReadDir(s.dir); err != nil {
		return err
	}
	for _, e := range list {
		if step, suffix, ok := parseName(e.Name()); ok && suffix == "" {
			s.known[step] = s.look(step)
		}
	}
	return nil
}

// look reads a checkpoint's manifest.
func (s *Store) look(step int) entry {
	m, err := ckpt.ReadManifest(s.path(step))
	if err != nil {
		return entry{damaged: true}
	}
	x, err := parseEnvelope(m.State)
	if err != nil || x.Step != step {
		return entry{damaged: true}
	}
	return entry{score: x.Score}
}

// Save writes a checkpoint in the background; a failure is logged at once. It waits for the one before and returns the error of that, if
// it failed, or of a snapshot that cannot be; then it writes nothing. x.Done is called once in any case.
func (s *Store) Save(x Snapshot) error {
	done := sync.OnceFunc(func() {
		if x.Done != nil {
			x.Done()
		}
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.wait()
	if err == nil && s.closed {
		err = fmt.Errorf("save folder %s: %w", s.dir, fs.ErrClosed)
	}
	if err == nil {
		err = s.check(x)
	}
	if err != nil {
		done()
		return err
	}
	running := make(chan struct{})
	s.running = running
	go func() {
		defer close(running)
		defer done()
		start := time.Now()
		if err := s.write(x, done); err != nil {
			s.failed = fmt.Errorf("save step %d: %w", x.Step, err)
			s.o.Log.Error("a checkpoint could not be written, those before are whole", "step", x.Step, "error", err)
			return
		}
		s.o.Saved(x.Step, time.Since(start), s.path(x.Step))
		s.prune(x.Step)
	}()
	return nil
}

// Wait returns when the last save is on the disk, with its error unless that was returned before.
func (s *Store) Wait() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wait()
}

func (s *Store) wait() error {
	if s.running != nil {
		<-s.running
		s.running = nil
	}
	err := s.failed
	s.failed = nil
	return err
}

// Close waits for the last save and lets another process have the folder. It returns the save's error
// unless that was returned before.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("save folder %s: %w", s.dir, fs.ErrClosed)
	}
	s.closed = true
	return errors.Join(s.wait(), s.lock.Unlock())
}

// A Reader gives any box of a group's weights.
type Reader = ckpt.Reader

// jsonOf is v as JSON; v is of a type that always has one.
func jsonOf(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
