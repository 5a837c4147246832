package serve

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	gx "github.com/gomlx/gomlx/core/graph"

	"mix/graph"
	"mix/lower"
)

// paged are the programs that run many sequences over one pool of keys and values. Their shapes are fixed:
// whatever the load is, a row is computed by the same program, and nothing is compiled while requests run.
//
// Axes: B rows, S tokens a row, C positions that a row can see, N positions of the pool, V token ids,
// L layers, K experts a token.
type paged struct {
	e               *Engine
	context         int // C
	positions       int // N
	decode, prefill *lower.Program
	scored          *lower.Program // prefill with the logits of every position
	copy            *lower.Program
	draw            map[drawing]*lower.Program
	kept            resident
	pool            []*lower.Buffer
}

// drawing is a form of the program that draws.
type drawing struct {
	rows   int
	ranked bool // by rank too, after biases and penalties
}

func (d drawing) String() string {
	if d.ranked {
		return fmt.Sprintf("draw_%d_ranked", d.rows)
	}
	return fmt.Sprintf("draw_%d", d.rows)
}

// newPaged compiles all programs and makes an empty pool. slots are B of decode, chunk is S of a prompt's part and size
// the block's, in positions.
func newPaged(ctx context.Context, e *Engine, slots, chunk, context, positions, size int) (_ *paged, err error) {
	all := &paged{e: e, context: context, positions: positions, draw: map[drawing]*lower.Program{}}
	defer func() {
		if err != nil {
			all.close()
		}
	}()
	if all.kept, err = e.pool(positions); err != nil {
		return nil, err
	}
	var mu sync.Mutex
	work := []func() error{
		func() (err error) { all.decode, err = all.forward("paged_decode", slots, 1, false); return err },
		func() (err error) { all.prefill, err = all.forward("paged_prefill", 1, chunk, false); return err },
		func() (err error) { all.scored, err = all.forward("paged_score", 1, chunk, true); return err },
		func() (err error) { all.copy, err = all.copying(size); return err },
	}
	for _, d := range []drawing{{slots, true}, {1, true}, {slots, false}, {1, false}} {
		work = append(work, func() error {
			program, err := all.drawing(d)
			mu.Lock()
			defer mu.Unlock()
			all.draw[d] = program
			return err
		})
	}
	if err := together(ctx, compilers, work); err != nil {
		return nil, err
	}
	all.pool, err = all.kept.empty(e.be, fmt.Sprintf("pool of %d positions", positions))
	return all, err
}

// compilers is how many programs are compiled at a time.
const compilers = 2

// together does all work, some of it at a time, in order. After an error, or the end of ctx, nothing more is
// begun. It returns the first error.
func together(ctx context.Context, atOnce int, work []func() error) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var next atomic.Int64
	var all sync.WaitGroup
	for range atOnce {
		all.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(work) {
					return
				}
				if err := work[i](); err != nil {
					stop(err)
				}
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

func (p *paged) close() {
	free(p.pool...)
	p.pool = nil
}

// forward takes tokens, positions and writes [B, S] and reads [B, C], all int32; where S > 1 and all is false the place
// [] int32 whose logits are wanted; then the pool. It returns logits, [B, V] of that place or, where all is true,
// [S, V] of every one; the experts [L, B·S, K] int32; and the pool.
func (p *paged) forward(name string, rows, tokens int, all bool) (*lower.Program, error) {
	name = fmt.Sprintf("%s_%d_%d_of_%d_%d", name, rows, tokens, p.context, p.positions)
	c := p.e.cfg
	return p.e.compile(name, p.kept.updated(2), func(g *gx.Graph, w graph.Weights) []*gx.Node {
		ints := func(name string, dims ...int) *gx.Node {
			return gx.Parameter(g, name, shapes.Make(dtypes.Int32, dims...))
		}
		in := graph.Paged{Tokens: ints("tokens", rows, tokens), Positions: ints("positions", rows, tokens),
			Write: ints("write", rows, tokens), Read: ints("read", rows, p.context)}
		var last *gx.Node // of the places of a row, the one whose logits are asked for
		if !all && tokens > 1 {
			last = ints("last")
		}
		pages := graph.DeclarePages(g, p.kept.pieces)
		r, after := graph.RunPaged(c, w, in, pages, graph.KeepRouter)
		hidden := r.Hidden // [B, S, D]
		if last != nil {
			zero := gx.Const(g, int32(0))
			hidden = gx.DynamicSlice(hidden, []*gx.Node{zero, last, zero}, []int{rows, 1, c.Width}) // [B, 1, D]
		}
		logits := gx.Reshape(graph.Logits(c, w, hidden), -1, c.Vocab) // [B, V] or [S, V]
		return append([]*gx.Node{logits, r.RouterChosen}, after.Nodes()...)
	})
}

// copying copies one block of the pool to another: from and to are positions [P] int32.
func (p *paged) copying(size int) (*lower.Program, error) {
	return p.e.compileWith(fmt.Sprintf("paged_copy_%d_of_%d", size, p.positions), p.kept.updated(0), nil, func(g *gx.Graph) []*gx.Node {
		from := gx.Parameter(g, "from", shapes.Make(dtypes.Int32, size))
		to := gx.Parameter(g, "to", shapes.Make(dtypes.Int32, size))
		pages := graph.DeclarePages(g, p.kept.pieces)
		return pages.Copy(from, to).Nodes()
	})
}

// drawing takes logits [B, V] and sampling, and returns the ids drawn, [B] int32. Ranked, it also takes what
// is added to the logits [B, V] float32, the tokens that were seen [B, V] uint8 and the repetition penalty
// [B] float32.
func (p *paged) drawing(d drawing) (*lower.Program, error) {
	return p.e.compileWith(d.String(), lower.ProgramOptions{}, nil, func(g *gx.Graph) []*gx.Node {
		floats := func(name string, dims ...int) *gx.Node {
			return gx.Parameter(g, name, shapes.Make(dtypes.Float32, dims...))
		}
		logits := floats("logits", d.rows, p.e.cfg.Vocab)
		s := graph.Sampling{Temperature: floats("temperature", d.rows), MinP: floats("min_p", d.rows),
			Seed: gx.Parameter(g, "seed", shapes.Make(dtypes.Uint32, d.rows, 2)), Step: gx.Parameter(g, "step", shapes.Make(dtypes.Int32, d.rows))}
		if d.ranked {
			s.TopK = gx.Parameter(g, "top_k", shapes.Make(dtypes.Int32, d.rows))
			s.TopP = floats("top_p", d.rows)
			added := floats("added", d.rows, p.e.cfg.Vocab)
			seen := gx.Parameter(g, "seen", shapes.Make(dtypes.Uint8, d.rows, p.e.cfg.Vocab))
			logits = graph.Penalize(logits, seen, floats("repetition", d.rows))
			logits = gx.Add(logits, added)
		}
		return []*gx.Node{graph.Sample(logits, s)}
	})
}
