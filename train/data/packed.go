package data

import "fmt"

// A Document is a text with a mark at each token that is to be learned; no marks mean all.
type Document struct {
	IDs   []int32
	Learn []bool
}

func (d Document) learns(i int) bool { return d.Learn == nil || d.Learn[i] }

// trains tells whether the first n tokens have any to learn; the first never is, nothing precedes it.
func (d Document) trains(n int) bool {
	for i := 1; i < n; i++ {
		if d.learns(i) {
			return true
		}
	}
	return false
}

// PackOptions of a Packed.
type PackOptions struct {
	SeqLen  int    // S, tokens
	Samples int    // wanted; 0: one epoch
	Seed    uint32 // of the order

	Vocab          int  // ids at or above it are refused; 0: not checked
	ResetPositions bool // positions count from 0 in each document
	OneSegment     bool // documents of a row see those before them
}

// Packed puts whole documents together into rows, so that little is padding and no document is cut. A
// document's first token is never a label, and padding is of segment Padding.
//
// Every epoch has all rows in an order of its own.
type Packed struct {
	documents []Document
	rows      [][]int32 // documents of each row
	order     []uint32  // row of each sample
	o         PackOptions
	stats     PackStats
}

// PackStats is what became of the documents.
type PackStats struct {
	Documents int `json:"documents"` // in rows
	Cut       int `json:"cut"`       // of them shortened to S+1 tokens
	Dropped   int `json:"dropped"`   // with nothing to learn in S+1 tokens
	Rows      int `json:"rows"`
	Tokens    int `json:"tokens"` // in rows, without padding
}

// openRows is how many rows are looked at for room.
const openRows = 64

// NewPacked packs documents in their order, each into the oldest row with room for it among those that
// are still open. It fails if there is nothing to learn, with the counts.
func NewPacked(documents []Document, o PackOptions) (*Packed, error) {
	if o.SeqLen < 1 || o.SeqLen >= most || o.Samples < 0 || o.Samples > most || len(documents) > most {
		return nil, fmt.Errorf("%d documents for %d samples of %d tokens, want at least 1 token and 0 to %d samples",
			len(documents), o.Samples, o.SeqLen, most)
	}
	p := &Packed{o: o}
	room := o.SeqLen + 1
	type open struct{ row, left int }
	var opened []open
	for i, d := range documents {
		if err := d.check(i, o.Vocab); err != nil {
			return nil, err
		}
		n := min(len(d.IDs), room)
		if !d.trains(n) {
			p.stats.Dropped++
			continue
		}
		if n < len(d.IDs) {
			p.stats.Cut++
			d.IDs = d.IDs[:n]
		}
		at := -1
		for j := range opened {
			if opened[j].left >= n {
				at = j
				break
			}
		}
		if at < 0 {
			if len(opened) == openRows {
				opened = append(opened[:0], opened[1:]...)
			}
			at = len(opened)
			opened = append(opened, open{len(p.rows), room})
			p.rows = append(p.rows, nil)
		}
		opened[at].left -= n
		p.rows[opened[at].row] = append(p.rows[opened[at].row], int32(len(p.documents)))
		p.documents = append(p.documents, d)
		p.stats.Tokens += n
	}
	p.stats.Documents, p.stats.Rows = len(p.documents), len(p.rows)
	if len(p.rows) == 0 {
		return nil, fmt.Errorf("%d documents, none with a token to learn within %d", len(documents), room)
	}
	p.shuffle()
	return p, nil
}

func (d Document) check(i, vocab int) error {
	if d.Learn != nil && len(d.Learn) != len(d.IDs) {
		return fmt.Errorf("document %d: %d marks for %d tokens", i, len(d.Learn), len(d.IDs))
	}
	for j, id := range d.IDs {
		if vocab > 0 && uint32(id) >= uint32(vocab) {
			return fmt.Errorf("document %d, token %d: token id %d, want 0 to %d, the vocabulary", i, j, id, vocab-1)
		}
	}
	return nil
}

// shuffle orders the rows of one epoch after another.
func (p *Packed) shuffle() {
	n := p.o.Samples
	if n == 0 {
		n = len(p.rows)
	}
	r := newRandomState(p.o.Seed)
	p.order = make([]uint32, 0, n)
	epoch := make([]uint32, len(p.rows))
	for len(p.order) < n {
		for i := range epoch {
			epoch[i] = uint32(i)
		}
		shuffle(r, epoch)
		p.order = append(p.order, epoch[:min(len(epoch), n-len(p.order))]...)
	}
}

// Len implements Samples.
func (p *Packed) Len() int { return len(p.order) }

// SeqLen implements Samples.
func (p *Packed) SeqLen() int { return p.o.SeqLen }

// Stats tells what became of the documents.
func (p *Packed) Stats() PackStats { return p.stats }

// Sample implements Samples.
func (p *Packed) Sample(i int, row Row) error {
	if i < 0 || i >= len(p.order) {
		return fmt.Errorf("sample %d, want 0 to %d", i, len(p.order)-1)
	}
	at, segment := 0, int32(0)
	for _, d := range p.rows[p.order[i]] {
		p.put(p.documents[d], at, segment, row)
		at += len(p.documents[d].IDs)
		segment++
	}
	p.put(Document{IDs: make([]int32, p.o.SeqLen+1-at), Learn: make([]bool, p.o.SeqLen+1-at)}, at, Padding, row)
	return nil
}

// put writes a document at a place of the row. The last of S+1 tokens is a label only.
func (p *Packed) put(d Document, at int, segment int32, row Row) {
	if row.Tokens != nil {
		copy(row.Tokens[at:], d.IDs)
	}
	for j := range min(len(d.IDs), p.o.SeqLen-at) {
		if row.Labels != nil {
			row.Labels[at+j] = NoLoss
			if j+1 < len(d.IDs) && d.learns(j+1) {
				row.Labels[at+j] = d.IDs[j+1]
			}
		}
		if row.Segments != nil {
			row.Segments[at+j] = segment
			if p.o.OneSegment && segment != Padding {
				row.Segments[at+j] = 0
			}
		}
		if row.Positions != nil {
			row.Positions[at+j] = int32(at + j)
			if p.o.ResetPositions {
				row.Positions[at+j] = int32(j)
			}
		}
	}
}
