package main

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gomlx/compute/dtypes"

	"mix/graph"
	"mix/graph/composite"
	"mix/graph/token"
	"mix/sharding"
	"mix/train"
	"mix/train/data"
	"mix/train/lora"
)

// plan is what the flags mean.
type plan struct {
	train.Options
	from        string // folder of the first weights, "" for fresh ones
	tokenizer   *token.Tokenizer
	exportDType dtypes.DType
	template    token.Template // 0 for the tokenizer's own
	data        data.Spec      // without what is embedded
	mesh        sharding.Mesh
	rules       sharding.Rules
}

// plan checks all flags and fills in those that follow from others. It reads no weights and makes no
// files.
func (c *command) plan() (p plan, err error) {
	c.Preset = c.preset.name
	for _, f := range c.fixed {
		if err := f.check(); err != nil {
			return p, err
		}
	}
	if _, err := c.Device.Platform(); err != nil {
		return p, usage(err)
	}
	if p.from, err = c.startFrom(); err != nil {
		return p, err
	}
	if err := c.checkStart(p.from); err != nil {
		return p, err
	}
	if p.Model, p.tokenizer, err = c.model(p.from); err != nil {
		return p, err
	}
	for _, step := range []func(*plan) error{c.arithmetic, c.losses, c.amounts, c.schedule, c.recompute, c.lora, c.outputs, c.source, c.place} {
		if err := step(&p); err != nil {
			return p, usage(err)
		}
	}
	if err := p.Options.Validate(); err != nil {
		return p, usage(err)
	}
	return p, nil
}

func (c *command) arithmetic(p *plan) (err error) {
	if c.BF16 {
		if c.DType != "" && c.DType != "bf16" && c.DType != "bfloat16" {
			return fmt.Errorf("--bf16 and --dtype %s, want one", c.DType)
		}
		c.DType, c.BF16 = "bf16", false
	}
	if c.DType == "" {
		c.DType = "f32"
	}
	p.DType, err = dtype("dtype", c.DType, dtypes.Float32, dtypes.BFloat16)
	return err
}

// dtype reads the name of one of some types.
func dtype(flag, name string, want ...dtypes.DType) (dtypes.DType, error) {
	names := map[dtypes.DType][]string{dtypes.Float32: {"f32", "float32"}, dtypes.BFloat16: {"bf16", "bfloat16"}, dtypes.Float16: {"f16", "float16"}}
	var short []string
	for _, d := range want {
		if name == names[d][0] || name == names[d][1] {
			return d, nil
		}
		short = append(short, names[d][0])
	}
	return dtypes.InvalidDType, fmt.Errorf("--%s is %q, want %s", flag, name, strings.Join(short, " or "))
}

func (c *command) losses(p *plan) error {
	switch c.MoELoadBalancing {
	case "":
	case "aux_loss":
		if c.MoEAuxLossType == "" {
			c.MoEAuxLossType = string(train.BalancePerLayer)
		}
	case "none":
		p.Model.AuxCoef = 0
	default:
		return fmt.Errorf("--moe-router-load-balancing-type is %q, want aux_loss or none", c.MoELoadBalancing)
	}
	c.MoELoadBalancing = ""
	if c.MoEAuxLossType == "" {
		c.MoEAuxLossType = string(train.BalancePooled)
	}
	c.MoEAuxLossCoeff = &p.Model.AuxCoef
	p.Balance, p.ZCoef = train.Balance(c.MoEAuxLossType), c.MoEZLossCoeff
	return c.capacity(p)
}

// capacity reads the bound of experts. Of none, which Megatron-LM writes as -1 too, there is no policy.
func (c *command) capacity(p *plan) error {
	drop := composite.Drop(c.MoETokenDropPolicy)
	if drop != composite.DropProbs && drop != composite.DropPosition {
		return fmt.Errorf("--moe-token-drop-policy is %q, want %s or %s", drop, composite.DropProbs, composite.DropPosition)
	}
	if c.MoECapacityFactor <= 0 {
		c.MoECapacityFactor = 0
		return nil
	}
	if c.LoRARank > 0 {
		return fmt.Errorf("--moe-expert-capacity-factor is %g with --lora-rank %d, want none: experts with adapters drop nothing", c.MoECapacityFactor, c.LoRARank)
	}
	p.Capacity = composite.Capacity{Factor: c.MoECapacityFactor, Drop: drop}
	if err := p.Capacity.Validate(); err != nil {
		return fmt.Errorf("--moe-expert-capacity-factor: %w", err)
	}
	return nil
}

// most is above every count of samples or steps that can be.
const most = 1 << 40

