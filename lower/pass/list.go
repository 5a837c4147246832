package pass

import (
	"fmt"
	"slices"
	"strings"
)

// list is the compiler, in the order it runs.
var list = []Pass{
	{
		Name: "constrain",
		Does: "turns the axis notes on activations into shardings of the mesh; on one device they mean nothing",
		Run:  constrain,
	},
	{
		Name: "pipeline",
		Does: "lays scans over layers and their gradients on the stages of the mesh: microbatches travel from stage to stage",
		Run:  pipeline,
	},
	{
		Name: "expert",
		Does: "spreads routed experts and their gradients over the mesh: rows travel to the devices of their experts",
		After: []After{
			{"constrain", "a note between a value and its use would hide what the value is"},
		},
		Run: expert,
	},
	{
		Name: "choose_experts",
		Does: "on CUDA, chooses the experts of each token and orders the rows for them in one kernel",
		After: []After{
			{"constrain", "a note between a value and its use would hide what the value is"},
			{"expert", "it spreads experts that order their rows themselves"},
		},
		Run: chooseExperts,
	},
	{
		Name: "routed_experts",
		Does: "puts the platform's form of mix.routed_experts and of its gradient in their place",
		After: []After{
			{"constrain", "a note between a value and its use would hide what the value is"},
			{"expert", "on a mesh the form of one device would compute all experts everywhere"},
			{"choose_experts", "its rule takes the order of rows from there"},
		},
		Run: routedExperts,
	},
	{
		Name: "grouped_gemm",
		Does: "puts the platform's form of mix.grouped_gemm and mix.grouped_outer in their place",
		After: []After{
			{"routed_experts", "the bodies that it replaces are made of grouped products"},
		},
		Run: groupedGEMM,
	},
	{
		Name: "attention",
		Does: "on CUDA, puts kernels that keep no scores in the place of mix.attention, its gradient and mix.paged_attention",
		After: []After{
			{"constrain", "a note between a value and its use would hide what the value is"},
		},
		Run: attention,
	},
	{
		Name: "store",
		Does: "keeps what a scan's layers compute for its gradient, where the scan says so",
		After: []After{
			{"expert", "what a forward pass keeps goes straight to its gradient there"},
			{"routed_experts", "kernels for both stand together there"},
			{"attention", "a forward kernel gives its gradient's sums where both stand together"},
		},
		Run: store,
	},
	{
		Name: "once",
		Does: "on CUDA, drops mix.once: one kernel reads a weight, its gradient and moments and writes all three",
		Run:  once,
	},
	{
		Name: "few_rows",
		Does: "on CUDA, puts kernels in the place of products of few rows by weights, which read each once, and of what lies between those",
		After: []After{
			{"routed_experts", "a norm adds up what the experts' kernels give"},
			{"attention", "queries that a kernel reads are then seen to be so"},
		},
		Run: fewRows,
	},
	{
		Name: "put_rows",
		Does: "writes mix.put_rows in place",
		After: []After{
			{"constrain", "a note on a pool would keep it from being written in place"},
			{"few_rows", "a kernel may fill the pool"},
		},
		Run: putRows,
	},
	{
		Name: "add_rows",
		Does: "on CUDA, adds rows to tables of zeros by sorting them, in a fixed order, in the place of scatters",
		Run:  addRows,
	},
	{
		Name: "one_row",
		Does: "turns products of a single row of bf16 around, on CUDA repeats the row, so that the matrix is read as it lies",
		After: []After{
			{"few_rows", "on CUDA its kernel is better where it may stand"},
			{"routed_experts", "its rule multiplies single rows"},
			{"grouped_gemm", "so may its rule"},
		},
		Run: oneRow,
	},
	{
		Name: "inline",
		Does: "on a mesh, puts bodies in the place of calls and of composites that no rule took",
		After: []After{
			{"constrain", "its notes are composites"},
			{"routed_experts", "its rule takes composites"},
			{"grouped_gemm", "so does its rule"},
			{"attention", "so do its rules"},
		},
		Run: inline,
	},
	{
		Name: "dots",
		Does: "on CUDA, multiplies bf16 and f16 that were widened to f32 as they were, and f32 exactly",
		After: []After{
			{"routed_experts", "it emits bodies' products of f32"},
			{"attention", "a kernel may take the product's place"},
			{"inline", "what was widened before a call is then seen in the body"},
		},
		Run: dots,
	},
	{
		Name: "dce",
		Does: "removes operations that nobody reads and functions that nobody calls",
		After: []After{
			{"constrain", "the notes' bodies have lost their callers"},
			{"routed_experts", "the replaced bodies have lost their callers"},
			{"dots", "what was widened for them has lost its readers"},
		},
		Run: dce,
	},
}

func init() {
	if err := ordered(list); err != nil {
		panic(err)
	}
}

// ordered checks that names are distinct and that every pass comes after those it names.
func ordered(passes []Pass) error {
	seen := map[string]bool{}
	for _, p := range passes {
		for _, a := range p.After {
			if !seen[a.Pass] {
				return fmt.Errorf("pass: %s must come after %s: %s", p.Name, a.Pass, a.Why)
			}
		}
		if seen[p.Name] {
			return fmt.Errorf("pass: %s is in the list twice", p.Name)
		}
		seen[p.Name] = true
	}
	return nil
}

// All lists the passes of the compiler in the order they run.
func All() []Pass { return slices.Clone(list) }

// Named finds passes of the list by name, in the order of names.
func Named(names ...string) ([]Pass, error) {
	var found []Pass
	for _, n := range names {
		i := slices.IndexFunc(list, func(p Pass) bool { return p.Name == n })
		if i < 0 {
			known := make([]string, len(list))
			for i, p := range list {
				known[i] = p.Name
			}
			return nil, fmt.Errorf("pass: no pass %q, known are %s", n, strings.Join(known, ", "))
		}
		found = append(found, list[i])
	}
	return found, nil
}
