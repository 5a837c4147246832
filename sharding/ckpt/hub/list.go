package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	gohub "github.com/gomlx/go-huggingface/hub"
)

const (
	headerLinkedETag = gohub.HeaderXLinkedETag
	headerLinkedSize = gohub.HeaderXLinkedSize

	maxListing = 64 << 20 // bytes
)

// What the hub names contents by: SHA-256 for large files, git's SHA-1 of a blob for small ones and commits.
var (
	isSHA256 = regexp.MustCompile(`^[0-9a-f]{64}$`)
	isSHA1   = regexp.MustCompile(`^[0-9a-f]{40}$`)
)

// emptySHA256 and emptySHA1 are the checksums of no bytes at all.
const (
	emptySHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	emptySHA1   = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
)

// file is one file of a snapshot.
type file struct {
	name string // path in the repository, checked
	size int64  // bytes
	etag string // lower-case hexadecimal, SHA-256 or SHA-1
}

// list asks for the commit and the files of the revision, and chooses.
func (c *client) list(ctx context.Context) (commit string, files []file, err error) {
	var all struct {
		Commit string            `json:"sha"`
		Files  []*gohub.FileInfo `json:"siblings"`
	}
	address := c.address(append(append([]string{"api", string(gohub.RepoTypeModel)}, strings.Split(c.Repo, "/")...),
		"revision", c.Revision)...) + "?blobs=true"
	err = c.again(ctx, c.label, func(ctx context.Context) (int64, error) {
		a, err := c.do(ctx, http.MethodGet, address, nil)
		if err != nil {
			return 0, err
		}
		defer a.Body.Close()
		if a.StatusCode != http.StatusOK {
			return 0, c.refusal(a, "")
		}
		b, err := io.ReadAll(io.LimitReader(a.Body, maxListing+1))
		switch {
		case err != nil:
			return 0, err
		case len(b) > maxListing:
			return 0, permanent{fmt.Errorf("%w: more than %d bytes", ErrListing, maxListing)}
		}
		if err := json.Unmarshal(b, &all); err != nil {
			return 0, permanent{fmt.Errorf("%w: %v", ErrListing, err)}
		}
		return 0, nil
	})
	if err != nil {
		return "", nil, c.named(err, "")
	}
	if !isSHA1.MatchString(all.Commit) {
		return "", nil, c.named(fmt.Errorf("%w: commit %q", ErrListing, clean(all.Commit)), "")
	}
	choose, seen := newChooser(c.Options), map[string]bool{}
	for _, f := range all.Files {
		if f == nil {
			return "", nil, c.named(fmt.Errorf("%w: a file that is null", ErrListing), "")
		}
		if err := checkName(f.Name); err != nil {
			return "", nil, c.named(err, "")
		}
		if !choose.wants(f.Name) || seen[f.Name] {
			continue
		}
		seen[f.Name] = true
		one, err := c.describe(ctx, all.Commit, f)
		if err != nil {
			return "", nil, c.named(err, f.Name)
		}
		files = append(files, one)
	}
	if len(files) == 0 {
		return "", nil, c.named(fmt.Errorf("%w: none of its %d files is chosen by the patterns", ErrNotFound, len(all.Files)), "")
	}
	return all.Commit, files, nil
}

// describe takes length and checksum from the listing, or where it lacks them, as mirrors' may, from the
// file's own headers.
func (c *client) describe(ctx context.Context, commit string, f *gohub.FileInfo) (file, error) {
	one := file{name: f.Name, size: f.Size, etag: checksum(f.BlobID)}
	if f.LFS != nil {
		one.size, one.etag = f.LFS.Size, checksum(f.LFS.SHA256)
	}
	if one.etag != "" && (one.size > 0 || one.size == 0 && (one.etag == emptySHA1 || one.etag == emptySHA256)) {
		return one, nil
	}
	err := c.again(ctx, f.Name, func(ctx context.Context) (int64, error) {
		a, err := c.do(ctx, http.MethodHead, c.fileAddress(commit, f.Name), nil)
		if err != nil {
			return 0, err
		}
		defer a.Body.Close()
		if a.StatusCode >= 400 {
			return 0, c.refusal(a, f.Name)
		}
		size := a.ContentLength
		if one.etag = a.linkedETag; one.etag == "" {
			one.etag = checksum(a.Header.Get("ETag"))
		}
		if a.linkedSize != "" {
			if size, err = strconv.ParseInt(a.linkedSize, 10, 64); err != nil {
				size = -1
			}
		}
		if one.size = size; size < 0 || one.etag == "" {
			return 0, permanent{fmt.Errorf("%w: neither listing nor headers have its length and checksum", ErrListing)}
		}
		return 0, nil
	})
	return one, err
}

// fileAddress is where the hub gives out a file.
func (c *client) fileAddress(commit, name string) string {
	elements := append(strings.Split(c.Repo, "/"), "resolve", commit)
	return c.address(append(elements, strings.Split(name, "/")...)...)
}

// named adds repository and file to an error that does not name them yet.
func (c *client) named(err error, file string) error {
	var s *StatusError
	switch {
	case errors.As(err, &s), errors.Is(err, context.Canceled):
		return err
	case file == "":
		return fmt.Errorf("%s: %w", c.label, err)
	}
	return fmt.Errorf("%s: %s: %w", c.label, file, err)
}

// checksum takes the quotes off an ETag; "" is one that is no checksum.
func checksum(etag string) string {
	etag = strings.ToLower(strings.Trim(strings.TrimPrefix(etag, "W/"), `"`))
	if isSHA256.MatchString(etag) || isSHA1.MatchString(etag) {
		return etag
	}
	return ""
}