func (c *command) amounts(p *plan) error {
	if c.SeqLength == nil {
		n := min(p.Model.Context, 2048)
		c.SeqLength = &n
	}
	for _, n := range []struct {
		name         string
		value, least int
	}{{"train-iters", c.TrainIters, 1}, {"seq-length", *c.SeqLength, 1}, {"micro-batch-size", c.MicroBatchSize, 1}, {"global-batch-size", c.GlobalBatchSize, 1},
		{"eval-interval", c.EvalInterval, 0}, {"eval-iters", c.EvalIters, 0}, {"save-interval", c.SaveInterval, 0}, {"log-interval", c.LogInterval, 1},
		{"keep-last", c.KeepLast, 0}, {"sample-tokens", c.SampleTokens, 0}, {"num-workers", c.NumWorkers, 0}} {
		if n.value < n.least || n.value > most {
			return fmt.Errorf("--%s is %d, want at least %d", n.name, n.value, n.least)
		}
	}
	switch {
	case *c.SeqLength > p.Model.Context:
		return fmt.Errorf("--seq-length %d is above the model's longest, %d: see --max-position-embeddings", *c.SeqLength, p.Model.Context)
	case c.GlobalBatchSize%c.MicroBatchSize != 0:
		return fmt.Errorf("--global-batch-size %d is not a multiple of --micro-batch-size %d", c.GlobalBatchSize, c.MicroBatchSize)
	case c.EvalInterval > 0 && c.EvalIters == 0:
		return fmt.Errorf("--eval-iters is 0, want at least 1, or --eval-interval 0 for no evaluation")
	case float64(c.TrainIters)*float64(c.GlobalBatchSize)*float64(*c.SeqLength) > 1<<60:
		return fmt.Errorf("--train-iters %d × --global-batch-size %d × --seq-length %d is more than 2^60 tokens", c.TrainIters, c.GlobalBatchSize, *c.SeqLength)
	}
	p.Steps, p.Seq, p.Micro, p.Global = c.TrainIters, *c.SeqLength, c.MicroBatchSize, c.GlobalBatchSize
	p.LogEvery, p.SaveEvery, p.EvalEvery = c.LogInterval, c.SaveInterval, c.EvalInterval
	p.EvalBatches = c.EvalIters * (p.Global / p.Micro)
	if p.EvalEvery == 0 {
		p.EvalBatches = 0
	}
	c.SamplePrompt = slices.DeleteFunc(c.SamplePrompt, func(text string) bool { return text == "" })
	if len(c.SamplePrompt) == 0 || p.tokenizer == nil && !c.given.says("sample-prompt") {
		c.SamplePrompt = nil // a preset's are for where they can be read
	}
	p.Seed, p.Prompts, p.SampleTokens = c.Seed, c.SamplePrompt, c.SampleTokens
	if len(p.Prompts) > 0 && p.tokenizer == nil {
		return fmt.Errorf("--sample-prompt needs a tokenizer: want --tokenizer")
	}
	p.Optimizer = train.AdamW{Beta1: c.AdamBeta1, Beta2: c.AdamBeta2, Eps: c.AdamEps, WeightDecay: c.WeightDecay, Clip: c.ClipGrad}
	p.DecayEmbeddings = c.DecayEmbeddings
	return nil
}

func (c *command) schedule(p *plan) error {
	if c.LRDecayIters == nil {
		c.LRDecayIters = &c.TrainIters
	}
	if c.LRWarmupFraction != nil {
		switch f := *c.LRWarmupFraction; {
		case c.LRWarmupIters != nil:
			return fmt.Errorf("--lr-warmup-iters %d and --lr-warmup-fraction %g, want one", *c.LRWarmupIters, f)
		case !(f >= 0 && f <= 1):
			return fmt.Errorf("--lr-warmup-fraction is %g, want 0 to 1", f)
		}
		n := int(math.Round(*c.LRWarmupFraction * float64(*c.LRDecayIters)))
		c.LRWarmupIters, c.LRWarmupFraction = &n, nil
	}
	warmup := or(c.LRWarmupIters, 0)
	if !c.given.says("lr-warmup-iters") && !c.given.says("lr-warmup-fraction") {
		warmup = min(warmup, *c.LRDecayIters/6) // a short run needs no other flag
	}
	c.LRWarmupIters = &warmup
	style := train.Decay(strings.ToLower(c.LRDecayStyle))
	if style != train.WSD && c.LRWSDDecayIters != nil {
		return fmt.Errorf("--lr-wsd-decay-iters %d, but --lr-decay-style is %s", *c.LRWSDDecayIters, c.LRDecayStyle)
	}
	p.Schedule = train.Schedule{Peak: c.LR, Floor: c.MinLR, Decay: style, Warmup: warmup, End: *c.LRDecayIters, Tail: or(c.LRWSDDecayIters, 0)}
	return nil
}

