package report

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// events is a TensorBoard event file. Field numbers are those of TensorBoard's event.proto,
// summary.proto, histogram.proto, tensor.proto and plugin.proto.
//
// Expert load is one scalar a layer, the busiest expert's share over the mean, at every step, and a
// histogram a layer with a bucket an expert at a few hundred of them.
type events struct {
	now     func() time.Time
	out     appender
	layers  []string // names of the layers, by index
	next    int      // step of the next histograms
	summary []byte
	event   []byte
	framed  []byte
}

// histograms is about how many a run has of each layer.
const histograms = 200

func openEvents(dir string, now func() time.Time) (*events, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	name, err := eventFile(dir, now())
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_APPEND|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, err
	}
	e := &events{now: now, out: appender{f: f}}
	version := protowire.AppendString(protowire.AppendTag(nil, 3, protowire.BytesType), "brain.Event:2")
	if err := e.write(0, version); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	return e, nil
}

// eventFile names a file that sorts behind those of the folder: TensorBoard reads by name.
func eventFile(dir string, now time.Time) (string, error) {
	const prefix = "events.out.tfevents."
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	second := now.Unix()
	for _, e := range entries {
		rest, is := strings.CutPrefix(e.Name(), prefix)
		if !is {
			continue
		}
		number, _, _ := strings.Cut(rest, ".")
		if n, err := strconv.ParseInt(number, 10, 64); err == nil && n < 1e10 {
			second = max(second, n+1)
		}
	}
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	return fmt.Sprintf("%s%010d.%s.%d", prefix, second, host, os.Getpid()), nil
}

// start tells TensorBoard to drop what earlier files say of steps after first.
func (e *events) start(first int) error {
	status := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 1) // START
	after := first + 1
	if first == 0 {
		after = 0 // also an evaluation of fresh weights
	}
	return e.write(after, message(nil, 7, status))
}

func (e *events) step(s Step) error {
	e.summary = e.summary[:0]
	e.scalar("loss", s.Loss)
	e.scalar("ce", s.CE)
	e.scalar("aux", s.Aux)
	e.scalar("z", s.Z)
	e.scalar("lr", s.LR)
	e.scalar("grad_norm", s.GradNorm)
	e.scalar("tokens_per_second", s.TokensPerSecond)
	e.scalar("step_seconds", s.StepSeconds)
	e.scalar("skipped", float64(s.Skipped))
	e.scalar("dropped", s.Dropped)
	if s.MFU != 0 {
		e.scalar("mfu", s.MFU)
	}
	for l, load := range s.Load {
		e.scalar("expert_balance/"+e.layer(l), balance(load))
	}
	if s.Step >= e.next {
		every := max(1, s.Steps/histograms)
		e.next = (s.Step/every + 1) * every
		for l, load := range s.Load {
			e.histogram("expert_load/"+e.layer(l), load)
		}
	}
	return e.flush(s.Step)
}

func (e *events) eval(v Eval) error {
	e.summary = e.summary[:0]
	e.scalar("eval/loss", v.Loss)
	e.scalar("eval/perplexity", v.Perplexity)
	if v.BitsPerByte != 0 {
		e.scalar("eval/bits_per_byte", v.BitsPerByte)
	}
	for i, s := range v.Samples {
		e.text("samples/"+strconv.Itoa(i), s.Prompt+s.Text)
	}
	return e.flush(v.Step)
}

func (e *events) close() error { return e.out.close() }

// layer names a layer so that names sort by number.
func (e *events) layer(l int) string {
	for len(e.layers) <= l {
		e.layers = append(e.layers, fmt.Sprintf("layer_%02d", len(e.layers)))
	}
	return e.layers[l]
}

func (e *events) scalar(tag string, v float64) {
	var buf [96]byte
	b := protowire.AppendString(protowire.AppendTag(buf[:0], 1, protowire.BytesType), tag)
	b = protowire.AppendFixed32(protowire.AppendTag(b, 2, protowire.Fixed32Type), math.Float32bits(float32(v)))
	e.summary = message(e.summary, 1, b)
}

// histogram has a bucket of unit width around each expert's number; its height is the expert's share.
func (e *events) histogram(tag string, load []float64) {
	var limits, heights []byte
	var moments [3]float64
	for expert, share := range load {
		x := float64(expert)
		moments[0] += share
		moments[1] += share * x
		moments[2] += share * x * x
		limits = protowire.AppendFixed64(limits, math.Float64bits(x+0.5))
		heights = protowire.AppendFixed64(heights, math.Float64bits(share))
	}
	h := double(nil, 1, -0.5)
	h = double(h, 2, float64(len(load))-0.5)
	h = double(h, 3, moments[0])
	h = double(h, 4, moments[1])
	h = double(h, 5, moments[2])
	h = message(message(h, 6, limits), 7, heights)
	e.summary = message(e.summary, 1, message(message(nil, 1, []byte(tag)), 5, h))
}

// text is a string tensor that the text plugin shows. It reads Markdown, so lines are indented to be
// shown as they are.
func (e *events) text(tag, s string) {
	s = "    " + strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\n", "\n    ")
	one := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 1)
	tensor := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 7) // DT_STRING
	tensor = message(tensor, 2, message(nil, 2, one))
	tensor = message(tensor, 8, []byte(s))
	metadata := message(nil, 1, message(nil, 1, []byte("text")))
	metadata = protowire.AppendVarint(protowire.AppendTag(metadata, 4, protowire.VarintType), 2) // DATA_CLASS_TENSOR
	value := message(nil, 1, []byte(tag))
	e.summary = message(e.summary, 1, message(message(value, 8, tensor), 9, metadata))
}

func (e *events) flush(step int) error {
	return e.write(step, message(nil, 5, e.summary))
}

// write appends an event whose other fields are in what.
func (e *events) write(step int, what []byte) error {
	b := double(e.event[:0], 1, float64(e.now().UnixNano())/1e9)
	b = protowire.AppendVarint(protowire.AppendTag(b, 2, protowire.VarintType), uint64(step))
	e.event = append(b, what...)
	e.framed = record(e.framed[:0], e.event)
	return e.out.write(e.framed)
}

func message(b []byte, field protowire.Number, m []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), m)
}

func double(b []byte, field protowire.Number, v float64) []byte {
	return protowire.AppendFixed64(protowire.AppendTag(b, field, protowire.Fixed64Type), math.Float64bits(v))
}
