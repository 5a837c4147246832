package report

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// jsonl is a file of rows, JSON objects that begin with a step, in the order of steps. A row is written
// by one call, so that a process that is killed leaves whole rows; a machine that goes down may tear the
// last one.
type jsonl struct {
	path string
	out  appender
}

func openJSONL(path string) (*jsonl, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := appendTo(path)
	if err != nil {
		return nil, err
	}
	return &jsonl{path: path, out: appender{f: f}}, nil
}

func appendTo(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
}

func (j *jsonl) close() error { return j.out.close() }

// scanned is which rows of a file stay.
type scanned struct {
	f     *os.File
	kept  []extent
	whole bool // all of the file stays
}

func (s *scanned) close() { s.f.Close() }

// scan reads the file and changes nothing. parse gives the step of a line and what is done if its row
// stays, or false for a line that is no row; has is the member that rows have beside their step. Rows up
// to first stay, for 0 none; a last row that is torn goes. Any other line that is no row is an error.
func (j *jsonl) scan(first int, has string, parse func(line []byte) (step int, take func(), ok bool)) (_ *scanned, err error) {
	f, err := os.Open(j.path)
	if err != nil {
		return nil, err
	}
	s := &scanned{f: f, whole: true}
	err = lines(f, func(n int, at extent, line []byte, last bool) error {
		step, take, ok := parse(line)
		switch {
		case !ok && !(last && torn(line)):
			return fmt.Errorf("%s, line %d: not a row of metrics, want a JSON object with step and %s", j.path, n, has)
		case !ok || step > first || first == 0:
			s.whole = false
			return nil
		}
		s.whole = s.whole && at.ended
		s.kept = append(s.kept, at)
		take()
		return nil
	})
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// torn tells whether line may be the beginning of a row, as a machine that goes down leaves it.
func torn(line []byte) bool {
	const begin = `{"step":`
	n := min(len(line), len(begin))
	return line[len(line)-1] != '\n' && (string(line[:n]) == begin[:n] || len(bytes.Trim(line, "\x00")) == 0)
}

// keep drops all that s does not keep: the file is made anew, whole, and takes the old one's place.
func (j *jsonl) keep(s *scanned) error {
	if s.whole {
		return nil
	}
	err := replace(j.path, func(to *os.File) error {
		w := bufio.NewWriterSize(to, 1<<20)
		for _, e := range s.kept {
			if _, err := io.Copy(w, io.NewSectionReader(s.f, e.begin, e.end-e.begin)); err != nil {
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
	old := j.out.f
	if j.out.f, err = appendTo(j.path); err != nil {
		j.out.f = old
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
