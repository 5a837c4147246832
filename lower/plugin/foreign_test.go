package plugin

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// writeELF writes a library that is nothing but a run path.
func writeELF(t *testing.T, path string, tag elf.DynTag, value string) {
	t.Helper()
	const header, section, at = 64, 64, 64 + 3*64 // three sections, then their contents
	dynamic := []elf.Dyn64{{Tag: int64(tag), Val: 1}, {}}
	text := "\x00" + value + "\x00"
	size := uint64(binary.Size(dynamic))
	var b bytes.Buffer
	h := elf.Header64{Type: uint16(elf.ET_DYN), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT), Shoff: header, Ehsize: header, Shentsize: section, Shnum: 3, Shstrndx: 1}
	copy(h.Ident[:], elf.ELFMAG+string([]byte{byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)}))
	for _, part := range []any{h, elf.Section64{},
		elf.Section64{Type: uint32(elf.SHT_STRTAB), Off: at + size, Size: uint64(len(text))},
		elf.Section64{Type: uint32(elf.SHT_DYNAMIC), Off: at, Size: size, Link: 1, Entsize: 16}, dynamic} {
		require.NoError(t, binary.Write(&b, binary.LittleEndian, part))
	}
	b.WriteString(text)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, b.Bytes(), 0o755))
}

func TestRunPath(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a", "b", "x.so")
	for _, tag := range []elf.DynTag{elf.DT_RPATH, elf.DT_RUNPATH} {
		writeELF(t, path, tag, "$ORIGIN/../../lib:${ORIGIN}:/opt/x")
		require.Equal(t, []string{filepath.Join(dir, "lib"), filepath.Join(dir, "a", "b"), "/opt/x"}, runPath(path))
	}
	writeELF(t, path, elf.DT_SONAME, "x.so")
	require.Empty(t, runPath(path))
	touch(t, dir, "text.so")
	require.Empty(t, runPath(filepath.Join(dir, "text.so")))
	require.Empty(t, runPath(filepath.Join(dir, "none.so")))
}

func TestLoader(t *testing.T) {
	dir := t.TempDir()
	touch(t, dir, "a/libx.so.1", "b/libx.so.2", "b/liby.so.1")
	require.NoError(t, os.Mkdir(filepath.Join(dir, "a", "libz.so.1"), 0o755))
	require.NoError(t, os.Symlink("nowhere", filepath.Join(dir, "a", "libw.so.1")))
	list := "glibc-ld.so.cache1.1\x05\x00\x00liby.so.1\x00" + filepath.Join(dir, "b", "liby.so.1") + "\x00libv.so.1\x00/none/libv.so.1\x00"
	l := loader{folders: []string{filepath.Join(dir, "none"), filepath.Join(dir, "a")}, listed: paths([]byte(list))}
	for name, want := range map[string]string{"libx.so.1": "a/libx.so.1", "libx.so.*": "a/libx.so.1", "libx.so.2": "", "libz.so.1": "", "libw.so.1": "", "liby.so.1": "b/liby.so.1", "libv.so.1": ""} {
		if want != "" {
			want = filepath.Join(dir, want)
		}
		require.Equal(t, want, l.find(name), name)
	}
	t.Setenv("LD_LIBRARY_PATH", ":"+filepath.Join(dir, "b"))
	require.Equal(t, filepath.Join(dir, "b", "libx.so.2"), Options{}.loader().find("libx.so.2"))
	require.NotContains(t, Options{}.loader().folders, "")
}

// A plugin that Python or a person installed is left as it is, and its place with it.
func TestPluginOfOthers(t *testing.T) {
	const plugin = "site/jax_plugins/xla_cuda13/xla_cuda_plugin.so"
	libs := func(root string) []string {
		return []string{root + "/cu13/lib/libcudart.so.13", root + "/cu13/lib/libcublas.so.13", root + "/cu13/lib/libcublasLt.so.13", root + "/cudnn/lib/libcudnn.so.9"}
	}
	tools := func(root string) []string {
		return []string{root + "/cu13/bin/ptxas", root + "/cu13/nvvm/libdevice/libdevice.10.bc"}
	}
	tests := []struct {
		name  string
		files []string
		env   string // entries of the variable, relative to the root
		flags string
		want  []string // parts of the message; none: no error
	}{
		{"site-packages", append(libs("site/nvidia"), tools("site/nvidia")...), "site", "", nil},
		{"libraries of the machine", append([]string{"system/libcudart.so.13", "system/libcublas.so.13", "system/libcublasLt.so.13", "system/libcudnn.so.9"}, tools("site/nvidia")...), "site", "", nil},
		{"tools named by a flag", append(libs("site/nvidia"), tools("elsewhere")...), "site", "--xla_a=1 --xla_gpu_cuda_data_dir=ROOT/elsewhere/cu13", nil},
		{"nothing beside it", nil, "site", "", []string{"libcudart.so, libcublas.so, libcublasLt.so, libcudnn.so", "jax[cuda13]", "unset $" + PathEnv}},
		{"nothing beside it, not from the variable", nil, "", "", []string{"move it away"}},
		{"cuDNN alone", append(libs("site/nvidia")[:3], tools("site/nvidia")...), "site", "", []string{"does not find libcudnn.so: "}},
		{"split over two folders", append(libs("other/nvidia"), tools("other/nvidia")...), "site:other", "", []string{"they are in ROOT/other/nvidia", "ln -s ROOT/other/nvidia ROOT/site/nvidia"}},
		{"split, with other libraries beside it", append(append(libs("other/nvidia"), tools("other/nvidia")...), "site/nvidia/nccl/lib/libnccl.so.2"), "site:other", "", []string{"link what is in it into ROOT/site/nvidia"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			touch(t, root, append(tt.files, "system/"+driverLibrary)...)
			setEnv(t, root, tt.env)
			if tt.env == "" {
				t.Setenv(PathEnv, "")
			}
			t.Setenv("PATH", "")
			t.Setenv("XLA_FLAGS", inRoot(root, tt.flags))
			path := filepath.Join(root, plugin)
			writeELF(t, path, elf.DT_RPATH, "$ORIGIN/../../nvidia/cu13/lib:$ORIGIN/../../nvidia/cudnn/lib")
			o := Options{Platform: CUDA, CacheDir: filepath.Join(root, "cache"), system: []string{filepath.Join(root, "system")}}
			err := EnsureLibraries(t.Context(), path, o)
			require.NoDirExists(t, o.CacheDir)
			if len(tt.want) == 0 {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, ErrLibraries)
			for _, part := range tt.want {
				require.ErrorContains(t, err, inRoot(root, part))
			}
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

func inRoot(root, text string) string {
	return string(bytes.ReplaceAll([]byte(text), []byte("ROOT"), []byte(root)))
}
