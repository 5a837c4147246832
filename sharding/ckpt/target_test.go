package ckpt

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWritingFollowsLinksAndSparesWhatIsNoFile(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	at := func(name string) string { return filepath.Join(dir, name) }
	tensors := []Tensor{Float32Tensor("x", []int{1}, []float32{1})}
	require.NoError(t, WriteFile(at("file"), tensors, nil))
	require.NoError(t, os.Symlink(at("file"), at("link")))
	require.NoError(t, os.WriteFile(at("file"), []byte("old"), 0o600))
	require.NoError(t, WriteFile(at("link"), tensors, nil))
	st, err := os.Lstat(at("link"))
	require.NoError(t, err)
	require.NotZero(t, st.Mode()&os.ModeSymlink, "the link stays")
	f, err := OpenFile(at("file"))
	require.NoError(t, err, "what it names is replaced")
	require.NoError(t, f.Close())

	require.NoError(t, os.Mkdir(at("folder"), 0o700))
	for path, want := range map[string]string{
		at("folder"):      "a folder is there",
		"/dev/null":       "a device is there",
		at("none") + "/f": "no such file",
	} {
		require.ErrorContains(t, WriteFile(path, tensors, nil), want, path)
	}
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, files, 3, "no temporary file is left")
}
