package sharding

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"mix/sharding/axis"
)

// ErrRules is wrapped by every refusal of rules, and of a tensor that rules do not fit.
var ErrRules = errors.New("sharding")

// Kind says what a tensor is, where rules differ by it.
type Kind int

// Kinds of tensors.
const (
	Weights     Kind = iota // as programs compute with them
	Gradients               // as they are added up
	Moments                 // the optimizer's state: moments and float32 masters
	Activations             // what the model notes with composite.Constrain
)

// Kinds lists the kinds, in the order of the constants.
var Kinds = []Kind{Weights, Gradients, Moments, Activations}

func (k Kind) String() string {
	if k < 0 || int(k) >= len(Kinds) {
		return fmt.Sprintf("Kind(%d)", int(k))
	}
	return []string{"weights", "gradients", "moments", "activations"}[k]
}

// Table maps logical axes to the mesh axes that split them, the first the slowest.
type Table struct {
	// Split has a row for every logical axis: one without a row is an error, not a default.
	Split map[axis.Logical][]axis.Mesh
	// Fill are axes that are split by what the others leave: each row's mesh axes, less those that the
	// tensor uses elsewhere.
	Fill map[axis.Logical][]axis.Mesh
}

// Rules are the tables of one way to split the model.
type Rules struct {
	name   string
	tables [4]Table // by Kind
	uses   []axis.Mesh
}

// parts are the words that presets are joined of, in canonical order.
var parts = []struct {
	name, means string
	uses        []axis.Mesh
	needs       []string
}{
	{"pp", "layers over pipe", []axis.Mesh{axis.Pipe}, nil},
	{"dp", "sequences over data", []axis.Mesh{axis.Data}, nil},
	{"fsdp1", "dp; moments over data and expert as well (ZeRO-1)", []axis.Mesh{axis.Data}, nil},
	{"fsdp2", "fsdp1; gradients too (ZeRO-2)", []axis.Mesh{axis.Data}, nil},
	{"fsdp3", "fsdp2; weights too (ZeRO-3)", []axis.Mesh{axis.Data}, nil},
	{"ep", "experts, and the sequences of the dense part, over expert", []axis.Mesh{axis.Expert}, nil},
	{"tp", "heads, hidden width and vocabulary over tensor", []axis.Mesh{axis.Tensor}, nil},
	{"etp1", "experts over expert and tensor, their hidden width whole", nil, []string{"ep", "tp"}},
	{"sp", "positions over tensor, between attention and experts", nil, []string{"tp"}},
	{"whole", "sequences whole on every device: serving, where a batch may be of one", nil, nil},
}

// aliases of parts.
var aliases = map[string]string{"zero1": "fsdp1", "zero2": "fsdp2", "zero3": "fsdp3", "fsdp": "fsdp3"}

// Parts describes the words of presets, a line each.
func Parts() []string {
	var lines []string
	for _, p := range parts {
		lines = append(lines, p.name+": "+p.means)
	}
	return lines
}

// Preset makes rules of words joined by +, in any order: "pp+ep+tp". See Parts. "" is one device.
func Preset(text string) (Rules, error) {
	var known []string
	for _, p := range parts {
		known = append(known, p.name)
	}
	on := map[string]bool{}
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return r == '+' || r == ' ' }) {
		if long, ok := aliases[word]; ok {
			word = long
		}
		if !slices.Contains(known, word) {
			return Rules{}, fmt.Errorf("%w: preset %q has %q, want %s", ErrRules, text, word, strings.Join(known, ", "))
		}
		if on[word] {
			return Rules{}, fmt.Errorf("%w: preset %q has %s twice", ErrRules, text, word)
		}
		on[word] = true
	}
	r := Rules{}
	var words []string
	zero := 0
	for _, p := range parts {
		if !on[p.name] {
			continue
		}
		for _, need := range p.needs {
			if !on[need] {
				return Rules{}, fmt.Errorf("%w: preset %q has %s without %s", ErrRules, text, p.name, need)
			}
		}
		if level, ok := strings.CutPrefix(p.name, "fsdp"); ok {
			if zero > 0 {
				return Rules{}, fmt.Errorf("%w: preset %q has fsdp%d and %s, want one", ErrRules, text, zero, p.name)
			}
			zero = int(level[0] - '0')
		}
		words = append(words, p.name)
		for _, a := range p.uses {
			if !slices.Contains(r.uses, a) {
				r.uses = append(r.uses, a)
			}
		}
	}
	if i := slices.Index(words, "dp"); i >= 0 && zero > 0 {
		words = slices.Delete(words, i, i+1) // fsdp says it
	}
	r.name = strings.Join(words, "+")
	r.fill(func(word string) bool { return slices.Contains(words, word) }, zero)
	return r, nil
}

