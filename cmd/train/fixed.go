package main

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"

	"mix/internal/cli"
)

// fixedFlag is a flag of Megatron-LM or torchrun that has one meaning here.
type fixedFlag struct {
	name    string
	accepts []string // values; nil for a switch, "*" for any, none for a flag that is refused
	why     string   // this value, or no value, is the one
}

// fixed are the flags that change nothing: their value is what this program does anyway.
var fixed = []fixedFlag{
	{"use-mcore-models", nil, "there is one model"},
	{"disable-bias-linear", nil, "Mixtral has no biases"},
	{"swiglu", nil, "Mixtral's experts are SwiGLU"},
	{"group-query-attention", nil, "num-query-groups says how many key and value heads there are"},
	{"no-masked-softmax-fusion", nil, "the compiler fuses what it can"},
	{"no-position-embedding", nil, "positions are rotary"},
	{"no-load-rng", nil, "random numbers follow from the seed and the step, there is no state to load"},
	{"moe-grouped-gemm", nil, "experts are grouped products always"},
	{"moe-pad-expert-input-to-capacity", nil, "rows that travel are padded to an expert's capacity, which changes no result"},
	{"overlap-param-gather", nil, "the compiler overlaps what it can"},
	{"overlap-grad-reduce", nil, "the compiler overlaps what it can"},
	{"use-flash-attn", nil, "the compiler chooses the kernel"},
	{"attention-dropout", []string{"0"}, "Mixtral has no dropout"},
	{"hidden-dropout", []string{"0"}, "Mixtral has no dropout"},
	{"normalization", []string{"RMSNorm"}, "Mixtral's norms are RMSNorm"},
	{"position-embedding-type", []string{"rope"}, "Mixtral's positions are rotary"},
	{"moe-token-dispatcher-type", []string{"alltoall", "allgather"}, "the compiler chooses the exchange"},
	{"moe-router-dtype", []string{"fp32"}, "the router is float32 always"},
	{"lr-wsd-decay-style", []string{"linear"}, "WSD decays linearly"},
	{"tokenizer-type", []string{"Llama2Tokenizer", "SentencePieceTokenizer", "GPTSentencePieceTokenizer", "HuggingFaceTokenizer"}, "the tokenizer's file says what it is"},
	{"test-data-path", []string{"*"}, "nothing is tested after the training, cmd/eval scores a checkpoint"},
	{"distributed-backend", []string{"nccl", "gloo"}, "devices of one process need none"},
	{"nnodes", []string{"1"}, "a run is one process"},
	{"node_rank", []string{"0"}, "a run is one process"},
	{"master_addr", []string{"*"}, "a run is one process and talks to none"},
	{"master_port", []string{"*"}, "a run is one process and talks to none"},
	{"fp16", []string{}, "float16 needs loss scaling: use --bf16 or --dtype f32"},
	{"wandb-project", []string{}, "nothing is sent over the network: --metrics writes the same rows"},
	{"wandb-exp-name", []string{}, "nothing is sent over the network: --metrics writes the same rows"},
}

// fixedGroup is where --help lists them.
const fixedGroup = "Accepted with one meaning"

// fixedValue is what was given for a flag of the table.
type fixedValue struct {
	fixedFlag
	value reflect.Value // *bool or *string, nil where it was not given
}

// embedFixed makes the table's flags, for the parser, and where their values will be.
func embedFixed() ([]fixedValue, kong.Option) {
	var fields []reflect.StructField
	for i, f := range fixed {
		t := reflect.TypeFor[*string]()
		if f.isSwitch() {
			t = reflect.TypeFor[*bool]()
		}
		tag := fmt.Sprintf(`name:%q group:%q help:%q placeholder:%q`, f.name, fixedGroup, f.help(), strings.Join(f.accepts, "|"))
		fields = append(fields, reflect.StructField{Name: "F" + strconv.Itoa(i), Type: t, Tag: reflect.StructTag(tag)})
	}
	all := reflect.New(reflect.StructOf(fields))
	var values []fixedValue
	for i, f := range fixed {
		values = append(values, fixedValue{f, all.Elem().Field(i)})
	}
	return values, kong.Embed(all.Interface())
}

// isSwitch tells whether the flag stands without a value. A refused flag is one too if it is so in
// Megatron.
func (f fixedFlag) isSwitch() bool { return f.accepts == nil || f.name == "fp16" }

// help is what a user reads of the flag.
func (f fixedFlag) help() string {
	switch {
	case f.accepts == nil:
		return "Nothing changes: " + f.why + "."
	case len(f.accepts) == 0:
		return "Refused: " + f.why + "."
	case f.accepts[0] == "*":
		return "Any value, nothing changes: " + f.why + "."
	}
	return strings.Join(f.accepts, " or ") + ": " + f.why + "."
}

// check refuses a value that is not accepted.
func (f fixedValue) check() error {
	if f.value.IsNil() {
		return nil
	}
	got, want := fmt.Sprint(f.value.Elem().Interface()), f.accepts
	if f.accepts == nil {
		want = []string{"true"}
	}
	if len(want) == 0 {
		return fmt.Errorf("%w: --%s: %s", cli.ErrUsage, f.name, f.why)
	}
	if want[0] == "*" || slices.ContainsFunc(want, func(w string) bool { return same(w, got) }) {
		return nil
	}
	return fmt.Errorf("%w: --%s is %q, want %s: %s", cli.ErrUsage, f.name, got, strings.Join(want, " or "), f.why)
}

// same compares words, and numbers by value.
func same(a, b string) bool {
	x, errX := strconv.ParseFloat(a, 64)
	y, errY := strconv.ParseFloat(b, 64)
	return a == b || errX == nil && errY == nil && x == y
}
