package train

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/gomlx/compute/dtypes"

	"mix/graph"
	"mix/train/lora"
	"mix/train/store"
)

// position is what a checkpoint says beside weights and moments: all that the next step depends on.
type position struct {
	Step    int          `json:"step"`
	Samples int64        `json:"samples"` // seen, where the data goes on
	Tokens  int64        `json:"tokens"`
	Updates int32        `json:"updates"` // made: the t of AdamW's bias correction
	Skipped int          `json:"skipped"` // not made
	Bad     int          `json:"bad"`     // of them, in a row at the end
	Seed    uint64       `json:"seed"`
	Best    *float64     `json:"best"`         // lowest loss of an evaluation, 0 for none
	Judged  int          `json:"judged"`       // step of the last evaluation
	Data    string       `json:"data"`         // fingerprint
	Global  int          `json:"global_batch"` // samples a step
	Model   graph.Config `json:"model"`
}

// AdapterFolder is where a checkpoint of a run with adapters has them, as PEFT keeps them.
const AdapterFolder = "adapter"

// Saved reads what was trained from a checkpoint of a run with those options: the weights or the adapters.
// The Reader ends with the checkpoint.
func Saved(c *store.Checkpoint, o Options) (Reader, error) {
	if o.LoRA == nil {
		return c.Reader(groupWeights)
	}
	a, err := lora.Open(filepath.Join(c.Dir(), AdapterFolder), o.Model)
	if err != nil {
		return nil, err
	}
	c.Closes(a)
	saved := a.Options()
	slices.Sort(saved.Targets)
	want := slices.Sorted(slices.Values(o.LoRA.Targets))
	if len(want) == 1 && want[0] == lora.AllLinear {
		want = saved.Targets
	}
	if saved.Rank != o.LoRA.Rank || saved.Scale() != o.LoRA.Scale() || !slices.Equal(saved.Targets, want) {
		return nil, fmt.Errorf("adapters of rank %d, scale %g and targets %v, want rank %d, scale %g and %v",
			saved.Rank, saved.Scale(), saved.Targets, o.LoRA.Rank, o.LoRA.Scale(), want)
	}
	return a, nil
}

// resume reads where a checkpoint's run was.
func (r *run) resume(saved *store.Checkpoint, readers map[string]Reader) error {
	var at position
	if err := json.Unmarshal(saved.State(), &at); err != nil {
		return fmt.Errorf("%s: state: %w", saved.Dir(), err)
	}
	if at.Step < 0 || at.Samples < 0 || at.Updates < 0 || int(at.Updates)+at.Skipped != at.Step {
		return fmt.Errorf("%s: state: step %d after %d updates and %d without one, want their sum", saved.Dir(), at.Step, at.Updates, at.Skipped)
	}
	if err := sameModel(at.Model, r.Model); err != nil {
		return fmt.Errorf("checkpoint %s: %w", saved.Dir(), err)
	}
	weights, err := Saved(saved, r.Options)
	if err != nil {
		return err
	}
	if a, ok := weights.(*lora.Adapters); ok && a.Base() != r.Base {
		r.Log.Warn("the adapters of the checkpoint were trained beside another model", "then", a.Base(), "now", r.Base)
	}
	readers[groupWeights] = weights
	for _, name := range groups[1:] {
		if readers[name], err = saved.Reader(name); err != nil {
			return err
		}
	}
	if at.Data != r.Data.Fingerprint {
		r.Log.Warn("the checkpoint's run had other data, another split or other sample sizes: it goes on at its place in the new order",
			"checkpoint", saved.Dir(), "samples", at.Samples)
	}
	if at.Seed != r.Seed {
		r.Log.Warn("the checkpoint's run had another seed", "checkpoint", at.Seed, "now", r.Seed)
	}
	if n := int64(r.Data.Train.Len()); at.Step < r.Steps && at.Samples+int64(r.Steps-at.Step)*int64(r.Global) > n {
		return fmt.Errorf("checkpoint %s: %d samples were seen in steps of %d, and %d more steps take %d each: the training data has %d for this run; want the global batch size that the run began with, or its weights as the start of another",
			saved.Dir(), at.Samples, at.Global, r.Steps-at.Step, r.Global, n)
	}
	at.Data, at.Seed, at.Global = r.Data.Fingerprint, r.Seed, r.Global
	r.at, r.saved = at, at.Step
	return nil
}

// sameModel refuses a checkpoint of a model that computes something else. Shapes are held against the files.
func sameModel(then, now graph.Config) error {
	for _, x := range []struct {
		name      string
		then, now any
	}{
		{"layers", then.Layers, now.Layers}, {"width", then.Width, now.Width}, {"hidden width of an expert", then.Hidden, now.Hidden},
		{"query heads", then.Heads, now.Heads}, {"key and value heads", then.KVHeads, now.KVHeads}, {"width of a head", then.HeadDim, now.HeadDim},
		{"experts", then.Experts, now.Experts}, {"experts a token", then.TopK, now.TopK}, {"vocabulary", then.Vocab, now.Vocab},
		{"attention window", then.Window, now.Window}, {"base of the rotary angles", then.RopeTheta, now.RopeTheta},
		{"epsilon of the norms", then.NormEps, now.NormEps}, {"tied embeddings", then.TieEmbedding, now.TieEmbedding},
	} {
		if x.then != x.now {
			return fmt.Errorf("its model has %s %v, this run's has %v", x.name, x.then, x.now)
		}
	}
	return nil
}

// save starts to write a checkpoint of the state.
func (r *run) save() error {
	if r.Store == nil || r.at.Step == r.saved {
		return nil
	}
	err := r.Store.Wait() // its memory is used again
	if err == nil {
		r.unsaved = 0
	} else if r.unsaved++; r.unsaved > 1 {
		return err // once may be bad luck
	}
	if r.copied, err = r.dev.copyTo(r.copied); err != nil {
		return err
	}
	text, err := json.Marshal(r.at)
	if err != nil {
		return err
	}
	snapshot := store.Snapshot{Step: r.at.Step, State: text, Score: r.scored}
	for _, name := range groups {
		g := store.Group{Name: name, DType: dtypes.Float32, From: r.copied.group(name)}
		switch {
		case r.LoRA == nil:
		case name == groupWeights:
			snapshot.Folders = []store.Folder{{Name: AdapterFolder, Write: func(dir string) error {
				return lora.Write(dir, r.Model, *r.LoRA, g.From, lora.WriteOptions{Base: r.Base})
			}}}
			continue
		default:
			g.Params, g.Plain = r.m.params, true
		}
		snapshot.Groups = append(snapshot.Groups, g)
	}
	r.saved = r.at.Step
	return r.Store.Save(snapshot)
}
