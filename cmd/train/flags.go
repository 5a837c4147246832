package main

import "mix/cmd/internal/flags"

// command holds all flags. A pointer that is nil, or text that is empty, was not given: plan fills in what
// follows from the others, so that afterwards the flags hold the effective values.
//
// Flags that Megatron-LM has too bear its names. Those that can have one meaning here are in fixed.
type command struct {
	Config      string `placeholder:"FILE" group:"Settings" help:"YAML file of the same names. The command line wins over it, it wins over the preset."`
	Preset      string `placeholder:"NAME" group:"Settings" help:"Sizes and training values: demo, mixtral-8x7b, mixtral-8x22b; without sizes finetune, finetune-lora. Default: demo, with --init finetune, with --lora-rank too finetune-lora."`
	PrintConfig bool   `group:"Settings" help:"Print the effective values as YAML that --config reads, and end."`

	modelFlags    `group:"Model"`
	dataFlags     `group:"Data"`
	trainFlags    `group:"Training"`
	loraFlags     `group:"Adapters"`
	runFlags      `group:"Run"`
	parallelFlags `group:"Devices"`
	flags.Device  `group:"Devices"`

	fixed  []fixedValue // values of the flags in the table fixed
	preset layer        // found before the flags have their values
	given  layers       // what is said above it
}

// modelFlags are the sizes of the model. By default they are the preset's; with --init the checkpoint's,
// and then they can only be confirmed.
type modelFlags struct {
	Init                  string   `placeholder:"DIR" help:"Start from the weights of a checkpoint of Hugging Face, ours or Megatron, whose config.json has the sizes."`
	NumLayers             *int     `placeholder:"N" help:"Decoder layers."`
	HiddenSize            *int     `placeholder:"N" help:"Width of the model."`
	FFNHiddenSize         *int     `name:"ffn-hidden-size" placeholder:"N" help:"Hidden width of an expert."`
	NumAttentionHeads     *int     `placeholder:"N" help:"Query heads."`
	NumQueryGroups        *int     `placeholder:"N" help:"Key and value heads."`
	KVChannels            *int     `name:"kv-channels" placeholder:"N" help:"Width of a head. Default: hidden-size / num-attention-heads where one of these is given, else the preset's."`
	NumExperts            *int     `placeholder:"N" help:"Experts a layer."`
	MoERouterTopk         *int     `name:"moe-router-topk" placeholder:"N" help:"Experts a token."`
	MaxPositionEmbeddings *int     `placeholder:"N" help:"Longest sequence of the model, in tokens."`
	VocabSize             *int     `placeholder:"N" help:"Token ids. Default: the tokenizer's, up to a multiple of 128."`
	RotaryBase            *float64 `placeholder:"X" help:"Base of the rotary angles."`
	NormEpsilon           *float64 `placeholder:"X" help:"Epsilon of the norms."`
	InitMethodStd         *float64 `placeholder:"X" help:"Standard deviation of fresh matrices."`
	UntieEmbeddings       bool     `name:"untie-embeddings-and-output-weights" help:"Confirm that the output head has weights of its own."`
}

// dataFlags say what is trained on. By default it is the text embedded in the program.
type dataFlags struct {
	Data               string `placeholder:"PATH" help:"Text to train on: jsonl with a text or messages a line, plain text (documents may be separated by NUL bytes), or the prefix of an indexed dataset; found out by content. embedded:text and embedded:chat are in the program. Default: embedded:text."`
	DataPath           string `placeholder:"PREFIX|\"W PREFIX …\"" help:"Indexed dataset, or several with weights as one argument."`
	TrainDataPath      string `placeholder:"PREFIX|…" help:"As data-path, for training alone."`
	ValidDataPath      string `placeholder:"PREFIX|…" help:"As data-path, for validation alone."`
	MockData           bool   `help:"Train on made-up numbers, as Megatron's flag does."`
	DataCachePath      string `placeholder:"DIR" help:"Folder of tokenized text. Default: mix/data in the user's cache folder."`
	Split              string `default:"969,30,1" placeholder:"A,B,C" help:"Weights of training, validation and test, which is left alone. Default: ${default}."`
	Tokenizer          string `placeholder:"PATH" help:"tokenizer.model, tokenizer.json, or a folder with one of them. Default: the checkpoint's of --init, the demo's with its sizes."`
	TokenizerModel     string `placeholder:"FILE" help:"The same as --tokenizer, by Megatron's name."`
	JSONKey            string `name:"json-key" default:"text" placeholder:"KEY" help:"Key of the text in jsonl. Default: ${default}."`
	ChatTemplate       string `placeholder:"v1|v3" help:"Instruct template of conversations. Default: the tokenizer's."`
	SkipBad            bool   `help:"Leave out lines of jsonl that are bad, and count them, rather than stop at the first."`
	Pack               bool   `help:"Pack whole documents into samples, each seeing only itself, rather than cut a stream of tokens."`
	ResetPositionIDs   bool   `name:"reset-position-ids" help:"Count positions from 0 in every document."`
	ResetAttentionMask bool   `help:"Let a document see only itself."`
	EODMaskLoss        bool   `name:"eod-mask-loss" help:"Learn nothing from what follows the end of a document."`
	NumWorkers         int    `placeholder:"N" help:"Tokenizing threads. Default: one a processor."`
}

