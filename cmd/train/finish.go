package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/gomlx/compute/dtypes"

	"mix/graph"
	"mix/sharding/ckpt"
	"mix/train"
	"mix/train/lora"
)

// checkExport refuses folders that export could not write to, before the training.
func (s *session) checkExport() error {
	for _, f := range []struct{ flag, dir string }{{"export", s.c.Export}, {"export-adapters", s.c.ExportAdapters}} {
		if f.dir == "" {
			continue
		}
		if list, err := os.ReadDir(f.dir); err == nil && len(list) > 0 {
			return fmt.Errorf("--%s %s: there are files in it, want an empty folder or none", f.flag, f.dir)
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("--%s: %w", f.flag, err)
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Clean(f.dir)), 0o777); err != nil {
			return fmt.Errorf("--%s: %w", f.flag, err)
		}
	}
	return nil
}

// export writes what the last checkpoint holds: the model, with the adapters merged, as a Hugging Face
// folder, and the adapters as a PEFT folder.
func (s *session) export() error {
	if s.c.Export == "" && s.c.ExportAdapters == "" {
		return nil
	}
	last, err := s.store.Latest()
	if err != nil {
		return err
	}
	if last == nil {
		return fmt.Errorf("no checkpoint to export in %s", s.c.Save)
	}
	defer last.Close()
	trained, err := train.Saved(last, s.p.Options)
	if err != nil {
		return err
	}
	if s.c.ExportAdapters != "" {
		o := lora.WriteOptions{Base: s.p.from, DType: dtypes.Float32}
		if err := lora.Write(s.c.ExportAdapters, s.p.Model, *s.p.LoRA, trained, o); err != nil {
			return err
		}
	}
	if s.c.Export == "" {
		return nil
	}
	weights := ckpt.Reader(trained)
	if s.p.LoRA != nil {
		if weights, err = lora.Merge(s.p.Model, *s.p.LoRA, s.job.Start, trained); err != nil {
			return err
		}
	}
	files, err := s.c.files(s.p, strings.ToLower(s.p.exportDType.String()))
	if err != nil {
		return err
	}
	return ckpt.WriteHF(s.c.Export, graph.Params(s.p.Model), weights, ckpt.WriteOptions{DType: s.p.exportDType, Files: files})
}

// result is what a whole run prints.
type result struct {
	Step       int      `json:"step"`
	Skipped    int      `json:"skipped"`
	Loss       *float64 `json:"loss"`      // of the last step, null if this command made none
	EvalLoss   *float64 `json:"eval_loss"` // null without an evaluation
	Checkpoint string   `json:"checkpoint,omitempty"`
	Export     string   `json:"export,omitempty"`
}

func (s *session) print(w io.Writer, res train.Result) error {
	known := func(x float64) *float64 {
		if math.IsNaN(x) || math.IsInf(x, 0) || x == 0 {
			return nil
		}
		return &x
	}
	if s.store != nil && s.saved == "" { // all was done before
		s.saved = filepath.Join(s.c.Save, fmt.Sprintf("step-%08d", res.Step))
	}
	r := result{Step: res.Step, Skipped: res.Skipped, Loss: known(res.Loss), EvalLoss: known(res.Eval), Checkpoint: s.saved, Export: s.c.Export}
	if s.c.JSON {
		return json.NewEncoder(w).Encode(r)
	}
	text := fmt.Sprintf("step %d", r.Step)
	if r.Loss != nil {
		text += fmt.Sprintf(", loss %.4f", *r.Loss)
	}
	if r.EvalLoss != nil {
		text += fmt.Sprintf(", evaluation %.4f", *r.EvalLoss)
	}
	for _, dir := range []string{r.Checkpoint, r.Export} {
		if dir != "" {
			text += "; " + dir
		}
	}
	_, err := fmt.Fprintln(w, text)
	return err
}