// fill makes the tables.
func (r *Rules) fill(on func(string) bool, zero int) {
	var batch, experts, hidden, heads, layers, seq []axis.Mesh
	if on("pp") {
		layers = []axis.Mesh{axis.Pipe}
	}
	if slices.Contains(r.uses, axis.Data) {
		batch = append(batch, axis.Data)
	}
	if on("ep") {
		batch, experts = append(batch, axis.Expert), []axis.Mesh{axis.Expert}
	}
	if on("tp") {
		heads, hidden = []axis.Mesh{axis.Tensor}, []axis.Mesh{axis.Tensor}
	}
	state := []axis.Mesh{axis.Data, axis.Expert} // that hold equal copies of dense weights
	if on("etp1") {
		experts, hidden = append(experts, axis.Tensor), nil
	}
	if on("sp") {
		seq = []axis.Mesh{axis.Tensor}
	}
	micro := layers
	if on("whole") {
		batch, micro = nil, nil
	}
	split := map[axis.Logical][]axis.Mesh{
		axis.Layers: layers, Rounds: nil, Depth: nil, axis.Micro: micro,
		axis.Batch: batch, axis.Seq: nil, axis.Embed: nil, axis.Heads: heads, axis.KVHeads: heads, axis.HeadDim: nil,
		axis.Experts: experts, axis.FFN: hidden, axis.Vocab: heads, axis.Rank: nil, axis.Pool: nil,
	}
	for _, k := range Kinds {
		r.tables[k] = Table{Split: split, Fill: map[axis.Logical][]axis.Mesh{}}
	}
	r.tables[Activations].Fill[axis.Seq] = seq
	for k, from := range map[Kind]int{Moments: 1, Gradients: 2, Weights: 3} {
		if zero >= from {
			r.tables[k].Fill[axis.Embed] = state
		}
	}
}

// Derive is the preset that uses every axis of m that has more than one device, and no other.
func Derive(m Mesh) Rules {
	words := map[axis.Mesh]string{axis.Pipe: "pp", axis.Data: "dp", axis.Expert: "ep", axis.Tensor: "tp"}
	var on []string
	for _, a := range m.Axes() {
		on = append(on, words[a.Name])
	}
	r, err := Preset(strings.Join(on, "+"))
	if err != nil {
		panic(err) // of four words, each there once at most
	}
	return r
}

// For is Preset(text) for m, or Derive(m) for an empty text. It refuses rules that leave an axis of m unused:
// its devices would all compute the same.
func For(text string, m Mesh) (Rules, error) {
	if text == "" {
		return Derive(m), nil
	}
	r, err := Preset(text)
	if err != nil {
		return r, err
	}
	for _, a := range m.Axes() {
		if !slices.Contains(r.uses, a.Name) {
			return r, fmt.Errorf("%w: preset %s does not use %s=%d of mesh %v", ErrRules, r, a.Name, a.Size, m)
		}
	}
	return r, nil
}

// String is the preset's name, its words in canonical order; "none" for one device.
func (r Rules) String() string {
	if r.name == "" {
		return "none"
	}
	return r.name
}

// Has says whether the preset holds a word.
func (r Rules) Has(word string) bool { return slices.Contains(strings.Split(r.name, "+"), word) }

// Table is the table for tensors of a kind.
func (r Rules) Table(k Kind) Table { return r.tables[k] }
