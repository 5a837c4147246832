package hub

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPatterns(t *testing.T) {
	for _, tt := range []struct {
		pattern, name string
		want          bool
	}{
		{"*.pt", "consolidated.00.pt", true},
		{"*.pt", "a/b.pt", true},
		{"*.pt", "b.pth", false},
		{"*.PT", "b.pt", false},
		{"original/", "original/a/b", true},
		{"original/", "originals", false},
		{"model-?.bin", "model-1.bin", true},
		{"model-?.bin", "model-12.bin", false},
		{"model-[0-2].bin", "model-2.bin", true},
		{"model-[!0-2].bin", "model-2.bin", false},
		{"model-[!0-2].bin", "model-3.bin", true},
		{"[]a]x", "]x", true},
		{"[!]a]x", "bx", true},
		{"[z-a]", "m", false},
		{"[!z-a]", "m", true},
		{"a[b", "a[b", true},
		{"a[b", "ab", false},
		{"a.b", "axb", false},
		{`a\b`, `a\b`, true},
		{"[^a]", "^", true},
		{"[a-]", "-", true},
		{"*", "a\nb", true},
	} {
		require.Equal(t, tt.want, glob(tt.pattern).MatchString(tt.name), "%q of %q", tt.pattern, tt.name)
	}
	c := newChooser(Options{Include: []string{"*.json", "*.bin"}, Exclude: []string{"b*"}})
	require.True(t, c.wants("a.json"))
	require.False(t, c.wants("b.json"))
	require.False(t, c.wants("a.txt"))
}

func FuzzPattern(f *testing.F) {
	f.Add("[!a-z]*?[", "name")
	f.Fuzz(func(t *testing.T, pattern, name string) { glob(pattern).MatchString(name) })
}

func TestEnvironment(t *testing.T) {
	home := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(home, "hf"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(home, "hf", "token"), []byte("from-file\n"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(home, "other"), []byte("from-other"), 0o600))
	type want struct {
		cache, token, endpoint string
		offline                bool
	}
	hub := "https://huggingface.co"
	for _, tt := range []struct {
		name string
		env  map[string]string
		want want
	}{
		{"XDG_CACHE_HOME", map[string]string{"XDG_CACHE_HOME": "/x"}, want{"/x/huggingface/hub", "", hub, false}},
		{"HF_HOME", map[string]string{"HF_HOME": "~/hf", "XDG_CACHE_HOME": "/x"}, want{home + "/hf/hub", "from-file", hub, false}},
		{"HF_HUB_CACHE", map[string]string{"HF_HOME": "~/hf", "HF_HUB_CACHE": "/c"}, want{"/c", "from-file", hub, false}},
		{"the old name of HF_HUB_CACHE", map[string]string{"HF_HOME": "/n", "HUGGINGFACE_HUB_CACHE": "/c"}, want{"/c", "", hub, false}},
		{"HF_TOKEN", map[string]string{"HF_HOME": "~/hf", "HF_TOKEN": " t "}, want{home + "/hf/hub", "t", hub, false}},
		{"HF_TOKEN_PATH", map[string]string{"HF_HOME": "~/hf", "HF_TOKEN_PATH": "~/other"}, want{home + "/hf/hub", "from-other", hub, false}},
		{"HF_ENDPOINT", map[string]string{"HF_HOME": "/n", "HF_ENDPOINT": "http://mirror/"}, want{"/n/hub", "", "http://mirror", false}},
		{"HF_HUB_OFFLINE", map[string]string{"HF_HOME": "/n", "HF_HUB_OFFLINE": "yes"}, want{"/n/hub", "", hub, true}},
		{"HF_HUB_OFFLINE=0", map[string]string{"HF_HOME": "/n", "HF_HUB_OFFLINE": "0"}, want{"/n/hub", "", hub, false}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.env["HOME"] = home
			o, err := FromEnvironment(func(name string) string { return tt.env[name] })
			require.NoError(t, err)
			require.Equal(t, tt.want, want{o.Cache, o.Token, o.Endpoint, o.Offline})
		})
	}
	_, err := FromEnvironment(func(name string) string { return map[string]string{"HF_HOME": home, "HF_TOKEN_PATH": home}[name] })
	require.ErrorContains(t, err, "token file")
}

func TestValidate(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Options)
		want   string // "" is right
	}{
		{"defaults", func(o *Options) {}, ""},
		{"a repository without an owner", func(o *Options) { o.Repo = "gpt2" }, ""},
		{"an address", func(o *Options) { o.Repo = "https://host/a/b" }, "want OWNER/NAME"},
		{"a path", func(o *Options) { o.Repo = "../b" }, "want OWNER/NAME"},
		{"two dashes", func(o *Options) { o.Repo = "a--b/c" }, "want OWNER/NAME"},
		{"a dot at the end", func(o *Options) { o.Repo = "a/b." }, "want OWNER/NAME"},
		{"a revision that is a path", func(o *Options) { o.Revision = "../../x" }, `revision "../../x"`},
		{"no revision", func(o *Options) { o.Revision = "" }, `revision ""`},
		{"nowhere to write to", func(o *Options) { o.Cache = "" }, "no folder"},
		{"no files at a time", func(o *Options) { o.Parallel = 0 }, "0 files at a time"},
		{"an endpoint without scheme", func(o *Options) { o.Endpoint = "host" }, "http or https"},
		{"a token of two lines", func(o *Options) { o.Token = "se\ncret" }, "the token has a character"},
		{"an empty pattern", func(o *Options) { o.Include = []string{""} }, "empty pattern"},
		{"made by hand", func(o *Options) { *o = Options{Repo: "a/b", Revision: "main", To: "x", Parallel: 1} }, "Defaults"},
	} {
		o := Defaults()
		o.Cache = "c"
		tt.change(&o)
		err := o.Validate()
		if tt.want == "" {
			require.NoError(t, err, tt.name)
			continue
		}
		require.ErrorIs(t, err, ErrOptions, tt.name)
		require.ErrorContains(t, err, tt.want, tt.name)
		require.NotContains(t, err.Error(), "cret", tt.name)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	for s, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-7": 0, "soon": 0, "99999999999999999999": 0,
		now.Add(time.Minute).Format(http.TimeFormat):  time.Minute,
		now.Add(-time.Minute).Format(http.TimeFormat): 0,
	} {
		require.Equal(t, want, retryAfter(s, now), s)
	}
	for s, want := range map[string]time.Duration{"": 0, `"api";r=0;t=55`: 55 * time.Second, `"api"; r=3; t=55`: 0, "t=5": 0, "r=0;t=x": 0} {
		require.Equal(t, want, rateLimit(s), s)
	}
	require.Equal(t, "a  b", clean("\ra\x1b\x07b\n"))
	require.Len(t, clean(strings.Repeat("é", 200)), 303)
}
