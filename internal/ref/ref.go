// Package ref is Mixtral in plain Go loops over float64: the specification in a form that can be read, for
// tests of the graph and of what the compiler makes of it.
//
// Axes in comments: S positions of one sequence, C keys, D model width, V token ids, H query heads, G
// key/value heads, A width of a head, L layers, E experts, K experts a token, F hidden width of an expert.
// There is no batch: a batch is a loop over sequences.
package ref

import "math"

// Vector is a row of numbers; Matrix is rows, [out][in] when it multiplies.
type (
	Vector = []float64
	Matrix = []Vector
)

// Linear is w·x: w [N][M], x [M], y [N].
func Linear(w Matrix, x Vector) Vector {
	y := make(Vector, len(w))
	for n, row := range w {
		y[n] = dot(row, x)
	}
	return y
}

func dot(a, b Vector) float64 {
	var sum float64
	for i := range a {
		sum += a[i] * b[i]
	}
	return sum
}

// Softmax is exp(x)/Σexp(x); -Inf has probability 0.
func Softmax(x Vector) Vector {
	top := math.Inf(-1)
	for _, v := range x {
		top = max(top, v)
	}
	y := make(Vector, len(x))
	var sum float64
	for i, v := range x {
		y[i] = math.Exp(v - top)
		sum += y[i]
	}
	for i := range y {
		y[i] /= sum
	}
	return y
}

// SiLU is x·sigmoid(x).
func SiLU(x float64) float64 { return x / (1 + math.Exp(-x)) }

// RMSNorm divides x by the root of the mean of its squares plus eps, and multiplies by scale.
func RMSNorm(x, scale Vector, eps float64) Vector {
	root := math.Sqrt(dot(x, x)/float64(len(x)) + eps)
	y := make(Vector, len(x))
	for i := range x {
		y[i] = x[i] / root * scale[i]
	}
	return y
}

// Rotary turns the pairs (i, i+A/2) of one head x [A] by position·theta^(-2i/A).
func Rotary(x Vector, position int, theta float64) Vector {
	half := len(x) / 2
	y := make(Vector, len(x))
	for i := range half {
		sin, cos := math.Sincos(float64(position) * math.Pow(theta, -2*float64(i)/float64(len(x))))
		y[i], y[i+half] = x[i]*cos-x[i+half]*sin, x[i+half]*cos+x[i]*sin
	}
	return y
}

// Places says where queries and keys stand.
type Places struct {
	Query, Key                 []int // positions, [S] and [C]
	QuerySegments, KeySegments []int // nil when all is one segment
	Window                     int   // 0 for none
}

// Sees tells whether query s sees key c: not later, nearer than the window, of the same segment.
func (at Places) Sees(s, c int) bool {
	far := at.Query[s] - at.Key[c]
	if far < 0 || at.Window > 0 && far >= at.Window {
		return false
	}
	return at.QuerySegments == nil || at.QuerySegments[s] == at.KeySegments[c]
}

// Attention is softmax attention with scores q·k/√A.
//
//	q    [H][S][A]  query head h reads key head h·G/H
//	k, v [G][C][A]
//	y    [H][S][A]
func Attention(q, k, v []Matrix, at Places) []Matrix {
	y := make([]Matrix, len(q))
	for h := range q {
		g := h * len(k) / len(q)
		for s, query := range q[h] {
			scores := make(Vector, len(k[g]))
			for c, key := range k[g] {
				scores[c] = math.Inf(-1)
				if at.Sees(s, c) {
					scores[c] = dot(query, key) / math.Sqrt(float64(len(query)))
				}
			}
			sum := make(Vector, len(query))
			for c, p := range Softmax(scores) {
				for a := range sum {
					sum[a] += p * v[g][c][a]
				}
			}
			y[h] = append(y[h], sum)
		}
	}
	return y
}

// Route picks k experts for x [D] by router [E][D].
//
//	logits  [E]
//	weights [K] softmax over the chosen logits
//	chosen  [K] best first, ties to the lower id
func Route(x Vector, router Matrix, k int) (logits, weights Vector, chosen []int) {
	logits = Linear(router, x)
	taken := make([]bool, len(logits))
	for range k {
		best := -1
		for e, v := range logits {
			if !taken[e] && (best < 0 || v > logits[best]) {
				best = e
			}
		}
		taken[best] = true
		chosen, weights = append(chosen, best), append(weights, logits[best])
	}
	return logits, Softmax(weights), chosen
}

// Expert is one SwiGLU network.
type Expert struct {
	Gate, Up Matrix // [F][D]
	Down     Matrix // [D][F]
}

// Apply is down(silu(gate(x))·up(x)).
func (e Expert) Apply(x Vector) Vector {
	gate, up := Linear(e.Gate, x), Linear(e.Up, x)
	for f := range up {
		up[f] *= SiLU(gate[f])
	}
	return Linear(e.Down, up)
}

// RoutedExperts is Σ weights[i]·experts[chosen[i]](x).
func RoutedExperts(x Vector, experts []Expert, weights Vector, chosen []int) Vector {
	y := make(Vector, len(x))
	for i, e := range chosen {
		for d, v := range experts[e].Apply(x) {
			y[d] += weights[i] * v
		}
	}
	return y
}
