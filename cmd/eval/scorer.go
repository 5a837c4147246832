package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/gomlx/compute/dtypes"

	"mix/serve"
	"mix/sharding/ckpt"
)

// scorer runs one sequence after the other, as the writer of a file asks for them, and holds the answer of
// one only: logits of a long sequence are large.
type scorer struct {
	ctx       context.Context
	e         *serve.Engine
	sequences [][]int32

	at     int // the sequence that last belongs to, -1 at first
	traced bool
	last   serve.Score

	counted int // sequences that are in loss
	loss    float64
	tokens  int           // losses taken
	ran     int           // tokens through the model
	took    time.Duration // without compiling
}

func newScorer(ctx context.Context, e *serve.Engine, sequences [][]int32) *scorer {
	return &scorer{ctx: ctx, e: e, sequences: sequences, at: -1}
}

// score runs sequence i, unless it ran last.
func (s *scorer) score(i int, trace bool) (serve.Score, error) {
	if s.at == i && s.traced == trace {
		return s.last, nil
	}
	began := time.Now()
	run := s.e.Score
	if trace {
		run = s.e.ScoreTrace
	}
	r, err := run(s.ctx, s.sequences[i])
	if err != nil {
		return r, fmt.Errorf("sequence %d: %w", i, err)
	}
	s.at, s.traced, s.last = i, trace, r
	s.ran += len(s.sequences[i])
	s.took += time.Since(began)
	if i == s.counted {
		s.counted++
		s.loss += r.Loss
		s.tokens += r.Tokens
	}
	return r, nil
}

// prepare compiles what all sequences need, before any file is begun.
func (s *scorer) prepare(trace bool) error {
	for i, ids := range s.sequences {
		if err := errors.Join(s.ctx.Err(), s.e.PrepareScore(len(ids), trace)); err != nil {
			return fmt.Errorf("sequence %d: %w", i, err)
		}
	}
	return nil
}

// all runs every sequence.
func (s *scorer) all() error {
	if err := s.prepare(false); err != nil {
		return err
	}
	for i := range s.sequences {
		if _, err := s.score(i, false); err != nil {
			return err
		}
	}
	return nil
}

// writeLogits writes logits.N of every sequence N.
func (s *scorer) writeLogits(path string) error {
	if err := s.prepare(false); err != nil {
		return err
	}
	var ts []ckpt.Tensor
	for i := range s.sequences {
		ts = append(ts, s.logits(i, false))
	}
	return ckpt.WriteFile(path, ts, map[string]string{"format": "pt"})
}

// writeTrace writes of every sequence N logits.N, hidden.embed.N, hidden.final_norm.N, and of every layer L
// hidden.layerL.N, attn_out.layerL.N, moe_out.layerL.N, router.logits.layerL.N, router.weights.layerL.N and
// router.experts.layerL.N.
func (s *scorer) writeTrace(path string) error {
	if err := s.prepare(true); err != nil {
		return err
	}
	var ts []ckpt.Tensor
	c := s.e.Config()
	for i, ids := range s.sequences {
		n := len(ids)
		add := func(name string, dtype dtypes.DType, width int, pick func(*serve.Trace) serve.Array) {
			ts = append(ts, s.tensor(i, true, fmt.Sprintf("%s.%d", name, i), dtype, n, width, func(x serve.Score) serve.Array { return pick(x.Trace) }))
		}
		ts = append(ts, s.logits(i, true))
		add("hidden.embed", dtypes.Float32, c.Width, func(t *serve.Trace) serve.Array { return t.Embedded })
		add("hidden.final_norm", dtypes.Float32, c.Width, func(t *serve.Trace) serve.Array { return t.FinalNorm })
		for l := range c.Layers {
			for _, k := range []struct {
				name  string
				dtype dtypes.DType
				width int
				pick  func(*serve.Trace) []serve.Array
			}{
				{"hidden", dtypes.Float32, c.Width, func(t *serve.Trace) []serve.Array { return t.Layers }},
				{"attn_out", dtypes.Float32, c.Width, func(t *serve.Trace) []serve.Array { return t.AttnOut }},
				{"moe_out", dtypes.Float32, c.Width, func(t *serve.Trace) []serve.Array { return t.MoEOut }},
				{"router.logits", dtypes.Float32, c.Experts, func(t *serve.Trace) []serve.Array { return t.RouterLogits }},
				{"router.weights", dtypes.Float32, c.TopK, func(t *serve.Trace) []serve.Array { return t.RouterWeights }},
				{"router.experts", dtypes.Int32, c.TopK, func(t *serve.Trace) []serve.Array { return t.RouterChosen }},
			} {
				add(fmt.Sprintf("%s.layer%d", k.name, l), k.dtype, k.width, func(t *serve.Trace) serve.Array { return k.pick(t)[l] })
			}
		}
	}
	return ckpt.WriteFile(path, ts, map[string]string{"format": "pt"})
}

func (s *scorer) logits(i int, trace bool) ckpt.Tensor {
	return s.tensor(i, trace, fmt.Sprintf("logits.%d", i), dtypes.Float32, len(s.sequences[i]), s.e.Config().Vocab,
		func(x serve.Score) serve.Array { return x.Logits })
}

// tensor is a tensor of sequence i, computed when it is written.
func (s *scorer) tensor(i int, trace bool, name string, dtype dtypes.DType, rows, width int, pick func(serve.Score) serve.Array) ckpt.Tensor {
	return ckpt.Tensor{Name: name, DType: dtype, Shape: []int{rows, width}, Write: func(w io.Writer) error {
		x, err := s.score(i, trace)
		if err != nil {
			return err
		}
		a := pick(x)
		if dtype == dtypes.Int32 {
			return binary.Write(w, binary.LittleEndian, a.Ints)
		}
		return ckpt.Float32Tensor(name, a.Dims, a.Floats).Write(w)
	}}
}