// trainFlags are the optimizer's values and the amount of training.
type trainFlags struct {
	TrainIters           int      `placeholder:"N" help:"Steps."`
	SeqLength            *int     `placeholder:"N" help:"Tokens a sample. Default: the preset's, else the model's longest, 2048 at most."`
	MicroBatchSize       int      `placeholder:"N" help:"Samples computed at a time."`
	GlobalBatchSize      int      `placeholder:"N" help:"Samples a step."`
	LR                   float64  `name:"lr" placeholder:"X" help:"Highest learning rate."`
	MinLR                float64  `name:"min-lr" placeholder:"X" help:"Last learning rate."`
	LRDecayStyle         string   `name:"lr-decay-style" default:"cosine" placeholder:"S" help:"constant, linear, cosine or WSD (linear at the end). Default: ${default}."`
	LRDecayIters         *int     `name:"lr-decay-iters" placeholder:"N" help:"Steps until min-lr. Default: train-iters."`
	LRWarmupIters        *int     `name:"lr-warmup-iters" placeholder:"N" help:"Steps of warmup from 0."`
	LRWarmupFraction     *float64 `name:"lr-warmup-fraction" placeholder:"X" help:"The same as a fraction of lr-decay-iters, to the nearest step."`
	LRWSDDecayIters      *int     `name:"lr-wsd-decay-iters" placeholder:"N" help:"Steps of WSD's decay."`
	WeightDecay          float64  `default:"0.1" placeholder:"X" help:"Of matrices; norms never decay. Default: ${default}."`
	DecayEmbeddings      bool     `default:"true" negatable:"" help:"Embedding and output head decay too. Default: ${default}."`
	AdamBeta1            float64  `name:"adam-beta1" default:"0.9" placeholder:"X" help:"Default: ${default}."`
	AdamBeta2            float64  `name:"adam-beta2" default:"0.999" placeholder:"X" help:"Default: ${default}."`
	AdamEps              float64  `default:"1e-8" placeholder:"X" help:"Default: ${default}."`
	ClipGrad             float64  `default:"1" placeholder:"X" help:"Largest global norm of the gradient, 0 for any. Default: ${default}."`
	Seed                 uint64   `default:"1234" placeholder:"N" help:"Of fresh weights, of the order of samples, of sampled text. Default: ${default}."`
	DType                string   `name:"dtype" placeholder:"f32|bf16" help:"Arithmetic of forward and backward pass: f32 or bf16. Weights and moments are f32 in either. Default: f32."`
	BF16                 bool     `name:"bf16" help:"The same as --dtype bf16."`
	MoEAuxLossCoeff      *float64 `name:"moe-aux-loss-coeff" placeholder:"X" help:"Weight of the load-balancing loss. Default: the model's."`
	MoEAuxLossType       string   `name:"moe-aux-loss-type" placeholder:"hf|megatron" help:"Its formula: transformers' over all layers together, or Megatron's, a sum over layers. Default: hf; megatron where moe-router-load-balancing-type is aux_loss."`
	MoELoadBalancing     string   `name:"moe-router-load-balancing-type" placeholder:"S" help:"aux_loss or none, Megatron's words for its formula and for a weight of 0."`
	MoEZLossCoeff        float64  `name:"moe-z-loss-coeff" default:"0" placeholder:"X" help:"Weight of the router's z-loss. Default: ${default}."`
	MoECapacityFactor    float64  `name:"moe-expert-capacity-factor" default:"0" placeholder:"X" help:"An expert takes at most X times the mean of a device's rows and drops the others, in training only. Default: ${default}: none is dropped, nor below 0."`
	MoETokenDropPolicy   string   `name:"moe-token-drop-policy" default:"probs" placeholder:"S" help:"What an expert drops: probs, the rows of the lowest weights, or position, the last ones. Default: ${default}."`
	RecomputeGranularity string   `default:"none" placeholder:"S" help:"What the backward pass computes again: none, selective (the core of attention) or full (every layer). Default: ${default}."`
	RecomputeMethod      string   `placeholder:"S" help:"With full: uniform."`
	RecomputeNumLayers   *int     `placeholder:"N" help:"With full: 1, every layer from its own input."`
	RecomputeActivations bool     `help:"The same as --recompute-granularity selective."`
}

