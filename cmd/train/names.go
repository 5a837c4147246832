package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"mix/internal/cli"
)

// about says which flags an error of another package is about, by how it begins.
var about = []struct{ begins, flags string }{
	{"learning rate is", "--lr"}, {"least learning rate is", "--min-lr"}, {"warmup is", "--lr-warmup-iters"},
	{"decay is", "--lr-decay-style"}, {"decay ends at", "--lr-decay-iters, --lr-warmup-iters"}, {"decay takes", "--lr-wsd-decay-iters"},
	{"betas are", "--adam-beta1, --adam-beta2"}, {"epsilon is", "--adam-eps"}, {"weight decay is", "--weight-decay"},
	{"largest gradient norm is", "--clip-grad"}, {"load-balancing loss is", "--moe-aux-loss-type"},
	{"weight of the z-loss is", "--moe-z-loss-coeff"}, {"recomputation is", "--recompute-granularity"},
	{"rank is", "--lora-rank"}, {"alpha is", "--lora-alpha"}, {"unknown target", "--lora-targets"}, {"target", "--lora-targets"},
	{"device ", "--device"}, {"mesh ", "--mesh"},
}

// usage makes an error one of wrong usage that names its flags.
func usage(err error) error {
	text := err.Error()
	for _, prefix := range []string{cli.ErrUsage.Error() + ": ", "lora: "} {
		text = strings.TrimPrefix(text, prefix)
	}
	for _, a := range about {
		if strings.HasPrefix(text, a.begins) {
			text = a.flags + ": " + text
			break
		}
	}
	return fmt.Errorf("%w: %s", cli.ErrUsage, text)
}

// keys are the flags of what config.json calls otherwise.
var keys = strings.NewReplacer("vocab_size", "--vocab-size", "hidden_size", "--hidden-size", "intermediate_size", "--ffn-hidden-size",
	"num_hidden_layers", "--num-layers", "num_attention_heads", "--num-attention-heads", "num_key_value_heads", "--num-query-groups",
	"head_dim", "--kv-channels", "num_local_experts", "--num-experts", "num_experts_per_tok", "--moe-router-topk",
	"max_position_embeddings", "--max-position-embeddings", "rope_theta", "--rotary-base", "rms_norm_eps", "--norm-epsilon",
	"router_aux_loss_coef", "--moe-aux-loss-coeff", "initializer_range", "--init-method-std",
	"bos_token_id", "--vocab-size: bos_token_id", "eos_token_id", "--vocab-size: eos_token_id")

// sizesUsage is an error of graph.Config.Validate in the words of the flags.
func sizesUsage(err error) error {
	return fmt.Errorf("%w: %s", cli.ErrUsage, keys.Replace(strings.TrimPrefix(err.Error(), "config: ")))
}

// reason is why a file could not be opened, without its name.
func reason(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
