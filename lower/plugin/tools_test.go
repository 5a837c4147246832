package plugin

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestToolsBesideThePlugin(t *testing.T) {
	site := t.TempDir()
	touch(t, site, "jax_plugins/xla_cuda13/xla_cuda_plugin.so", "nvidia/cu13/bin/ptxas", "nvidia/cu13/nvvm/libdevice/libdevice.10.bc")
	got, err := EnsureTools(t.Context(), filepath.Join(site, "jax_plugins/xla_cuda13/xla_cuda_plugin.so"), Options{CacheDir: t.TempDir()})
	require.NoError(t, err)
	require.Equal(t, Tools{Dir: filepath.Join(site, "nvidia/cu13"), Ptxas: filepath.Join(site, "nvidia/cu13/bin/ptxas")}, got)
}

// TestToolsAreInstalled takes both from one wheel; a second call asks for nothing.
func TestToolsAreInstalled(t *testing.T) {
	f := newFixture(t)
	both := []wheel{f.w, f.w}
	for i, target := range []string{"nvidia/cu13/bin/ptxas", "nvidia/cu13/nvvm/libdevice/libdevice.10.bc"} {
		both[i].platform, both[i].target, both[i].folder = CUDA, target, "cuda-1"
	}
	o := f.o
	o.wheel, o.tools = nil, both
	for range 2 {
		got, err := EnsureTools(t.Context(), filepath.Join(t.TempDir(), "a", "b", "x.so"), o)
		require.NoError(t, err)
		require.Equal(t, filepath.Join(o.CacheDir, "cuda-1", "nvidia", "cu13"), got.Dir)
		st, err := os.Stat(got.Ptxas)
		require.NoError(t, err)
		require.NotZero(t, st.Mode()&0o100, "the assembler can be run")
		require.EqualValues(t, 2, f.hits.Load())
	}
	require.NoError(t, os.Remove(filepath.Join(o.CacheDir, "cuda-1", both[1].target)))
	o.locate = func(context.Context, wheel) (string, error) { return "", fmt.Errorf("no network") }
	_, err := EnsureTools(t.Context(), filepath.Join(t.TempDir(), "a", "b", "x.so"), o)
	require.ErrorIs(t, err, ErrDownload)
	require.ErrorContains(t, err, f.w.file)
}

// TestPinnedTools lie where a plugin that Ensure installs looks for them: in ../../nvidia beside itself.
func TestPinnedTools(t *testing.T) {
	for machine, all := range tools {
		p, ok := wheels["cuda/"+machine]
		require.True(t, ok, machine)
		for _, w := range all {
			require.Len(t, w.sha256, 64)
			require.Contains(t, w.file, w.version)
			require.Equal(t, w.member, filepath.Base(w.target))
			require.Equal(t, p.dir(), w.dir())
		}
	}
}

func TestFingerprintOfAPythonPackage(t *testing.T) {
	const name, size = "jax_plugins/xla_cuda13/xla_cuda_plugin.so", 41
	sum := make([]byte, 32)
	sum[0] = 0xfb
	good := fmt.Sprintf("other.py,,\n%s,sha256=%s,%d\n", name, base64.RawURLEncoding.EncodeToString(sum), size)
	for _, tt := range []struct {
		name    string
		records map[string]string // of packages
		want    string
	}{
		{"recorded", map[string]string{"jax_cuda13_pjrt-0.11.2": good}, "cuda-0.11.2-sha256:" + hex.EncodeToString(sum)},
		{"another size", map[string]string{"jax_cuda13_pjrt-0.11.2": good[:len(good)-2] + "2\n"}, "file:"},
		{"not in the list", map[string]string{"jax_cuda13_pjrt-0.11.2": "other.py,,\n"}, "file:"},
		{"a broken list", map[string]string{"jax_cuda13_pjrt-0.11.2": "\"\n"}, "file:"},
		{"two packages", map[string]string{"jax_cuda13_pjrt-0.11.2": good, "jax_cuda12_pjrt-0.11.2": good}, "file:"},
		{"no package", nil, "file:"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			site := t.TempDir()
			touch(t, site, name) // writes the name into the file
			require.Len(t, name, size)
			for p, text := range tt.records {
				touch(t, site, p+".dist-info/RECORD")
				require.NoError(t, os.WriteFile(filepath.Join(site, p+".dist-info", "RECORD"), []byte(text), 0o644))
			}
			got, err := Fingerprint(filepath.Join(site, name))
			require.NoError(t, err)
			require.Contains(t, got, tt.want)
		})
	}
}
