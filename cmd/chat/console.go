package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"mix/internal/cli"
)

// interrupts are presses of Ctrl-C. leave ends the context of the command.
type interrupts struct {
	got   chan os.Signal
	leave func()
}

// errInterrupt is Ctrl-C where there is no answer to stop.
var errInterrupt = errors.New("interrupted")

// console asks for lines and runs what Ctrl-C may stop.
type console struct {
	lines  <-chan string // closed at the end of the input
	broken error         // why it ended, read after lines is closed
	out    io.Writer
	err    io.Writer
	stop   *interrupts
}

func newConsole(s *cli.IO, stop *interrupts) *console {
	lines := make(chan string)
	c := &console{lines: lines, out: s.Out, err: s.Err, stop: stop}
	go func() {
		defer close(lines)
		in := bufio.NewReader(s.In)
		for {
			line, err := in.ReadString('\n')
			if err == nil || line != "" {
				lines <- strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
			}
			if err != nil {
				if !errors.Is(err, io.EOF) {
					c.broken = fmt.Errorf("input: %w", err)
				}
				return
			}
		}
	}()
	return c
}

// line shows a prompt and waits for a line. The error is io.EOF at the end of the input, errInterrupt on Ctrl-C.
func (c *console) line(ctx context.Context, to io.Writer, prompt string) (string, error) {
	if _, err := io.WriteString(to, prompt); err != nil {
		return "", fmt.Errorf("%w: %w", errOutput, err)
	}
	select {
	case line, ok := <-c.lines:
		if ok {
			return line, nil
		}
		fmt.Fprintln(to) // the terminal's own prompt begins a line
		if c.broken != nil {
			return "", c.broken
		}
		return "", io.EOF
	case <-c.stop.got:
		fmt.Fprintln(to)
		return "", errInterrupt
	case <-ctx.Done():
		fmt.Fprintln(to)
		return "", ctx.Err()
	}
}

// during runs work. Ctrl-C ends the context of it; then stopped is true and the error that this caused is dropped.
func (c *console) during(ctx context.Context, work func(context.Context) error) (stopped bool, err error) {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- work(inner) }()
	select {
	case err = <-done:
	case <-c.stop.got:
		cancel()
		if err = <-done; errors.Is(err, context.Canceled) && ctx.Err() == nil {
			return true, nil
		}
	}
	return false, err
}

// print shows text of an answer.
func (c *console) print(text string) error {
	if _, err := io.WriteString(c.out, text); err != nil {
		return fmt.Errorf("%w: %w", errOutput, err)
	}
	return nil
}
