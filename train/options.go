package train

import (
	"fmt"

	"github.com/gomlx/compute/dtypes"

	"mix/graph"
	"mix/graph/composite"
	"mix/train/lora"
)

// Recompute says which activations the backward pass computes again instead of keeping them.
type Recompute string

// Recomputations.
const (
	RecomputeNone      Recompute = "none"
	RecomputeSelective Recompute = "selective" // the core of attention: its scores are large and cheap
	RecomputeFull      Recompute = "full"      // every layer, from what goes into it; compile time is that of one layer
)

// Balance names a formula of the load-balancing loss.
type Balance string

// Formulas. For balanced routing the first gives K, whatever L; the second gives L.
const (
	BalancePooled   Balance = "hf"       // over the rows of all layers together, as transformers has it
	BalancePerLayer Balance = "megatron" // a loss a layer, summed, a K-th of the size, as Megatron-LM has it
)

// Options of a training run.
type Options struct {
	Model graph.Config // AuxCoef is the weight of the load-balancing loss

	// DType of forward and backward pass: Float32 or BFloat16. Weights, moments, router, losses and sums of
	// gradients are float32 in either case.
	DType dtypes.DType

	Seq    int // S, tokens a sample
	Micro  int // samples a microbatch
	Global int // samples a step, a multiple of Micro
	Steps  int
	Rounds int // of a pipeline: times a microbatch goes around its stages, 0 is 1

	Optimizer       AdamW
	Schedule        Schedule
	Balance         Balance
	ZCoef           float64            // weight of the router's z-loss
	Capacity        composite.Capacity // of experts, in steps; evaluations and samples drop nothing
	Recompute       Recompute
	DecayEmbeddings bool // weight decay on embedding and head too; norms never decay

	LoRA *lora.Options // trains adapters beside frozen weights; nil trains all weights
	Int8 bool          // the frozen weights' matrices are int8 with a scale a row

	Seed uint64 // of fresh weights and of sampled texts

	LogEvery, SaveEvery, EvalEvery int // steps, 0 for never
	EvalBatches                    int // microbatches an evaluation

	Prompts      []string // continued at each evaluation
	SampleTokens int      // at most, of each
}

// Validate names the first value that is out of bounds.
func (o Options) Validate() error {
	if err := o.Model.Validate(); err != nil {
		return err
	}
	if err := o.Capacity.Validate(); err != nil {
		return err
	}
	atLeast := func(name string, x, least int) error {
		if x < least {
			return fmt.Errorf("%s is %d, want at least %d", name, x, least)
		}
		return nil
	}
	for _, x := range []struct {
		name  string
		value int
		least int
	}{
		{"sequence length", o.Seq, 1}, {"micro-batch size", o.Micro, 1}, {"global batch size", o.Global, 1},
		{"number of steps", o.Steps, 0}, {"rounds of the pipeline", o.Rounds, 0}, {"log interval", o.LogEvery, 0}, {"save interval", o.SaveEvery, 0},
		{"evaluation interval", o.EvalEvery, 0}, {"batches an evaluation", o.EvalBatches, 0}, {"tokens a sample", o.SampleTokens, 0},
	} {
		if err := atLeast(x.name, x.value, x.least); err != nil {
			return err
		}
	}
	switch {
	case o.DType != dtypes.Float32 && o.DType != dtypes.BFloat16:
		return fmt.Errorf("dtype is %s, want Float32 or BFloat16", o.DType)
	case o.Seq > o.Model.Context:
		return fmt.Errorf("sequence length is %d, want at most the model's context, %d", o.Seq, o.Model.Context)
	case o.Global%o.Micro != 0:
		return fmt.Errorf("global batch size is %d, want a multiple of the micro-batch size, %d", o.Global, o.Micro)
	case o.Balance != BalancePooled && o.Balance != BalancePerLayer:
		return fmt.Errorf("load-balancing loss is %q, want %s or %s", o.Balance, BalancePooled, BalancePerLayer)
	case !(o.ZCoef >= 0):
		return fmt.Errorf("weight of the z-loss is %g, want at least 0", o.ZCoef)
	case o.Recompute != RecomputeNone && o.Recompute != RecomputeSelective && o.Recompute != RecomputeFull:
		return fmt.Errorf("recomputation is %q, want %s, %s or %s", o.Recompute, RecomputeNone, RecomputeSelective, RecomputeFull)
	case o.Capacity.Bounds() && o.LoRA != nil:
		return fmt.Errorf("capacity factor of experts is %g with adapters, want none: their experts drop nothing", o.Capacity.Factor)
	case o.Int8 && o.LoRA == nil:
		return fmt.Errorf("weights in int8 without adapters: only frozen ones can be")
	case o.EvalEvery > 0 && o.EvalBatches == 0:
		return fmt.Errorf("an evaluation every %d steps has 0 batches, want at least 1", o.EvalEvery)
	}
	if o.LoRA != nil {
		if err := o.LoRA.Validate(); err != nil {
			return err
		}
	}
	if err := o.Optimizer.Validate(); err != nil {
		return err
	}
	return o.Schedule.Validate()
}
