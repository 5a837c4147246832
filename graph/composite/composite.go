// Package composite declares the operations that the compiler may replace.
//
// A composite is a named graph function whose body is its meaning: run as written it is right and slow.
// lower/pass knows the names and puts the fast form in their place. Autodiff never looks inside: each
// composite answers with its own gradient, registered here by name.
//
// A name in the graph reads mix.<composite>(<key>=<value>;…).<number>; the compiler sees composite and
// attributes, the number only keeps names apart.
package composite

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unsafe"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
)

// Names of the composites, as lower/pass sees them.
const (
	GroupedGEMMName           = "mix.grouped_gemm"
	GroupedOuterName          = "mix.grouped_outer"
	RouteName                 = "mix.route"
	RoutedExpertsName         = "mix.routed_experts"
	RoutedExpertsGradientName = "mix.routed_experts_gradient"
	AttentionName             = "mix.attention"
	AttentionGradientName     = "mix.attention_gradient"
	PagedAttentionName        = "mix.paged_attention"
	PutRowsName               = "mix.put_rows"
	ConstrainName             = "mix.constrain"
	ScanName                  = "mix.scan"
	ScanGradientName          = "mix.scan_gradient"
	LayerName                 = "mix.layer"
	LayerGradientName         = "mix.layer_gradient"
	RecomputeName             = "mix.recompute"
	OnceName                  = "mix.once"
)

// Names lists the composites.
var Names = []string{GroupedGEMMName, GroupedOuterName, RouteName, RoutedExpertsName, RoutedExpertsGradientName, AttentionName, AttentionGradientName, PagedAttentionName, PutRowsName, ConstrainName, ScanName, ScanGradientName, LayerName, LayerGradientName, RecomputeName, OnceName}

// attrs are the attributes of a composite, in the order in which they are written.
type attrs [][2]string

func (a attrs) String() string {
	if len(a) == 0 {
		return ""
	}
	s := make([]string, len(a))
	for i, kv := range a {
		s[i] = kv[0] + "=" + kv[1]
	}
	return "(" + strings.Join(s, ";") + ")"
}

// vjp maps a call's inputs, outputs' gradients and attached state to one gradient an input; nil for none.
type vjp func(in, dys []*Node, state any) []*Node

// gradients is the table of the composites' gradients. A composite with no row is refused by autodiff.
var gradients map[string]vjp

// The table refers to functions that make calls, which refer to the table.
func init() {
	gradients = map[string]vjp{
		GroupedGEMMName:   groupedGEMMVJP,
		RouteName:         routeVJP,
		RoutedExpertsName: routedExpertsVJP,
		AttentionName:     attentionVJP,
		ConstrainName:     constrainVJP,
		ScanName:          scanVJP,
		RecomputeName:     recomputeVJP,
	}
	VJPRegistration[NodeTypeCall] = func(node *Node, dys []*Node, _ shapes.Shape) []*Node {
		full := calledName(node)
		f := gradients[base(full)]
		if f == nil {
			panic(fmt.Errorf("composite: no gradient for a call of %s", full))
		}
		return f(node.Inputs(), dys, node.Graph().State(stateKey(full)))
	}
}

// counter numbers the composites of a graph.
type counter struct{}

// stateKey finds what a composite keeps for its gradient, by the name of its function.
type stateKey string

// calledName is the function that a call node calls.
func calledName(node *Node) string {
	_, s, called := strings.Cut(node.String(), " Call(")
	if i := strings.Index(s, " inputs)"); called && i >= 0 {
		if j := strings.LastIndex(s[:i], ", "); j >= 0 {
			return s[:j]
		}
	}
	panic(fmt.Errorf("composite: cannot read the callee of %s", node))
}

// base is the composite's name in the name of its function.
func base(full string) string {
	name, _, attributed := strings.Cut(full, "(")
	if !attributed {
		name = name[:max(strings.LastIndex(name, "."), 0)]
	}
	return name
}

// call declares a composite over inputs and calls it. The body sees parameters of the inputs' shapes.
// state is kept for the composite's gradient; nil for none.
func call(name string, as attrs, inputs []*Node, state any, body func(in []*Node) []*Node) []*Node {
	g := inputs[0].Graph()
	n, _ := g.State(counter{}).(int)
	g.AttachState(counter{}, n+1)
	full := fmt.Sprintf("%s%s.%d", name, as, n)
	f := NewFunction(g, full, func(g *Graph) []*Node {
		return isolated(g, func() []*Node { return body(parameters(g, inputs)) })
	})
	if state != nil {
		g.AttachState(stateKey(full), state)
	}
	return f.Call(inputs...)
}

// parameters declares a parameter of the current function for each of like.
func parameters(g *Graph, like []*Node) []*Node {
	ps := make([]*Node, len(like))
	for i, n := range like {
		ps[i] = Parameter(g, fmt.Sprintf("p%d", i), n.Shape())
	}
	return ps
}

// isolated runs f with an empty scalar cache. GoMLX keeps one cache for the graph: a scalar that was
// made first in one function would be handed out in another, where it is out of scope.
func isolated(g *Graph, f func() []*Node) []*Node {
	field := reflect.ValueOf(g).Elem().FieldByName("scalars")
	if field.Kind() != reflect.Map {
		panic(fmt.Errorf("composite: this version of GoMLX has no map Graph.scalars, want v0.28.8"))
	}
	cache := reflect.NewAt(field.Type(), unsafe.Pointer(field.UnsafeAddr())).Elem()
	saved := reflect.ValueOf(cache.Interface())
	cache.Set(reflect.MakeMap(field.Type()))
	defer cache.Set(saved)
	return f()
}

// throughBody is the gradient of a composite by differentiating its body in place: for each input that
// is a float, Σ dy·∂y/∂input.
func throughBody(in, dys []*Node, body func(in []*Node) []*Node) []*Node {
	leaves := make([]*Node, len(in)) // an input may depend on another: gradients stop at their copies
	for i, x := range in {
		leaves[i] = Identity(x)
	}
	ys := body(leaves)
	var sum *Node
	for i, y := range ys {
		if dys[i] == nil || !y.DType().IsFloat() {
			continue
		}
		// Only its derivative is used, dy itself; float32 lets outputs of several dtypes add up.
		s := ConvertDType(ReduceAllSum(Mul(y, StopGradient(dys[i]))), dtypes.Float32) // scalar
		if sum == nil {
			sum = s
		} else {
			sum = Add(sum, s)
		}
	}
	var floats []*Node
	for _, x := range leaves {
		if x.DType().IsFloat() {
			floats = append(floats, x)
		}
	}
	if sum == nil { // no output has a gradient
		sum = Const(in[0].Graph(), float32(0))
	}
	dxs := slices.Clone(Gradient(sum, floats...))
	out := make([]*Node, len(in))
	for i, x := range in {
		if x.DType().IsFloat() {
			out[i], dxs = dxs[0], dxs[1:]
		}
	}
	return out
}
