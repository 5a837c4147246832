package hub

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// What can go wrong. Test with errors.Is.
var (
	ErrOptions  = errors.New("hub: bad option")                   // a name, pattern or address that cannot be meant
	ErrToken    = errors.New("hub: no token that is accepted")    // 401
	ErrGated    = errors.New("hub: access is not granted")        // 403, or 401 of a gated repository
	ErrNotFound = errors.New("hub: not found")                    // 404, or nothing chosen
	ErrBusy     = errors.New("hub: too many requests")            // 429, longer than we wait
	ErrName     = errors.New("hub: unsafe file name")             // a listing that would write outside its folder
	ErrListing  = errors.New("hub: malformed listing")            // an answer that is no listing
	ErrChecksum = errors.New("hub: wrong checksum")               // the bytes are not the listing's
	ErrLength   = errors.New("hub: wrong length")                 // more or fewer bytes than the listing says
	ErrChanged  = errors.New("hub: the file is not the listed")   // another checksum or length than the listing's
	ErrSpace    = errors.New("hub: disk full")                    // not enough room
	ErrOffline  = errors.New("hub: not here, and HF_HUB_OFFLINE") // the network is not to be used
)

// StatusError is an answer that is no success. It names the repository, the file, the status, what the
// server says of it and what to do.
type StatusError struct {
	Repo    string // OWNER/NAME@REVISION
	File    string // "" for the listing
	Status  int    // HTTP status
	Code    string // the hub's X-Error-Code, or ""
	Message string // the hub's X-Error-Message, or ""
	Do      string // what a person can do, or ""

	kind error         // a sentinel above, or nil
	wait time.Duration // how long the server asks to wait, 0 without
}

// Error is one line.
func (e *StatusError) Error() string {
	var b strings.Builder
	b.WriteString(e.Repo)
	if e.File != "" {
		b.WriteString(": " + e.File)
	}
	fmt.Fprintf(&b, ": server says %d %s", e.Status, http.StatusText(e.Status))
	if e.Code != "" || e.Message != "" {
		fmt.Fprintf(&b, " (%s)", strings.TrimSpace(e.Code+" "+e.Message))
	}
	if e.Do != "" {
		b.WriteString(": " + e.Do)
	}
	return b.String()
}

// Unwrap gives errors.Is the kind of failure.
func (e *StatusError) Unwrap() error { return e.kind }

// refusal makes the error of an answer. Another host than the endpoint's knows nothing of tokens and
// licences: its addresses are signed, and expire.
func (c *client) refusal(a *answer, file string) error {
	e := &StatusError{Repo: c.label, File: file, Status: a.StatusCode,
		Code: clean(a.Header.Get("X-Error-Code")), Message: clean(a.Header.Get("X-Error-Message")),
		wait: max(retryAfter(a.Header.Get("Retry-After"), time.Now()), rateLimit(a.Header.Get("RateLimit")))}
	if a.foreign {
		if e.Status == http.StatusTooManyRequests {
			e.kind = ErrBusy
		}
		return e
	}
	switch {
	case e.Status == http.StatusForbidden || e.Code == "GatedRepo":
		e.kind = ErrGated
		e.Do = fmt.Sprintf("accept the licence on %s/%s, with the account of the token in HF_TOKEN", c.endpoint.Redacted(), c.Repo)
	case e.Status == http.StatusUnauthorized && c.Token == "":
		e.kind, e.Do = ErrToken, "set HF_TOKEN to a token that may read the repository, or check the repository's name"
	case e.Status == http.StatusUnauthorized:
		e.kind, e.Do = ErrToken, "the token is not accepted: make another that may read the repository, and set HF_TOKEN"
	case e.Status == http.StatusNotFound:
		e.kind, e.Do = ErrNotFound, "check the names of repository, revision and file"
	case e.Status == http.StatusTooManyRequests:
		e.kind, e.Do = ErrBusy, "wait, or set HF_TOKEN: more requests are allowed with one"
	}
	if passing(e.Status) {
		return e
	}
	return permanent{e}
}

// passing tells whether a status may be another one soon.
func passing(status int) bool {
	return status == http.StatusRequestTimeout || status == http.StatusTooManyRequests || status >= 500
}

// permanent marks an error that another try will not mend.
type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }

// retryAfter reads seconds or a date; 0 is what it cannot read.
func retryAfter(s string, now time.Time) time.Duration {
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if t, err := http.ParseTime(s); err == nil && t.After(now) {
		return t.Sub(now)
	}
	return 0
}

// rateLimit reads how long a limit that is used up lasts, as in "api";r=0;t=55 with t in seconds; 0 is
// what it cannot read. Source: the IETF draft draft-ietf-httpapi-ratelimit-headers.
func rateLimit(s string) time.Duration {
	used := false
	var wait time.Duration
	for _, item := range strings.Split(s, ";") {
		key, value, _ := strings.Cut(strings.TrimSpace(item), "=")
		switch n, err := strconv.ParseUint(value, 10, 31); {
		case err == nil && key == "r":
			used = n == 0
		case err == nil && key == "t":
			wait = time.Duration(n) * time.Second
		}
	}
	if !used {
		return 0
	}
	return wait
}

// clean makes a server's words fit for a terminal: one line, printable, not long.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	if len(s) > 300 {
		s = strings.ToValidUTF8(s[:300], "") + "…"
	}
	return strings.TrimSpace(s)
}
