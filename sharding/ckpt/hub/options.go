package hub

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Options say what to download, from where and to where. They are made by Defaults or FromEnvironment.
type Options struct {
	Repo     string    // OWNER/NAME
	Revision string    // branch, tag or commit
	Include  []string  // patterns of the files wanted; none: all
	Exclude  []string  // patterns of the files not wanted, stronger than Include
	To       string    // folder that gets the files; "": the cache
	Cache    string    // the cache: HF_HUB_CACHE
	Endpoint string    // address of the hub: HF_ENDPOINT
	Token    string    // sent to the endpoint's host alone; "": none
	Offline  bool      // use what is here, ask nobody: HF_HUB_OFFLINE
	Parallel int       // files at a time
	Progress io.Writer // a bar on a terminal, else lines; nil: silent

	client   *http.Client                                  // nil: one of our own
	backoff  time.Duration                                 // before the second try; doubled before each further one
	stall    time.Duration                                 // without a byte, a connection is given up
	patience time.Duration                                 // the longest Retry-After that is waited for
	free     func(folder string) (bytes int64, known bool) // room on the disk
}

// Defaults are the first version of Mixtral 8x7B without the files that hold its weights a second time.
func Defaults() Options {
	return Options{
		Repo:     "mistralai/Mixtral-8x7B-v0.1",
		Revision: "main",
		Exclude:  []string{"*.pt"},
		Endpoint: "https://huggingface.co",
		Parallel: 8,

		backoff:  time.Second,
		stall:    60 * time.Second,
		patience: 5 * time.Minute,
		free:     freeBytes,
	}
}

// repoID is the hub's rule: letters, digits, -, _ and . with an owner or, in old repositories, without.
var repoID = regexp.MustCompile(`^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)?$`)

// Validate refuses what cannot be meant. Every error is an ErrOptions.
func (o Options) Validate() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrOptions, fmt.Sprintf(format, args...))
	}
	if !repoID.MatchString(o.Repo) || len(o.Repo) > 96 || strings.Contains(o.Repo, "--") || strings.Contains(o.Repo, "..") ||
		slices.ContainsFunc(strings.Split(o.Repo, "/"), func(s string) bool { return strings.Trim(s, ".-") != s }) {
		return bad("repository %q, want OWNER/NAME", o.Repo)
	}
	if err := checkName(o.Revision); err != nil {
		return bad("revision %q, want a branch, a tag or a commit", o.Revision)
	}
	if o.To == "" && o.Cache == "" {
		return bad("no folder to write to")
	}
	if o.Parallel < 1 || o.Parallel > 64 {
		return bad("%d files at a time, want 1 to 64", o.Parallel)
	}
	if o.free == nil || o.stall <= 0 || o.backoff <= 0 {
		return bad("options that Defaults did not make")
	}
	u, err := url.Parse(o.Endpoint)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return bad("endpoint %q, want an http or https address", clean(o.Endpoint))
	}
	if strings.ContainsFunc(o.Token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return bad("the token has a character that no token has")
	}
	for _, p := range slices.Concat(o.Include, o.Exclude) {
		if p == "" {
			return bad("an empty pattern")
		}
	}
	return nil
}
