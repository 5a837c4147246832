package data

import (
	"fmt"
	"math"
	"sort"
)

// NoLoss is the label of a position that is not trained on.
const NoLoss = -100

// Padding is the segment of what no document reaches into: it sees itself only, and counts for nothing.
const Padding = -1

// Row is one sample, to be filled. Fields that are nil are not asked for.
type Row struct {
	Tokens    []int32 // [S+1]; padding is 0
	Labels    []int32 // [S] the token after each position, NoLoss where there is none to learn
	Segments  []int32 // [S] documents that may not see each other, counted from 0, or Padding
	Positions []int32 // [S]
}

// Samples is a list of samples in the order of training. It is safe for concurrent use.
type Samples interface {
	Len() int
	SeqLen() int                 // S
	Sample(i int, row Row) error // fills row with sample i
}

// Options of a Dataset.
type Options struct {
	SeqLen  int    // S, tokens
	Samples int    // wanted at least; 0: those of one epoch
	Seed    uint32 // of both shuffles

	EOD   int32 // id that ends documents, -1 if none does
	Vocab int   // ids at or above it are refused; 0: not checked

	ResetPositions bool // positions count from 0 in each document
	ResetSegments  bool // documents do not see each other
	MaskEOD        bool // no loss where the input is EOD

	KeepPartial  bool // a last sample that is not full is padded rather than dropped
	NoExtraToken bool // windows of S tokens, where the last has no label, rather than S+1
}

// Dataset cuts documents into samples in the order of Megatron's GPTDataset: sequences are shuffled over
// all epochs, joined, cut into windows that overlap by one token, and the windows shuffled. If the
// last epoch gives less than 80% of its samples, it is shuffled on its own.
//
// A window is found from its number by bisection, so the sample index of Megatron is never stored.
//
// Source: Megatron-LM, core/datasets/gpt_dataset.py and helpers.cpp.
type Dataset struct {
	source Source
	o      Options
	docs   []int32  // the sequences in their order
	ends   []int64  // tokens up to the end of each of docs
	order  []uint32 // windows in their order
	extra  int      // 1: windows have a token more than they have positions
	epochs int
	full   int // windows that are shuffled together, before those of a last epoch of its own
}

// most is how many entries an index may have.
const most = 1 << 30

// NewDataset takes the sequences [begin, end) of source; see Split. It fails if they do not have the
// tokens of one sample, and says how many there are.
func NewDataset(source Source, begin, end int, o Options) (*Dataset, error) {
	if begin < 0 || begin > end || end > source.Sequences() || end > math.MaxInt32 {
		return nil, fmt.Errorf("sequences [%d, %d), want within [0, %d)", begin, end, source.Sequences())
	}
	if o.SeqLen < 1 || o.SeqLen >= math.MaxInt32 || o.Samples < 0 || o.Samples > most {
		return nil, fmt.Errorf("samples of %d tokens, %d of them, want at least 1 token and 0 to %d samples", o.SeqLen, o.Samples, most)
	}
	d := &Dataset{source: source, o: o, extra: 1}
	if o.NoExtraToken {
		d.extra = 0
	}
	var tokens int64
	for i := begin; i < end; i++ {
		tokens += int64(source.Length(i))
	}
	if tokens == 0 {
		return nil, fmt.Errorf("sequences [%d, %d) have no tokens, want at least %d for one sample", begin, end, o.SeqLen+d.extra)
	}
	seq, wanted, extra := int64(o.SeqLen), int64(o.Samples), int64(d.extra)
	epochs := max(1, (wanted*seq+extra+tokens-1)/tokens)
	if epochs > most/int64(end-begin) {
		return nil, fmt.Errorf("%d samples of %d tokens: %d epochs of %d sequences, want at most %d in all; there are %d tokens",
			o.Samples, o.SeqLen, epochs, end-begin, most, tokens)
	}
	total := epochs*tokens - extra
	windows := total / seq
	if o.KeepPartial {
		windows = (total + seq - 1) / seq
	}
	if windows < 1 || windows > most {
		return nil, fmt.Errorf("sequences [%d, %d) have %d tokens: %d samples of %d, want 1 to %d", begin, end, tokens, windows, o.SeqLen, most)
	}
	full := windows // samples of the epochs that are shuffled together
	if epochs > 1 {
		before := ((epochs-1)*tokens - extra) / seq
		if wanted-before < int64(0.8*float64((tokens-extra)/seq)) {
			full = before
		}
	}
	d.epochs, d.full = int(epochs), int(full)
	d.shuffle(begin, end, int(full), int(windows))
	return d, nil
}

