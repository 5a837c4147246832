package infer

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestValidate(t *testing.T) {
	m := Model{Vocab: 10, Context: 8}
	nan := float32(math.NaN())
	for _, tt := range []struct {
		name   string
		change func(r *Request)
		want   string // "" for none
	}{
		{"as it is", func(*Request) {}, ""},
		{"no penalty by 0", func(r *Request) { r.Sampling.Repetition = 0 }, ""},
		{"no prompt", func(r *Request) { r.Prompt = nil }, "the prompt has no tokens"},
		{"a prompt that fills the context", func(r *Request) { r.Prompt = make([]int32, 8) }, "8 tokens in the prompt and 2 to generate, the context is 8"},
		{"the same, only scored", func(r *Request) { r.Prompt, r.Max = make([]int32, 8), 0 }, ""},
		{"a token outside", func(r *Request) { r.Prompt = []int32{1, 10} }, "token 1 of the prompt is 10, want 0 to 9"},
		{"more tokens at least than at most", func(r *Request) { r.Min = 3 }, "3 to 2 tokens"},
		{"temperature", func(r *Request) { r.Sampling.Temperature = nan }, "temperature is NaN"},
		{"top-k", func(r *Request) { r.Sampling.TopK = -1 }, "top-k is -1"},
		{"top-p", func(r *Request) { r.Sampling.TopP = 0 }, "top-p is 0"},
		{"min-p", func(r *Request) { r.Sampling.MinP = 1 }, "min-p is 1"},
		{"repetition", func(r *Request) { r.Sampling.Repetition = -1 }, "repetition penalty is -1"},
		{"presence", func(r *Request) { r.Sampling.Presence = 3 }, "presence penalty is 3"},
		{"frequency", func(r *Request) { r.Sampling.Frequency = nan }, "frequency penalty is NaN"},
		{"a bias", func(r *Request) { r.Sampling.Bias = map[int32]float32{3: 101} }, "bias of token 3 is 101"},
		{"a bias of a token outside", func(r *Request) { r.Sampling.Bias = map[int32]float32{10: 1} }, "bias of token 10, want 0 to 9"},
		{"log probabilities", func(r *Request) { r.LogProbs = MaxLogProbs + 1 }, "21 and -1 log probabilities"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := Request{Prompt: []int32{1, 2}, Max: 2, Sampling: Greedy(), LogProbs: -1, PromptLogProbs: -1}
			tt.change(&r)
			err := r.Validate(m)
			if tt.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tt.want)
		})
	}
}
