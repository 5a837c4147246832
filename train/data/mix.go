package data

import (
	"errors"
	"fmt"
	"math"
)

// mix blends the shares as Megatron does, except that inputs without weights are repeated where Megatron
// runs out. It signs for the order of training.
func (o *opener) mix(part int, shares []share, weights []float64, wanted int) (s Samples, err error) {
	var parts []Samples
	switch {
	case weights != nil:
		s, parts, err = o.byWeights(shares, weights, wanted)
	case len(shares) > 1:
		s, parts, err = o.bySizes(shares, wanted)
	default:
		if parts, err = o.samples(shares, []int{wanted}); err == nil {
			s = parts[0]
		}
	}
	if err != nil || part != Train {
		return s, err
	}
	for i, sh := range shares {
		fmt.Fprintf(o.signature, "%s [%d, %d) %s\n", sh.id, sh.begin, sh.end, order(parts[i]))
	}
	fmt.Fprintln(o.signature, weights)
	return s, nil
}

// order is what the order of samples depends on besides seed and content. Only Megatron's depends on how
// many are wanted, and that only once there is more than one epoch.
func order(s Samples) string {
	switch s := s.(type) {
	case *Dataset:
		return fmt.Sprintf("megatron %d %d %d", s.epochs, s.full, len(s.order))
	case *Packed:
		return "packed"
	}
	return "epochs"
}

// different is how many samples there are before one comes again. Megatron's order and blends do not tell:
// there it is all.
func different(s Samples) int {
	switch s := s.(type) {
	case *Packed:
		return min(len(s.rows), s.Len())
	case *Epochs:
		return s.first.Len()
	}
	return s.Len()
}

func (o *opener) byWeights(shares []share, weights []float64, wanted int) (Samples, []Samples, error) {
	if wanted == 0 {
		return nil, nil, errors.New("weights but no number of steps, want one to know how much to take of each")
	}
	sizes, total, err := BlendSizes(weights, wanted)
	if err != nil {
		return nil, nil, err
	}
	parts, err := o.samples(shares, sizes)
	if err != nil {
		return nil, nil, err
	}
	b, err := NewBlend(parts, weights, total)
	if err != nil { // many small shares, all rounded up, ask more of a large one than it was given
		b, err = NewBlend(parts, weights, wanted)
	}
	return b, parts, err
}

func (o *opener) bySizes(shares []share, wanted int) (Samples, []Samples, error) {
	parts, err := o.samples(shares, make([]int, len(shares)))
	if err != nil {
		return nil, nil, err
	}
	var lengths []float64
	all := 0
	for _, p := range parts {
		lengths = append(lengths, float64(p.Len()))
		all += p.Len()
	}
	if wanted <= all {
		b, err := NewBlendOfAll(parts, wanted)
		return b, parts, err
	}
	var sizes []int
	for _, l := range lengths {
		sizes = append(sizes, int(math.Ceil(float64(wanted)*l/float64(all)))+1)
	}
	if parts, err = o.samples(shares, sizes); err != nil {
		return nil, nil, err
	}
	b, err := byWeight(parts, lengths, wanted)
	return b, parts, err
}

// samples orders each share on its own; size 0 is one epoch.
func (o *opener) samples(shares []share, sizes []int) ([]Samples, error) {
	var all []Samples
	for i, sh := range shares {
		s, err := o.sample(sh, sizes[i])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", sh.name, err)
		}
		all = append(all, s)
	}
	return all, nil
}

func (o *opener) sample(sh share, size int) (Samples, error) {
	if sh.source == nil || o.Pack {
		documents, err := o.documents(sh)
		if err != nil {
			return nil, err
		}
		return NewPacked(documents, PackOptions{SeqLen: o.Seq, Samples: size, Seed: o.Seed, Vocab: o.vocab(), ResetPositions: o.ResetPositions})
	}
	w := Options{SeqLen: o.Seq, Samples: size, Seed: o.Seed, EOD: sh.eod, Vocab: o.vocab(),
		ResetPositions: o.ResetPositions, ResetSegments: o.ResetAttention, MaskEOD: o.MaskEOD}
	if sh.megatron {
		return NewDataset(sh.source, sh.begin, sh.end, w)
	}
	return NewEpochs(sh.source, sh.begin, sh.end, w)
}

// documents are the conversations of a share, or its sequences, read into memory. A sequence too long for
// a row is cut into several that overlap by a token, so that each token after the first is learned once.
func (o *opener) documents(sh share) ([]Document, error) {
	if sh.source == nil {
		return sh.chats[sh.begin:sh.end], nil
	}
	var all []Document
	for i := sh.begin; i < sh.end; i++ {
		ids := make([]int32, sh.source.Length(i))
		if err := sh.source.Read(ids, i, 0); err != nil {
			return nil, err
		}
		for j, id := range ids {
			if n := o.vocab(); n > 0 && uint32(id) >= uint32(n) {
				return nil, fmt.Errorf("%s: token id %d, want 0 to %d, the vocabulary", sh.source.Where(i, j), id, n-1)
			}
		}
		for ; len(ids) > o.Seq+1; ids = ids[o.Seq:] {
			all = append(all, Document{IDs: ids[:o.Seq+1]})
		}
		all = append(all, Document{IDs: ids})
	}
	return all, nil
}
