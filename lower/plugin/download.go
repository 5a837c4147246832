package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/gomlx/go-xla/installer"
)

const (
	tries = 6                // requests before a download is given up
	stall = 60 * time.Second // without a byte, a connection is given up
)

// permanent marks an error that another try will not mend.
type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }

// download makes part the complete, checked wheel. What part holds already is kept: the request
// asks for the rest only.
func (o Options) download(ctx context.Context, w wheel, part string) error {
	locate, wait := o.locate, o.backoff
	if locate == nil {
		locate = registry
	}
	if wait == 0 {
		wait = time.Second
	}
	if err := check(part, w); err == nil {
		return nil // the process that got it was stopped before it could extract
	}
	addr, err := locate(ctx, w)
	if err != nil {
		return err
	}
	t := transfer{client: o.client, addr: addr, part: part, progress: o.bar(w)}
	defer t.progress.close()
	if t.client == nil {
		t.client = http.DefaultClient
	}
	for try := 1; ; try++ {
		resumed, err := t.run(ctx)
		if err == nil {
			err = check(part, w)
			if err == nil {
				t.progress.done()
				return nil
			}
			_ = os.Remove(part)
			if !resumed {
				return err
			}
		}
		var p permanent
		if ctx.Err() != nil || errors.As(err, &p) || full(err) || try == tries {
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
		wait *= 2
	}
}

// registry asks the package registry, by way of go-xla's installer, where a wheel lies.
func registry(ctx context.Context, w wheel) (string, error) {
	type answer struct {
		info *installer.PipPackageInfo
		err  error
	}
	c := make(chan answer, 1)
	go func() { // the installer takes no context
		info, err := installer.GetPipInfo(w.pkg)
		c <- answer{info, err}
	}()
	select {
	case a := <-c:
		if a.err != nil {
			return "", a.err
		}
		return address(a.info, w)
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// address picks the wheel from the registry's answer. A mirror may give an address relative to
// the package's page.
func address(info *installer.PipPackageInfo, w wheel) (string, error) {
	for _, r := range info.Releases[w.version] {
		if r.Filename != w.file {
			continue
		}
		if sum := r.Digests["sha256"]; sum != "" && sum != w.sha256 {
			return "", fmt.Errorf("plugin: the registry's %s: %w: %s, want %s", w.file, ErrChecksum, sum, w.sha256)
		}
		base, err := url.Parse(info.Info.ProjectURL)
		if err != nil {
			return "", fmt.Errorf("address of package %s: %w", w.pkg, err)
		}
		addr, err := base.Parse(r.URL)
		if err != nil {
			return "", fmt.Errorf("address of %s: %w", w.file, err)
		}
		if !addr.IsAbs() {
			return "", fmt.Errorf("address of %s: %q is relative to nothing known", w.file, r.URL)
		}
		return addr.String(), nil
	}
	return "", fmt.Errorf("the registry has no %s in version %q of %s", w.file, w.version, w.pkg)
}

// transfer is one wheel on its way.
type transfer struct {
	client   *http.Client
	addr     string
	part     string
	progress *progress
}

// run makes one request and appends to, or rewrites, the part file. resumed says that the file
// holds bytes of an earlier request.
func (t *transfer) run(ctx context.Context) (resumed bool, err error) {
	f, err := os.OpenFile(t.part, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return false, permanent{err}
	}
	defer f.Close()
	have, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return false, permanent{err}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	dog := time.AfterFunc(stall, func() { cancel(fmt.Errorf("no data for %v", stall)) })
	defer dog.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.addr, nil)
	if err != nil {
		return false, permanent{err}
	}
	req.Header.Set("Accept-Encoding", "identity") // offsets count bytes of the file
	if have > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", have))
	}
	resp, err := t.client.Do(req)
	if err != nil {
		return false, cause(ctx, err)
	}
	defer resp.Body.Close()
	if have, err = accept(resp, have); err != nil {
		var r restart
		if errors.As(err, &r) {
			err = errors.Join(err, f.Truncate(0))
		}
		return false, err
	}
	if err := f.Truncate(have); err != nil {
		return false, permanent{err}
	}
	if _, err := f.Seek(have, io.SeekStart); err != nil {
		return false, permanent{err}
	}
	t.progress.start(have, resp.ContentLength)
	n, err := io.Copy(f, &watched{resp.Body, dog, t.progress})
	if err != nil {
		return false, cause(ctx, err)
	}
	if resp.ContentLength >= 0 && n != resp.ContentLength {
		return false, io.ErrUnexpectedEOF
	}
	return have > 0, f.Sync()
}

// restart marks an error after which the part file is of no use.
type restart struct{ error }

// accept reads the status of an answer: from which byte on the body is to be written.
func accept(resp *http.Response, have int64) (int64, error) {
	switch code := resp.StatusCode; {
	case code == http.StatusOK:
		return 0, nil // the server does not resume
	case code == http.StatusPartialContent:
		var from int64
		if _, err := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-", &from); err != nil || from != have {
			return 0, restart{fmt.Errorf("asked for bytes from %d, got Content-Range %q", have, resp.Header.Get("Content-Range"))}
		}
		return have, nil
	case code == http.StatusRequestedRangeNotSatisfiable:
		return 0, restart{fmt.Errorf("the server has no more than the %d bytes here", have)}
	case code == http.StatusRequestTimeout || code == http.StatusTooManyRequests || code >= 500:
		return 0, fmt.Errorf("server says %s", resp.Status)
	default:
		return 0, permanent{fmt.Errorf("server says %s", resp.Status)}
	}
}

// cause prefers the reason of a cancellation over the error it led to.
func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil {
		return c
	}
	return err
}

// watched is a body whose every piece feeds the watchdog and the progress bar.
type watched struct {
	io.Reader
	dog      *time.Timer
	progress *progress
}

// Read implements io.Reader.
func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	w.dog.Reset(stall)
	w.progress.add(n)
	return n, err
}
