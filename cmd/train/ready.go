package main

import (
	"fmt"

	"golang.org/x/sys/unix"

	"mix/graph"
	"mix/internal/cli"
	"mix/lower/target"
	"mix/sharding/axis"
	"mix/train/lora"
)

// ready refuses what a plan that is only printed may lack: a tokenizer for text, memory for the model.
func (c *command) ready(p plan) error {
	if p.tokenizer == nil && (c.Data == embeddedText || c.Data == embeddedChat) {
		return fmt.Errorf("%w: text needs a tokenizer: want --tokenizer, a tokenizer.model, tokenizer.json or a folder with one", cli.ErrUsage)
	}
	if platform, err := c.Device.Platform(); err != nil || platform != target.CPU {
		return err
	}
	memory, err := machineMemory()
	if err != nil {
		return err
	}
	return p.fits(memory)
}

// bytes is what the state of a run takes on the device: float32 weights, two moments and a gradient for
// what is trained, frozen weights in their type. Activations come on top.
func (p plan) bytes() (parameters, bytes int64) {
	parameters, each := count(graph.Params(p.Model)), int64(16)
	if p.LoRA == nil {
		return parameters, parameters * each
	}
	adapters, err := lora.Params(p.Model, *p.LoRA)
	if err != nil {
		return parameters, 0 // refused elsewhere
	}
	frozen := int64(p.DType.Size())
	if p.Int8 {
		frozen = 1
	}
	return parameters, parameters*frozen + count(adapters)*each
}

// count is the number of elements.
func count(params []axis.Param) (all int64) {
	for _, w := range params {
		n := int64(1)
		for _, d := range w.Dims {
			n *= int64(d)
		}
		all += n
	}
	return all
}

// fits refuses a model whose state alone is more than the machine's memory.
func (p plan) fits(memory int64) error {
	if n, b := p.bytes(); b > memory {
		return fmt.Errorf("the model has %.2f billion parameters, whose weights, moments and gradients take %.0f GB; this machine has %.0f GB of memory", float64(n)/1e9, float64(b)/1e9, float64(memory)/1e9)
	}
	return nil
}

// machineMemory is what is installed, in bytes.
func machineMemory() (int64, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0, fmt.Errorf("sysinfo: %w", err)
	}
	return int64(info.Totalram) * int64(info.Unit), nil
}
