package gpu

import (
	"context"
	"fmt"
	"slices"

	"github.com/gomlx/compute/dtypes"

	"mix/cmd/internal/programs"
	"mix/graph"
	"mix/lower/pjrt"
	"mix/train"
)

// Served is how fast the model answers.
type Served struct {
	What    string  `json:"what"` // decode or prefill
	Layers  int     `json:"layers"`
	Batch   int     `json:"batch"`   // sequences of decode, tokens of a chunk of prefill
	Context int     `json:"context"` // tokens before
	Seconds float64 `json:"seconds"` // of a run; tokens are not drawn in it
	Tokens  float64 `json:"tokens_per_second"`
	// Bytes are those that a run must read: weights but those of experts that nobody chose, keys and values.
	Bytes    float64 `json:"bytes"`
	OfMemory float64 `json:"of_memory_rate"` // Bytes a second over the chip's bandwidth; 0 when unknown
	OfPeak   float64 `json:"of_peak"`        // operations a second over the chip's
	Compile  float64 `json:"compile_seconds"`
}

func (s Served) String() string {
	return fmt.Sprintf("%s\t%d\t%d\t%d\t%.1f\t%.3f\t%s\t%s", s.What, s.Layers, s.Batch, s.Context, s.Tokens, 1e3*s.Seconds, percent(s.OfMemory), percent(s.OfPeak))
}

// load of serving.
type load struct {
	batches []int
	context int
	chunk   int
}

func (o Options) load() load {
	if o.Small {
		return load{[]int{1, 8}, 64, 32}
	}
	return load{[]int{1, 8, 32, 64}, 1024, 1024}
}

// serving runs decode at several batches and a chunk of prefill, on the weights of one model.
func (s *Session) serving(ctx context.Context) error {
	l := s.o.load()
	layers := s.o.Layers
	if layers == 0 {
		layers = 2
		if !s.o.Small {
			if s.d.Chip.Memory == 0 {
				return fmt.Errorf("the memory of %q is not known: say how many --layers", s.d.Kind)
			}
			layers = servingLayers(s.o.config, graph.Mixtral8x7B.Layers, l.batches[len(l.batches)-1]*(l.context+l.chunk), int64(share*float64(s.d.Chip.Memory)))
		}
	}
	var weights []*pjrt.Buffer
	defer func() { free(weights...) }()
	runs := make([]programs.Job, 0, len(l.batches)+1)
	for _, b := range l.batches {
		runs = append(runs, programs.Job{Program: "decode", Batch: b, Chunk: l.chunk})
	}
	runs = slices.Insert(runs, 1, programs.Job{Program: "prefill", Batch: 1, Chunk: l.chunk})
	for _, j := range runs {
		if ctx.Err() != nil {
			s.skip("serve", fmt.Sprintf("the time was up before %s of batch %d", j.Program, j.Batch))
			return nil
		}
		j.Model, j.DType, j.Seq = s.o.config(layers), dtypes.BFloat16, l.context
		row, err := s.served(ctx, j, &weights)
		if err != nil {
			return fmt.Errorf("%s of batch %d, %d layers: %w", j.Program, j.Batch, layers, err)
		}
		s.report.Serving = append(s.report.Serving, row)
		s.line("serving\t%s", row)
	}
	return nil
}

// served measures one program. The first makes the weights.
func (s *Session) served(ctx context.Context, j programs.Job, weights *[]*pjrt.Buffer) (row Served, err error) {
	row = Served{What: j.Program, Layers: j.Model.Layers, Batch: j.Batch, Context: j.Seq - 1}
	rows, tokens, start := j.Batch, 1, j.Seq-1
	if j.Program == "prefill" {
		row.Batch, row.Context = j.Chunk, 0
		rows, tokens, start = 1, j.Chunk, 0
	}
	r, err := s.load(ctx, j)
	if err != nil {
		return row, err
	}
	row.Compile = r.compile
	n := 0
	for n < len(r.p.Params) && !isInt(r.p.Params[n]) {
		n++
	}
	defer func() { r.close(n) }()
	if *weights == nil {
		if *weights, err = s.d.weights(r.p.Params[:n]); err != nil {
			return row, err
		}
	}
	if len(*weights) != n {
		return row, fmt.Errorf("program %s takes %d weights, want %d", r.name, n, len(*weights))
	}
	r.args = append(r.args, *weights...)
	if err := s.d.page(r, n, j.Model.Vocab, rows, tokens, start, j.Seq); err != nil {
		return row, err
	}
	if row.Seconds, err = r.time(4 * about); err != nil {
		return row, err
	}
	row.Tokens = float64(rows*tokens) / row.Seconds
	chosen, err := s.d.words(r.last[1]) // [L, B·S, K]
	if err != nil {
		return row, err
	}
	row.Bytes = bytesRead(j.Model, chosen, rows*(start+tokens))
	if chip := s.d.Chip; chip.Bandwidth > 0 && chip.BF16 > 0 {
		row.OfMemory = row.Bytes / row.Seconds / chip.Bandwidth
		row.OfPeak = train.FLOPs(j.Model, start+tokens) / 3 * row.Tokens / chip.BF16
	}
	return row, nil
}

// page makes the arguments after the weights: tokens, positions, writes and reads of rows that each have a part of the
// pool, the last place where there is one, and the pool.
func (d *Device) page(r *runner, from, vocab, rows, tokens, start, context int) error {
	fill := []func(i int) int{
		func(i int) int { return token(i, vocab) },
		func(i int) int { return start + i%tokens },
		func(i int) int { return i/tokens*context + start + i%tokens },
		func(i int) int { return i },
		func(int) int { return tokens - 1 },
	}
	ints := 0
	for _, t := range r.p.Params[from:] {
		var b *pjrt.Buffer
		var err error
		if isInt(t) {
			if ints == len(fill) {
				return fmt.Errorf("more than %d parameters of i32, want at most tokens, positions, writes, reads and last", len(fill))
			}
			b, err = d.ints(t, fill[ints])
			ints++
		} else {
			b, err = d.Random(t, int32(len(r.args)), 0, 1)
		}
		if err != nil {
			return err
		}
		r.args = append(r.args, b)
	}
	return nil
}

// bytesRead is what a run must read: the weights of the experts that were chosen, chosen being [L, rows, K], all other
// weights but the table of tokens, and keys and values of so many positions.
func bytesRead(c graph.Config, chosen []uint32, positions int) float64 {
	met := map[[2]int]bool{}
	each := len(chosen) / c.Layers
	for i, e := range chosen {
		met[[2]int{i / each, int(e)}] = true
	}
	expert := 2 * 3 * float64(c.Width) * float64(c.Hidden)
	all := float64(weightBytes(c)) - 2*float64(c.Vocab)*float64(c.Width)
	return all - expert*float64(c.Layers*c.Experts-len(met)) + float64(poolBytes(c, positions))
}
