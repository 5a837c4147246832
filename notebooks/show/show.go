// Package show is what the notebook needs beside the packages that it explains: the embedded text and
// tokenizer, a live plot of the loss, a table of chosen experts, and the way of all these into a page.
//
//	train.Run → Loss → SVG ┐
//	serve.Trace → Choices → HTML ┴→ HTML, Update → gonb's pipe → Jupyter
package show

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/gomlx/compute/dtypes"

	"mix/graph"
	"mix/graph/token"
	"mix/internal/corpus"
	"mix/internal/demo"
	"mix/lower"
	"mix/serve"
	"mix/sharding/axis"
	"mix/train/store"
)

// Text is the embedded English text, a document each.
func Text() ([]string, error) { return corpus.Documents() }

// Tokenizer is the demo model's, of 2048 pieces.
func Tokenizer() (*token.Tokenizer, error) { return token.FromModel(demo.Tokenizer()) }

// Parameters counts the weights of a model, and those that one token goes through: K of the E experts.
func Parameters(c graph.Config) (all, used int) {
	for _, p := range graph.Params(c) {
		n := p.Elements()
		all += n
		if slices.Contains(p.Axes, axis.FFN) {
			n = n / c.Experts * c.TopK
		}
		used += n
	}
	return all, used
}

// Open loads the newest weights in the folder of a run onto the device, in float32. Close the engine after
// use.
func Open(ctx context.Context, be *lower.Backend, c graph.Config, dir string) (e *serve.Engine, err error) {
	s, err := store.Open(dir, store.Options{Params: graph.Params(c)})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	saved, err := s.Latest()
	if err != nil {
		return nil, err
	}
	if saved == nil {
		return nil, fmt.Errorf("folder %s has no weights, want those of a training run", dir)
	}
	defer saved.Close()
	weights, err := saved.Reader("")
	if err != nil {
		return nil, err
	}
	return serve.New(ctx, be, c, weights, serve.Options{DType: dtypes.Float32})
}
