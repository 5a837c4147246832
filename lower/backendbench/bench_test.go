package main

import (
	"os"
	"testing"

	"mix/lower"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/support/backendtest"
	"github.com/gomlx/go-xla/compute/xla"
)

// Benchmark runs the public benchmarks on the backend that $BENCH_BACKEND names.
func Benchmark(b *testing.B) {
	var be compute.Backend
	var err error
	switch name := os.Getenv("BENCH_BACKEND"); name {
	case "mix":
		be, err = lower.New(b.Context(), lower.Options{PluginPath: os.Getenv("BENCH_PLUGIN"), NoCache: true})
	case "xla":
		be, err = xla.New("cpu")
	default:
		b.Skipf("needs BENCH_BACKEND=mix or xla, got %q; go run . sets it", name)
	}
	if err != nil {
		b.Fatal(err)
	}
	defer be.Finalize()
	backendtest.RunAllBenchmarks(b, decomposing{be, os.Getenv("BENCH_BACKEND") == "mix" && os.Getenv("BENCH_ASYNC") == ""})
}
