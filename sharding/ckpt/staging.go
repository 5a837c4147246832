package ckpt

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/gofrs/flock"
)

// RunOptions say how a conversion runs.
type RunOptions struct {
	Workers  int                     // files written at once, 0 for one a processor
	Progress func(done, total int64) // bytes of tensors; may be nil, is called by one goroutine at a time
}

// journalFile lists the files of a staging folder that are finished: the plan's identity, then a Sum a line.
const journalFile = ".finished"

// staging is the folder beside the target in which a conversion grows. It outlives a killed process, and the
// same conversion goes on in it.
type staging struct {
	dir      string
	lock     *flock.Flock
	mu       sync.Mutex
	journal  *os.File
	finished map[string]Sum
}

// openStaging takes up the work of a conversion of the same identity, or begins anew. It fails if another
// process is at it.
func openStaging(target, identity string) (s *staging, err error) {
	parent, name := filepath.Split(target)
	if parent != "" {
		if err := os.MkdirAll(parent, 0o777); err != nil {
			return nil, err
		}
	}
	s = &staging{dir: filepath.Join(parent, "."+name+".converting"), finished: map[string]Sum{}}
	s.lock = flock.New(s.dir + ".lock")
	switch ok, err := s.lock.TryLock(); {
	case err != nil:
		return nil, err
	case !ok:
		return nil, fmt.Errorf("%s: another conversion is writing it", target)
	}
	if err := free(target); err != nil { // who had the lock before may have made it
		return nil, errors.Join(err, s.release())
	}
	defer func() {
		if err != nil {
			s.lock.Unlock()
		}
	}()
	if !s.resume(identity) {
		clear(s.finished)
		if err := os.RemoveAll(s.dir); err != nil {
			return nil, err
		}
		if err := os.Mkdir(s.dir, 0o777); err != nil {
			return nil, err
		}
		if err := os.WriteFile(s.path(journalFile), []byte(identity+"\n"), 0o666); err != nil {
			return nil, err
		}
	}
	s.journal, err = os.OpenFile(s.path(journalFile), os.O_WRONLY|os.O_APPEND, 0)
	return s, err
}

func (s *staging) path(name string) string { return filepath.Join(s.dir, filepath.FromSlash(name)) }

// resume reads the journal. Files that are not as it says are written again.
func (s *staging) resume(identity string) bool {
	text, err := os.ReadFile(s.path(journalFile))
	if err != nil {
		return false
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	if !lines.Scan() || lines.Text() != identity {
		return false
	}
	for lines.Scan() {
		var sum Sum
		if json.Unmarshal(lines.Bytes(), &sum) != nil {
			continue // the last line of a process that was killed
		}
		if st, err := os.Stat(s.path(sum.Name)); err == nil && st.Size() == sum.Bytes {
			s.finished[sum.Name] = sum
		}
	}
	return true
}

// note adds a finished file.
func (s *staging) note(sum Sum) error {
	line, err := json.Marshal(sum)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finished[sum.Name] = sum
	if _, err := s.journal.Write(append(line, '\n')); err != nil {
		return err
	}
	return s.journal.Sync()
}

// clean removes what a killed process left half written.
func (s *staging) clean() error {
	return filepath.WalkDir(s.dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(s.dir, file)
		if err != nil {
			return err
		}
		if _, ok := s.finished[filepath.ToSlash(name)]; ok || name == journalFile {
			return nil
		}
		return os.Remove(file)
	})
}

// publish gives the folder its name.
func (s *staging) publish(target string) error {
	err := s.journal.Close()
	if err == nil {
		err = os.Remove(s.path(journalFile))
	}
	if err == nil {
		err = Publish(s.dir, target)
	}
	return errors.Join(err, s.release())
}

// release lets another process have the folder.
func (s *staging) release() error {
	os.Remove(s.lock.Path()) // while it is held: nobody else has it, and who waits for it fails
	return s.lock.Unlock()
}

