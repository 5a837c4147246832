package plugin

import "runtime"

// wheel is a pinned file of the Python package registry that carries a plugin, a tool of its compiler, or libraries.
type wheel struct {
	platform string
	pkg      string // name in the registry
	version  string
	file     string // file name of the wheel
	sha256   string // of the wheel, lower-case hexadecimal
	folder   string // name of the install folder; "" is made of platform and version

	// Of a plugin or tool, one file.
	member string // base name inside of the file to install
	target string // where it lies below the install folder, with slashes

	// Of libraries, all shared objects.
	size  int64    // bytes of the wheel
	holds []string // the libraries in it that the plugin opens, by the names that it opens them by
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

// libraries are what the CUDA plugin opens when it runs on a GPU, by operating system and processor: all that its
// loader has a name for. They are the newest of CUDA 13.0, as the assembler is, so that the oldest driver for the
// plugin will do; cuDNN and NCCL have versions of their own and are the newest. The plugin asks for cuBLAS from 13.0.0.19, CUPTI, NVRTC
// and the runtime from 13.0.48, cuDNN 9 from 9.12, cuFFT from 12.0.0.15, NCCL from 2.27.7 (its package's metadata).
var libraries = map[string][]wheel{
	"linux/amd64": {
		shared("nvidia-cuda-runtime", "13.0.96", "nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl", "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548", 2243632, "libcudart.so.13"),
		shared("nvidia-cuda-cupti", "13.0.85", "nvidia_cuda_cupti-13.0.85-py3-none-manylinux_2_25_x86_64.whl", "4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8", 10715597, "libcupti.so.13"),
		shared("nvidia-cuda-nvrtc", "13.0.88", "nvidia_cuda_nvrtc-13.0.88-py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl", "ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575", 90215200, "libnvrtc.so.13"),
		shared("nvidia-cufft", "12.0.0.61", "nvidia_cufft-12.0.0.61-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl", "6c44f692dce8fd5ffd3e3df134b6cdb9c2f72d99cf40b62c32dde45eea9ddad3", 214085489, "libcufft.so.12"),
		shared("nvidia-nccl-cu13", "2.32.3", "nvidia_nccl_cu13-2.32.3-py3-none-manylinux_2_27_x86_64.whl", "1459723080ac889d73a26edfa3e04383a7928ab31ac8f0ec43b3ea9548b04ff3", 305100071, "libnccl.so.2"),
		shared("nvidia-cublas", "13.0.2.14", "nvidia_cublas-13.0.2.14-py3-none-manylinux_2_27_x86_64.whl", "0cf238ffdbe46c00cb9aa98e7bca745c223a5ca5a53e686ac8b3e5a08fe80d6c", 420882912, "libcublas.so.13", "libcublasLt.so.13"),
		shared("nvidia-cudnn-cu13", "9.28.1.4", "nvidia_cudnn_cu13-9.28.1.4-py3-none-manylinux_2_27_x86_64.whl", "a54f205b1db1f2895d99f398754db1369816f0569dd459731f925635cf7b65ec", 516817937, "libcudnn.so.9"),
	},
	"linux/arm64": {
		shared("nvidia-cuda-runtime", "13.0.96", "nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_aarch64.manylinux_2_17_aarch64.whl", "ef9bcbe90493a2b9d810e43d249adb3d02e98dd30200d86607d8d02687c43f55", 2261060, "libcudart.so.13"),
		shared("nvidia-cuda-cupti", "13.0.85", "nvidia_cuda_cupti-13.0.85-py3-none-manylinux_2_25_aarch64.whl", "796bd679890ee55fb14a94629b698b6db54bcfd833d391d5e94017dd9d7d3151", 10310827, "libcupti.so.13"),
		shared("nvidia-cuda-nvrtc", "13.0.88", "nvidia_cuda_nvrtc-13.0.88-py3-none-manylinux2014_aarch64.manylinux_2_17_aarch64.whl", "d27f20a0ca67a4bb34268a5e951033496c5b74870b868bacd046b1b8e0c3267b", 43015449, "libnvrtc.so.13"),
		shared("nvidia-cufft", "12.0.0.61", "nvidia_cufft-12.0.0.61-py3-none-manylinux2014_aarch64.manylinux_2_17_aarch64.whl", "2708c852ef8cd89d1d2068bdbece0aa188813a0c934db3779b9b1faa8442e5f5", 214053554, "libcufft.so.12"),
		shared("nvidia-nccl-cu13", "2.32.3", "nvidia_nccl_cu13-2.32.3-py3-none-manylinux_2_27_aarch64.whl", "a5bee92b2f4af218c109f8d221c3c9adcc752b94ae0ffcb0ed5abf9341a7724c", 305107282, "libnccl.so.2"),
		shared("nvidia-cublas", "13.0.2.14", "nvidia_cublas-13.0.2.14-py3-none-manylinux_2_27_aarch64.whl", "17165c296de689662b96e0ef4f21dfbff3092ff00d0e3e59470f5acb08c0f87d", 540253486, "libcublas.so.13", "libcublasLt.so.13"),
		shared("nvidia-cudnn-cu13", "9.28.1.4", "nvidia_cudnn_cu13-9.28.1.4-py3-none-manylinux_2_27_aarch64.whl", "759b6a4919951ed8ec603dec97b96f6a6396c8269b95b3d345526e2471fb433d", 597008823, "libcudnn.so.9"),
	},
}

func shared(pkg, version, file, sha256 string, size int64, holds ...string) wheel {
	return wheel{platform: CUDA, pkg: pkg, version: version, file: file, sha256: sha256, folder: "cuda-0.11.2", size: size, holds: holds}
}

// String names the wheel for a person.
func (w wheel) String() string { return w.pkg + " " + w.version }

// dir is the name of the wheel's folder in the cache.
func (w wheel) dir() string {
	if w.folder != "" {
		return w.folder
	}
	return w.platform + "-" + w.version
}
