package report

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
)

// metrics is the JSONL file: a row a step and a row an evaluation, in the order of steps. A row is
// written by one call, so that a process that is killed leaves whole rows; a machine that goes down may
// tear the last one.
type metrics struct {
	path      string
	out       appender
	scratch   []byte
	evaluated int // step of the last evaluation that the file had at the start; -1 for none
}

func openMetrics(path string) (*metrics, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := appendTo(path)
	if err != nil {
		return nil, err
	}
	return &metrics{path: path, out: appender{f: f}, evaluated: -1}, nil
}

func appendTo(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
}

// start keeps the rows of steps up to first, tells h of them, and drops the others. A last row that is
// torn is dropped too. Any other line that is no row is refused and the file left as it was.
func (m *metrics) start(first int, h *history) error {
	f, err := os.Open(m.path)
	if err != nil {
		return err
	}
	defer f.Close()
	var kept []extent
	whole := true // every byte is kept
	err = lines(f, func(n int, at extent, line []byte, last bool) error {
		var w row
		if err := json.Unmarshal(line, &w); err != nil || w.Step == nil {
			if whole = false; last && torn(line) {
				return nil
			}
			return fmt.Errorf("%s, line %d: not a row of metrics, want a JSON object with a step", m.path, n)
		}
		if *w.Step > first {
			whole = false
			return nil
		}
		if line[len(line)-1] != '\n' {
			whole = false
		}
		kept = append(kept, at)
		if w.EvalLoss != nil {
			m.evaluated = *w.Step
			h.eval(w.evaluation())
		} else {
			h.step(w.step())
		}
		return nil
	})
	if err != nil || whole {
		return err
	}
	return m.rewrite(f, kept)
}

// torn tells whether line may be the beginning of a row, as a machine that goes down leaves it.
func torn(line []byte) bool {
	const begin = `{"step":`
	n := min(len(line), len(begin))
	return line[len(line)-1] != '\n' && (string(line[:n]) == begin[:n] || len(bytes.Trim(line, "\x00")) == 0)
}

// rewrite makes the file anew from those parts of f.
func (m *metrics) rewrite(f io.ReaderAt, kept []extent) error {
	err := replace(m.path, func(to *os.File) error {
		w := bufio.NewWriterSize(to, 1<<20)
		for _, e := range kept {
			if _, err := io.Copy(w, io.NewSectionReader(f, e.begin, e.end-e.begin)); err != nil {
				return err
			}
			if !e.ended {
				w.WriteByte('\n')
			}
		}
		return errors.Join(w.Flush(), to.Sync())
	})
	if err != nil {
		return err
	}
	old := m.out.f
	if m.out.f, err = appendTo(m.path); err != nil {
		m.out.f = old
		return err
	}
	return old.Close()
}

// extent is where whole lines stand in a file.
type extent struct {
	begin, end int64
	ended      bool // with a newline
}

// lines calls f with every line that is not blank, counted from 1, and whether it is the file's last.
func lines(r io.Reader, f func(n int, at extent, line []byte, last bool) error) error {
	b := bufio.NewReaderSize(r, 1<<16)
	at := int64(0)
	for n := 1; ; n++ {
		line, err := b.ReadBytes('\n')
		if err != nil && err != io.EOF {
			return err
		}
		here := extent{at, at + int64(len(line)), err == nil}
		at = here.end
		if len(bytes.TrimSpace(line)) > 0 {
			_, after := b.Peek(1)
			if err := f(n, here, line, after == io.EOF); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
	}
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
	return m.out.write(b)
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
	b = number(b, "eval_seconds", e.Seconds)
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
	return m.out.write(b)
}

func (m *metrics) close() error { return m.out.close() }

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

// shareUnits make a whole of expert load. The file and the page count in them, so that both are the same
// before and after a run is resumed.
const shareUnits = 1e6

// orNull makes an unknown, which is 0, what number writes as null.
func orNull(v float64) float64 {
	if v == 0 {
		return math.NaN()
	}
	return v
}

// row is a line of the file as it is read back. Only numbers that can be null are pointers or quantity.
type row struct {
	Step *int `json:"step"`

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
	Load            [][]float64 `json:"expert_load"`

	EvalLoss    json.RawMessage `json:"eval_loss"` // there in rows of evaluations
	Perplexity  quantity        `json:"eval_perplexity"`
	BitsPerByte *float64        `json:"eval_bits_per_byte"`
	Best        bool            `json:"best"`
	EvalSeconds quantity        `json:"eval_seconds"`
	Samples     []Sample        `json:"samples"`
}

// quantity is a number whose null is NaN.
type quantity float64

func (q *quantity) UnmarshalJSON(b []byte) (err error) {
	if string(b) == "null" {
		*q = quantity(math.NaN())
		return nil
	}
	v, err := strconv.ParseFloat(string(b), 64)
	*q = quantity(v)
	return err
}

func (w row) step() Step {
	return Step{Step: *w.Step, Loss: float64(w.Loss), CE: float64(w.CE), Aux: float64(w.Aux), Z: float64(w.Z), LR: float64(w.LR),
		GradNorm: float64(w.GradNorm), Tokens: w.Tokens, TokensPerSecond: float64(w.TokensPerSecond), MFU: orZero(w.MFU),
		StepSeconds: float64(w.StepSeconds), Skipped: w.Skipped, Good: w.Good, Load: w.Load}
}

func (w row) evaluation() Eval {
	var loss quantity
	if loss.UnmarshalJSON(w.EvalLoss) != nil {
		loss = quantity(math.NaN())
	}
	return Eval{Step: *w.Step, Loss: float64(loss), Perplexity: float64(w.Perplexity), BitsPerByte: orZero(w.BitsPerByte), Best: w.Best,
		Seconds: float64(w.EvalSeconds), Samples: w.Samples}
}

func orZero(v *float64) float64 {
	if v == nil {
		return 0
	}
	return *v
}
