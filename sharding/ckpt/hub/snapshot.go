package hub

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofrs/flock"
)

// Snapshot says what is here now.
type Snapshot struct {
	Repo     string  `json:"repo"`
	Revision string  `json:"revision"`
	Commit   string  `json:"commit"`  // "" for a folder used offline
	Path     string  `json:"path"`    // folder of the files
	Files    int     `json:"files"`   // all that were chosen
	Bytes    int64   `json:"bytes"`   // of all of them
	Fetched  int64   `json:"fetched"` // bytes that this call received
	Seconds  float64 `json:"seconds"`
}

// Download makes the chosen files of a snapshot be here. It returns when all of them are, and checked; the
// error is the first failure, after which what was received is kept for the next call. A canceled ctx is
// such a failure.
func Download(ctx context.Context, o Options) (*Snapshot, error) {
	begin := time.Now()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	s := &Snapshot{Repo: o.Repo, Revision: o.Revision}
	work := s.online
	if o.Offline {
		work = s.offline
	}
	if err := work(ctx, o); err != nil {
		if ctx.Err() != nil { // the cause may be a signal's own error
			err = fmt.Errorf("%s: what was received is kept: %w", o.Repo, ctx.Err())
		}
		return nil, err
	}
	s.Seconds = time.Since(begin).Seconds()
	return s, nil
}

func (s *Snapshot) online(ctx context.Context, o Options) error {
	c, err := newClient(o)
	if err != nil {
		return err
	}
	c.progress = newProgress(o.Progress)
	defer c.progress.close()
	commit, files, err := c.list(ctx)
	if err != nil {
		return err
	}
	var p place = newCache(o.Cache, o.Repo, commit)
	if o.To != "" {
		p = folder{o.To, commit}
	}
	s.Commit, s.Path, s.Files = commit, p.root(), len(files)
	for _, f := range files {
		s.Bytes += f.size
	}
	if err := c.fetch(ctx, p, commit, files); err != nil {
		return err
	}
	s.Fetched = c.fetched.Load()
	if err := p.finish(o.Revision); err != nil {
		return c.named(err, "")
	}
	c.progress.close()
	c.progress.say("%s: %d files, %s, of which %s were downloaded", p.root(), s.Files, size(s.Bytes), size(s.Fetched))
	return nil
}

// fetch puts the files in place that are not.
func (c *client) fetch(ctx context.Context, p place, commit string, files []file) error {
	if err := os.MkdirAll(p.root(), 0o755); err != nil {
		return c.named(err, "")
	}
	var mu sync.Mutex
	var absent []file
	err := c.each(ctx, files, func(ctx context.Context, f file) error {
		has, err := p.has(ctx, f)
		if err == nil && !has {
			mu.Lock()
			defer mu.Unlock()
			absent = append(absent, f)
		}
		return err
	})
	if err != nil || len(absent) == 0 {
		return err
	}
	// The largest first: the last ones to end are short. Names make the order one.
	slices.SortFunc(absent, func(a, b file) int { return cmp.Or(cmp.Compare(b.size, a.size), cmp.Compare(a.name, b.name)) })
	unique, need := p.pending(absent)
	if free, known := c.free(p.root()); known && free < need {
		return c.named(fmt.Errorf("%w: %s has room for %s, %s are missing", ErrSpace, p.root(), size(free), size(need)), "")
	}
	var all int64
	for _, f := range unique {
		all += f.size
	}
	c.progress.start(c.label, len(unique), all)
	if err := c.each(ctx, unique, func(ctx context.Context, f file) error { return c.one(ctx, p, commit, f) }); err != nil {
		return err
	}
	return c.each(ctx, absent, func(ctx context.Context, f file) error { // names of the same contents
		has, err := p.has(ctx, f)
		if err == nil && !has {
			err = errors.New("another process took it away")
		}
		return err
	})
}

// one gets one file while it holds the file's lock.
func (c *client) one(ctx context.Context, p place, commit string, f file) error {
	for _, path := range []string{p.lock(f), p.part(f)} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
	}
	unlock, err := c.locked(ctx, p.lock(f), f)
	if err != nil {
		return err
	}
	defer unlock()
	if has, err := p.has(ctx, f); err != nil || has { // another process was first
		c.progress.add(f.size)
		return err
	}
	if err := c.download(ctx, f, commit, p.part(f)); err != nil {
		return err
	}
	return p.keep(f)
}

// locked waits for a lock. Its file stays: removing it would let two holders in. Others do remove theirs, so
// the lock counts only if the file still has its name.
func (c *client) locked(ctx context.Context, path string, f file) (unlock func(), err error) {
	said := false
	for {
		lock := flock.New(path)
		got, err := lock.TryLock()
		if err != nil {
			return nil, err
		}
		if got {
			held, err := lock.Stat()
			named, err2 := os.Stat(path)
			if err == nil && err2 == nil && os.SameFile(held, named) {
				return func() { _ = lock.Unlock() }, nil // closing it unlocks in any case
			}
			_ = lock.Unlock()
			continue
		}
		_ = lock.Close()
		if !said {
			c.progress.say("%s: another process is downloading it", f.name)
			said = true
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// each calls do for every file, Parallel at a time. The first error stops the others and is returned, with
// the names of repository and file.
func (c *client) each(ctx context.Context, files []file, do func(context.Context, file) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(c.Parallel, len(files)) {
		workers.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(files)) && ctx.Err() == nil; i = next.Add(1) - 1 {
				if err := do(ctx, files[i]); err != nil {
					cancel(c.named(err, files[i].name))
				}
			}
		})
	}
	workers.Wait()
	return context.Cause(ctx)
}
