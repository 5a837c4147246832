package plugin

import "runtime"

// wheel is a pinned file of the Python package registry that carries a plugin.
type wheel struct {
	platform string
	pkg      string // name in the registry
	version  string
	file     string // file name of the wheel
	sha256   string // of the wheel, lower-case hexadecimal
	member   string // base name of the plugin inside
	target   string // where it lies below the install folder, with slashes
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

// dir is the name of the wheel's folder in the cache.
func (w wheel) dir() string { return w.platform + "-" + w.version }
