package flags

import (
	"fmt"

	"mix/graph"
	"mix/sharding/ckpt"
)

// LoadConfig reads the sizes of the model in a checkpoint's folder: its config.json, or what a checkpoint of
// Megatron without one says of itself.
func LoadConfig(dir string) (graph.Config, error) {
	c, err := graph.LoadConfig(dir)
	if format, detected := ckpt.Detect(dir); err == nil || detected != nil || format != ckpt.Megatron {
		return c, err
	}
	text, err := ckpt.ConfigText(dir)
	if err != nil {
		return graph.Config{}, err
	}
	if c, err = graph.ParseConfig(text); err != nil {
		return c, fmt.Errorf("checkpoint %s: %w", dir, err)
	}
	return c, nil
}
