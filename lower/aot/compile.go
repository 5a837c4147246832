// Package aot compiles programs ahead of time, for GPUs that are not here too, and tells what XLA made of them.
//
//	text → worker: plugin, topology, PJRT → executable, memory, XLA's dump → costs, collectives, kernels → report
//
// The worker is a process of its own, because XLA ends the process on some errors.
//
// Costs are counted from the text of the optimized program: XLA's own analysis is not to be had where no GPU is.
package aot

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"mix/lower/pjrt"
	"mix/lower/plugin"
	"mix/lower/target"
)

// Request says what to compile and for what.
type Request struct {
	Program string // name, for messages
	Text    string // StableHLO
	Options []byte // of pjrt.CompileOptions.Marshal
	Chip    target.Chip
	Devices int
	Plugin  string       // path of the PJRT plugin
	Tools   plugin.Tools // of the CUDA plugin
	Dump    string       // folder in which XLA's dump stays; "" removes it

	// Command runs this program as the worker: a program and arguments, which the folder of the job follows. The
	// program then calls Work.
	Command []string
}

// Result is a compiled program.
type Result struct {
	Executable []byte // for pjrt.Client.Deserialize
	Memory     pjrt.MemoryStats
	Seconds    float64 // in XLA
	Module     *Module
	Kernels    []Kernel // of a GPU
}

// ErrAborted says that XLA ended the worker; the message has XLA's last words.
var ErrAborted = errors.New("XLA gave up")

// Files of a job's folder.
const (
	jobFile        = "job.json"
	textFile       = "module.mlir"
	optionsFile    = "options.bin"
	answerFile     = "answer.json"
	executableFile = "executable.bin"
	dumpFolder     = "xla"
)

// job is what the worker is told beside the program.
type job struct {
	Plugin   string `json:"plugin"`
	Config   string `json:"config"`   // of the chip; "" compiles for this machine
	Topology string `json:"topology"` // of the devices, with a config
	Devices  int    `json:"devices"`
}

// answer is what the worker tells.
type answer struct {
	Error   string           `json:"error,omitempty"`
	Seconds float64          `json:"seconds"`
	Memory  pjrt.MemoryStats `json:"memory"`
}

// Compile compiles in a worker. The end of ctx ends the worker.
func Compile(ctx context.Context, r Request) (*Result, error) {
	dir, err := os.MkdirTemp("", "mix-aot-")
	if err != nil {
		return nil, fmt.Errorf("aot: %w", err)
	}
	defer os.RemoveAll(dir)
	j := job{Plugin: r.Plugin, Config: r.Chip.Config, Devices: r.Devices}
	if j.Config != "" {
		if j.Topology, err = r.Chip.Topology(r.Devices); err != nil {
			return nil, fmt.Errorf("aot: %w", err)
		}
	}
	b, err := json.Marshal(j)
	if err != nil {
		return nil, fmt.Errorf("aot: %w", err)
	}
	for name, content := range map[string][]byte{jobFile: b, textFile: []byte(r.Text), optionsFile: r.Options} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return nil, fmt.Errorf("aot: %w", err)
		}
	}
	dump := filepath.Join(dir, dumpFolder)
	if r.Dump != "" {
		if dump, err = filepath.Abs(r.Dump); err != nil {
			return nil, fmt.Errorf("aot: %w", err)
		}
	}
	a, err := r.work(ctx, dir, dump)
	if err != nil {
		return nil, err
	}
	out := &Result{Memory: a.Memory, Seconds: a.Seconds}
	if out.Executable, err = os.ReadFile(filepath.Join(dir, executableFile)); err != nil {
		return nil, fmt.Errorf("aot: %w", err)
	}
	return out, r.inspect(ctx, dump, out)
}

// work runs the worker and reads its answer.
func (r Request) work(ctx context.Context, dir, dump string) (a answer, err error) {
	if len(r.Command) == 0 {
		return a, errors.New("aot: no command for the worker")
	}
	c := exec.CommandContext(ctx, r.Command[0], append(r.Command[1:len(r.Command):len(r.Command)], dir)...)
	var log bytes.Buffer
	c.Stdout, c.Stderr = &log, &log
	c.Env = append(os.Environ(), "XLA_FLAGS="+r.flags(dump))
	failed := c.Run()
	if ctx.Err() != nil {
		return a, context.Cause(ctx)
	}
	b, err := os.ReadFile(filepath.Join(dir, answerFile))
	if err != nil || json.Unmarshal(b, &a) != nil {
		if failed == nil {
			failed = errors.New("no answer")
		}
		return a, fmt.Errorf("aot: program %q: %w (%w): %s", r.Program, ErrAborted, failed, lastWords(log.String()))
	}
	if a.Error != "" {
		return a, fmt.Errorf("aot: program %q: %s", r.Program, a.Error)
	}
	return a, nil
}

// flags are XLA's, for the worker alone: what is in them is no part of a program's key in the cache.
func (r Request) flags(dump string) string {
	all := []string{os.Getenv("XLA_FLAGS"), "--xla_dump_to=" + dump, "--xla_dump_hlo_as_text"}
	if r.Chip.Platform == target.CUDA {
		all = append(all, "--xla_dump_emitter_re=ptx", "--xla_gpu_cuda_data_dir="+r.Tools.Dir)
	}
	return strings.TrimSpace(strings.Join(all, " "))
}

// inspect reads XLA's dump.
func (r Request) inspect(ctx context.Context, dump string, out *Result) error {
	text, err := newest(dump, "gpu_after_optimizations.txt", "cpu_after_optimizations.txt")
	if err != nil {
		return err
	}
	if out.Module, err = ParseHLO(text); err != nil {
		return err
	}
	if r.Chip.Platform != target.CUDA {
		return nil
	}
	var ours []string
	for _, c := range out.Module.CustomCalls() {
		if c.Kernel != "" {
			ours = append(ours, c.Kernel)
		}
	}
	out.Kernels, err = kernels(ctx, dump, r.Tools.Ptxas, ours)
	return err
}

// fatal is a line with which XLA ends the process.
var fatal = regexp.MustCompile(`(?m)^F\d{4} .*?\] (.*)$|^.*(Check failed: .*)$`)

// lastWords is XLA's reason in the log of a worker that ended: the fatal line, else the last.
func lastWords(log string) string {
	if m := fatal.FindStringSubmatch(log); m != nil {
		return m[1] + m[2]
	}
	return lastLine(log)
}
