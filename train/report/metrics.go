package report

import (
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"
)

// metrics are two files of rows: that of the path with a row a step, and beside it one with a row an
// evaluation. All rows of a file have the same members.
type metrics struct {
	steps, evals *jsonl
	scratch      []byte
	evaluated    int // step of the last evaluation that the file had at the start; -1 for none
}

// evalPath is the file of evaluations beside a file of steps: metrics.eval.jsonl for metrics.jsonl.
func evalPath(path string) string { return strings.TrimSuffix(path, ".jsonl") + ".eval.jsonl" }

func openMetrics(path string) (*metrics, error) {
	steps, err := openJSONL(path)
	if err != nil {
		return nil, err
	}
	evals, err := openJSONL(evalPath(path))
	if err != nil {
		return nil, errors.Join(err, steps.close())
	}
	return &metrics{steps: steps, evals: evals, evaluated: -1}, nil
}

// start keeps the rows of steps up to first, tells h of them, and drops the others and what is torn; a
// run that begins at 0 keeps none. A file with any other line is refused and both files are left as they
// were.
func (m *metrics) start(first int, h *history) error {
	steps, err := m.steps.scan(first, "loss", func(line []byte) (int, func(), bool) {
		var w stepRow
		if err := json.Unmarshal(line, &w); err != nil || w.Step == nil || !w.Loss.there {
			return 0, nil, false
		}
		return *w.Step, func() { h.step(w.told()) }, true
	})
	if err != nil {
		return err
	}
	defer steps.close()
	evals, err := m.evals.scan(first, "eval_loss", func(line []byte) (int, func(), bool) {
		var w evalRow
		if err := json.Unmarshal(line, &w); err != nil || w.Step == nil || !w.Loss.there {
			return 0, nil, false
		}
		return *w.Step, func() {
			m.evaluated = *w.Step
			h.eval(w.told())
		}, true
	})
	if err != nil {
		return err
	}
	defer evals.close()
	return errors.Join(m.steps.keep(steps), m.evals.keep(evals))
}

func (m *metrics) step(s Step) error {
	b := append(m.scratch[:0], `{"step":`...)
	b = strconv.AppendInt(b, int64(s.Step), 10)
	b = number(b, "loss", s.Loss)
	b = number(b, "ce", s.CE)
	b = number(b, "aux", s.Aux)
	b = number(b, "z", s.Z)
	b = number(b, "lr", s.LR)
	b = number(b, "grad_norm", s.GradNorm)
	b = append(b, `,"tokens":`...)
	b = strconv.AppendInt(b, s.Tokens, 10)
	b = number(b, "tokens_per_second", s.TokensPerSecond)
	b = number(b, "mfu", orNull(s.MFU))
	b = number(b, "step_seconds", s.StepSeconds)
	b = append(b, `,"skipped":`...)
	b = strconv.AppendInt(b, int64(s.Skipped), 10)
	b = append(b, `,"good":`...)
	b = strconv.AppendBool(b, s.Good)
	b = number(b, "dropped", s.Dropped)
	b = append(b, `,"expert_load":[`...)
	for i, layer := range s.Load {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '[')
		for j, share := range layer {
			if j > 0 {
				b = append(b, ',')
			}
			b = digits(b, math.Round(share*shareUnits)/shareUnits, -1)
		}
		b = append(b, ']')
	}
	b = append(b, "]}\n"...)
	m.scratch = b
	return m.steps.out.write(b)
}

