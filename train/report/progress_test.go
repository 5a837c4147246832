package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"mix/internal/golden"
)

// Rows are told two seconds apart. What commands the terminal is shown by names: ⏎ goes to the line's
// begin, ⌫ clears to its end.
func TestProgressGolden(t *testing.T) {
	golden.Run(t, "testdata/progress/*.txtar", func(t *testing.T, in map[string]string) string {
		width, _ := strconv.Atoi(strings.TrimSpace(in["width"]))
		var out strings.Builder
		now := time.Unix(1700000000, 0)
		r, err := Open(Options{Progress: &out, Terminal: in["width"] != "", Width: func() int { return width }, now: func() time.Time { return now }})
		require.NoError(t, err)
		require.NoError(t, r.Start(119, 2000))
		for _, line := range strings.Split(strings.TrimSpace(in["rows"]), "\n") {
			var w stepRow
			var e evalRow
			require.NoError(t, errors.Join(json.Unmarshal([]byte(line), &w), json.Unmarshal([]byte(line), &e)))
			now = now.Add(2 * time.Second)
			if e.Loss.there {
				require.NoError(t, r.Eval(e.told()))
				continue
			}
			s := w.told()
			s.Steps = 2000
			require.NoError(t, r.Step(s))
		}
		r.Saved(121, 1.25, "runs/a/step-00000121")
		slog.New(slog.NewTextHandler(r.Messages(), &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}})).Info("a line of the log")
		require.NoError(t, r.Close())
		return strings.NewReplacer("\r", "⏎", "\x1b[K", "⌫\n").Replace(out.String())
	})
}

func TestLineFitsEveryWidth(t *testing.T) {
	s := walk(120, 2000, 4, 8)
	whole := fit(parts(s, 750*time.Second), 1000)
	require.Contains(t, whole, "eta 12m30s")
	last := ""
	for width := range utf8.RuneCountInString(whole) + 5 {
		line := fit(parts(s, 750*time.Second), width)
		require.LessOrEqual(t, utf8.RuneCountInString(line), width)
		require.True(t, strings.HasPrefix(line, "step 120/2000"[:min(width, 13)]), line)
		require.GreaterOrEqual(t, len(line), len(last), "more room never shows less")
		last = line
	}
	require.Equal(t, whole, last)
}

func TestLineIsRewrittenAtMostTenTimesASecond(t *testing.T) {
	var out strings.Builder
	now := time.Unix(1700000000, 0)
	r, err := Open(Options{Progress: &out, Terminal: true, now: func() time.Time { return now }})
	require.NoError(t, err)
	for step := 1; step <= 1000; step++ {
		require.NoError(t, r.Step(walk(step, 1000, 1, 4)))
		now = now.Add(time.Millisecond)
	}
	require.Equal(t, 11, strings.Count(out.String(), "\r"))
	require.Contains(t, out.String(), "step 1000/1000")
}

func TestWhatIsSaidComesAfterTheStepsBefore(t *testing.T) {
	for _, terminal := range []bool{false, true} {
		var out strings.Builder
		r, err := Open(Options{Progress: &out, Terminal: terminal, now: func() time.Time { return time.Unix(1700000000, 0) }})
		require.NoError(t, err)
		for step := 1; step <= 3; step++ { // all but the first are too early to be written
			require.NoError(t, r.Step(walk(step, 9, 0, 0)))
		}
		fmt.Fprintln(r.Messages(), "interrupted after step 3 of 9")
		require.NoError(t, r.Close())
		require.Regexp(t, `(?s)^.*step 1/9.*step 3/9.*interrupted after step 3`, out.String())
		if !terminal {
			require.Equal(t, 3, strings.Count(out.String(), "\n"), "no line twice")
		}
	}
}

func TestBars(t *testing.T) {
	for want, load := range map[string][][]float64{
		"▄▄▄▄":     {{0.25, 0.25, 0.25, 0.25}},
		"█▁▁▁":     {{1, 0, 0, 0}},
		"▄▄":       {{1, 0}, {0, 1}},
		"▆▂":       {{0.75, 0.25}},
		"":         {make([]float64, 33)},
		"▁▁▁▁▁▁▁█": {{0, 0, 0, 0, 0, 0, 0, 1}},
	} {
		require.Equal(t, want, bars(load))
	}
}

func TestTextCannotCommandTheTerminal(t *testing.T) {
	got := evalText(Eval{Step: 3, Samples: []Sample{{"a\x1b[2J", "b\rc\td\x00\n\u202ee"}}})
	require.Equal(t, "evaluation at step 3: loss 0.000, perplexity 0.00 (0.0s)\n  a\uFFFD[2J│b\uFFFDc d\uFFFD\n  \uFFFDe\n", got)
}

func TestNumbersForPeople(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 4075.4: "4075", 123456: "123k", 1.234e6: "1.23M", 4.67e10: "46.7B", 1.5e12: "1500B"} {
		require.Equal(t, want, count(v))
	}
	for v, want := range map[float64]string{0: "0.00", 1.02: "1.02", 20.34: "20.3", 123.4: "123", 123456: "1.2e+05", 1e-4: "1.0e-04"} {
		require.Equal(t, want, short(v))
	}
}

func TestProgressOnAFileIsPlain(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	require.NoError(t, err)
	defer f.Close()
	var o Options
	o.ProgressOn(f)
	require.False(t, o.Terminal)
	require.Zero(t, o.Width())
	r, err := Open(o)
	require.NoError(t, err)
	require.NoError(t, r.Step(walk(1, 9, 0, 0)))
	require.NoError(t, r.Close())
	require.Equal(t, 1, strings.Count(read(t, f.Name()), "\n"), fmt.Sprint(read(t, f.Name())))
}
