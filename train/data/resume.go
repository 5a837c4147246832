package data

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/gofrs/flock"
)

// saveEvery is how much work an interrupted run may lose.
const saveEvery = 2 * time.Second

// PreprocessFile is Preprocess of a file that goes on where a run before it was interrupted, by a signal
// or by the end of the machine. Until it is done there are PREFIX.bin.part, .doc.part and .part, which a
// failure other than an interruption removes. A run with other options, tokenizer or input starts anew.
func PreprocessFile(ctx context.Context, path, prefix string, t Tokenizer, o TextOptions) (Counts, error) {
	return o.resumable(ctx, path, prefix, t, saveEvery)
}

func (o TextOptions) resumable(ctx context.Context, path, prefix string, t Tokenizer, every time.Duration) (c Counts, err error) {
	f, err := os.Open(path)
	if err != nil {
		return c, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return c, err
	}
	p, err := openPartial(prefix, DTypeFor(t.VocabSize()), job{Tokenizer: Fingerprint(t), Key: o.key(), Plain: o.Plain, AppendEOD: o.AppendEOD,
		PrependBOS: o.PrependBOS, SkipBad: o.SkipBad, Size: info.Size(), Modified: info.ModTime().UnixNano()})
	if err != nil {
		return c, err
	}
	defer func() {
		interrupted := err != nil && errors.Is(err, ctx.Err())
		if interrupted {
			interrupted = p.save(c) == nil // c is of whole chunks
		}
		p.close(interrupted)
	}()
	c = p.Counts
	c.Resumed = c.Bytes
	if _, err := f.Seek(c.Bytes, io.SeekStart); err != nil {
		return c, err
	}
	saved := time.Now()
	err = o.tokenize(ctx, f, path, t, &c, p.w.document, func() error {
		if time.Since(saved) < every {
			return nil
		}
		saved = time.Now()
		return p.save(c)
	})
	if err != nil {
		return c, err
	}
	return c, o.commit(p.w, path, t, c)
}

// job is what two runs must have in common for one to go on with the other's work.
type job struct {
	Tokenizer                             string
	Key                                   string
	Plain, AppendEOD, PrependBOS, SkipBad bool
	Size, Modified                        int64 // of the input: bytes, nanoseconds
}

// state is the contents of PREFIX.part.
type state struct {
	Job      job
	Counts   Counts
	BinBytes int64 // good in .bin.part
	DocBytes int64 // good in .doc.part
}

// partial is a dataset that is being written and may be gone on with. The .doc.part file has for each
// document the number of its sequences and their lengths, all uint32.
type partial struct {
	state
	prefix  string
	w       *Writer
	doc     *os.File
	written int // documents in doc
	lock    *flock.Flock
}

// openPartial goes on with what is there if it is of the same job, else it starts anew. It fails while
// another process writes the same dataset.
func openPartial(prefix string, dtype DType, j job) (_ *partial, err error) {
	p := &partial{prefix: prefix, lock: flock.New(prefix + ".bin.part")}
	mine, err := p.lock.TryLock()
	if err != nil {
		return nil, err
	}
	if !mine {
		p.lock.Close()
		return nil, fmt.Errorf("%s.bin.part: another process is writing it", prefix)
	}
	defer func() {
		if err != nil {
			p.close(false)
		}
	}()
	bin, err := os.OpenFile(prefix+".bin.part", os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	p.w = &Writer{prefix: prefix, dtype: dtype, bin: bin, buf: bufio.NewWriterSize(bin, 1<<20), documents: []int64{0}}
	if p.doc, err = os.OpenFile(prefix+".doc.part", os.O_RDWR|os.O_CREATE, 0o644); err != nil {
		return nil, err
	}
	if !p.load(j) {
		p.state = state{Job: j}
		p.w.lengths, p.w.documents = nil, []int64{0}
	}
	p.written = len(p.w.documents) - 1
	for f, size := range map[*os.File]int64{bin: p.BinBytes, p.doc: p.DocBytes} {
		if err = f.Truncate(size); err != nil {
			return nil, err
		}
		if _, err = f.Seek(size, io.SeekStart); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// load reads what a run before left; false if that is nothing of this job, or not whole.
func (p *partial) load(j job) bool {
	b, err := os.ReadFile(p.prefix + ".part")
	if err != nil || json.Unmarshal(b, &p.state) != nil || p.Job != j || p.DocBytes < 0 || p.DocBytes > 1<<40 {
		return false
	}
	info, err := p.w.bin.Stat()
	if err != nil || info.Size() < p.BinBytes {
		return false
	}
	r := bufio.NewReader(io.LimitReader(p.doc, p.DocBytes))
	word := func() (v uint32) {
		if err == nil {
			err = binary.Read(r, binary.LittleEndian, &v)
		}
		return v
	}
	tokens, read := int64(0), int64(0)
	for read < p.DocBytes && err == nil {
		n := word()
		for range n {
			if err != nil {
				return false
			}
			l := word()
			p.w.lengths = append(p.w.lengths, int32(l))
			tokens += int64(l)
		}
		read += 4 * (1 + int64(n))
		p.w.EndDocument()
	}
	return err == nil && tokens == p.Counts.Tokens && tokens*int64(p.w.dtype.Bytes()) == p.BinBytes && len(p.w.documents) == p.Counts.Documents+1
}

// save makes what was written so far good.
func (p *partial) save(c Counts) error {
	var b []byte
	d := p.w.documents
	for ; p.written < len(d)-1; p.written++ {
		of := p.w.lengths[d[p.written]:d[p.written+1]]
		b = binary.LittleEndian.AppendUint32(b, uint32(len(of)))
		for _, l := range of {
			b = binary.LittleEndian.AppendUint32(b, uint32(l))
		}
	}
	if _, err := p.doc.Write(b); err != nil {
		return err
	}
	if err := errors.Join(p.w.buf.Flush(), p.w.bin.Sync(), p.doc.Sync()); err != nil {
		return err
	}
	p.DocBytes += int64(len(b))
	p.BinBytes = c.Tokens * int64(p.w.dtype.Bytes())
	p.Counts = c
	text, err := json.Marshal(p.state)
	if err != nil {
		return err
	}
	return writeFile(p.prefix+".part", text)
}

// close ends the work. What was saved stays if the run was interrupted.
func (p *partial) close(interrupted bool) {
	if p.doc != nil {
		p.doc.Close()
	}
	if interrupted && p.w != nil && p.w.bin != nil {
		p.w.bin.Close()
	} else {
		if p.w != nil {
			p.w.Abort()
		}
		os.Remove(p.prefix + ".doc.part")
		os.Remove(p.prefix + ".part")
	}
	p.lock.Unlock()
}
