package hub

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

const (
	hops = 10 // redirects before an answer is given up
	// tries without a megabyte gained before a request is given up
	tries    = 6
	worthTry = 1 << 20
)

// client asks the hub about one revision of one repository.
type client struct {
	Options
	http     *http.Client
	endpoint *url.URL
	label    string // OWNER/NAME@REVISION, for errors
	progress *progress
	fetched  atomic.Int64 // bytes received
}

func newClient(o Options) (*client, error) {
	endpoint, err := url.Parse(o.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("%w: endpoint: %v", ErrOptions, err)
	}
	c := &client{Options: o, endpoint: endpoint, label: o.Repo + "@" + o.Revision}
	own := o.client
	if own == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.ResponseHeaderTimeout, t.MaxIdleConnsPerHost = o.stall, o.Parallel
		own = &http.Client{Transport: t}
	}
	// Redirects are followed here: each hop's headers are read, and the token is given to one host only.
	c.http = &http.Client{Transport: own.Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return c, nil
}

// address joins path elements, escaped one by one, to the endpoint.
func (c *client) address(elements ...string) string {
	var b strings.Builder
	b.WriteString(strings.TrimRight(c.endpoint.String(), "/"))
	for _, e := range elements {
		b.WriteString("/" + url.PathEscape(e))
	}
	return b.String()
}

// answer is the last of a chain of redirects.
type answer struct {
	*http.Response
	foreign    bool   // it is not from the endpoint's host
	linkedETag string // checksum that the hub names on the way, "" without
	linkedSize string
}

// do makes a request and follows redirects. The token goes to the endpoint's scheme, host and port alone. A
// HEAD request ends where the hub sends it to another host: the hub's headers are what it is for.
func (c *client) do(ctx context.Context, method, address string, header http.Header) (*answer, error) {
	at, err := url.Parse(address)
	if err != nil {
		return nil, permanent{err}
	}
	a := &answer{}
	for hop := 0; ; hop++ {
		req, err := http.NewRequestWithContext(ctx, method, at.String(), nil)
		if err != nil {
			return nil, permanent{err}
		}
		for k, v := range header {
			req.Header[k] = v
		}
		req.Header.Set("Accept-Encoding", "identity") // offsets and lengths count bytes of the file
		req.Header.Set("User-Agent", "mix")
		a.foreign = at.Scheme != c.endpoint.Scheme || !strings.EqualFold(at.Host, c.endpoint.Host)
		if c.Token != "" && !a.foreign {
			req.Header.Set("Authorization", "Bearer "+c.Token)
		}
		a.Response, err = c.http.Do(req)
		if err != nil {
			return nil, unaddressed(ctx, at, err)
		}
		if !a.foreign && a.linkedETag == "" {
			a.linkedETag, a.linkedSize = checksum(a.Header.Get(headerLinkedETag)), a.Header.Get(headerLinkedSize)
		}
		next, err := redirect(a.Response, at)
		if err != nil || next == nil {
			return a, err
		}
		if method == http.MethodHead && !strings.EqualFold(next.Host, c.endpoint.Host) {
			return a, nil
		}
		a.Body.Close()
		if hop == hops {
			return nil, permanent{fmt.Errorf("more than %d redirects", hops)}
		}
		at = next
	}
}

// redirect gives the address that an answer sends to, nil if it sends nowhere.
func redirect(r *http.Response, at *url.URL) (*url.URL, error) {
	switch r.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
	default:
		return nil, nil
	}
	next, err := at.Parse(r.Header.Get("Location"))
	if err == nil && (r.Header.Get("Location") == "" || next.Host == "" || next.Scheme != "https" && next.Scheme != at.Scheme) {
		err = errors.New("it leads nowhere, or from https to another scheme")
	}
	if err != nil {
		r.Body.Close()
		return nil, permanent{fmt.Errorf("redirect of %s: %v", at.Host, err)}
	}
	if next.Host != at.Host {
		next.User = nil
	}
	return next, nil
}

// unaddressed drops the address from an error: it may be signed, and is long. The host stays.
func unaddressed(ctx context.Context, at *url.URL, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return fmt.Errorf("%s: %w", at.Host, err)
}

// again calls attempt until it succeeds, fails for good or has failed too often without gaining much. It
// waits longer each time, and as long as the server asks.
func (c *client) again(ctx context.Context, what string, attempt func(context.Context) (gained int64, err error)) error {
	wait := c.backoff
	for try := 1; ; try++ {
		gained, err := c.watched(ctx, attempt)
		var p permanent
		var status *StatusError
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(err, &p):
			return p.error
		}
		if gained >= worthTry {
			try, wait = 0, c.backoff
		}
		if try >= tries {
			return err
		}
		pause := wait
		if errors.As(err, &status) && status.wait > pause {
			if pause = status.wait; pause > c.patience {
				return fmt.Errorf("%w (it asks to wait %v: try again then)", err, pause.Round(time.Second))
			}
		}
		c.progress.say("%s: %v; again in %v", what, err, pause.Round(time.Millisecond))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		wait *= 2
	}
}

// watched runs one attempt under a watchdog, which alive feeds.
func (c *client) watched(ctx context.Context, attempt func(context.Context) (int64, error)) (int64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	dog := time.AfterFunc(c.stall, func() { cancel(fmt.Errorf("no data for %v", c.stall)) })
	defer dog.Stop()
	return attempt(context.WithValue(ctx, alive{}, func() { dog.Reset(c.stall) }))
}

// alive is the key of the function that tells the watchdog of data.
type alive struct{}

// feeder gives the function that tells the watchdog of data.
func feeder(ctx context.Context) func() {
	if feed, ok := ctx.Value(alive{}).(func()); ok {
		return feed
	}
	return func() {}
}
