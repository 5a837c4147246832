// Package pass holds the rewrites between the traced module and XLA, one a file, each with a golden
// file of the same name. The list with its order is in list.go.
package pass

import (
	"fmt"
	"maps"
	"slices"

	"mix/lower/ir"
	"mix/lower/target"
	"mix/sharding"
)

// Pass is one rewrite of a module, which it leaves valid.
type Pass struct {
	Name  string
	Does  string  // one line for cmd/opt --list
	After []After // passes that must come first

	// Run rewrites m and tells whether it changed anything. After an error m is not to be used.
	Run func(m *ir.Module, ctx Context) (changed bool, err error)
}

// After names a pass that must come first, and says why.
type After struct{ Pass, Why string }

// Context is what passes know of the target.
type Context struct {
	Platform string // one of target.Platforms
	Devices  int    // of a mesh that the trace brought along; 0 is one
	Mesh     sharding.Mesh
	Rules    sharding.Rules // what axis notes mean on Mesh
	Skip     []string       // names of passes that do not run
}

// Hooks watch a run.
type Hooks struct {
	// Verify checks the module before the first pass and after each that changed it.
	Verify bool
	// Changed, if not nil, is told of each pass that changed the module, before it is verified. It
	// answers with the file that it wrote the module to, "" for none; errors name that file.
	Changed func(name string, m *ir.Module) (file string, err error)
}

// Run applies passes in the order given and returns the names of those that changed the module.
// Errors name the pass and, if a hook wrote one, the file to look at.
func Run(m *ir.Module, ctx Context, passes []Pass, hooks Hooks) (changed []string, err error) {
	if err := ctx.check(); err != nil {
		return nil, err
	}
	if hooks.Verify {
		if err := ir.Verify(m); err != nil {
			return nil, fmt.Errorf("pass: the module is invalid before the first pass: %w", err)
		}
	}
	for _, p := range passes {
		if slices.Contains(ctx.Skip, p.Name) {
			continue
		}
		did, err := p.Run(m, ctx)
		if err != nil {
			return changed, fmt.Errorf("pass %s: %w", p.Name, err)
		}
		if !did {
			continue
		}
		changed = append(changed, p.Name)
		see := ""
		if hooks.Changed != nil {
			file, err := hooks.Changed(p.Name, m)
			if err != nil {
				return changed, fmt.Errorf("pass %s: %w", p.Name, err)
			}
			if file != "" {
				see = ", see " + file
			}
		}
		if hooks.Verify {
			if err := ir.Verify(m); err != nil {
				return changed, fmt.Errorf("pass %s left an invalid module%s: %w", p.Name, see, err)
			}
		}
	}
	return changed, nil
}

func (c Context) check() error {
	if _, err := target.Lookup(c.Platform); err != nil {
		return fmt.Errorf("pass: %w", err)
	}
	for _, s := range c.Skip {
		if _, err := Named(s); err != nil {
			return fmt.Errorf("skip: %w", err)
		}
	}
	return nil
}

// A rule emits the fast form of an operation and returns what stands for its results. It answers nil
// when it does not want this one, which then keeps its body.
type rule func(b ir.Builder, op *ir.Op) ([]*ir.Value, error)

// rules holds the fast forms, by composite and platform. A composite without a row is emitted as
// stablehlo.composite, and XLA inlines its body: that costs speed and never correctness.
var rules = map[string]map[string]rule{
	routedName:                {target.CPU: routedExpertsCPU, target.CUDA: routedExpertsCUDA},
	routedGradientName:        {target.CUDA: routedExpertsGradientCUDA},
	groupedGEMMName:           {target.CPU: groupedGEMMCPU, target.CUDA: groupedGEMMCUDA},
	groupedPairName:           {target.CUDA: groupedPairCUDA},
	groupedSwiGLUName:         {target.CUDA: groupedSwiGLUCUDA},
	groupedSwiGLUGradientName: {target.CUDA: groupedSwiGLUGradientCUDA},
	groupedOuterName:          {target.CPU: groupedOuterCPU, target.CUDA: groupedOuterCUDA},
	attentionName:             {target.CUDA: attentionCUDA},
	attentionGradientName:     {target.CUDA: attentionGradientCUDA},
	pagedAttentionName:        {target.CUDA: pagedAttentionCUDA},
}

// takeRules replaces every composite called one of names by its rule for the platform, if there is one.
func takeRules(m *ir.Module, ctx Context, names ...string) (changed bool, err error) {
	may := takeable(m, ctx)
	for _, name := range names {
		r := rules[name][ctx.Platform]
		if r == nil {
			continue
		}
		did, err := rewriteOps(m, name, func(op *ir.Op) bool { return composite(op) == name && may(op) }, r)
		if err != nil {
			return changed, err
		}
		changed = changed || did
	}
	return changed, nil
}

// rewrite replaces every composite called name, in any function and region, by what r emits.
func rewrite(m *ir.Module, name string, r rule) (changed bool, err error) {
	return rewriteOps(m, name, func(op *ir.Op) bool { return composite(op) == name }, r)
}

// rewriteOps replaces every operation that matches, in any function and region, by what r emits. name
// is what errors call them.
func rewriteOps(m *ir.Module, name string, matches func(op *ir.Op) bool, r rule) (changed bool, err error) {
	for _, f := range m.Funcs {
		by := map[*ir.Value]*ir.Value{}
		err := ir.WalkRegions(f.Body, func(region *ir.Region) error {
			i := slices.IndexFunc(region.Ops, matches)
			if i < 0 {
				return nil
			}
			out := &ir.Region{Ops: slices.Clone(region.Ops[:i])}
			for _, op := range region.Ops[i:] {
				var results []*ir.Value
				if matches(op) {
					if results, err = apply(r, ir.At(out), op); err != nil {
						return fmt.Errorf("@%s: %s: %w", f.Name, name, err)
					}
				}
				if results == nil {
					out.Add(op)
				}
				for i, v := range results {
					by[op.Results[i]] = v
				}
			}
			region.Ops = out.Ops
			return nil
		})
		if err != nil {
			return false, err
		}
		ir.ReplaceAll(f.Body, by)
		changed = changed || len(by) > 0
	}
	return changed, nil
}

// apply runs r on op and checks what comes back.
func apply(r rule, b ir.Builder, op *ir.Op) ([]*ir.Value, error) {
	results, err := r(b, op)
	if err != nil || results == nil {
		return nil, err
	}
	if got, want := ir.Types(results), ir.Types(op.Results); !slices.Equal(got, want) {
		return nil, fmt.Errorf("its rule gives %v, wanted %v", got, want)
	}
	return results, nil
}

// composite is the name of the composite that op calls, "" if it calls none.
func composite(op *ir.Op) string {
	if op.Name != "stablehlo.composite" {
		return ""
	}
	name, _ := op.Attrs["name"].Text()
	return name
}

// Rules lists the platforms that have a fast form, by composite.
func Rules() map[string][]string {
	all := map[string][]string{}
	for name, byPlatform := range rules {
		all[name] = slices.Sorted(maps.Keys(byPlatform))
	}
	return all
}
