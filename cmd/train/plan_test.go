package main

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"mix/internal/cli"
	"mix/train/lora"
)

func TestFlagsBecomeOptions(t *testing.T) {
	dir, big := demoFolder(t), bigTokenizer(t, 2100)
	sizes := "--num-layers 2 --hidden-size 64 --ffn-hidden-size 96 --num-attention-heads 4 --num-query-groups 2 --num-experts 4 --moe-router-topk 1 " +
		"--max-position-embeddings 512 --rotary-base 500000 --norm-epsilon 1e-6 --init-method-std 0.01"
	for _, tt := range []struct {
		name string
		args string // split at spaces
		want string // fields of the plan, see facts
	}{
		{"the demo", "", "Model.Layers 4, Model.Context 256, Schedule.Warmup 10, Schedule.End 1000, Seq 256, DType Float32, from , Steps 1000"},
		{"a short run warms up for a sixth of it", "--train-iters 30", "Schedule.Warmup 5, Schedule.End 30"},
		{"but as told", "--train-iters 30 --lr-warmup-iters 20", "Schedule.Warmup 20"},
		{"a fraction of the decay", "--lr-warmup-fraction 0.1 --lr-decay-iters 334", "Schedule.Warmup 33, Schedule.End 334"},
		{"the rate", "--lr 1e-4 --min-lr 1e-6 --lr-decay-style linear", "Schedule.Peak 0.0001, Schedule.Floor 1e-06, Schedule.Decay linear"},
		{"constant, then a decay", "--lr-decay-style WSD --lr-wsd-decay-iters 50", "Schedule.Decay wsd, Schedule.Tail 50"},
		{"the optimizer", "--adam-beta1 0.8 --adam-beta2 0.95 --adam-eps 1e-7 --weight-decay 0.2 --clip-grad 0 --no-decay-embeddings",
			"Optimizer {0.8 0.95 1e-07 0.2 0}, DecayEmbeddings false"},
		{"the demo's optimizer where nothing is said", "", "Optimizer {0.9 0.999 1e-08 0.1 1}, DecayEmbeddings true, Seed 1234"},
		{"bf16", "--bf16", "DType BFloat16"},
		{"bf16 by its other name", "--dtype bf16", "DType BFloat16"},
		{"sizes", sizes, "Model.Layers 2, Model.Width 64, Model.Hidden 96, Model.Heads 4, Model.KVHeads 2, Model.HeadDim 16, Model.Experts 4, " +
			"Model.TopK 1, Model.Context 512, Model.RopeTheta 500000, Model.NormEps 1e-06, Model.InitStd 0.01, Model.Vocab 2048"},
		{"a head's width of its own", sizes + " --kv-channels 32", "Model.HeadDim 32"},
		{"the vocabulary follows the tokenizer, padded", "--tokenizer-model " + big, "Model.Vocab 2176, data.Vocab 2176, Model.BOS 1, Model.EOS [2]"},
		{"a vocabulary of its own", "--vocab-size 2100 --tokenizer " + big, "Model.Vocab 2100"},
		{"a large preset", "--preset mixtral-8x22b", "Model.Layers 56, Model.Width 6144, Global 256, Seq 4096, DType BFloat16, Balance megatron, Model.AuxCoef 0.01"},
		{"the formula of Megatron's words", "--moe-router-load-balancing-type aux_loss --moe-aux-loss-coeff 1e-2", "Balance megatron, Model.AuxCoef 0.01"},
		{"no balance", "--moe-router-load-balancing-type none", "Model.AuxCoef 0"},
		{"transformers' formula", "--moe-aux-loss-type hf", "Balance hf"},
		{"z-loss", "--moe-z-loss-coeff 1e-3", "ZCoef 0.001"},
		{"recompute all", "--recompute-granularity full --recompute-method uniform --recompute-num-layers 1", "Recompute full"},
		{"recompute attention", "--recompute-activations", "Recompute selective"},
		{"batches of an evaluation are global ones", "--global-batch-size 12 --micro-batch-size 4 --eval-iters 5", "EvalBatches 15, data.EvalBatches 5, data.Global 12"},
		{"no evaluation", "--eval-interval 0", "EvalEvery 0, EvalBatches 0, data.EvalEvery 0"},
		{"from a checkpoint", "--init " + dir, "from " + dir + ", Schedule.Peak 1e-05, Model.Layers 4, Seq 256, Global 8"},
		{"its sizes confirmed", "--num-layers 4 --vocab-size 2048 --untie-embeddings-and-output-weights --init " + dir, "from " + dir},
		{"Megatron's way to load weights", "--no-load-optim --load " + dir, "from " + dir + ", Schedule.Peak 1e-05"},
		{"the run of --save", "--load some --save some", "from "},
		{"adapters", "--lora-rank 8 --init " + dir, "LoRA &{8 16 [q_proj k_proj v_proj o_proj w1 w2 w3] 1234 false}, Int8 false, Schedule.Peak 0.0001"},
		{"adapters by name beside int8", "--lora-rank 4 --lora-alpha 4 --lora-targets q_proj,v_proj --qlora int8 --init " + dir, "LoRA &{4 4 [q_proj v_proj] 1234 false}, Int8 true"},
		{"a template", "--chat-template v1 --data embedded:chat", "template 1, data.Template 1"},
		{"made-up data split themselves", "--mock-data --split 1,1,1", "data.Mock true, data.Split "},
		{"a file", "--data x.jsonl --json-key body --skip-bad --num-workers 3 --data-cache-path c", "data.Paths [x.jsonl], data.Key body, data.SkipBad true, data.Workers 3, data.Cache c, data.Split 969,30,1"},
		{"datasets of each part", "--train-data-path a --valid-data-path b", "data.SplitPaths [[a] [b] []], data.Split "},
		{"documents apart", "--pack --reset-position-ids --reset-attention-mask --eod-mask-loss", "data.Pack true, data.ResetPositions true, data.ResetAttention true, data.MaskEOD true"},
		{"seeds", "--seed 7", "Seed 7, data.Seed 7"},
		{"a preset's prompts need a tokenizer", "--mock-data --vocab-size 512", "Prompts [], Model.Vocab 512"},
		{"no prompts", "--sample-prompt=", "Prompts []"},
		{"a rank as large as the smallest matrix", "--lora-rank 64 --lora-targets all-linear --init " + dir, "LoRA &{64 128 [all-linear] 1234 false}"},
		{"prompts", "--sample-prompt one --sample-prompt a,b --sample-tokens 5", "Prompts [one a,b], SampleTokens 5"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, p, err := parsed(t, strings.Fields(tt.args)...)
			require.NoError(t, err)
			require.Equal(t, tt.want, facts(t, p, tt.want))
		})
	}
}

