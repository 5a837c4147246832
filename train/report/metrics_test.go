package report

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// resume opens files of metrics that hold such text, starts them and gives what is in them then.
func resume(t testing.TB, steps, evals string, first int) (string, string, *history, error) {
	dir := t.TempDir()
	path, beside := filepath.Join(dir, "metrics.jsonl"), filepath.Join(dir, "metrics.eval.jsonl")
	require.NoError(t, errors.Join(os.WriteFile(path, []byte(steps), 0o644), os.WriteFile(beside, []byte(evals), 0o644)))
	m, err := openMetrics(path)
	require.NoError(t, err)
	defer m.close()
	h := &history{}
	err = m.start(first, h)
	left, globErr := filepath.Glob(filepath.Join(dir, ".*"))
	require.NoError(t, globErr)
	require.Empty(t, left)
	stepsNow, readErr := os.ReadFile(path)
	evalsNow, readErr2 := os.ReadFile(beside)
	require.NoError(t, errors.Join(readErr, readErr2))
	return string(stepsNow), string(evalsNow), h, err
}

func TestStartKeepsRowsUpToFirst(t *testing.T) {
	for kind, rows := range map[string][2]string{
		"steps":       {`{"step":1,"loss":5,"good":true}` + "\n", `{"step":2,"loss":null,"good":false}` + "\n"},
		"evaluations": {`{"step":1,"eval_loss":4}` + "\n", `{"step":2,"eval_loss":null}` + "\n"},
	} {
		one, two := rows[0], rows[1]
		for name, c := range map[string]struct {
			text  string
			first int
			want  string
		}{
			"nothing there":                          {"", 3, ""},
			"all kept":                               {one + two, 2, one + two},
			"later ones dropped":                     {one + two, 1, one},
			"a fresh run drops all":                  {strings.Replace(one, "1", "0", 1) + one + two, 0, ""},
			"a torn last row":                        {one + two[:14], 5, one},
			"a last row torn at its first byte":      {one + "{", 5, one},
			"a last row of zero bytes":               {one + "\x00\x00\x00", 5, one},
			"a whole last row without its newline":   {one + strings.TrimSuffix(two, "\n"), 5, one + two},
			"a dropped last row without its newline": {one + strings.TrimSuffix(two, "\n"), 1, one},
			"blank lines stay":                       {one + "\n" + two, 5, one + "\n" + two},
		} {
			t.Run(kind+", "+name, func(t *testing.T) {
				kept := strings.Count(c.want, "{")
				if kind == "steps" {
					got, _, h, err := resume(t, c.text, "", c.first)
					require.NoError(t, err)
					require.Equal(t, c.want, got)
					require.Equal(t, kept, h.last.Step)
					return
				}
				_, got, h, err := resume(t, "", c.text, c.first)
				require.NoError(t, err)
				require.Equal(t, c.want, got)
				require.Len(t, h.evals, kept)
			})
		}
	}
}

// A process that dies writes a beginning of what it had to write.
func TestAnyBeginningOfTheFilesIsResumed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metrics.jsonl")
	m, err := openMetrics(path)
	require.NoError(t, err)
	for step := 1; step <= 3; step++ {
		require.NoError(t, m.step(walk(step, 3, 1, 2)))
		require.NoError(t, m.eval(evaluate(step)))
	}
	require.NoError(t, m.close())
	steps, evals := read(t, path), read(t, evalPath(path))
	// kept is what is left of a file of three rows that ends at a cut: rows of steps up to 2. A row is there
	// once its brace is.
	kept := func(whole string, cut int) string {
		rows := strings.Count(whole[:cut], "\n")
		if strings.HasPrefix(whole[cut:], "\n") {
			rows++
		}
		return strings.Join(strings.SplitAfter(whole, "\n")[:min(rows, 2)], "")
	}
	for cut := range max(len(steps), len(evals)) + 1 {
		a, b := min(cut, len(steps)), min(cut, len(evals))
		near := steps[max(a-2, 0):min(a+2, len(steps))] + evals[max(b-2, 0):min(b+2, len(evals))]
		if cut%13 != 0 && !strings.Contains(near, "\n") {
			continue // every cut near a row's end, some of the others: each is files synced
		}
		gotSteps, gotEvals, _, err := resume(t, steps[:a], evals[:b], 2)
		require.NoError(t, err, "%d bytes", cut)
		require.Equal(t, kept(steps, a), gotSteps, "%d bytes", a)
		require.Equal(t, kept(evals, b), gotEvals, "%d bytes", b)
	}
}

