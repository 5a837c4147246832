package report

import (
	"errors"
	"os"
	"path/filepath"
)

// An appender writes rows to the end of a file. What a failed write leaves over is written before the
// next row, so a disk that was full for a while tears no row.
type appender struct {
	f    *os.File
	rest []byte
}

func (a *appender) write(row []byte) error {
	a.rest = append(a.rest, row...)
	n, err := a.f.Write(a.rest)
	a.rest = a.rest[:copy(a.rest, a.rest[n:])]
	return err
}

func (a *appender) close() error {
	var err error
	if len(a.rest) > 0 {
		err = a.write(nil)
	}
	return errors.Join(err, a.f.Sync(), a.f.Close())
}

// replace writes a file that appears whole or not at all; fill writes its contents.
func replace(path string, fill func(*os.File) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if err = errors.Join(fill(f), f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
