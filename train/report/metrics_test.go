package report

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// resume opens a file of metrics that holds text, starts it and gives what is in it then.
func resume(t testing.TB, text string, first int) (string, *history, error) {
	path := filepath.Join(t.TempDir(), "metrics.jsonl")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	m, err := openMetrics(path)
	require.NoError(t, err)
	defer m.close()
	h := &history{}
	err = m.start(first, h)
	b, readErr := os.ReadFile(path)
	require.NoError(t, readErr)
	return string(b), h, err
}

func TestStartKeepsRowsUpToFirst(t *testing.T) {
	const (
		one  = `{"step":1,"loss":5,"good":true}` + "\n"
		eval = `{"step":1,"eval_loss":4}` + "\n"
		two  = `{"step":2,"loss":null,"good":false}` + "\n"
	)
	for name, c := range map[string]struct {
		text  string
		first int
		want  string
	}{
		"nothing there":                          {"", 3, ""},
		"all kept":                               {one + eval + two, 2, one + eval + two},
		"later ones dropped":                     {one + eval + two, 1, one + eval},
		"a fresh run drops all":                  {one + eval + two, 0, ""},
		"a torn last row":                        {one + two[:14], 5, one},
		"a last row torn at its first byte":      {one + "{", 5, one},
		"a last row of zero bytes":               {one + "\x00\x00\x00", 5, one},
		"a whole last row without its newline":   {one + strings.TrimSuffix(two, "\n"), 5, one + two},
		"a dropped last row without its newline": {one + strings.TrimSuffix(two, "\n"), 1, one},
		"blank lines stay":                       {one + "\n" + two, 5, one + "\n" + two},
	} {
		t.Run(name, func(t *testing.T) {
			got, h, err := resume(t, c.text, c.first)
			require.NoError(t, err)
			require.Equal(t, c.want, got)
			require.Equal(t, strings.Count(c.want, `"loss"`) > 0, h.last.Step > 0)
			require.Len(t, h.evals, strings.Count(c.want, "eval_loss"))
		})
	}
}

// A process that dies writes a beginning of what it had to write.
func TestAnyBeginningOfTheFileIsResumed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metrics.jsonl")
	m, err := openMetrics(path)
	require.NoError(t, err)
	for step := 1; step <= 3; step++ {
		require.NoError(t, m.step(walk(step, 3, 1, 2)))
		require.NoError(t, m.eval(evaluate(step)))
	}
	require.NoError(t, m.close())
	whole := read(t, path)
	for cut := range len(whole) + 1 {
		if cut%13 != 0 && !strings.Contains(whole[max(cut-2, 0):min(cut+2, len(whole))], "\n") {
			continue // every cut near a row's end, some of the others: each is two files synced
		}
		got, _, err := resume(t, whole[:cut], 2)
		require.NoError(t, err, "%d bytes", cut)
		// Four rows are of steps up to 2. A row is there once its brace is.
		rows := strings.Count(whole[:cut], "\n")
		if strings.HasPrefix(whole[cut:], "\n") {
			rows++
		}
		rows = min(rows, 4)
		require.Equal(t, strings.Join(strings.SplitAfter(whole, "\n")[:rows], ""), got, "%d bytes", cut)
	}
}

func TestStartRefusesAFileOfAnotherKind(t *testing.T) {
	for name, text := range map[string]string{
		"a line that is no row":         "{\"step\":1}\nhello\n{\"step\":2}\n",
		"a last line that is no row":    "{\"step\":1}\nhello",
		"a torn row in the middle":      "{\"step\":1,\"lo\n{\"step\":2}\n",
		"an object without a step":      "{\"text\":\"hello\"}\n{\"step\":2}\n",
		"a step that is text":           "{\"step\":\"1\"}\n",
		"a last line that was ended":    "{\"step\":1}\n{\"step\":\n",
		"another program's only object": "{\"text\":\"hello\"}",
	} {
		t.Run(name, func(t *testing.T) {
			got, _, err := resume(t, text, 5)
			require.ErrorContains(t, err, "metrics.jsonl, line ")
			require.Equal(t, text, got, "left as it was")
		})
	}
}

func TestRowsSayEverythingExactly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "metrics.jsonl")
	m, err := openMetrics(path)
	require.NoError(t, err)
	require.NoError(t, m.step(Step{Step: 3, Steps: 9, Loss: 1.0 / 3, CE: 0.25, Aux: 1e-7, Z: math.Inf(1), LR: 3e-4, GradNorm: math.NaN(), Tokens: 1 << 40,
		TokensPerSecond: 12345.5, StepSeconds: 0.5, Skipped: 2, Load: [][]float64{{0.25, 0.75}, {1.0 / 3, math.NaN()}}}))
	require.NoError(t, m.eval(Eval{Step: 3, Loss: 2, Perplexity: math.Exp(2), Best: true, Seconds: 1.5, Samples: []Sample{{"a\"b", "c\nd\xff<"}}}))
	require.NoError(t, m.eval(Eval{Step: 4, Loss: math.NaN(), Perplexity: math.NaN(), BitsPerByte: 1.25}))
	require.NoError(t, m.close())
	require.Equal(t, `{"step":3,"loss":0.3333333333333333,"ce":0.25,"aux":1e-07,"z":null,"lr":0.0003,"grad_norm":null,"tokens":1099511627776,`+
		`"tokens_per_second":12345.5,"mfu":null,"step_seconds":0.5,"skipped":2,"good":false,"expert_load":[[0.25,0.75],[0.333333,null]]}
{"step":3,"eval_loss":2,"eval_perplexity":7.38905609893065,"eval_bits_per_byte":null,"best":true,"eval_seconds":1.5,`+
		`"samples":[{"prompt":"a\"b","text":"c\nd\ufffd\u003c"}]}
{"step":4,"eval_loss":null,"eval_perplexity":null,"eval_bits_per_byte":1.25,"best":false,"eval_seconds":0,"samples":[]}
`, read(t, path))
}

func TestRowsReadBackAsTheyWere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metrics.jsonl")
	m, err := openMetrics(path)
	require.NoError(t, err)
	want := &history{}
	for step := range 30 {
		s := walk(step+1, 0, 2, 4)
		if !s.Good {
			s.Loss, s.GradNorm = math.NaN(), math.Inf(1)
		}
		require.NoError(t, m.step(s))
		want.step(s)
	}
	require.NoError(t, m.eval(evaluate(30)))
	want.eval(evaluate(30))
	require.NoError(t, m.close())
	_, got, err := resume(t, read(t, path), 30)
	require.NoError(t, err)
	require.Equal(t, *want, *got)
}

func FuzzStart(f *testing.F) {
	f.Add([]byte("{\"step\":1,\"loss\":2}\n{\"step\":2,\"expert_load\":[[1],[]]}\n{\"st"), 1)
	f.Add([]byte("{\"step\":-1}\n{\"step\":0,\"eval_loss\":\"x\"}"), 9)
	f.Add([]byte("\n\x00\n[]"), 0)
	f.Fuzz(func(t *testing.T, text []byte, first int) {
		once, h, err := resume(t, string(text), min(first, 1<<20))
		if err != nil {
			require.Equal(t, string(text), once)
			return
		}
		charts(h)
		twice, _, err := resume(t, once, first)
		require.NoError(t, err)
		require.Equal(t, once, twice)
	})
}
