// Command opt runs named passes of the compiler on IR text.
package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"

	"mix/lower/ir"
	"mix/lower/pass"
)

type command struct {
	File   string   `arg:"" optional:"" help:"Module in MLIR's generic form. Default: standard input."`
	Pass   []string `help:"Passes to run, in this order, with commas between; all for the whole list. Default: none, the module is checked and printed."`
	List   bool     `help:"List the passes in the order the compiler runs them, with the reasons for it."`
	Target string   `default:"cpu" enum:"${platforms}" help:"Platform to compile for: ${enum}. Default: ${default}."`
	Mesh   string   `help:"Axes and sizes of the device mesh, as in \"data=1 expert=1\". Only one device is supported. Default: one device."`
	Verify bool     `default:"true" negatable:"" help:"Check the module before the first pass and after each that changed it. Default: on."`
}

// Run prints the rewritten module on out.
func (c *command) Run(out io.Writer) error {
	if c.List {
		return list(out)
	}
	err := oneDevice(c.Mesh)
	if err != nil {
		return err
	}
	passes := pass.All()
	if len(c.Pass) != 1 || c.Pass[0] != "all" {
		if passes, err = pass.Named(c.Pass...); err != nil {
			return err
		}
	}
	in := os.Stdin
	if c.File != "" {
		if in, err = os.Open(c.File); err != nil {
			return err
		}
		defer in.Close()
	}
	text, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	m, err := ir.Parse(string(text))
	if err != nil {
		return err
	}
	ctx := pass.Context{Platform: c.Target, Devices: 1}
	if _, err := pass.Run(m, ctx, passes, pass.Hooks{Verify: c.Verify}); err != nil {
		return err
	}
	_, err = io.WriteString(out, m.String())
	return err
}

// oneDevice refuses a mesh of several.
func oneDevice(mesh string) error {
	for _, field := range strings.Fields(mesh) {
		name, size, found := strings.Cut(field, "=")
		v, err := strconv.Atoi(size)
		if !found || name == "" || err != nil || v < 1 {
			return fmt.Errorf("mesh %q: %q, wanted axis=size", mesh, field)
		}
		if v > 1 {
			return fmt.Errorf("mesh %q: axis %s of %d devices, only one device is supported", mesh, name, v)
		}
	}
	return nil
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
	var c command
	k := kong.Parse(&c, kong.Name("opt"), kong.Description("Run passes of the compiler on IR text."),
		kong.Exit(func(code int) { os.Exit(min(code, 1) * 2) }), kong.Vars{"platforms": strings.Join(pass.Platforms, ",")},
		kong.BindTo(os.Stdout, (*io.Writer)(nil)))
	if err := k.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "opt:", err)
		os.Exit(1)
	}
}
