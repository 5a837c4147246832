package plugin

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// required are the libraries without which no program runs, of whatever version of CUDA. XLA refuses to compile
// without cuDNN; the others, such as NCCL, are opened by the programs that need them.
var required = []string{"libcudart.so.*", "libcublas.so.*", "libcublasLt.so.*", "libcudnn.so.*"}

// suffices says whether a plugin that Ensure did not install finds on this machine what it needs: in the folders that
// its file names, such as nvidia beside jax_plugins in a Python site-packages folder, or where the machine has it. If
// not, the error says what and how to help it.
func (l loader) suffices(path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("plugin: %w", err)
	}
	folders := runPath(path)
	var missing []string
	for _, pattern := range required {
		if inFolders(folders, pattern) == "" && l.find(pattern) == "" {
			missing = append(missing, strings.TrimSuffix(pattern, ".*"))
		}
	}
	tools := toolFolders(path)
	if _, err := exec.LookPath("ptxas"); err != nil && inFolders(tools, "bin/ptxas") == "" {
		missing = append(missing, "ptxas")
	}
	if inFolders(tools, "nvvm/libdevice/libdevice.10.bc") == "" {
		missing = append(missing, "libdevice.10.bc")
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("plugin: %w: %s does not find %s: %s", ErrLibraries, path, strings.Join(missing, ", "), help(path))
}

// help says what to do about a plugin that lacks something.
func help(path string) string {
	site := filepath.Dir(filepath.Dir(filepath.Dir(path)))
	if other := otherSite(site); other != "" {
		beside := filepath.Join(site, "nvidia")
		link := fmt.Sprintf("link them (ln -s %s %s)", other, beside)
		if _, err := os.Lstat(beside); err == nil {
			link = "link what is in it into " + beside
		}
		return fmt.Sprintf("they are in %s, where it does not look: %s, or name in $%s a folder that has both", other, link, PathEnv)
	}
	without := "move it away"
	if os.Getenv(PathEnv) != "" {
		without = "unset $" + PathEnv
	}
	return fmt.Sprintf("install them beside it (the Python package jax[cuda13] has all), name the folders of the libraries in $LD_LIBRARY_PATH, or %s, and a plugin with all of them is installed", without)
}

// toolFolders are those in which XLA looks for the tools that a plugin compiles with.
func toolFolders(path string) (folders []string) {
	for f := range strings.FieldsSeq(os.Getenv("XLA_FLAGS")) {
		if dir, ok := strings.CutPrefix(f, "--xla_gpu_cuda_data_dir="); ok {
			folders = append(folders, dir)
		}
	}
	folders = append(folders, "/usr/local/cuda", "/opt/cuda")
	for _, up := range []string{"..", "../.."} { // cu13, or of CUDA 12 cuda_nvcc
		found, _ := filepath.Glob(filepath.Join(escape(filepath.Dir(path)), up, "nvidia", "cu*")) // fails only on a bad pattern
		folders = append(folders, found...)
	}
	return folders
}

// otherSite is the folder nvidia of an entry of $PJRT_PLUGIN_LIBRARY_PATH other than site, where Python put the
// libraries when it put the plugin into site; "" if there is none.
func otherSite(site string) string {
	entries := filepath.SplitList(os.Getenv(PathEnv))
	i := slices.IndexFunc(entries, func(e string) bool {
		return e != "" && filepath.Clean(e) != site && inFolders([]string{filepath.Join(e, "nvidia", "cu13", "lib")}, "libcublas.so.*") != ""
	})
	if i < 0 {
		return ""
	}
	return filepath.Join(entries[i], "nvidia")
}
