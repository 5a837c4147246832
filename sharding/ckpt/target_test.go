package ckpt

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/stretchr/testify/require"
)

func TestTargetsThatCannotBe(t *testing.T) {
	hf := tinyHF(t)
	t.Chdir(t.TempDir())
	require.NoError(t, os.Mkdir("folder", 0o700))
	require.NoError(t, os.Symlink("nothing", "link"))
	c, err := PlanConversion(hf, catalogue(t, hf), ConvertOptions{Format: Mixtral})
	require.NoError(t, err)
	defer c.Close()
	for target, want := range map[string]string{
		"":          "no name of a folder",
		".":         ".: there is something",
		"none/..":   ".: there is something",
		"folder/":   "folder: there is something",
		"link":      "link: there is something",
		hf:          "there is something",
		"link/here": "link",
	} {
		_, err := c.Run(context.Background(), target, RunOptions{})
		require.ErrorContains(t, err, want, target)
	}
	_, err = openStaging("folder", "") // who had the lock before has made it
	require.ErrorContains(t, err, "there is something")
	left, err := filepath.Glob(".*")
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestNumbersThatDoNotFitTheTypeAreRefused(t *testing.T) {
	params := weights(tiny, false)
	for _, tt := range []struct {
		from, to dtypes.DType
		value    float32
		want     string
	}{
		{dtypes.Float32, dtypes.Float16, 65536, `tensor "model.norm.weight": wrong dtype: 65536 is too large for Float16`},
		{dtypes.BFloat16, dtypes.Float16, -1e30, "is too large for Float16"},
		{dtypes.Float32, dtypes.BFloat16, math.MaxFloat32, "is too large for BFloat16"},
		{dtypes.Float32, dtypes.Float16, float32(math.Inf(1)), ""},
		{dtypes.Float32, dtypes.BFloat16, float32(math.NaN()), ""},
		{dtypes.Float32, dtypes.Float16, 65504, ""},
	} {
		dir := t.TempDir()
		m := tensors(Hub)
		x := m["model.norm.weight"]
		b := make([]byte, 3*tt.from.Size())
		PutFloat32(b, tt.from, []float32{1, tt.value, 2})
		m[x.Name] = RawTensor(x.Name, tt.from, x.Shape, b)
		save(t, filepath.Join(dir, singleFile), m)
		c, err := PlanConversion(dir, params, ConvertOptions{Format: HuggingFace, DType: tt.to})
		require.NoError(t, err)
		to := filepath.Join(t.TempDir(), "to")
		_, err = c.Run(context.Background(), to, RunOptions{})
		require.NoError(t, c.Close())
		if tt.want == "" {
			require.NoError(t, err)
			continue
		}
		require.ErrorContains(t, err, tt.want)
		require.NoDirExists(t, to)
	}
}

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