// eval leaves out an evaluation that the file has from the run before, which ended between it and the
// next step.
func (m *metrics) eval(e Eval) error {
	if e.Step <= m.evaluated {
		return nil
	}
	b := append(m.scratch[:0], `{"step":`...)
	b = strconv.AppendInt(b, int64(e.Step), 10)
	b = number(b, "eval_loss", e.Loss)
	b = number(b, "eval_perplexity", e.Perplexity)
	b = number(b, "eval_bits_per_byte", orNull(e.BitsPerByte))
	b = append(b, `,"best":`...)
	b = strconv.AppendBool(b, e.Best)
	b = number(b, "seconds", e.Seconds)
	b = append(b, `,"samples":`...)
	samples := e.Samples
	if samples == nil {
		samples = []Sample{}
	}
	text, err := json.Marshal(samples)
	if err != nil {
		return err
	}
	b = append(append(b, text...), "}\n"...)
	m.scratch = b
	return m.evals.out.write(b)
}

func (m *metrics) close() error { return errors.Join(m.steps.close(), m.evals.close()) }

// number appends a member whose value is exact, or null if JSON has no such number.
func number(b []byte, name string, v float64) []byte {
	b = append(append(append(b, `,"`...), name...), `":`...)
	return digits(b, v, -1)
}

// digits appends v with that many significant digits, -1 for as many as it takes.
func digits(b []byte, v float64, n int) []byte {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return append(b, "null"...)
	}
	return strconv.AppendFloat(b, v, 'g', n, 64)
}

// shareUnits make a whole of expert load. The file of steps and the page count in them, so that both are the same
// before and after a run is resumed.
const shareUnits = 1e6

// orNull makes an unknown, which is 0, what number writes as null.
func orNull(v float64) float64 {
	if v == 0 {
		return math.NaN()
	}
	return v
}

// stepRow is a row of the file of steps as it is read back.
type stepRow struct {
	Step            *int        `json:"step"`
	Loss            quantity    `json:"loss"`
	CE              quantity    `json:"ce"`
	Aux             quantity    `json:"aux"`
	Z               quantity    `json:"z"`
	LR              quantity    `json:"lr"`
	GradNorm        quantity    `json:"grad_norm"`
	Tokens          int64       `json:"tokens"`
	TokensPerSecond quantity    `json:"tokens_per_second"`
	MFU             *float64    `json:"mfu"`
	StepSeconds     quantity    `json:"step_seconds"`
	Skipped         int         `json:"skipped"`
	Good            bool        `json:"good"`
	Dropped         float64     `json:"dropped"`
	Load            [][]float64 `json:"expert_load"`
}

// evalRow is a row of the file of evaluations as it is read back.
type evalRow struct {
	Step        *int     `json:"step"`
	Loss        quantity `json:"eval_loss"`
	Perplexity  quantity `json:"eval_perplexity"`
	BitsPerByte *float64 `json:"eval_bits_per_byte"`
	Best        bool     `json:"best"`
	Seconds     quantity `json:"seconds"`
	Samples     []Sample `json:"samples"`
}

// quantity is a number whose null is NaN.
type quantity struct {
	value float64
	there bool // the row has the member
}

func (q *quantity) UnmarshalJSON(b []byte) (err error) {
	q.there = true
	if string(b) == "null" {
		q.value = math.NaN()
		return nil
	}
	q.value, err = strconv.ParseFloat(string(b), 64)
	return err
}

func (w stepRow) told() Step {
	return Step{Step: *w.Step, Loss: w.Loss.value, CE: w.CE.value, Aux: w.Aux.value, Z: w.Z.value, LR: w.LR.value, GradNorm: w.GradNorm.value,
		Tokens: w.Tokens, TokensPerSecond: w.TokensPerSecond.value, MFU: orZero(w.MFU), StepSeconds: w.StepSeconds.value, Skipped: w.Skipped,
		Good: w.Good, Dropped: w.Dropped, Load: w.Load}
}

func (w evalRow) told() Eval {
	return Eval{Step: *w.Step, Loss: w.Loss.value, Perplexity: w.Perplexity.value, BitsPerByte: orZero(w.BitsPerByte), Best: w.Best,
		Seconds: w.Seconds.value, Samples: w.Samples}
}

func orZero(v *float64) float64 {
	if v == nil {
		return 0
	}
	return *v
}
