package data

import (
	"fmt"
	"sync"
)

// Epochs goes through sequences again and again, each time in an order of its own. Unlike the order of a
// Dataset, which is Megatron's, that of Epochs does not depend on how many samples are wanted: a run may
// be made longer and still go on with what it would have seen. The first epoch is a Dataset's.
type Epochs struct {
	source     Source
	begin, end int
	o          Options // Samples: 0
	first      *Dataset
	samples    int

	mutex sync.Mutex
	last  [2]epoch // those looked at last, by number modulo 2
}

// epoch is one of the orders after the first.
type epoch struct {
	number int // 0: none
	data   *Dataset
}

// NewEpochs takes the sequences [begin, end) of source, as NewDataset does. It has o.Samples samples, and
// at least those of one epoch.
func NewEpochs(source Source, begin, end int, o Options) (*Epochs, error) {
	if o.Samples < 0 || o.Samples > most {
		return nil, fmt.Errorf("%d samples, want 0 to %d", o.Samples, most)
	}
	e := &Epochs{source: source, begin: begin, end: end, o: o}
	e.o.Samples = 0
	var err error
	if e.first, err = NewDataset(source, begin, end, e.o); err != nil {
		return nil, err
	}
	e.samples = max(o.Samples, e.first.Len())
	return e, nil
}

// Len implements Samples.
func (e *Epochs) Len() int { return e.samples }

// SeqLen implements Samples.
func (e *Epochs) SeqLen() int { return e.o.SeqLen }

// Sample implements Samples.
func (e *Epochs) Sample(i int, row Row) error {
	if i < 0 || i >= e.samples {
		return fmt.Errorf("sample %d, want 0 to %d", i, e.samples-1)
	}
	d, err := e.epoch(i / e.first.Len())
	if err != nil {
		return err
	}
	return d.Sample(i%e.first.Len(), row)
}

// epoch makes the order of an epoch if it is not at hand.
func (e *Epochs) epoch(n int) (*Dataset, error) {
	if n == 0 {
		return e.first, nil
	}
	e.mutex.Lock()
	defer e.mutex.Unlock()
	at := &e.last[n%len(e.last)]
	if at.number != n {
		o := e.o
		o.Seed += uint32(n) * 0x9e3779b9 // 2³² divided by the golden ratio: seeds of near runs stay apart
		d, err := NewDataset(e.source, e.begin, e.end, o)
		if err != nil {
			return nil, err
		}
		*at = epoch{n, d}
	}
	return at.data, nil
}
