package aot

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"mix/lower/pjrt"
)

// Work does the job in a folder, as the process that Request.Command starts. What goes wrong is in the folder's
// answer; the error is of the folder itself.
func Work(dir string) error {
	a, err := work(dir)
	if err != nil {
		a.Error = err.Error()
	}
	b, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("aot: %w", err)
	}
	return os.WriteFile(filepath.Join(dir, answerFile), b, 0o644)
}

func work(dir string) (a answer, err error) {
	read := func(name string) (b []byte) {
		if err == nil {
			b, err = os.ReadFile(filepath.Join(dir, name))
		}
		return b
	}
	description, text, options := read(jobFile), read(textFile), read(optionsFile)
	var j job
	if err == nil {
		err = json.Unmarshal(description, &j)
	}
	if err != nil {
		return a, err
	}
	p, err := pjrt.Load(j.Plugin)
	if err != nil {
		return a, err
	}
	start := time.Now()
	x, err := j.compile(p, text, options)
	if err != nil {
		return a, err
	}
	a.Seconds = time.Since(start).Seconds()
	if a.Memory, err = x.MemoryStats(); err != nil {
		return a, err
	}
	program, err := x.Serialize()
	if err != nil {
		return a, err
	}
	return a, os.WriteFile(filepath.Join(dir, executableFile), program, 0o644)
}

// compile compiles for the described devices, or for those that the plugin makes of this machine.
func (j job) compile(p *pjrt.Plugin, text, options []byte) (*pjrt.Executable, error) {
	if j.Config != "" {
		t, err := p.NewTopology("", map[string]any{"target_config": j.Config, "topology": j.Topology})
		if err != nil {
			return nil, err
		}
		return t.CompileAOT(text, options)
	}
	c, err := p.NewClient(pjrt.ClientOptions{Options: map[string]any{"cpu_device_count": j.Devices}})
	if err != nil {
		return nil, err
	}
	l, err := c.Compile(text, options)
	if err != nil {
		return nil, err
	}
	return l.Exec, nil
}
