package data

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"strings"
)

// OpenSets opens, tokenizes where need be, splits and orders what spec names. A part that is empty, or too
// small for one sample, is refused with the counts.
func OpenSets(ctx context.Context, spec Spec) (_ *Sets, err error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	o := opener{Spec: spec, sets: &Sets{tokenizer: spec.Tokenizer, Positions: spec.ResetPositions,
		Segments: spec.ResetAttention || spec.Pack}, signature: sha256.New()}
	defer func() {
		if err != nil {
			o.sets.Close()
		}
	}()
	if spec.perSplit() {
		err = o.apart(ctx)
	} else {
		err = o.together(ctx)
	}
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(o.signature, "%d %d %t %t %t %t", spec.Seq, spec.Seed, spec.Pack, spec.ResetPositions, spec.ResetAttention, spec.MaskEOD)
	o.sets.Fingerprint = sum256(o.signature)
	o.sets.Description = strings.Join(o.said, "\n")
	if o.sets.Valid != nil && spec.Tokenizer != nil {
		o.sets.BytesPerToken, err = bytesPerToken(o.sets.Valid, o.sets.EvalSamples, spec.Tokenizer)
	}
	return o.sets, err
}

// opener makes Sets.
type opener struct {
	Spec
	sets      *Sets
	signature hash.Hash
	said      []string
}

// together shares the same inputs out to all parts.
func (o *opener) together(ctx context.Context) error {
	text := DefaultSplit
	switch {
	case o.Mock:
		text = MockSplit
	case o.Split != "":
		text = o.Split
	}
	split, err := ParseSplit(text)
	if err != nil {
		return err
	}
	var inputs []*input
	var weights []float64
	switch {
	case len(o.Paths) > 0:
		inputs, weights, err = o.openAll(ctx, o.Paths)
	case o.Mock:
		inputs, err = o.keep(o.madeUp())
	case o.Documents != nil:
		inputs, err = o.keep(o.texts(ctx))
	default:
		inputs, err = o.keep(o.conversations(ctx, o.Chats, "conversations", 0))
	}
	if err != nil {
		return err
	}
	for part := range partNames {
		if err := o.put(part, inputs, weights, split, text); err != nil {
			return err
		}
	}
	return nil
}

// apart opens inputs for each part.
func (o *opener) apart(ctx context.Context) error {
	for part, paths := range o.SplitPaths {
		if !o.wants(part) {
			continue
		}
		inputs, weights, err := o.openAll(ctx, paths)
		if err != nil {
			return err
		}
		var all Split
		all[part] = [2]float64{0, 1}
		if err := o.put(part, inputs, weights, all, ""); err != nil {
			return err
		}
	}
	return nil
}

func (o *opener) openAll(ctx context.Context, list []string) (inputs []*input, weights []float64, err error) {
	paths, weights, err := parseBlend(list)
	if err != nil {
		return nil, nil, err
	}
	for _, path := range paths {
		in, err := o.keep(o.open(ctx, path))
		if err != nil {
			return nil, nil, err
		}
		inputs = append(inputs, in...)
	}
	return inputs, weights, nil
}

// keep notes what was opened.
func (o *opener) keep(in *input, err error) ([]*input, error) {
	if err != nil {
		return nil, err
	}
	o.sets.close = append(o.sets.close, in.close)
	o.said = append(o.said, in.name+": "+in.what)
	if in.source == nil {
		o.sets.Segments = true
	}
	if in.eod < 0 && o.Tokenizer != nil {
		in.eod = o.Tokenizer.EOS()
	}
	if in.eod < 0 && (o.ResetPositions || o.ResetAttention || o.MaskEOD) {
		return nil, fmt.Errorf("%s: it is not known which id ends documents, want a tokenizer to reset or mask there", in.name)
	}
	return []*input{in}, nil
}

// put makes one part of the sets, if it is asked for.
func (o *opener) put(part int, inputs []*input, weights []float64, split Split, text string) error {
	if !o.wants(part) {
		return nil
	}
	var shares []share
	for _, in := range inputs {
		s, err := o.share(part, in, split, text)
		if err != nil {
			return err
		}
		shares = append(shares, s)
	}
	wanted := o.Counts()[part]
	s, err := o.mix(part, shares, weights, wanted)
	if err != nil {
		return fmt.Errorf("%s: %w", partNames[part], err)
	}
	if s.Len() < wanted {
		return fmt.Errorf("%s: %d samples, want %d", partNames[part], s.Len(), wanted)
	}
	switch part {
	case Train:
		o.sets.Train = s
	case Valid:
		o.sets.Valid = s
		o.sets.EvalSamples = min(o.EvalBatches*o.Global, different(s))
	default:
		o.sets.Test = s
	}
	var tokens int64
	for _, sh := range shares {
		tokens += sh.tokens
	}
	said := fmt.Sprintf("%s: %d tokens, %d samples of %d", partNames[part], tokens, s.Len(), o.Seq)
	if p, is := s.(*Packed); is {
		said += fmt.Sprintf("; %d documents in %d rows, %d cut, %d dropped with nothing to learn", p.stats.Documents, p.stats.Rows, p.stats.Cut, p.stats.Dropped)
	}
	o.said = append(o.said, said)
	return nil
}

// share is a part of an input: the sequences [begin, end).
type share struct {
	*input
	begin, end int
	tokens     int64
}

// share refuses a part that has not the tokens of one sample. Megatron repeats it until it has.
func (o *opener) share(part int, in *input, split Split, text string) (share, error) {
	n := in.sequences()
	begin, end, err := split.Share(part, n)
	if err != nil {
		return share{}, fmt.Errorf("%s: %w; %s", in.name, err, o.advice(part))
	}
	s := share{in, begin, end, in.tokens(begin, end)}
	if in.source == nil {
		return s, nil // a conversation may be shorter than a sample
	}
	if need := int64(o.Seq) + 1; s.tokens < need && !o.Pack {
		of := ""
		if text != "" {
			of = fmt.Sprintf(" of split %s", text)
		}
		all := in.tokens(0, n)
		return share{}, fmt.Errorf("%s: %s%s has %d of %d tokens, in %d of %d sequences, want at least %d for one sample of %d; %s",
			in.name, partNames[part], of, s.tokens, all, end-begin, n, need, o.Seq, o.advice(part))
	}
	return s, nil
}

func (o *opener) advice(part int) string {
	if part == Train {
		return "more data, a larger share or shorter samples would do"
	}
	without := map[int]string{Valid: "no evaluations", Test: "no test"}[part]
	return fmt.Sprintf("more data, a larger share, shorter samples or %s would do", without)
}
