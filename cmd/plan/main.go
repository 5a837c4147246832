// Command plan says how a model may be split over GPUs: what each device holds, sends and computes.
package main

import (
	"encoding/json"
	"fmt"
	"io"

	"mix/internal/cli"
	"mix/sharding"
)

type command struct {
	Preset     string `default:"mixtral-8x7b" placeholder:"NAME" help:"Model: mixtral-8x7b or mixtral-8x22b. Default: ${default}."`
	Checkpoint string `placeholder:"DIR" help:"Take the model's sizes from the checkpoint in this folder instead."`
	GPU        string `name:"gpu" default:"H100-80G" placeholder:"NAME" help:"A100-80G, H100-80G, H200-141G or B200-180G. Default: ${default}."`
	GPUs       int    `name:"gpus" placeholder:"N" help:"Number of GPUs. Default: those of --mesh, else 64 to train and 8 to serve."`

	Mesh     string `help:"Only this mesh, e.g. \"pipe=4 data=2 expert=8\"."`
	Tensor   int    `name:"tensor-model-parallel-size" placeholder:"N" help:"Only meshes with this size of tensor."`
	Pipeline int    `name:"pipeline-model-parallel-size" placeholder:"N" help:"Only meshes with this size of pipe."`
	Expert   int    `name:"expert-model-parallel-size" placeholder:"N" help:"Only meshes with this size of expert."`
	Describe bool   `help:"Print the table of weight × spec × bytes a device for one mesh: --mesh, or --gpus with the three sizes."`
	Rules    string `placeholder:"WORDS" help:"With --describe: words joined by +, see above. Default: all axes of the mesh."`

	Train           bool   `help:"Rank mappings for training. The default."`
	SeqLength       int    `default:"4096" placeholder:"N" help:"Tokens a sequence in training. Default: ${default}."`
	GlobalBatchSize int    `default:"256" placeholder:"N" help:"Sequences a step. Default: ${default}."`
	MicroBatchSize  int    `placeholder:"N" help:"Only this number of sequences a microbatch. Default: 1 to 16."`
	Recompute       string `placeholder:"WAY" help:"Only this: none, selective, moe or full."`
	Zero            int    `default:"-1" placeholder:"N" help:"Only this ZeRO stage, 0 to 3."`
	Interleaved     bool   `help:"Pipelines as Megatron's interleaved schedule runs them. Default: one program with the circular schedule."`

	Serve         bool   `help:"Rank mappings for serving."`
	MaxConcurrent int    `default:"64" placeholder:"N" help:"Requests served at once. Default: ${default}."`
	MaxModelLen   int    `default:"4096" placeholder:"N" help:"Tokens of a request, prompt and answer. Default: ${default}."`
	PromptLength  int    `default:"1024" placeholder:"N" help:"Tokens of a prompt. Default: ${default}."`
	DType         string `name:"dtype" default:"bf16" enum:"bf16,fp8" placeholder:"bf16|fp8" help:"Of weights, keys and values in serving. Default: ${default}."`

	Top  int  `default:"20" placeholder:"N" help:"Mappings to print, 0 for all. Default: ${default}."`
	JSON bool `name:"json" help:"Print one JSON object, with every mapping. Bytes and seconds."`

	Device string `default:"cpu" placeholder:"cpu|cuda[:n]" help:"Checked, for scripts that give it to every command: nothing is run."`
	Cache  string `placeholder:"DIR" help:"Likewise: nothing is compiled."`
}

// Run prints the table, or the ranking.
func (c *command) Run(streams *cli.IO) error {
	j, err := c.job()
	if err != nil {
		return err
	}
	var result interface {
		Write(w io.Writer, top int) error
	}
	switch {
	case c.Describe:
		result, err = j.describe()
	case c.Serve:
		result, err = j.serve()
	default:
		result, err = j.train()
	}
	if err != nil {
		return err
	}
	if c.JSON {
		return json.NewEncoder(streams.Out).Encode(result)
	}
	return result.Write(streams.Out, c.Top)
}

func main() {
	cli.Main(new(command), "plan", "Say how a model may be split over GPUs: memory, traffic and time of every mapping, with the reason where one does not fit.\n\n"+
		rules())
}

// rules explains the words of --rules.
func rules() string {
	s := "Words of --rules:"
	for _, line := range sharding.Parts() {
		s += fmt.Sprintf("\n  %s", line)
	}
	return s
}