func (c *command) recompute(p *plan) error {
	if c.RecomputeActivations {
		if c.RecomputeGranularity != string(train.RecomputeSelective) && c.RecomputeGranularity != string(train.RecomputeNone) {
			return fmt.Errorf("--recompute-activations means selective, but --recompute-granularity is %s", c.RecomputeGranularity)
		}
		c.RecomputeGranularity, c.RecomputeActivations = string(train.RecomputeSelective), false
	}
	full := c.RecomputeGranularity == string(train.RecomputeFull)
	switch {
	case c.RecomputeMethod != "" && !full:
		return fmt.Errorf("--recompute-method %s, but --recompute-granularity is %s, not full", c.RecomputeMethod, c.RecomputeGranularity)
	case c.RecomputeNumLayers != nil && !full:
		return fmt.Errorf("--recompute-num-layers %d, but --recompute-granularity is %s, not full", *c.RecomputeNumLayers, c.RecomputeGranularity)
	case c.RecomputeMethod != "" && c.RecomputeMethod != "uniform":
		return fmt.Errorf("--recompute-method is %q, want uniform: every layer is recomputed", c.RecomputeMethod)
	case c.RecomputeNumLayers != nil && *c.RecomputeNumLayers != 1:
		return fmt.Errorf("--recompute-num-layers is %d, want 1: every layer is recomputed from its own input", *c.RecomputeNumLayers)
	}
	p.Recompute = train.Recompute(c.RecomputeGranularity)
	return nil
}

func (c *command) lora(p *plan) error {
	switch {
	case c.LoRARank < 0:
		return fmt.Errorf("--lora-rank is %d, want at least 0", c.LoRARank)
	case c.LoRARank == 0 && (c.LoRAAlpha != nil || len(c.LoRATargets) > 0 || c.QLoRA != ""):
		return fmt.Errorf("--lora-alpha, --lora-targets and --qlora need --lora-rank")
	case c.LoRARank == 0:
		return nil
	case p.from == "":
		return fmt.Errorf("--lora-rank %d without --init: adapters need a trained model", c.LoRARank)
	case c.QLoRA != "" && c.QLoRA != "int8":
		return fmt.Errorf("--qlora is %q, want int8", c.QLoRA)
	}
	o := lora.Default()
	o.Rank, o.Alpha, o.Seed = c.LoRARank, or(c.LoRAAlpha, 2*float64(c.LoRARank)), c.Seed
	if len(c.LoRATargets) > 0 {
		o.Targets = c.LoRATargets
	}
	c.LoRAAlpha, c.LoRATargets = &o.Alpha, o.Targets
	p.LoRA, p.Int8 = &o, c.QLoRA == "int8"
	if err := o.Validate(); err != nil {
		return err
	}
	return rankFits(o, p.Model)
}

// rankFits refuses a rank that no update of a targeted matrix can have. The router is as narrow as there
// are experts and is passed over: all-linear means it too.
func rankFits(o lora.Options, m graph.Config) error {
	heads, groups := m.Heads*m.HeadDim, m.KVHeads*m.HeadDim
	for _, x := range []struct {
		name, path string
		rows, cols int
	}{{"k_proj", "layers/attn/key", groups, m.Width}, {"v_proj", "layers/attn/value", groups, m.Width},
		{"q_proj", "layers/attn/query", heads, m.Width}, {"o_proj", "layers/attn/out", m.Width, heads},
		{"w1", "layers/moe/gate", m.Hidden, m.Width}, {"w3", "layers/moe/up", m.Hidden, m.Width}, {"w2", "layers/moe/down", m.Width, m.Hidden}} {
		if side := min(x.rows, x.cols); o.Adapts(x.path) && o.Rank > side {
			return fmt.Errorf("--lora-rank %d is above %d, the smaller side of %s, %d × %d", o.Rank, side, x.name, x.rows, x.cols)
		}
	}
	return nil
}

// outputs derives the files of a run from its folder.
func (c *command) outputs(p *plan) (err error) {
	if c.Save != "" && c.Metrics == "" {
		c.Metrics = filepath.Join(c.Save, "metrics.jsonl")
	}
	if c.Save != "" && c.Report == "" {
		c.Report = filepath.Join(c.Save, "report.html")
	}
	if c.ChatTemplate != "" {
		for _, t := range []token.Template{token.V1, token.V3} {
			if t.String() == c.ChatTemplate {
				p.template = t
			}
		}
		if p.template == 0 {
			return fmt.Errorf("--chat-template is %q, want %s or %s", c.ChatTemplate, token.V1, token.V3)
		}
	}
	switch {
	case c.Export != "" && c.Save == "":
		return fmt.Errorf("--export %s without --save: the final weights are those of the last checkpoint", c.Export)
	case c.ExportAdapters != "" && c.Save == "":
		return fmt.Errorf("--export-adapters %s without --save: the final ones are those of the last checkpoint", c.ExportAdapters)
	case c.ExportAdapters != "" && p.LoRA == nil:
		return fmt.Errorf("--export-adapters %s without --lora-rank: there are none", c.ExportAdapters)
	}
	p.exportDType, err = dtype("export-dtype", c.ExportDType, dtypes.Float32, dtypes.BFloat16, dtypes.Float16)
	return err
}
