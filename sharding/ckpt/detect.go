package ckpt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Formats of a checkpoint's folder.
const (
	HuggingFace = "hf"      // safetensors under Hugging Face's names, in one of two layouts
	Mixtral     = "mixtral" // ours: safetensors that hold boxes of weights, as the devices of any mesh do
	// Megatron is the third.
)

// Detect says which format a folder has. What it cannot tell is HuggingFace, whose errors are the best.
func Detect(dir string) (string, error) {
	st, err := os.Stat(dir)
	if err != nil {
		return "", fmt.Errorf("checkpoint: %w", err)
	}
	if !st.IsDir() {
		return "", fmt.Errorf("checkpoint %s: not a folder", dir)
	}
	for _, x := range []struct{ name, format string }{
		{boxesFile, Mixtral}, {singleFile, HuggingFace}, {indexFile, HuggingFace}, {latestFile, Megatron},
	} {
		switch _, err := os.Stat(filepath.Join(dir, x.name)); {
		case err == nil:
			return x.format, nil
		case !errors.Is(err, fs.ErrNotExist):
			return "", fmt.Errorf("checkpoint: %w", err)
		}
	}
	below, err := megatronFolder(dir)
	if err != nil {
		return "", fmt.Errorf("checkpoint %s: %w", dir, err)
	}
	if below != "" {
		return Megatron, nil
	}
	return HuggingFace, nil
}
