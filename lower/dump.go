package lower

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// dump writes the module of one program after its passes, one numbered file a pass.
type dump struct {
	dir  string // "" writes nothing
	name string
	n    int
	last string // path of the newest file
}

// newDump names the files of a program: name, then name-2 for the second of that name.
func (b *Backend) newDump(program string) *dump {
	d := &dump{dir: b.o.DumpDir, name: fileName(program)}
	if d.dir == "" {
		return d
	}
	b.mu.Lock()
	b.dumped[d.name]++
	n := b.dumped[d.name]
	b.mu.Unlock()
	if n > 1 {
		d.name = fmt.Sprintf("%s-%d", d.name, n)
	}
	return d
}

// write adds <program>.NN.<stage>.mlir.
func (d *dump) write(stage string, text func() string) error {
	if d.dir == "" {
		return nil
	}
	if err := os.MkdirAll(d.dir, 0o755); err != nil {
		return fmt.Errorf("lower: dump: %w", err)
	}
	path := filepath.Join(d.dir, fmt.Sprintf("%s.%02d.%s.mlir", d.name, d.n, stage))
	d.n++
	if err := os.WriteFile(path, []byte(text()), 0o644); err != nil {
		return fmt.Errorf("lower: dump: %w", err)
	}
	d.last = path
	return nil
}

// failure adds to an error where the module can be read. XLA's complaints are useless without it, so
// the text of a program that does not compile is always written.
func (d *dump) failure(err error, text string) error {
	if d.last != "" {
		return fmt.Errorf("%w (module: %s)", err, d.last)
	}
	f, ferr := os.CreateTemp("", "mix-"+d.name+"-*.mlir")
	if ferr != nil {
		return fmt.Errorf("%w (set MIX_DUMP=DIR to keep the module)", err)
	}
	_, ferr = f.WriteString(text)
	if cerr := f.Close(); ferr == nil {
		ferr = cerr
	}
	if ferr != nil {
		return fmt.Errorf("%w (set MIX_DUMP=DIR to keep the module)", err)
	}
	return fmt.Errorf("%w (module: %s; MIX_DUMP=DIR shows every pass)", err, f.Name())
}

// fileName keeps the part of a program's name that is safe in a file name.
func fileName(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == '_' || r == '-' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return '_'
	}, s)
	if s == "" {
		s = "program"
	}
	return s[:min(len(s), 80)]
}
