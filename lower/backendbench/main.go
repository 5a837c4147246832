// Command backendbench compares our backend with go-xla's on the benchmarks that GoMLX publishes for
// backends. Both run the same plugin, so what differs is tracing, compile options and the binding.
//
//	cd lower/backendbench && go run . [-rounds 5] [-bench REGEXP] [-async]
//
// Every round runs both, each in a process of its own, one after the other; a benchmark's time is the
// shortest of the rounds, since on a shared machine noise only adds. Results are waited for in every
// run: go-xla's backend does so itself, for ours the benchmark does. With -async ours starts the next
// run at once; what is still under way when a benchmark ends is then charged to the one after it, so
// read the mean and not the lines. It prints a line a benchmark with the ratio ours/theirs, and the
// geometric mean. go-xla needs cgo, which is why this is a module of its own.
package main

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"mix/lower/plugin"
)

func main() {
	rounds := flag.Int("rounds", 5, "times each benchmark is run on each backend")
	bench := flag.String("bench", ".", "benchmarks to run, a regular expression as in go test -bench, without the backend")
	duration := flag.String("benchtime", "200ms", "length of one benchmark")
	async := flag.Bool("async", false, "start the next run of ours while one is under way, which go-xla's does not")
	flag.Parse()
	if err := run(*rounds, *bench, *duration, *async); err != nil {
		fmt.Fprintln(os.Stderr, "backendbench:", err)
		os.Exit(1)
	}
}

func run(rounds int, bench, duration string, async bool) error {
	path, err := plugin.Ensure(context.Background(), plugin.Options{Progress: os.Stderr})
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "backendbench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "bench.test")
	build := exec.Command("go", "test", "-c", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=1")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("building the benchmarks: %w", err)
	}
	if async {
		if err := os.Setenv("BENCH_ASYNC", "1"); err != nil {
			return err
		}
	}
	best := map[string]map[string]float64{"mix": {}, "xla": {}}
	for r := range rounds {
		for _, backend := range []string{"mix", "xla"} {
			fmt.Fprintf(os.Stderr, "round %d of %d, %s\n", r+1, rounds, backend)
			if err := measure(binary, path, backend, bench, duration, best[backend]); err != nil {
				return err
			}
		}
	}
	return report(best["mix"], best["xla"])
}

// measure runs the benchmarks on one backend and lowers the times in best, nanoseconds a run.
func measure(binary, plugin, backend, bench, duration string, best map[string]float64) error {
	cmd := exec.Command(binary, "-test.run=^$", "-test.bench=^Benchmark$/"+bench, "-test.benchtime="+duration, "-test.timeout=0")
	cmd.Env = append(os.Environ(), "BENCH_BACKEND="+backend, "BENCH_PLUGIN="+plugin, "PJRT_PLUGIN_LIBRARY_PATH="+filepath.Dir(plugin))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w\n%s", backend, err, out.String())
	}
	for lines := bufio.NewScanner(&out); lines.Scan(); {
		// Benchmark/DotGeneral/…-2    1234    5678 ns/op; names hold blanks.
		line := lines.Text()
		head, _, found := strings.Cut(line, " ns/op")
		if !found || !strings.HasPrefix(line, "Benchmark/") {
			continue
		}
		fields := strings.Split(head, "\t")
		if len(fields) < 3 {
			continue
		}
		ns, err := strconv.ParseFloat(strings.TrimSpace(fields[len(fields)-1]), 64)
		if err != nil {
			return fmt.Errorf("%s: cannot read %q", backend, line)
		}
		name := strings.TrimPrefix(strings.TrimSpace(fields[0]), "Benchmark/")
		if i := strings.LastIndexByte(name, '-'); i > 0 {
			name = name[:i]
		}
		if old, ok := best[name]; !ok || ns < old {
			best[name] = ns
		}
	}
	return nil
}

// report prints the pairs and fails if there is none.
func report(ours, theirs map[string]float64) error {
	sum, n := 0.0, 0
	fmt.Printf("%-70s %12s %12s %8s\n", "benchmark", "mix µs", "xla µs", "ratio")
	for _, name := range slices.Sorted(maps.Keys(ours)) {
		their, ok := theirs[name]
		if !ok {
			return fmt.Errorf("%s ran on mix alone", name)
		}
		ratio := ours[name] / their
		fmt.Printf("%-70s %12.2f %12.2f %8.3f\n", name, ours[name]/1e3, their/1e3, ratio)
		sum += math.Log(ratio)
		n++
	}
	if n == 0 || n != len(theirs) {
		return fmt.Errorf("%d benchmarks ran on mix and %d on xla, want the same", n, len(theirs))
	}
	fmt.Printf("%-70s %12s %12s %8.3f\n", fmt.Sprintf("geometric mean of %d", n), "", "", math.Exp(sum/float64(n)))
	return nil
}
