// Command opt runs named passes of the compiler on IR text.
package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/alecthomas/kong"

	"mix/cmd/internal/flags"
	"mix/internal/cli"
	"mix/lower/ir"
	"mix/lower/pass"
	"mix/lower/target"
)

type command struct {
	flags.Device
	File   string   `arg:"" optional:"" help:"Module in MLIR's generic form. Default: standard input."`
	Pass   []string `help:"Passes to run, in this order, with commas between; all for the whole list. Default: none, the module is checked and printed."`
	List   bool     `help:"List the passes in the order the compiler runs them, with the reasons for it."`
	Target string   `default:"" enum:",${platforms}" help:"Platform to compile for: ${platforms}. Default: that of --device."`
	Rules  string   `placeholder:"WORDS" help:"How the mesh is used, words joined by +, as cmd/plan lists them. Default: every axis of the mesh."`
	Verify bool     `default:"true" negatable:"" help:"Check the module before the first pass and after each that changed it. Default: on."`
}

// Run prints the rewritten module.
func (c *command) Run(streams *cli.IO) error {
	if c.List {
		return list(streams.Out)
	}
	platform, err := c.Platform()
	if err != nil {
		return err
	}
	mesh, rules, err := c.Sharding(c.Rules)
	if err != nil {
		return err
	}
	if c.Target != "" {
		platform = c.Target
	}
	passes := pass.All()
	if len(c.Pass) != 1 || c.Pass[0] != "all" {
		if passes, err = pass.Named(c.Pass...); err != nil {
			return fmt.Errorf("%w: %w", cli.ErrUsage, err)
		}
	}
	in := streams.In
	if c.File != "" {
		f, err := os.Open(c.File)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	m, err := ir.Parse(string(text))
	if err != nil {
		return err
	}
	if _, err := pass.Run(m, pass.Context{Platform: platform, Mesh: mesh, Rules: rules}, passes, pass.Hooks{Verify: c.Verify}); err != nil {
		return err
	}
	_, err = io.WriteString(streams.Out, m.String())
	return err
}

func list(out io.Writer) error {
	var b strings.Builder
	for _, p := range pass.All() {
		fmt.Fprintf(&b, "%-16s %s\n", p.Name, p.Does)
		for _, a := range p.After {
			fmt.Fprintf(&b, "%-16s   after %s: %s\n", "", a.Pass, a.Why)
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func main() {
	cli.Main(new(command), "opt", "Run passes of the compiler on IR text.", platforms)
}

var platforms = kong.Vars{"platforms": strings.Join(target.Platforms(), ",")}
