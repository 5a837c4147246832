// Package cli is what all commands share: flags by kong, exit codes, signals, progress on stderr.
//
// A command's type holds its flags and has a Run method, which may take a context.Context (cancelled by
// SIGINT and SIGTERM) and an *IO. Exit codes: 0 for success, 1 for an error (one line on stderr), 2 for
// wrong usage, 130 where a signal stopped the work.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"reflect"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
)

// IO are the streams of a command: results go to Out, everything else to Err.
type IO struct {
	In       io.Reader
	Out, Err io.Writer
}

// ErrUsage is wrapped by errors that a command finds in its own flags: exit code 2.
var ErrUsage = errors.New("usage")

// grace is how long an interrupted command may take to put things in order.
const grace = 3 * time.Second

// Main runs a command with the process's arguments and exits.
func Main(command any, name, description string, options ...kong.Option) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, func() {
		stop() // a second signal ends the process at once
		// XLA compiles and runs without asking whether anybody still waits.
		time.Sleep(grace)
		os.Exit(130)
	})
	code := Run(ctx, command, name, description, os.Args[1:],
		IO{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, options...)
	stop()
	os.Exit(code)
}

// Run parses args into command, runs it and returns the exit code.
func Run(ctx context.Context, command any, name, description string, args []string, streams IO, options ...kong.Option) (code int) {
	exited := -1
	parser, err := kong.New(command, append(options, kong.Name(name), kong.Description(description),
		kong.WithHyphenPrefixedParameters(true), kong.KindMapper(reflect.String, kong.MapperFunc(text)), kong.Writers(streams.Out, streams.Err), kong.Exit(func(c int) { exited = c }),
		kong.BindTo(ctx, (*context.Context)(nil)), kong.Bind(&streams))...)
	if err != nil {
		fmt.Fprintf(streams.Err, "%s: %v\n", name, err)
		return 2
	}
	k, err := parser.Parse(args)
	if exited >= 0 { // --help
		return exited
	}
	if err != nil {
		fmt.Fprintf(streams.Err, "%s: %s\n", name, line(err))
		return 2
	}
	err = k.Run()
	switch {
	case err == nil:
		return 0
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return 130
	}
	fmt.Fprintf(streams.Err, "%s: %s\n", name, line(err))
	if errors.Is(err, ErrUsage) {
		return 2
	}
	return 1
}

// text takes a flag's value as it is. Kong's own way replaces what is not UTF-8. Where values may begin with
// hyphens, kong pops the end of the line like any other.
func text(ctx *kong.DecodeContext, target reflect.Value) error {
	t, err := ctx.Scan.PopValue("string")
	if err != nil {
		return err
	}
	if t.IsEOL() {
		return errors.New("expected a value but the line ends")
	}
	target.SetString(t.String())
	return nil
}

// line is an error on one line.
func line(err error) string {
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}
