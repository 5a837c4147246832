package hub

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// transfer is one file on its way into its .incomplete file.
type transfer struct {
	*client
	file
	address string

	part *os.File
	have int64     // bytes in part
	sum  hash.Hash // of them
	old  bool      // some of them are of an earlier process or request
	etag string    // strong ETag of the answer that gave them, "" if unknown
}

// download makes path the complete file f, checked. What path holds already is kept: the request asks for
// the rest only.
func (c *client) download(ctx context.Context, f file, commit, path string) (err error) {
	t := &transfer{client: c, file: f, address: c.fileAddress(commit, f.name)}
	if t.part, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.part.Close()) }()
	if err := t.resume(ctx); err != nil {
		return err
	}
	if err := c.again(ctx, f.name, t.attempt); err != nil {
		return err
	}
	return t.disk(t.part.Sync())
}

// resume takes in what the part file holds.
func (t *transfer) resume(ctx context.Context) error {
	size, err := t.part.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	t.sum = newSum(t.file)
	if size == 0 {
		return nil
	}
	if size > t.size {
		return t.restart()
	}
	n, err := io.Copy(t.sum, &canceled{ctx, io.NewSectionReader(t.part, 0, size)})
	if err != nil {
		return err
	}
	t.have, t.old = n, true
	t.progress.add(n)
	return nil
}

// restart throws away what is here.
func (t *transfer) restart() error {
	t.progress.add(-t.have)
	t.have, t.old, t.etag, t.sum = 0, false, "", newSum(t.file)
	_, err := t.part.Seek(0, io.SeekStart)
	return t.disk(errors.Join(t.part.Truncate(0), err))
}

// attempt makes one request for what is missing, if anything is, and checks the whole.
func (t *transfer) attempt(ctx context.Context) (gained int64, err error) {
	begin := t.have
	if t.have < t.size {
		if err := t.request(ctx); err != nil {
			return t.have - begin, err
		}
	}
	if got := hex.EncodeToString(t.sum.Sum(nil)); got != t.file.etag {
		err := fmt.Errorf("%w: %s, want %s", ErrChecksum, got, t.file.etag)
		old := t.old
		if r := t.restart(); r != nil {
			return 0, r
		}
		if !old { // these bytes came in one piece: the server has no others
			return 0, permanent{err}
		}
		return 0, err
	}
	return t.have - begin, nil
}

func (t *transfer) request(ctx context.Context) error {
	h := http.Header{}
	if t.have > 0 {
		h.Set("Range", fmt.Sprintf("bytes=%d-", t.have))
		if t.etag != "" {
			h.Set("If-Range", t.etag)
		}
	}
	a, err := t.do(ctx, http.MethodGet, t.address, h)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	if err := t.accept(a); err != nil {
		return err
	}
	t.old = t.have > 0
	if e := a.Header.Get("ETag"); strings.HasPrefix(e, `"`) {
		t.etag = e
	}
	feed := feeder(ctx)
	buf := make([]byte, 1<<18)
	for {
		n, err := a.Body.Read(buf)
		feed()
		if t.have+int64(n) > t.size {
			return errors.Join(fmt.Errorf("%w: more than %d bytes", ErrLength, t.size), t.restart())
		}
		if err := t.write(buf[:n]); err != nil {
			return err
		}
		switch {
		case err == io.EOF && t.have < t.size:
			return fmt.Errorf("%w: connection ended at %d of %d bytes", ErrLength, t.have, t.size)
		case err == io.EOF:
			return nil
		case err != nil:
			return fmt.Errorf("connection lost at %d of %d bytes: %w", t.have, t.size, unaddressed(ctx, a.Request.URL, err))
		}
	}
}

// accept reads the head of an answer, before anything of its body is written.
func (t *transfer) accept(a *answer) error {
	if a.linkedETag != "" && a.linkedETag != t.file.etag || a.linkedSize != "" && a.linkedSize != strconv.FormatInt(t.size, 10) {
		return permanent{fmt.Errorf("%w: the hub offers %s of %s bytes, listed is %s of %d", ErrChanged, a.linkedETag, clean(a.linkedSize), t.file.etag, t.size)}
	}
	switch {
	case a.StatusCode == http.StatusOK:
		if a.ContentLength >= 0 && a.ContentLength != t.size {
			return fmt.Errorf("%w: server offers %d bytes, want %d", ErrLength, a.ContentLength, t.size)
		}
		if t.have > 0 { // it does not resume, or its file is another than before
			return t.restart()
		}
		return nil
	case a.StatusCode == http.StatusPartialContent:
		return t.acceptRest(a)
	case a.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		return errors.Join(fmt.Errorf("%w: server has no more than the %d bytes here, want %d", ErrLength, t.have, t.size), t.restart())
	}
	return t.refusal(a, t.name)
}

// acceptRest checks that a partial answer goes on where the part file ends, and belongs to the same bytes.
func (t *transfer) acceptRest(a *answer) error {
	var from, to, total int64
	r := a.Header.Get("Content-Range")
	n, _ := fmt.Sscanf(r, "bytes %d-%d/%d", &from, &to, &total)
	switch e := a.Header.Get("ETag"); {
	case n < 2 || from != t.have || to != t.size-1 || n == 3 && total != t.size || a.ContentLength >= 0 && a.ContentLength != t.size-t.have:
		return errors.Join(fmt.Errorf("%w: asked for bytes from %d of %d, got Content-Range %q and %d bytes", ErrLength, t.have, t.size, clean(r), a.ContentLength), t.restart())
	case t.etag != "" && strings.HasPrefix(e, `"`) && e != t.etag:
		return errors.Join(fmt.Errorf("%w: ETag %q, was %q", ErrChanged, clean(e), clean(t.etag)), t.restart())
	}
	return nil
}

// write appends to the part file. What does not get there is not in the sum.
func (t *transfer) write(p []byte) error {
	n, err := t.part.Write(p)
	t.sum.Write(p[:n])
	t.have += int64(n)
	t.progress.add(int64(n))
	t.fetched.Add(int64(n))
	return t.disk(err)
}

// disk marks the errors of files: trying again does not mend them. A full disk is named.
func (t *transfer) disk(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return permanent{fmt.Errorf("%w: %s: %d of %d bytes are here, the rest resumes: %v", ErrSpace, filepath.Dir(t.part.Name()), t.have, t.size, err)}
	}
	return permanent{err}
}

// newSum is the hash that a file's checksum is of. Git's begins with a header that holds the length.
func newSum(f file) hash.Hash {
	if len(f.etag) == sha256.Size*2 {
		return sha256.New()
	}
	h := sha1.New()
	fmt.Fprintf(h, "blob %d\x00", f.size)
	return h
}

// canceled is a reader that ends with its context.
type canceled struct {
	ctx context.Context
	io.Reader
}

// Read implements io.Reader.
func (c *canceled) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.Reader.Read(p)
}