// facts says of a plan what want says, with the plan's values: "Seq 256, Schedule.Warmup 10".
func facts(t *testing.T, p plan, want string) string {
	var all []string
	for _, fact := range strings.Split(want, ", ") {
		path, _, _ := strings.Cut(fact, " ")
		v := reflect.ValueOf(p)
		for _, name := range strings.Split(path, ".") {
			v = v.FieldByName(name)
			require.True(t, v.IsValid(), "no field %s", path)
		}
		all = append(all, fmt.Sprintf("%s %v", path, v))
	}
	return strings.Join(all, ", ")
}

func TestWhatIsRefused(t *testing.T) {
	dir, big := demoFolder(t), bigTokenizer(t, 2100)
	megatron := t.TempDir()
	write(t, megatron, "latest_checkpointed_iteration.txt", "1")
	adapters := demoFolder(t)
	write(t, adapters, "adapter/adapter_config.json", "{}")
	for _, tt := range []struct {
		name string
		args string
		want string // the whole line
	}{
		{"an unknown flag", "--nope 1", `unknown flag --nope`},
		{"fewer devices than the sizes need", "--tensor-model-parallel-size 1 --pipeline-model-parallel-size 4 --expert-model-parallel-size 8 --nproc_per_node 8", "usage: --nproc_per_node: mesh: 8 devices do not divide over tensor 1 × pipe 4 × expert 8"},
		{"a size beside another mesh", "--mesh pipe=2 --expert-model-parallel-size 8", `usage: --expert-model-parallel-size is 8, --mesh "pipe=2" has 1`},
		{"rounds without stages", "--num-layers-per-virtual-pipeline-stage 2", "usage: --num-layers-per-virtual-pipeline-stage is 2 without a pipeline, want --pipeline-model-parallel-size of at least 2"},
		{"rounds that do not divide", "--num-layers-per-virtual-pipeline-stage 3 --mesh pipe=2", "usage: --num-layers-per-virtual-pipeline-stage is 3: 4 layers do not divide over 2 stages of 3"},
		{"stages that do not divide", "--mesh pipe=3", `usage: --mesh "pipe=3": sharding: 4 layers do not divide over 3 stages in 1 rounds`},
		{"heads that do not divide", "--tensor-model-parallel-size 16", `usage: --tensor-model-parallel-size 16: sharding: layers/attn/query: axis "heads" of 8 does not divide over 16 shards [tensor]`},
		{"experts that do not divide", "--mesh tensor=4,expert=4 --global-batch-size 16 --expert-tensor-parallel-size 1", `usage: --mesh "tensor=4,expert=4": sharding: layers/moe/gate: axis "experts" of 8 does not divide over 16 shards [expert tensor]`},
		{"positions that do not divide", "--mesh tensor=2 --sequence-parallel --seq-length 63", `usage: --mesh "tensor=2": sharding: sequences: axis "seq" of 63 does not divide over 2 shards [tensor]`},
		{"samples that do not divide", "--nproc_per_node 3 --global-batch-size 8 --micro-batch-size 1", "usage: --nproc_per_node 3: global batch size is 8, want a multiple of 3: the micro-batch size, 1, on 3 replicas of mesh data=3"},
		{"microbatches for fewer than the stages", "--mesh pipe=4 --global-batch-size 2 --micro-batch-size 1", `usage: --mesh "pipe=4": a step has 2 microbatches, want a multiple of the 4 stages of mesh pipe=4`},
		{"split sequences", "--context-parallel-size 2", "usage: --context-parallel-size is 2, want 1: sequences are not split over devices, see --sequence-parallel"},
		{"rules for another mesh", "--mesh pipe=2 --rules ep", "usage: --rules: sharding: preset ep does not use pipe=2 of mesh pipe=2"},
		{"a size of nothing", "--tensor-model-parallel-size 0", "usage: --tensor-model-parallel-size is 0, want at least 1"},
		{"another norm", "--normalization LayerNorm", `usage: --normalization is "LayerNorm", want RMSNorm: Mixtral's norms are RMSNorm`},
		{"dropout", "--hidden-dropout 0.1", `usage: --hidden-dropout is "0.1", want 0: Mixtral has no dropout`},
		{"a switch turned off", "--swiglu=false", `usage: --swiglu is "false", want true: Mixtral's experts are SwiGLU`},
		{"fp16", "--fp16", "usage: --fp16: float16 needs loss scaling: use --bf16 or --dtype f32"},
		{"Weights & Biases", "--wandb-project x", "usage: --wandb-project: nothing is sent over the network: --metrics writes the same rows"},
		{"a preset that is not there", "--preset mixtral", `--preset is "mixtral", want demo, mixtral-8x7b, mixtral-8x22b, finetune or finetune-lora`},
		{"a preset without sizes", "--preset finetune", "usage: --preset finetune has no sizes: it needs --init"},
		{"a device", "--device tpu", `usage: --device: device "tpu", want cpu, cuda or cuda:n`},
		{"batches", "--global-batch-size 10 --micro-batch-size 4", "usage: --global-batch-size 10 is not a multiple of --micro-batch-size 4"},
		{"no steps", "--train-iters 0", "usage: --train-iters is 0, want at least 1"},
		{"too long", "--seq-length 512", "usage: --seq-length 512 is above the model's longest, 256: see --max-position-embeddings"},
		{"heads that do not fit", "--num-attention-heads 7", "usage: --hidden-size 160 is not divisible by --num-attention-heads 7: want --kv-channels, the width of a head"},
		{"groups that do not fit", "--num-query-groups 3", "usage: --num-attention-heads 8 is not divisible by --num-query-groups 3"},
		{"more choices than experts", "--moe-router-topk 9", "usage: --moe-router-topk 9 is above --num-experts 8"},
		{"no experts", "--num-experts 0", "usage: --num-experts is 0, want 1 to 4096"},
		{"an epsilon of the norms", "--norm-epsilon 0", "usage: --norm-epsilon is 0, want a number between 0 and 1"},
		{"a vocabulary without its own special tokens", "--mock-data --vocab-size 2", "usage: --vocab-size: eos_token_id is [2], want ids of 0 to 1"},
		{"a balance that is no number", "--moe-aux-loss-coeff NaN", "usage: --moe-aux-loss-coeff is NaN, want at least 0"},
		{"weights that are not there", "--init nowhere", "usage: --init nowhere: no such file or directory"},
		{"weights that are no folder", "--load " + big + " --no-load-optim", "usage: --load " + big + ": no config.json and no step-… folder with one"},
		{"weights of nothing", "--init .", "usage: --init .: no config.json in it, want a Hugging Face folder, one of ours or of Megatron"},
		{"weights that are a file", "--init " + big, "usage: --init " + big + ": want a folder"},
		{"weights that are adapters", "--init " + adapters, "usage: --init " + adapters + ": it holds adapters, in adapter, want a model: the one that they were trained beside, or what --export wrote"},
		{"a tokenizer that is not there", "--tokenizer nowhere", "usage: --tokenizer nowhere: no such file or directory"},
		{"one by Megatron's name", "--tokenizer-model nowhere", "usage: --tokenizer-model nowhere: no such file or directory"},
		{"a file that is not there", "--config nowhere", "--config nowhere: no such file or directory"},
		{"a value that is missing", "--train-iters 10 --save", "--save: expected a value but the line ends"},
		{"no mesh", "--mesh data", "usage: --mesh: mesh: \"data\", want axis=size, e.g. \"data=2 expert=4\""},
		{"a rank above a matrix", "--lora-rank 65 --init " + dir, "usage: --lora-rank 65 is above 64, the smaller side of k_proj, 64 × 160"},
		{"a rank above an expert's matrix", "--lora-rank 161 --lora-targets w1,w2,w3 --init " + dir, "usage: --lora-rank 161 is above 160, the smaller side of w1, 320 × 160"},
		{"a rank above all", "--lora-rank 5000 --init " + dir, "usage: --lora-rank: rank is 5000, want 1 to 4096"},
		{"an alpha", "--lora-rank 4 --lora-alpha 0 --init " + dir, "usage: --lora-alpha: alpha is 0, want a positive number"},
		{"other sizes than the checkpoint's", "--num-layers 32 --init " + dir, "usage: --num-layers is 32, but " + dir + " has 4"},
		{"another base than the checkpoint's", "--rotary-base 1e6 --init " + dir, "usage: --rotary-base is 1e+06, but " + dir + " has 10000"},
		{"a tokenizer too large", "--init " + dir + " --tokenizer " + big, "usage: --tokenizer " + big + ": the tokenizer has 2100 ids, the model's vocabulary (--vocab-size) 2048: want at most as many"},
		{"two tokenizers", "--tokenizer a --tokenizer-model b", "usage: --tokenizer a and --tokenizer-model b, want one"},
		{"two dtypes", "--bf16 --dtype f32", "usage: --bf16 and --dtype f32, want one"},
		{"a dtype", "--dtype f64", `usage: --dtype is "f64", want f32 or bf16`},
		{"warmup twice", "--lr-warmup-iters 5 --lr-warmup-fraction 0.1", "usage: --lr-warmup-iters 5 and --lr-warmup-fraction 0.1, want one"},
		{"warmup of more than all", "--lr-warmup-fraction 2", "usage: --lr-warmup-fraction is 2, want 0 to 1"},
		{"warmup after the decay", "--train-iters 10 --lr-warmup-iters 10", "usage: --lr-decay-iters, --lr-warmup-iters: decay ends at step 10, want after the 10 of warmup"},
		{"a rate below the last", "--lr 1e-5", "usage: --min-lr: least learning rate is 2e-05, want 0 to 1e-05"},
		{"a rate that is no number", "--lr NaN", "usage: --lr: learning rate is NaN, want a positive number"},
		{"a style", "--lr-decay-style inverse-square-root", `usage: --lr-decay-style: decay is "inverse-square-root", want constant, linear, cosine or wsd`},
		{"WSD's steps without it", "--lr-wsd-decay-iters 5", "usage: --lr-wsd-decay-iters 5, but --lr-decay-style is cosine"},
		{"betas", "--adam-beta1 1", "usage: --adam-beta1, --adam-beta2: betas are 1 and 0.999, want at least 0 and below 1"},
		{"an epsilon", "--adam-eps 0", "usage: --adam-eps: epsilon is 0, want a positive number"},
		{"a decay of weights", "--weight-decay -1", "usage: --weight-decay: weight decay is -1, want at least 0"},
		{"a largest gradient", "--clip-grad -1", "usage: --clip-grad: largest gradient norm is -1, want at least 0"},
		{"a z-loss", "--moe-z-loss-coeff -1", "usage: --moe-z-loss-coeff: weight of the z-loss is -1, want at least 0"},
		{"a recomputation", "--recompute-granularity some", `usage: --recompute-granularity: recomputation is "some", want none, selective or full`},
		{"a warmup", "--lr-warmup-iters -1", "usage: --lr-warmup-iters: warmup is -1 steps, want at least 0"},
		{"no steps of WSD", "--lr-decay-style WSD", "usage: --lr-wsd-decay-iters: decay takes 0 steps, want 1 to 990"},
		{"a way to balance", "--moe-router-load-balancing-type sinkhorn", `usage: --moe-router-load-balancing-type is "sinkhorn", want aux_loss or none`},
		{"a formula", "--moe-aux-loss-type x", `usage: --moe-aux-loss-type: load-balancing loss is "x", want hf or megatron`},
		{"recomputation in blocks", "--recompute-granularity full --recompute-method block", `usage: --recompute-method is "block", want uniform: every layer is recomputed`},
		{"recomputation of several layers", "--recompute-granularity full --recompute-num-layers 4", "usage: --recompute-num-layers is 4, want 1: every layer is recomputed from its own input"},
		{"a method of no recomputation", "--recompute-method uniform", "usage: --recompute-method uniform, but --recompute-granularity is none, not full"},
		{"evaluations of nothing", "--eval-iters 0", "usage: --eval-iters is 0, want at least 1, or --eval-interval 0 for no evaluation"},
		{"adapters for nothing", "--lora-rank 8", "usage: --lora-rank 8 without --init: adapters need a trained model"},
		{"targets without a rank", "--lora-targets q_proj", "usage: --lora-alpha, --lora-targets and --qlora need --lora-rank"},
		{"a target that is not there", "--lora-rank 8 --lora-targets q --init " + dir, `usage: --lora-targets: unknown target "q", want some of q_proj k_proj v_proj o_proj gate w1 w3 w2, or all-linear`},
		{"a quantization", "--lora-rank 8 --qlora nf4 --init " + dir, `usage: --qlora is "nf4", want int8`},
		{"two kinds of data", "--mock-data --data x", "usage: --data and --mock-data, want one of them"},
		{"validation alone", "--valid-data-path x", "usage: --valid-data-path without --train-data-path"},
		{"training alone", "--train-data-path x", "usage: --train-data-path without --valid-data-path: want it, or --eval-interval 0 for no evaluation"},
		{"a split", "--split 1,2,3,4", `usage: --split "1,2,3,4": 4 weights, want 1 to 3`},
		{"a seed", "--seed 4294967296", "usage: --seed is 4294967296, want at most 4294967295"},
		{"a template", "--chat-template v2", `usage: --chat-template is "v2", want v1 or v3`},
		{"an export without checkpoints", "--init " + dir + " --export x", "usage: --export x without --save: the final weights are those of the last checkpoint"},
		{"adapters without checkpoints", "--lora-rank 8 --init " + dir + " --export-adapters x", "usage: --export-adapters x without --save: the final ones are those of the last checkpoint"},
		{"adapters that are not there", "--export-adapters x", "usage: --export-adapters x without --lora-rank: there are none"},
		{"weights and a run", "--init a --load b", "usage: --init a and --load b, want one: --init for weights, --load for a run to go on with"},
		{"Megatron's checkpoint", "--load " + megatron, "usage: --load " + megatron + " holds a model without an optimizer: want --no-load-optim too, or --init " + megatron},
		{"a model's optimizer", "--load " + dir, "usage: --load " + dir + " holds a model without an optimizer: want --no-load-optim too, or --init " + dir},
		{"another run's optimizer", "--load a --save b", `usage: --load a and --save "b" differ: to go on with that run, --save is its folder; to start another from its weights, want --no-load-optim too`},
		{"prompts without a tokenizer", "--preset mixtral-8x7b --sample-prompt x", "usage: --sample-prompt needs a tokenizer: want --tokenizer"},
		{"text without a tokenizer", "--preset mixtral-8x7b", "usage: text needs a tokenizer: want --tokenizer, a tokenizer.model, tokenizer.json or a folder with one"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Chdir(t.TempDir()) // what is not refused trains
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			var o, e strings.Builder
			code := run(ctx, strings.Fields(tt.args), cli.IO{In: strings.NewReader(""), Out: &o, Err: &e})
			out, err := o.String(), e.String()
			require.Equal(t, "train: "+tt.want+"\n", err)
			require.Empty(t, out)
			require.Equal(t, 2, code)
			require.Contains(t, err, "--", "names its flag")
		})
	}
}

func TestAModelThatDoesNotFitIsRefusedWithTheNumbers(t *testing.T) {
	_, p, err := parsed(t, "--preset", "mixtral-8x7b", "--mock-data")
	require.NoError(t, err)
	require.EqualError(t, p.fits(512e9), "the model has 46.70 billion parameters, whose weights, moments and gradients take 747 GB; this machine has 512 GB of memory")
	require.NoError(t, p.fits(1024e9))

	p.LoRA, p.Int8 = new(lora.Default()), true
	n, bytes := p.bytes()
	require.Equal(t, int64(46702792704), n)
	require.InDelta(t, 46.7e9+16*242e6, bytes, 1e9, "frozen bytes, and adapters with their state")
}