func TestStartRefusesAFileOfAnotherKind(t *testing.T) {
	const step, eval = `{"step":2,"loss":1}` + "\n", `{"step":2,"eval_loss":1}` + "\n"
	for name, c := range map[string]struct{ steps, evals, want string }{
		"a line that is no row":         {step + "hello\n" + step, "", "metrics.jsonl, line 2"},
		"a last line that is no row":    {step + "hello", "", "metrics.jsonl, line 2"},
		"a torn row in the middle":      {"{\"step\":1,\"lo\n" + step, "", "metrics.jsonl, line 1"},
		"an object without a step":      {"{\"loss\":1}\n" + step, "", "metrics.jsonl, line 1"},
		"an object without a loss":      {"{\"step\":1}\n" + step, "", "want a JSON object with step and loss"},
		"a step that is text":           {"{\"step\":\"1\",\"loss\":1}\n", "", "metrics.jsonl, line 1"},
		"a last line that was ended":    {step + "{\"step\":\n", "", "metrics.jsonl, line 2"},
		"another program's only object": {"{\"text\":\"hello\"}", "", "metrics.jsonl, line 1"},
		"an evaluation among steps":     {step + eval, "", "metrics.jsonl, line 2"},
		"a step among evaluations":      {step + step, eval + step, "metrics.eval.jsonl, line 2"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, first := range []int{0, 1} { // would drop rows
				steps, evals, _, err := resume(t, c.steps, c.evals, first)
				require.ErrorContains(t, err, c.want)
				require.Equal(t, c.steps, steps, "left as it was")
				require.Equal(t, c.evals, evals, "left as it was")
			}
		})
	}
}

func TestEvaluationsAreBesideTheSteps(t *testing.T) {
	require.Equal(t, "a/metrics.eval.jsonl", evalPath("a/metrics.jsonl"))
	require.Equal(t, "a.jsonl/m.eval.jsonl", evalPath("a.jsonl/m"))
}

func TestRowsSayEverythingExactly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "metrics.jsonl")
	m, err := openMetrics(path)
	require.NoError(t, err)
	require.NoError(t, m.step(Step{Step: 3, Steps: 9, Loss: 1.0 / 3, CE: 0.25, Aux: 1e-7, Z: math.Inf(1), LR: 3e-4, GradNorm: math.NaN(), Tokens: 1 << 40,
		TokensPerSecond: 12345.5, StepSeconds: 0.5, Skipped: 2, Dropped: 0.125, Load: [][]float64{{0.25, 0.75}, {1.0 / 3, math.NaN()}}}))
	require.NoError(t, m.eval(Eval{Step: 3, Loss: 2, Perplexity: math.Exp(2), Best: true, Seconds: 1.5, Samples: []Sample{{"a\"b", "c\nd\xff<"}}}))
	require.NoError(t, m.eval(Eval{Step: 4, Loss: math.NaN(), Perplexity: math.NaN(), BitsPerByte: 1.25}))
	require.NoError(t, m.close())
	require.Equal(t, `{"step":3,"loss":0.3333333333333333,"ce":0.25,"aux":1e-07,"z":null,"lr":0.0003,"grad_norm":null,"tokens":1099511627776,`+
		`"tokens_per_second":12345.5,"mfu":null,"step_seconds":0.5,"skipped":2,"good":false,"dropped":0.125,"expert_load":[[0.25,0.75],[0.333333,null]]}
`, read(t, path))
	require.Equal(t, `{"step":3,"eval_loss":2,"eval_perplexity":7.38905609893065,"eval_bits_per_byte":null,"best":true,"seconds":1.5,`+
		`"samples":[{"prompt":"a\"b","text":"c\nd\ufffd\u003c"}]}
{"step":4,"eval_loss":null,"eval_perplexity":null,"eval_bits_per_byte":1.25,"best":false,"seconds":0,"samples":[]}
`, read(t, evalPath(path)))
}

func TestRowsReadBackAsTheyWere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metrics.jsonl")
	m, err := openMetrics(path)
	require.NoError(t, err)
	want := &history{}
	for step := range 30 {
		s := walk(step+1, 0, 2, 4)
		if !s.Good {
			s.Loss, s.GradNorm, s.TokensPerSecond, s.StepSeconds = math.NaN(), math.Inf(1), math.Inf(1), 0
		}
		require.NoError(t, m.step(s))
		want.step(s)
	}
	require.NoError(t, m.eval(evaluate(30)))
	want.eval(evaluate(30))
	require.NoError(t, m.close())
	_, _, got, err := resume(t, read(t, path), read(t, evalPath(path)), 30)
	require.NoError(t, err)
	require.Equal(t, *want, *got)
}

func FuzzStart(f *testing.F) {
	f.Add([]byte("{\"step\":1,\"loss\":2}\n{\"step\":2,\"loss\":3,\"expert_load\":[[1],[]]}\n{\"st"), []byte("{\"step\":1,\"eval_loss\":2}"), 1)
	f.Add([]byte("{\"step\":-1,\"loss\":null}\n"), []byte("{\"step\":0,\"eval_loss\":\"x\"}"), 9)
	f.Add([]byte("\n\x00\n[]"), []byte{}, 0)
	f.Fuzz(func(t *testing.T, steps, evals []byte, first int) {
		first = min(first, 1<<20)
		onceSteps, onceEvals, h, err := resume(t, string(steps), string(evals), first)
		if err != nil {
			require.Equal(t, string(steps), onceSteps)
			require.Equal(t, string(evals), onceEvals)
			return
		}
		charts(h)
		twiceSteps, twiceEvals, _, err := resume(t, onceSteps, onceEvals, first)
		require.NoError(t, err)
		require.Equal(t, onceSteps, twiceSteps)
		require.Equal(t, onceEvals, twiceEvals)
	})
}
