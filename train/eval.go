package train

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"

	"mix/graph/token"
	"mix/lower"
	"mix/sharding/axis"
	"mix/train/data"
	"mix/train/report"
)

// evaluator measures the loss of held-out samples, always the same ones, and writes texts.
type evaluator struct {
	loss    *lower.Program
	next    *lower.Program // nil without prompts
	prompts [][]int32
	length  int     // tokens of a text, prompt included
	last    float64 // loss, NaN before the first evaluation
}

func newEvaluator(r *run, p programs) (e *evaluator, err error) {
	if r.Data.Valid == nil {
		return nil, fmt.Errorf("an evaluation every %d steps, and no validation data", r.EvalEvery)
	}
	e = &evaluator{last: math.NaN()}
	if e.loss, err = p.evaluate(); err != nil {
		return nil, err
	}
	if r.Tokenizer == nil || r.SampleTokens == 0 || len(r.Prompts) == 0 {
		return e, nil
	}
	for _, text := range r.Prompts {
		ids, err := r.Tokenizer.Encode(text, token.EncodeOptions{BOS: true})
		if err != nil {
			return nil, fmt.Errorf("prompt %q: %w", text, err)
		}
		if len(ids) >= r.Model.Context {
			return nil, fmt.Errorf("prompt %q has %d tokens, want less than the model's context, %d", text, len(ids), r.Model.Context)
		}
		e.prompts = append(e.prompts, ids)
		e.length = max(e.length, min(r.Model.Context, len(ids)+r.SampleTokens))
	}
	if e.next, err = p.next(e.length); err != nil {
		return nil, err
	}
	return e, nil
}

func (e *evaluator) close() {
	e.loss.Finalize()
	if e.next != nil {
		e.next.Finalize()
	}
}

// evaluate tells the report of the state's loss and of its texts.
func (r *run) evaluate(ctx context.Context) error {
	start := time.Now()
	size := axis.Count(r.m.evalDims())
	batches, err := data.NewLoader(ctx, r.Data.Valid, data.LoaderOptions{Batch: size, Segments: r.Data.Segments, Positions: r.Data.Positions})
	if err != nil {
		return fmt.Errorf("validation data: %w", err)
	}
	defer batches.Close()
	var sum, count float64
	for range max(1, min(r.EvalBatches*r.Micro, r.Data.EvalSamples)/size) { // a small part is not gone over twice
		b, err := batches.Next()
		if ctx.Err() != nil {
			return nil // the loop sees it too
		}
		if err != nil {
			return fmt.Errorf("validation data: %w", err)
		}
		s, n, err := r.lossOf(b)
		if err != nil {
			return err
		}
		sum, count = sum+s, count+n
	}
	loss := sum / max(count, 1)
	x := report.Eval{Step: r.at.Step, Loss: loss, Perplexity: math.Exp(loss)}
	finite := !math.IsNaN(loss) && !math.IsInf(loss, 0)
	x.Best = finite && (r.at.Best == nil || loss < *r.at.Best)
	if r.Data.BytesPerToken > 0 {
		x.BitsPerByte = loss / math.Ln2 / r.Data.BytesPerToken
	}
	for i, prompt := range r.eval.prompts {
		text, err := r.write(ctx, prompt, uint32(i))
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
		x.Samples = append(x.Samples, report.Sample{Prompt: r.Prompts[i], Text: text})
	}
	x.Seconds = time.Since(start).Seconds()
	if x.Best {
		r.at.Best = &loss
	}
	r.eval.last, r.at.Judged = loss, r.at.Step
	if finite {
		r.scored = loss
	}
	r.told(r.Report.Eval(x))
	return nil
}

// lossOf is the loss of a microbatch, summed over its labels, and how many they are.
func (r *run) lossOf(b data.Batch) (sum, count float64, err error) {
	inputs, err := r.upload(b, r.m.evalDims()...)
	if err != nil {
		return 0, 0, err
	}
	defer free(inputs)
	outs, err := r.eval.loss.Run(append(r.dev.weights(), inputs...)...)
	if err != nil {
		return 0, 0, err
	}
	defer outs[0].Finalize()
	var v [2]float32
	err = outs[0].ToFlatData(v[:])
	return float64(v[0]), float64(v[1]), err
}

// write continues a prompt. The draws depend on the run's seed and the prompt's number alone.
func (r *run) write(ctx context.Context, prompt []int32, number uint32) (string, error) {
	stream := r.Tokenizer.StreamAfter(prompt)
	tokens := make([]int32, r.eval.length)
	n := copy(tokens, prompt)
	seed, err := r.Backend.Upload(shapes.Make(dtypes.Uint32, 1, 2), []uint32{uint32(r.Seed), number})
	if err != nil {
		return "", err
	}
	defer seed.Finalize()
	text := ""
	for ; n < min(len(tokens), len(prompt)+r.SampleTokens) && ctx.Err() == nil; n++ {
		id, err := r.draw(tokens, n-1, seed)
		if err != nil {
			return "", err
		}
		if id == r.Tokenizer.EOS() {
			break
		}
		tokens[n] = id
		text += stream.Push(id)
	}
	return text + stream.Flush(), nil
}

// draw is the id after tokens[at].
func (r *run) draw(tokens []int32, at int, seed *lower.Buffer) (int32, error) {
	x, err := r.Backend.Upload(shapes.Make(dtypes.Int32, 1, len(tokens)), tokens)
	if err != nil {
		return 0, err
	}
	defer x.Finalize()
	place, err := r.Backend.Upload(shapes.Make(dtypes.Int32), []int32{int32(at)})
	if err != nil {
		return 0, err
	}
	defer place.Finalize()
	outs, err := r.eval.next.Run(append(r.dev.weights(), x, place, seed)...)
	if err != nil {
		return 0, err
	}
	defer outs[0].Finalize()
	var id [1]int32
	err = outs[0].ToFlatData(id[:])
	return id[0], err
}
