package lora

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/gomlx/compute/dtypes"

	"mix/graph"
	"mix/sharding/axis"
	"mix/sharding/ckpt"
)

// WriteOptions says how a PEFT folder is written.
type WriteOptions struct {
	Base  string       // name or folder of the base model, for who reads the adapters; may be empty
	DType dtypes.DType // of the tensors: Float32, BFloat16 or Float16; Float32 when not set
}

// part is one tensor of a PEFT folder: A or B of one matrix.
type part struct {
	name  string
	pair  int        // index in pairs
	param axis.Param // A or B of all matrices
	lead  []int      // the matrix
	shape []int      // [r, in] or [out, r]
}

// parts lists the tensors of the adapters by PEFT's names, layer by layer.
//
// Source: PEFT, utils/save_and_load.py, get_peft_model_state_dict, over the modules of transformers 4,
// models/mixtral/modeling_mixtral.py.
func parts(ps []pair) []part {
	var list []part
	if len(ps) == 0 {
		return nil
	}
	for l := range ps[0].base.Dims[0] {
		for i, p := range ps {
			for e := range axis.Count(p.base.Dims[1:p.lead]) {
				lead := []int{l, e}[:p.lead]
				module := "base_model.model.model.layers." + strconv.Itoa(l) + "." + strings.ReplaceAll(p.module, "{e}", strconv.Itoa(e))
				rank := p.a.Dims[p.lead]
				list = append(list,
					part{module + ".lora_A.weight", i, p.a, lead, []int{rank, p.inputs()}},
					part{module + ".lora_B.weight", i, p.b, lead, []int{p.outputs(), rank}})
			}
		}
	}
	return list
}

// Write makes a PEFT folder of the adapters: adapter_config.json and adapter_model.safetensors. It appears
// whole or not at all, where there was no folder or an empty one; others are refused.
//
// Experts are written by expert, as w1, w2, w3; see Options.Portable.
func Write(dir string, c graph.Config, o Options, adapters Reader, w WriteOptions) (err error) {
	ps, err := pairs(c, o)
	if err != nil {
		return err
	}
	dtype := w.DType
	if dtype == dtypes.InvalidDType {
		dtype = dtypes.Float32
	}
	if dtype != dtypes.Float32 && dtype != dtypes.BFloat16 && dtype != dtypes.Float16 {
		return fmt.Errorf("lora: write: dtype %s, want Float32, BFloat16 or Float16", dtype)
	}
	if err := vacant(dir); err != nil {
		return err
	}
	text, err := makeConfig(o, w.Base)
	if err != nil {
		return fmt.Errorf("lora: write: %s: %w", configFile, err)
	}
	parent := filepath.Dir(filepath.Clean(dir))
	temp, err := os.MkdirTemp(parent, "."+filepath.Base(dir)+".*.tmp")
	if err != nil {
		return fmt.Errorf("lora: write: %w", err)
	}
	defer func() {
		if err != nil {
			os.RemoveAll(temp)
		}
	}()
	var tensors []ckpt.Tensor
	for _, t := range parts(ps) {
		tensors = append(tensors, ckpt.Tensor{Name: t.name, DType: dtype, Shape: t.shape, Write: func(out io.Writer) error {
			q := axis.Slice(t.param, dtype, t.lead...)
			b := make([]byte, q.Bytes())
			if err := adapters.Read(q, b); err != nil {
				return err
			}
			_, err := out.Write(b)
			return err
		}})
	}
	if err := ckpt.WriteFile(filepath.Join(temp, weightsFile), tensors, map[string]string{"format": "pt"}); err != nil {
		return fmt.Errorf("lora: write: %w", err)
	}
	if err := writeText(filepath.Join(temp, configFile), append(text, '\n')); err != nil {
		return fmt.Errorf("lora: write: %w", err)
	}
	if err := os.Chmod(temp, 0o755); err != nil { // MkdirTemp's is for its maker alone
		return fmt.Errorf("lora: write: %w", err)
	}
	if err := syncFolder(temp); err != nil {
		return fmt.Errorf("lora: write: %w", err)
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) { // only an empty folder goes
		return fmt.Errorf("lora: write: %w", err)
	}
	if err := os.Rename(temp, dir); err != nil {
		return fmt.Errorf("lora: write: %w", err)
	}
	return syncFolder(parent)
}

// vacant refuses a place where there is something else than an empty folder.
func vacant(dir string) error {
	list, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("lora: write: %w", err)
	case len(list) > 0:
		return fmt.Errorf("lora: write: folder %s holds %s, want an empty folder or none", dir, list[0].Name())
	}
	return nil
}

// writeText writes a file through to the disk.
func writeText(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Sync(), f.Close())
}

// syncFolder makes names in a folder lasting.
func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