// loraFlags train adapters beside a frozen model.
type loraFlags struct {
	LoRARank    int      `name:"lora-rank" default:"0" placeholder:"R" help:"Train adapters of this rank instead of the weights. Needs --init. Default: ${default}, all weights."`
	LoRAAlpha   *float64 `name:"lora-alpha" placeholder:"X" help:"Adapters are scaled by alpha / rank. Default: twice the rank."`
	LoRATargets []string `name:"lora-targets" placeholder:"NAME,…" help:"q_proj, k_proj, v_proj, o_proj, w1, w2, w3, gate, or all-linear. Default: all but gate."`
	QLoRA       string   `name:"qlora" placeholder:"int8" help:"Keep the frozen weights in int8. Needs --lora-rank."`
}

// runFlags say what a run leaves and shows.
type runFlags struct {
	Save           string   `placeholder:"DIR" help:"Folder of checkpoints. A run goes on from the newest whole one in it."`
	Load           string   `placeholder:"DIR" help:"The folder of --save; or, with --no-load-optim, a Hugging Face folder or another run's, to start from its weights."`
	NoLoadOptim    bool     `help:"Of --load take the weights only. A run's own checkpoint in --save is resumed whole nevertheless."`
	SaveInterval   int      `default:"1000" placeholder:"N" help:"Steps between checkpoints, 0 for the last only. Default: ${default}."`
	KeepLast       int      `default:"2" placeholder:"N" help:"Checkpoints to keep, 0 for all. Default: ${default}."`
	KeepBest       bool     `default:"true" negatable:"" help:"Keep the one of the lowest validation loss too. Default: ${default}."`
	EvalInterval   int      `default:"1000" placeholder:"N" help:"Steps between evaluations, 0 for none. Default: ${default}."`
	EvalIters      int      `default:"10" placeholder:"N" help:"Batches of global-batch-size an evaluation. Default: ${default}."`
	LogInterval    int      `default:"1" placeholder:"N" help:"Steps between reports. Default: ${default}."`
	Metrics        string   `placeholder:"FILE" help:"A line of JSON for every report. Default: metrics.jsonl in the folder of --save."`
	Report         string   `placeholder:"FILE" help:"HTML page with the curves, refreshed during the run. Default: report.html in the folder of --save."`
	TensorboardDir string   `placeholder:"DIR" help:"Write TensorBoard's event files."`
	SamplePrompt   []string `sep:"none" placeholder:"TEXT" help:"Text to continue at each evaluation. May be repeated."`
	SampleTokens   int      `default:"48" placeholder:"N" help:"Length of each continuation. Default: ${default}."`
	JSON           bool     `name:"json" help:"Print the result as one JSON object."`
	Export         string   `placeholder:"DIR" help:"Write the final model, adapters merged, as a Hugging Face folder."`
	ExportAdapters string   `placeholder:"DIR" help:"Write the final adapters as a PEFT folder."`
	ExportDType    string   `name:"export-dtype" default:"bf16" placeholder:"f32|bf16|f16" help:"Type of the exported weights. Default: ${default}."`
}
