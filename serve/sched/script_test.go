package sched

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/internal/golden"
)

// script runs commands, one a line, and returns them with what came of them:
//
//	arrive TOKEN… [max=N] [priority=N] [salt=TEXT] [whole] [sure]
//	step        run the next step
//	draw ID N   tell a drawn token
//	run N       N steps, each with draws of 100·ID + the number of the token
//	end ID      cancelled, or ended by its text
//	drop        the cache
//	state       print it
//	stats
//
// A token FIRST..LAST stands for all from one to the other. A line that makes no sense ends it with an error.
func script(options, commands string) (string, error) {
	o, err := parseOptions(options)
	if err != nil {
		return "", err
	}
	s, err := New(o)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for line := range strings.Lines(commands) {
		line = strings.TrimSpace(line)
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(line, "#") {
			continue
		}
		fmt.Fprintf(&out, "> %s\n", line)
		if err := command(&out, s, f[0], f[1:]); err != nil {
			return out.String(), fmt.Errorf("%q: %w", line, err)
		}
	}
	return out.String(), nil
}

func command(out *strings.Builder, s *Scheduler, name string, args []string) error {
	ns, numbers := make([]int, len(args)), true
	for i, a := range args {
		n, err := strconv.ParseInt(a, 10, 32)
		ns[i], numbers = int(n), numbers && err == nil
	}
	switch {
	case name == "arrive":
		r, err := parseRequest(args)
		if err != nil {
			return err
		}
		if id, err := s.Arrive(r); err != nil {
			fmt.Fprintf(out, "refused: %v\n", err)
		} else {
			fmt.Fprintf(out, "request %d\n", id)
		}
	case name == "step" && len(args) == 0:
		x, err := s.Next()
		if err != nil {
			fmt.Fprintf(out, "error: %v\n", err)
			return nil
		}
		out.WriteString(x.String())
	case name == "draw" && len(args) == 2 && numbers:
		draw(out, s, ID(ns[0]), int32(ns[1]))
	case name == "run" && len(args) == 1 && numbers && ns[0] <= 100:
		for range ns[0] {
			x, err := s.Next()
			if err != nil {
				fmt.Fprintf(out, "error: %v\n", err)
				return nil
			}
			out.WriteString(x.String())
			for _, id := range x.draws() {
				if r := s.all[id]; r != nil && r.drawing { // else a guess was wrong, or it has ended
					draw(out, s, id, int32(100*int(id)+len(r.generated)))
				}
			}
		}
	case name == "end" && len(args) == 1 && numbers:
		fmt.Fprintln(out, s.End(ID(ns[0])))
	case name == "drop" && len(args) == 0:
		s.DropCache()
	case name == "state" && len(args) == 0:
		out.WriteString(s.String())
	case name == "stats" && len(args) == 0:
		fmt.Fprintf(out, "%+v usage %.2f\n", s.Stats(), s.Stats().Usage())
	default:
		return fmt.Errorf("command %s with %d arguments", name, len(args))
	}
	return nil
}

func draw(out *strings.Builder, s *Scheduler, id ID, token int32) {
	switch ended, err := s.Drawn(id, token); {
	case err != nil:
		fmt.Fprintf(out, "error: %v\n", err)
	case ended:
		fmt.Fprintf(out, "  ended %d\n", id)
	}
}

// draws are the requests whose token a step draws, in order.
func (x Step) draws() (ids []ID) {
	for _, c := range x.Prefill {
		if c.Draw {
			ids = append(ids, c.ID)
		}
		for _, f := range c.Forks {
			if f.Draw {
				ids = append(ids, f.ID)
			}
		}
	}
	for _, r := range slices.Concat(x.Decode, x.Ahead) {
		if !r.Replay {
			ids = append(ids, r.ID)
		}
	}
	return ids
}

func parseOptions(text string) (Options, error) {
	o := Options{Context: 64, Queue: 16}
	fields := map[string]*int{"slots": &o.Slots, "blocks": &o.Blocks, "size": &o.Size, "chunk": &o.Chunk,
		"context": &o.Context, "chunks": &o.Chunks, "speculate": &o.Speculate, "watermark": &o.Watermark, "queue": &o.Queue}
	for _, f := range strings.Fields(text) {
		if f == "fork" {
			o.Fork = true
			continue
		}
		k, v, _ := strings.Cut(f, "=")
		n, err := strconv.ParseInt(v, 10, 12)
		if fields[k] == nil || err != nil {
			return o, fmt.Errorf("option %q", f)
		}
		*fields[k] = int(n)
	}
	return o, nil
}

func parseRequest(args []string) (r Request, err error) {
	r.Max, r.Speculate = 8, true
	for _, a := range args {
		k, v, named := strings.Cut(a, "=")
		first, last, several := strings.Cut(a, "..")
		n, bad := strconv.ParseInt(v, 10, 16)
		switch {
		case a == "whole":
			r.Whole = true
		case a == "sure":
			r.Speculate = false
		case named && k == "salt":
			r.Salt = v
		case named && k == "max" && bad == nil:
			r.Max = int(n)
		case named && k == "priority" && bad == nil:
			r.Priority = int(n)
		default:
			if !several {
				last = first
			}
			from, err1 := strconv.ParseInt(first, 10, 16)
			to, err2 := strconv.ParseInt(last, 10, 16)
			if err1 != nil || err2 != nil || to-from > 1000 {
				return r, fmt.Errorf("argument %q", a)
			}
			for t := from; t <= to; t++ {
				r.Prompt = append(r.Prompt, int32(t))
			}
		}
	}
	return r, nil
}

func TestTranscripts(t *testing.T) {
	golden.Run(t, "testdata/*.txtar", func(t *testing.T, in map[string]string) string {
		out, err := script(in["options"], in["script"])
		require.NoError(t, err)
		return out
	})
}

func FuzzScript(f *testing.F) {
	f.Add("slots=2 blocks=6 size=2 chunk=4 fork", "arrive 1..6 max=3\narrive 1..6\nrun 4\nend 2\nstate\nrun 9\nstats\ndrop")
	f.Add("slots=1 blocks=3 size=1 chunk=1", "arrive 1 2 salt=a priority=-1\nstep\ndraw 1 5\nstep\nstep")
	f.Fuzz(func(t *testing.T, options, commands string) {
		if len(commands) < 1<<12 {
			_, _ = script(options, commands) // must not panic
		}
	})
}
