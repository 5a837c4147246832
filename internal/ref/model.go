package ref

// Model is a whole Mixtral.
type Model struct {
	TopK, Window int
	Theta, Eps   float64
	Embed        Matrix // [V][D]
	Layers       []Layer
	FinalNorm    Vector // [D]
	Head         Matrix // [V][D], Embed itself when embeddings are tied
}

// Layer is the weights of one decoder layer.
type Layer struct {
	AttnNorm   Vector   // [D]
	Query      []Matrix // [H][A][D]
	Key, Value []Matrix // [G][A][D]
	Out        Matrix   // [D][H·A]
	MoENorm    Vector   // [D]
	Router     Matrix   // [E][D]
	Experts    []Expert // [E]
}

// Sizes are what New needs to cut flat weights.
type Sizes struct{ Vocab, Width, Hidden, Layers, Heads, KVHeads, HeadDim, Experts int }

// New cuts the weights, row-major and whole as the model's catalogue has them, into a Model. at gives the
// weight of a path of the catalogue; no weight at "head" ties the embeddings.
func New(z Sizes, at func(path string) []float32) Model {
	cut := func(path string) *cutter { return &cutter{at(path)} }
	m := Model{Embed: cut("embed").matrix(z.Vocab, z.Width), FinalNorm: cut("final_norm").vector(z.Width)}
	if m.Head = m.Embed; len(at("head")) > 0 {
		m.Head = cut("head").matrix(z.Vocab, z.Width)
	}
	attnNorm, moeNorm, router := cut("layers/attn_norm"), cut("layers/moe_norm"), cut("layers/moe/router")
	query, key, value, out := cut("layers/attn/query"), cut("layers/attn/key"), cut("layers/attn/value"), cut("layers/attn/out")
	gate, up, down := cut("layers/moe/gate"), cut("layers/moe/up"), cut("layers/moe/down")
	for range z.Layers {
		l := Layer{AttnNorm: attnNorm.vector(z.Width), MoENorm: moeNorm.vector(z.Width), Router: router.matrix(z.Experts, z.Width),
			Out: out.matrix(z.Width, z.Heads*z.HeadDim)}
		for range z.Heads {
			l.Query = append(l.Query, query.matrix(z.HeadDim, z.Width))
		}
		for range z.KVHeads {
			l.Key, l.Value = append(l.Key, key.matrix(z.HeadDim, z.Width)), append(l.Value, value.matrix(z.HeadDim, z.Width))
		}
		for range z.Experts {
			l.Experts = append(l.Experts, Expert{gate.matrix(z.Hidden, z.Width), up.matrix(z.Hidden, z.Width), down.matrix(z.Width, z.Hidden)})
		}
		m.Layers = append(m.Layers, l)
	}
	return m
}

// cutter takes vectors and matrices off the front of a flat weight.
type cutter struct{ left []float32 }

func (c *cutter) vector(n int) Vector {
	v := Vec(c.left[:n])
	c.left = c.left[n:]
	return v
}

func (c *cutter) matrix(n, m int) Matrix {
	rows := make(Matrix, n)
	for i := range rows {
		rows[i] = c.vector(m)
	}
	return rows
}

// Vec widens numbers.
func Vec(x []float32) Vector {
	v := make(Vector, len(x))
	for i := range x {
		v[i] = float64(x[i])
	}
	return v
}

// Trace is what one layer computed on the way, [S] rows each.
type Trace struct {
	AttnOut, MoEOut Matrix  // [S][D] before the residual
	Hidden          Matrix  // [S][D] after the layer
	Logits, Weights Matrix  // [S][E], [S][K] of the router
	Chosen          [][]int // [S][K]
}

// Apply runs one layer over x [S][D].
func (m Model) Apply(l Layer, x Matrix, at Places) (tr Trace) {
	q, k, v := make([]Matrix, len(l.Query)), make([]Matrix, len(l.Key)), make([]Matrix, len(l.Value))
	for s := range x {
		normal := RMSNorm(x[s], l.AttnNorm, m.Eps)
		for h := range q {
			q[h] = append(q[h], Rotary(Linear(l.Query[h], normal), at.Query[s], m.Theta))
		}
		for g := range k {
			k[g] = append(k[g], Rotary(Linear(l.Key[g], normal), at.Key[s], m.Theta))
			v[g] = append(v[g], Linear(l.Value[g], normal))
		}
	}
	heads := Attention(q, k, v, at)
	for s := range x {
		var row Vector // [H·A]
		for h := range heads {
			row = append(row, heads[h][s]...)
		}
		attn := Linear(l.Out, row)
		mid := add(x[s], attn)
		normal := RMSNorm(mid, l.MoENorm, m.Eps)
		logits, weights, chosen := Route(normal, l.Router, m.TopK)
		moe := RoutedExperts(normal, l.Experts, weights, chosen)
		tr.AttnOut, tr.MoEOut, tr.Hidden = append(tr.AttnOut, attn), append(tr.MoEOut, moe), append(tr.Hidden, add(mid, moe))
		tr.Logits, tr.Weights, tr.Chosen = append(tr.Logits, logits), append(tr.Weights, weights), append(tr.Chosen, chosen)
	}
	return tr
}

func add(a, b Vector) Vector {
	y := make(Vector, len(a))
	for i := range a {
		y[i] = a[i] + b[i]
	}
	return y
}

// Forward runs one sequence of tokens [S] whose first stands at position start; segments may be nil. It
// gives the logits [S][V] and the traces of the layers [L].
func (m Model) Forward(tokens []int32, start int, segments []int) (logits Matrix, traces []Trace) {
	at := Places{QuerySegments: segments, KeySegments: segments, Window: m.Window}
	var x Matrix
	for s, id := range tokens {
		x = append(x, m.Embed[id])
		at.Query = append(at.Query, start+s)
	}
	at.Key = at.Query
	for _, l := range m.Layers {
		traces = append(traces, m.Apply(l, x, at))
		x = traces[len(traces)-1].Hidden
	}
	for _, row := range x {
		logits = append(logits, Linear(m.Head, RMSNorm(row, m.FinalNorm, m.Eps)))
	}
	return logits, traces
}
