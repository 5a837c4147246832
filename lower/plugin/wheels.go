package plugin

import "runtime"

// wheel is a pinned file of the Python package registry that carries a plugin or a tool of its compiler.
type wheel struct {
	platform string
	pkg      string // name in the registry
	version  string
	file     string // file name of the wheel
	sha256   string // of the wheel, lower-case hexadecimal
	member   string // base name inside of the file to install
	target   string // where it lies below the install folder, with slashes
	folder   string // name of the install folder; "" is made of platform and version
}

// wheels lists what is installed, by platform, operating system and processor. The CUDA plugin
// looks for NVIDIA's libraries in ../../nvidia beside itself, so it keeps its place in the tree.
var wheels = map[string]wheel{
	"cpu/linux/amd64": {
		platform: CPU,
		pkg:      "lammps-jax-pjrt-cpu",
		version:  "0.11.2",
		file:     "lammps_jax_pjrt_cpu-0.11.2-py3-none-manylinux_2_27_x86_64.whl",
		sha256:   "1319390d948b39f69f7dade496b7c385149d9ca6097a6b62114da113216d9ad1",
		member:   "pjrt_c_api_cpu_plugin.so",
		target:   "pjrt_c_api_cpu_plugin.so",
	},
	"cuda/linux/amd64": {
		platform: CUDA,
		pkg:      "jax-cuda13-pjrt",
		version:  "0.11.2",
		file:     "jax_cuda13_pjrt-0.11.2-py3-none-manylinux_2_27_x86_64.whl",
		sha256:   "e5ff589d43064913bb74027682d89639c7ea48f9f81c2bae6fc75117e913f93e",
		member:   "xla_cuda_plugin.so",
		target:   "jax_plugins/xla_cuda13/xla_cuda_plugin.so",
	},
	"cuda/linux/arm64": {
		platform: CUDA,
		pkg:      "jax-cuda13-pjrt",
		version:  "0.11.2",
		file:     "jax_cuda13_pjrt-0.11.2-py3-none-manylinux_2_27_aarch64.whl",
		sha256:   "63b55e50e5c2583a25e196ba06b034b63d2b2d8ad4c2f17935652c8d3ad2dd2d",
		member:   "xla_cuda_plugin.so",
		target:   "jax_plugins/xla_cuda13/xla_cuda_plugin.so",
	},
}

// pinned returns the wheel of a platform for this machine.
func pinned(platform string) (wheel, bool) {
	w, ok := wheels[platform+"/"+runtime.GOOS+"/"+runtime.GOARCH]
	return w, ok
}

// tools are what the CUDA plugin compiles with, by operating system and processor: the assembler, and the
// mathematical functions. They lie where the plugin looks for them, below its own folder.
var tools = map[string][]wheel{
	"linux/amd64": {
		assembler("nvidia_cuda_nvcc-13.0.88-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl", "56fe502eb77625a12f25172caa3cdddb4e4c8ba2c8c17dba44b164761b380f03"),
		functions("nvidia_nvvm-13.0.88-py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl", "c5f41ffeb6466944a026dfa5317d7d85355c119bbec279205d22f1869d1054e0"),
	},
	"linux/arm64": {
		assembler("nvidia_cuda_nvcc-13.0.88-py3-none-manylinux2014_aarch64.manylinux_2_17_aarch64.whl", "c7ff28f86a24effdc6c034fa15230c549a273e4771b10a7fec14996f8cf3307f"),
		functions("nvidia_nvvm-13.0.88-py3-none-manylinux2014_aarch64.manylinux_2_17_aarch64.whl", "c4376a291d72d22a315d9d2f69bdae8f8cd83a627f75bad395cee49a0fe65dc1"),
	},
}

func assembler(file, sha256 string) wheel {
	return wheel{platform: CUDA, pkg: "nvidia-cuda-nvcc", version: "13.0.88", file: file, sha256: sha256, member: "ptxas",
		target: "nvidia/cu13/bin/ptxas", folder: "cuda-0.11.2"}
}

func functions(file, sha256 string) wheel {
	return wheel{platform: CUDA, pkg: "nvidia-nvvm", version: "13.0.88", file: file, sha256: sha256, member: "libdevice.10.bc",
		target: "nvidia/cu13/nvvm/libdevice/libdevice.10.bc", folder: "cuda-0.11.2"}
}

// dir is the name of the wheel's folder in the cache.
func (w wheel) dir() string {
	if w.folder != "" {
		return w.folder
	}
	return w.platform + "-" + w.version
}
