package data

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// An input is what is at one path, opened: a source of sequences, or conversations.
type input struct {
	name     string
	source   Source
	chats    []Document // if source is nil
	megatron bool       // to be sampled in Megatron's order
	eod      int32      // -1: not known
	id       string     // of the content
	what     string     // for people
	close    func() error
}

// sequences is how many there are to share out.
func (in *input) sequences() int {
	if in.source == nil {
		return len(in.chats)
	}
	return in.source.Sequences()
}

// tokens counts those of the sequences [begin, end).
func (in *input) tokens(begin, end int) (n int64) {
	for i := begin; i < end; i++ {
		if in.source == nil {
			n += int64(len(in.chats[i].IDs))
		} else {
			n += int64(in.source.Length(i))
		}
	}
	return n
}

// open finds out what path is, and opens it.
func (s *Spec) open(ctx context.Context, path string) (*input, error) {
	prefix := path
	for _, end := range []string{".bin", ".idx"} {
		prefix = strings.TrimSuffix(prefix, end)
	}
	if _, err := os.Stat(prefix + ".idx"); err == nil {
		return s.indexed(prefix)
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("%s: no such file, nor a dataset %s.idx", path, prefix)
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s: not a file, want jsonl, text, or the prefix of .bin and .idx", path)
	case s.Tokenizer == nil:
		return nil, fmt.Errorf("%s: no tokenizer, want one for text", path)
	}
	kind, err := s.kindOf(path)
	if err != nil {
		return nil, err
	}
	if kind == chatFile {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return s.conversations(ctx, f, path, info.Size())
	}
	return s.text(ctx, path, kind, info)
}

// fileKind is what a file that is tokenized holds.
type fileKind int

const (
	plainFile fileKind = iota
	textFile           // jsonl with texts
	chatFile           // jsonl with conversations
)

// kindOf looks at the first line of a file.
func (s *Spec) kindOf(path string) (fileKind, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	json := slices.Contains([]string{".jsonl", ".json", ".ndjson"}, strings.ToLower(filepath.Ext(path)))
	l := newLines(f)
	begin, err := l.r.Peek(64)
	if err != nil && err != io.EOF {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	if begin = bytes.TrimLeft(begin, " \t\r\n"); !json && !bytes.HasPrefix(begin, []byte("{")) {
		return plainFile, nil
	}
	var line []byte
	for len(bytes.TrimSpace(line)) == 0 {
		if line, _, err = l.next(); err == io.EOF {
			return 0, fmt.Errorf("%s: empty, want a JSON object a line", path)
		} else if err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
	}
	o, err := object(line)
	if err != nil {
		if !json {
			return plainFile, nil
		}
		return 0, fmt.Errorf("%s: line %d: %w", path, l.line, err)
	}
	key := TextOptions{Key: s.Key}.key()
	switch {
	case o[key] != nil:
		return textFile, nil
	case o["messages"] != nil:
		return chatFile, nil
	case !json:
		return plainFile, nil
	}
	return 0, fmt.Errorf("%s: line %d has the keys %q, want %q or \"messages\"", path, l.line, slices.Sorted(maps.Keys(o)), key)
}

// indexed opens a dataset in Megatron's format.
func (s *Spec) indexed(prefix string) (*input, error) {
	x, err := Open(prefix)
	if err != nil {
		return nil, err
	}
	in := &input{name: prefix, source: x, megatron: true, eod: -1, close: x.Close,
		what: fmt.Sprintf("%d documents, %d sequences, %d tokens in %s", x.Documents(), x.Sequences(), x.Tokens(), x.DType())}
	if m := x.Manifest(); m != nil {
		in.eod = m.EOD
	}
	if s.Tokenizer != nil {
		err = x.CheckTokenizer(s.Tokenizer)
	}
	if err == nil {
		h := sha256.New()
		err = errors.Join(sampled(h, prefix+".idx"), sampled(h, prefix+".bin"))
		in.id = "indexed " + sum256(h)
	}
	if err != nil {
		x.Close()
		return nil, err
	}
	return in, nil
}

// text tokenizes a file into the cache, or finds it there, or tokenizes it into memory.
func (s *Spec) text(ctx context.Context, path string, kind fileKind, info os.FileInfo) (*input, error) {
	o := TextOptions{Key: s.Key, Plain: kind == plainFile, AppendEOD: true, PrependBOS: s.PrependBOS,
		SkipBad: s.SkipBad, Workers: s.Workers, Progress: s.progress(path, info.Size())}
	made := fmt.Sprintf("%s %q %t %t %t", Fingerprint(s.Tokenizer), o.key(), o.Plain, o.PrependBOS, o.SkipBad)
	in := &input{name: path, eod: s.Tokenizer.EOS()}
	h := sha256.New()
	if err := sampled(h, path); err != nil {
		return nil, err
	}
	in.id = "text " + sum256(h) + " " + made
	if s.Cache == "" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		m, c, err := ReadText(ctx, f, path, s.Tokenizer, o)
		in.source, in.close = m, func() error { return nil }
		in.what = fmt.Sprintf("%d sequences, %d tokens, %d bad lines", c.Sequences, c.Tokens, c.BadLines)
		return in, err
	}
	x, err := s.cached(ctx, path, made, info, o)
	if err != nil {
		return nil, err
	}
	in.source, in.close = x, x.Close
	in.what = fmt.Sprintf("%d sequences, %d tokens, %d bad lines", x.Sequences(), x.Tokens(), x.Manifest().BadLines)
	return in, nil
}