// shuffle makes docs, ends and order. Windows from full on belong to a last epoch of its own.
func (d *Dataset) shuffle(begin, end, full, windows int) {
	r := newRandomState(d.o.Seed)
	epoch := func(n int) {
		at := len(d.docs)
		for range n {
			for i := begin; i < end; i++ {
				d.docs = append(d.docs, int32(i))
			}
		}
		shuffle(r, d.docs[at:])
	}
	d.docs = make([]int32, 0, d.epochs*(end-begin))
	if full < windows {
		epoch(d.epochs - 1)
		epoch(1)
	} else {
		epoch(d.epochs)
	}
	d.ends = make([]int64, len(d.docs))
	at := int64(0)
	for i, doc := range d.docs {
		at += int64(d.source.Length(int(doc)))
		d.ends[i] = at
	}
	d.order = make([]uint32, windows)
	for i := range d.order {
		d.order[i] = uint32(i)
	}
	shuffle(r, d.order[:full])
	shuffle(r, d.order[full:])
}

// Len is how many samples there are, at least those asked for.
func (d *Dataset) Len() int { return len(d.order) }

// SeqLen implements Samples.
func (d *Dataset) SeqLen() int { return d.o.SeqLen }

// Epochs is how often the sequences are gone through.
func (d *Dataset) Epochs() int { return d.epochs }

// Sample implements Samples. A token id beyond the vocabulary is an error that names its place.
func (d *Dataset) Sample(i int, row Row) error {
	if i < 0 || i >= len(d.order) {
		return fmt.Errorf("sample %d, want 0 to %d", i, len(d.order)-1)
	}
	tokens := row.Tokens
	if tokens == nil {
		tokens = make([]int32, d.o.SeqLen+1)
	}
	n, err := d.window(int64(d.order[i])*int64(d.o.SeqLen), tokens[:d.o.SeqLen+d.extra])
	if err != nil {
		return fmt.Errorf("sample %d: %w", i, err)
	}
	clear(tokens[n:])
	d.mark(tokens, n, row)
	return nil
}

// window fills dst with the tokens from at on, and returns how many there were.
func (d *Dataset) window(at int64, dst []int32) (n int, err error) {
	doc, offset := d.locate(at)
	for ; n < len(dst) && doc < len(d.docs); doc++ {
		seq := int(d.docs[doc])
		part := dst[n:min(len(dst), n+d.source.Length(seq)-offset)]
		if err := d.source.Read(part, seq, offset); err != nil {
			return n, err
		}
		if d.o.Vocab > 0 {
			for i, id := range part {
				if uint32(id) >= uint32(d.o.Vocab) {
					return n, fmt.Errorf("%s: token id %d, want 0 to %d, the vocabulary", d.source.Where(seq, offset+i), id, d.o.Vocab-1)
				}
			}
		}
		n += len(part)
		offset = 0
	}
	return n, nil
}

// locate finds token at of all sequences joined: the entry of docs that holds it and the place in there.
func (d *Dataset) locate(at int64) (doc, offset int) {
	doc = sort.Search(len(d.ends), func(i int) bool { return d.ends[i] > at })
	if doc > 0 {
		at -= d.ends[doc-1]
	}
	return doc, int(at)
}

// mark fills the other fields of row from n tokens and the padding after them.
func (d *Dataset) mark(tokens []int32, n int, row Row) {
	if row.Labels != nil {
		for i := range d.o.SeqLen {
			row.Labels[i] = tokens[i+1]
			if i+1 >= n || d.o.MaskEOD && tokens[i] == d.o.EOD {
				row.Labels[i] = NoLoss
			}
		}
	}
	fill(tokens[:min(n, d.o.SeqLen)], d.o.EOD, d.o.ResetSegments, row.Segments)
	if row.Positions != nil {
		position := int32(0)
		for i := range row.Positions {
			row.Positions[i] = position
			position++
			if d.o.ResetPositions && i < n && tokens[i] == d.o.EOD {
				position = 0
			}
		}
	}
}

// fill numbers the documents of tokens, each ended by eod, in segments. Padding belongs to the last.
func fill(tokens []int32, eod int32, reset bool, segments []int32) {
	segment := int32(0)
	for i := range segments {
		segments[i] = segment
		if reset && i < len(tokens) && tokens[i] == eod {
			segment++
		}
	}
}
