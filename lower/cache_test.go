package lower

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func testCache(t *testing.T, limit int64) *cache {
	c, err := openCache(t.TempDir(), limit)
	require.NoError(t, err)
	return c
}

func TestCacheGivesBackWhatItKeeps(t *testing.T) {
	c, key := testCache(t, 0), cacheKey("text", "plugin", "cpu", nil)
	require.Nil(t, c.get(key))
	require.NoError(t, c.put(key, []byte("program")))
	require.Equal(t, []byte("program"), c.get(key))
	require.Nil(t, (*cache)(nil).get(key))
}

func TestCacheIgnoresDamage(t *testing.T) {
	c, key := testCache(t, 0), cacheKey("text", "plugin", "cpu", nil)
	require.NoError(t, c.put(key, []byte("program")))
	whole, err := os.ReadFile(c.path(key))
	require.NoError(t, err)
	for _, tt := range []struct {
		name    string
		content []byte
	}{
		{"empty", nil},
		{"cut in the head", whole[:5]},
		{"cut in the sum", whole[:len(cacheMagic)+10]},
		{"cut in the program", whole[:len(whole)-1]},
		{"a bit flipped", append(whole[:len(whole)-1:len(whole)-1], whole[len(whole)-1]^1)},
		{"of another version", append([]byte("mix program 0\n"), whole[len(cacheMagic):]...)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			require.NoError(t, os.WriteFile(c.path(key), tt.content, 0o644))
			require.Nil(t, c.get(key))
		})
	}
}

func TestCacheKeyDependsOnEverything(t *testing.T) {
	base := cacheKey("text", "plugin", "cpu", []byte("options"))
	require.Equal(t, base, cacheKey("text", "plugin", "cpu", []byte("options")))
	require.NotEqual(t, base, cacheKey("text2", "plugin", "cpu", []byte("options")))
	require.NotEqual(t, base, cacheKey("text", "plugin2", "cpu", []byte("options")))
	require.NotEqual(t, base, cacheKey("text", "plugin", "cpu", []byte("options2")))
	require.NotEqual(t, base, cacheKey("text", "plugin", "cuda", []byte("options")))
	require.NotEqual(t, base, cacheKey("textp", "lugin", "cpu", []byte("options")), "fields run together")
	t.Setenv("XLA_FLAGS", "--xla_dump_to=x")
	require.NotEqual(t, base, cacheKey("text", "plugin", "cpu", []byte("options")))
}

// TestCacheDropsWhatIsUnusedLongest fills a cache of room for two entries with three.
func TestCacheDropsWhatIsUnusedLongest(t *testing.T) {
	c := testCache(t, 2100)
	keys := []string{strings.Repeat("a", 64), strings.Repeat("b", 64), strings.Repeat("c", 64)}
	for i, k := range keys[:2] {
		require.NoError(t, c.put(k, make([]byte, 900)))
		old := time.Now().Add(time.Duration(i-10) * time.Hour)
		require.NoError(t, os.Chtimes(c.path(k), old, old))
	}
	require.NotNil(t, c.get(keys[0])) // now b is unused longest
	dead := filepath.Join(c.dir, "x.tmp")
	require.NoError(t, os.WriteFile(dead, nil, 0o644))
	old := time.Now().Add(-2 * time.Hour)
	require.NoError(t, os.Chtimes(dead, old, old))
	require.NoError(t, c.put(keys[2], make([]byte, 900)))
	require.NotNil(t, c.get(keys[0]))
	require.Nil(t, c.get(keys[1]))
	require.NotNil(t, c.get(keys[2]))
	require.NoFileExists(t, dead)
}