// Run writes the target folder, where nothing may be. It appears when all of it is on the disk. If the
// process ends before, the same conversion goes on with the files that are not finished.
//
// Copies of a weight that the source holds several times are compared first: if they differ it is an error.
// Memory is one stretch of elements a worker, whatever the size of the model.
func (c *Conversion) Run(ctx context.Context, target string, o RunOptions) (m Manifest, err error) {
	if target == "" {
		return m, errors.New("no name of a folder to make")
	}
	target = filepath.Clean(target)
	if err := free(target); err != nil {
		return m, err
	}
	if o.Workers == 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	for _, s := range c.sources {
		if err := s.compareReplicas(ctx, o.Workers); err != nil {
			return m, err
		}
	}
	identity, err := c.identity()
	if err != nil {
		return m, err
	}
	s, err := openStaging(target, identity)
	if err != nil {
		return m, err
	}
	err = c.write(ctx, s, o)
	if err == nil {
		err = s.clean()
	}
	if err == nil {
		m = NewManifest(slices.Collect(maps.Values(s.finished)), c.state)
		err = m.Write(s.dir)
	}
	if err != nil {
		return m, errors.Join(err, s.journal.Close(), s.lock.Unlock())
	}
	return m, s.publish(target)
}

// free says whether nothing has the target's name.
func free(target string) error {
	_, err := os.Lstat(target)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	return fmt.Errorf("%s: there is something, want a name that is free", target)
}

// identity names the plan and the files that it reads.
func (c *Conversion) identity() (string, error) {
	h := sha256.New()
	if err := c.Print(h); err != nil {
		return "", err
	}
	for _, name := range sortedKeys(c.texts) {
		fmt.Fprintf(h, "%s %x\n", name, sha256.Sum256(c.texts[name]))
	}
	for _, s := range c.sources {
		for _, f := range s.source.files {
			st, err := os.Stat(filepath.Join(s.source.where, filepath.FromSlash(f.name)))
			if err != nil {
				return "", err
			}
			fmt.Fprintln(h, f.name, st.Size(), st.ModTime().UnixNano())
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}

// write writes all files that are not finished.
func (c *Conversion) write(ctx context.Context, s *staging, o RunOptions) error {
	var done atomic.Int64
	total := int64(0)
	var todo []*outputFile
	for i := range c.outputs {
		f := &c.outputs[i]
		for _, t := range f.tensors {
			total += t.bytes()
		}
		if _, ok := s.finished[f.name]; ok {
			for _, t := range f.tensors {
				done.Add(t.bytes())
			}
			continue
		}
		todo = append(todo, f)
		if err := os.MkdirAll(filepath.Dir(s.path(f.name)), 0o777); err != nil {
			return err
		}
	}
	stop := report(&done, total, o.Progress)
	defer stop()
	err := eachFile(ctx, todo, o.Workers, func(ctx context.Context, f *outputFile, w *streamer) error {
		w.ctx, w.done = ctx, &done
		part := s.path(f.name) + ".part"
		sum, err := w.write(f, part)
		if err == nil {
			err = os.Rename(part, s.path(f.name))
		}
		if err == nil {
			err = s.note(sum)
		}
		return err
	})
	if err != nil {
		return err
	}
	small := func(name string, write func(at string) (Sum, error)) error {
		if err := os.MkdirAll(filepath.Dir(s.path(name)), 0o777); err != nil {
			return err
		}
		sum, err := write(s.path(name))
		sum.Name = name
		s.finished[name] = sum
		return err
	}
	for _, name := range sortedKeys(c.texts) {
		if err := small(name, func(at string) (Sum, error) { return replaceText(at, c.texts[name]) }); err != nil {
			return err
		}
	}
	for _, name := range c.as {
		err := small(name, func(at string) (Sum, error) {
			return replace(at, func(w io.Writer) error {
				f, err := os.Open(filepath.Join(c.From, filepath.FromSlash(name)))
				if err != nil {
					return err
				}
				defer f.Close()
				_, err = io.Copy(w, f)
				return err
			})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// eachFile runs write for every file on up to workers goroutines and returns the first failure in the order
// of the files; after one the others stop.
func eachFile(ctx context.Context, files []*outputFile, workers int, write func(context.Context, *outputFile, *streamer) error) error {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	streamers := make([]streamer, min(max(workers, 1), len(files)))
	err := inParallel(len(files), workers, func(worker, i int) error {
		if inner.Err() != nil {
			return errStopped
		}
		err := write(inner, files[i], &streamers[worker])
		if err != nil {
			cancel()
		}
		if errors.Is(err, context.Canceled) {
			return errStopped
		}
		return err
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}