// cached is the tokenized form of a file. Its name has a hash of all that it depends on, so that one that
// is there is the right one; one that is not whole is made again.
func (s *Spec) cached(ctx context.Context, path, made string, info os.FileInfo, o TextOptions) (*Indexed, error) {
	whole, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	fmt.Fprintf(h, "%q %d %d %s", whole, info.Size(), info.ModTime().UnixNano(), made)
	prefix := filepath.Join(s.Cache, filepath.Base(path)+"-"+sum256(h)[:16])
	if x, err := Open(prefix); err == nil {
		if x.Manifest() != nil && x.CheckTokenizer(s.Tokenizer) == nil {
			return x, nil
		}
		x.Close()
	}
	if err := os.MkdirAll(s.Cache, 0o755); err != nil {
		return nil, err
	}
	if _, err := PreprocessFile(ctx, path, prefix, s.Tokenizer, o); err != nil {
		return nil, err
	}
	return Open(prefix)
}

// texts tokenizes documents into memory.
func (s *Spec) texts(ctx context.Context) (*input, error) {
	all := strings.Join(s.Documents, "\x00")
	o := TextOptions{Plain: true, AppendEOD: true, PrependBOS: s.PrependBOS, SkipBad: s.SkipBad, Workers: s.Workers,
		Progress: s.progress("documents", int64(len(all)))}
	m, c, err := ReadText(ctx, strings.NewReader(all), "documents", s.Tokenizer, o)
	if err != nil {
		return nil, err
	}
	return &input{name: "documents", source: m, eod: s.Tokenizer.EOS(), id: "ids " + hashIDs(m.Documents()),
		what:  fmt.Sprintf("%d texts, %d sequences, %d tokens", len(s.Documents), c.Sequences, c.Tokens),
		close: func() error { return nil }}, nil
}

// conversations reads chat jsonl into memory.
func (s *Spec) conversations(ctx context.Context, r io.Reader, name string, size int64) (*input, error) {
	all, c, err := ReadChat(ctx, r, name, s.Tokenizer, ChatOptions{Template: s.Template, SkipBad: s.SkipBad,
		Workers: s.Workers, Progress: s.progress(name, size)})
	if err != nil {
		return nil, err
	}
	return &input{name: name, chats: all, eod: s.Tokenizer.EOS(), id: "chats " + hashIDs(all),
		what:  fmt.Sprintf("%d conversations, %d tokens, %d bad lines", c.Documents, c.Tokens, c.BadLines),
		close: func() error { return nil }}, nil
}

// madeUp is Megatron's mock data.
func (s *Spec) madeUp() (*input, error) {
	eod := int32(s.vocab() - 1) // that of Megatron's NullTokenizer
	if s.Tokenizer != nil {
		eod = s.Tokenizer.EOS()
	}
	m, err := Mock(s.vocab(), eod)
	if err != nil {
		return nil, err
	}
	return &input{name: "mock data", source: m, megatron: true, eod: eod, id: fmt.Sprintf("mock %d %d", s.vocab(), eod),
		what: fmt.Sprintf("%d sequences", m.Sequences()), close: func() error { return nil }}, nil
}

func (s *Spec) progress(path string, total int64) func(int64) {
	if s.Progress == nil {
		return nil
	}
	return func(done int64) { s.Progress(path, done, total) }
}

// sampled hashes the size of a file and, if it is large, a few parts of it instead of all.
func sampled(h hash.Hash, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	size := info.Size()
	fmt.Fprintf(h, "%d bytes\n", size)
	const part, parts = 1 << 20, 16
	if size <= part*parts {
		_, err = io.Copy(h, f)
		return err
	}
	for i := range int64(parts) {
		if _, err := io.Copy(h, io.NewSectionReader(f, i*(size-part)/(parts-1), part)); err != nil {
			return err
		}
	}
	return nil
}

// hashIDs is a hash of documents, marks included.
func hashIDs(all []Document) string {
	h := sha256.New()
	var b []byte
	for _, d := range all {
		b = binary.LittleEndian.AppendUint32(b[:0], uint32(len(d.IDs)))
		for i, id := range d.IDs {
			b = binary.LittleEndian.AppendUint32(b, uint32(id))
			if !d.learns(i) {
				b = append(b, 1)
			}
		}
		h.Write(b)
	}
	return sum256(h)
}

func sum256(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)) }
