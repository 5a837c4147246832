package aot

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Kernel is a function of the GPU, with what the assembler says of it.
type Kernel struct {
	Name      string `json:"name"`
	Grid      [3]int `json:"grid"`
	Threads   int    `json:"threads"`   // of a block
	Shared    int    `json:"shared"`    // bytes of shared memory of a block
	Registers int    `json:"registers"` // of a thread
	Spilled   int    `json:"spilled"`   // bytes of registers kept in memory, stores and loads
	Runs      int    `json:"runs"`      // launches in the program's text, turns of loops not counted
	WGMMA     int    `json:"wgmma"`     // instructions of the matrix unit in its text
	Ours      bool   `json:"ours"`      // emitted by our passes, not by XLA
	Assembled bool   `json:"assembled"` // registers and spills are known
}

var (
	launch   = regexp.MustCompile(`k(?:Custom)?Kernel\s+\[[^\]]*\] (\S+) grid: \[(\d+), (\d+), (\d+)\] threads: \[(\d+), (\d+), (\d+)\]\s+shared_memory: (\d+) bytes`)
	entry    = regexp.MustCompile(`^ptxas info\s*: Compiling entry function '([^']+)'`)
	spills   = regexp.MustCompile(`(\d+) bytes spill stores, (\d+) bytes spill loads`)
	used     = regexp.MustCompile(`^ptxas info\s*: Used (\d+) registers`)
	archLine = regexp.MustCompile(`(?m)^\.target (sm_\w+)`)
)

// parseLaunches reads the kernels of XLA's list of what a program does, in the order of their first launch.
func parseLaunches(text string) (all []Kernel) {
	for _, m := range launch.FindAllStringSubmatch(text, -1) {
		if i := slices.IndexFunc(all, func(k Kernel) bool { return k.Name == m[1] }); i >= 0 {
			all[i].Runs++
			continue
		}
		var n [7]int
		for i := range n {
			n[i], _ = strconv.Atoi(m[2+i]) // digits, and few
		}
		all = append(all, Kernel{Name: m[1], Grid: [3]int{n[0], n[1], n[2]}, Threads: n[3] * n[4] * n[5], Shared: n[6], Runs: 1})
	}
	return all
}

// assembly is what ptxas -v says of a function.
type assembly struct {
	registers, spilled int
}

// parsePtxas reads the output of ptxas -v.
func parsePtxas(text string) map[string]assembly {
	all := map[string]assembly{}
	name := ""
	for s := bufio.NewScanner(strings.NewReader(text)); s.Scan(); {
		if m := entry.FindStringSubmatch(s.Text()); m != nil {
			name = m[1]
			all[name] = assembly{}
		}
		a, ok := all[name]
		if !ok {
			continue
		}
		if m := spills.FindStringSubmatch(s.Text()); m != nil {
			stores, _ := strconv.Atoi(m[1])
			loads, _ := strconv.Atoi(m[2])
			a.spilled += stores + loads
		}
		if m := used.FindStringSubmatch(s.Text()); m != nil {
			a.registers, _ = strconv.Atoi(m[1])
		}
		all[name] = a
	}
	return all
}

// kernels lists the kernels in XLA's dump of one program. ours are the names of those that are not XLA's.
func kernels(ctx context.Context, dump, ptxas string, ours []string) ([]Kernel, error) {
	text, err := newest(dump, "thunk_sequence_after_thunk_passes.txt", "thunk_sequence.txt")
	if err != nil {
		return nil, err
	}
	all := parseLaunches(text)
	files, err := filepath.Glob(filepath.Join(escape(dump), "*.ptx"))
	if err != nil {
		return nil, err
	}
	known, matrix := map[string]assembly{}, map[string]int{}
	for _, file := range files {
		ptx, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		arch := archLine.FindSubmatch(ptx)
		if arch == nil {
			continue
		}
		var log bytes.Buffer
		c := exec.CommandContext(ctx, ptxas, "-v", "-arch="+string(arch[1]), "-o", os.DevNull, file)
		c.Stdout, c.Stderr = &log, &log
		if err := c.Run(); err != nil {
			return nil, fmt.Errorf("aot: ptxas of %s: %w: %s", file, err, lastLine(log.String()))
		}
		for name, a := range parsePtxas(log.String()) {
			known[name] = a
			matrix[name] = bytes.Count(ptx, []byte("wgmma.mma_async"))
		}
	}
	for i := range all {
		k := &all[i]
		a, ok := known[k.Name]
		k.Registers, k.Spilled, k.Assembled, k.WGMMA = a.registers, a.spilled, ok, matrix[k.Name]
		name, _, _ := strings.Cut(k.Name, "__") // XLA numbers kernels of equal names
		k.Ours = slices.Contains(ours, name)
	}
	return all, nil
}

// newest reads the first of some files of a dump, by the ends of their names, that is there.
func newest(dump string, ends ...string) (string, error) {
	for _, end := range ends {
		files, err := filepath.Glob(filepath.Join(escape(dump), "*"+end))
		if err != nil {
			return "", err
		}
		if len(files) > 0 {
			b, err := os.ReadFile(files[len(files)-1])
			return string(b), err
		}
	}
	return "", fmt.Errorf("aot: XLA's dump in %s has no %s", dump, ends[0])
}

// escape makes a folder's name match itself in a Glob pattern.
func escape(dir string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(dir)
}

// lastLine is the last line that is not empty.
func lastLine(text string) string {
	all := strings.Split(strings.TrimSpace(text), "\n")
	return strings.TrimSpace(all[len(all)-1])
}
