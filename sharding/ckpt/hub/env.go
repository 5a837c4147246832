package hub

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	gohub "github.com/gomlx/go-huggingface/hub"
)

// FromEnvironment gives the defaults changed by the variables that huggingface_hub reads too:
//
//	HF_HOME          folder of token and cache; default huggingface in XDG_CACHE_HOME or ~/.cache
//	HF_HUB_CACHE     the cache; default HF_HOME/hub (HUGGINGFACE_HUB_CACHE is its old name)
//	HF_TOKEN         token (HUGGING_FACE_HUB_TOKEN is its old name)
//	HF_TOKEN_PATH    file of the token; default HF_HOME/token
//	HF_ENDPOINT      address of the hub or of a mirror
//	HF_HUB_OFFLINE   1, ON, YES or TRUE: ask nobody
//
// A missing token file is no error: public repositories need none.
func FromEnvironment(getenv func(string) string) (Options, error) {
	o := Defaults()
	first := func(names ...string) string {
		for _, n := range names {
			if v := strings.TrimSpace(getenv(n)); v != "" {
				return v
			}
		}
		return ""
	}
	home := first("HF_HOME")
	if home == "" {
		home = filepath.Dir(gohub.DefaultCacheDir())
		if xdg := first("XDG_CACHE_HOME"); xdg != "" {
			home = filepath.Join(xdg, "huggingface")
		}
	}
	home, err := expand(home, getenv)
	if err != nil {
		return o, err
	}
	o.Cache = filepath.Join(home, "hub")
	if v := first("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"); v != "" {
		if o.Cache, err = expand(v, getenv); err != nil {
			return o, err
		}
	}
	if v := first("HF_ENDPOINT"); v != "" {
		o.Endpoint = strings.TrimRight(v, "/")
	}
	switch strings.ToUpper(first("HF_HUB_OFFLINE")) {
	case "1", "ON", "YES", "TRUE":
		o.Offline = true
	}
	if o.Token = first("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"); o.Token != "" {
		return o, nil
	}
	file := filepath.Join(home, "token")
	if v := first("HF_TOKEN_PATH"); v != "" {
		if file, err = expand(v, getenv); err != nil {
			return o, err
		}
	}
	b, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return o, fmt.Errorf("hub: token file: %w", err)
	}
	o.Token = strings.TrimSpace(string(b))
	return o, nil
}

// expand replaces a leading ~ by the home folder.
func expand(path string, getenv func(string) string) (string, error) {
	rest, found := strings.CutPrefix(path, "~")
	if !found || rest != "" && rest[0] != '/' {
		return path, nil
	}
	home := getenv("HOME")
	if home == "" {
		return "", fmt.Errorf("%w: %q, and HOME is not set", ErrOptions, path)
	}
	return filepath.Join(home, rest), nil
}
