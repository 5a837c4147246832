package ckpt

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path/filepath"
	"runtime"

	"mix/sharding/axis"
	"mix/sharding/ckpt/torchfile"
)

// Examination is what reading all of a checkpoint shows.
type Examination struct {
	Dir       string   `json:"dir"`
	Format    string   `json:"format"`
	Checksums string   `json:"checksums"` // what the files' bytes were compared with: "manifest", "archives" or "none"
	Files     int      `json:"files"`     // that were compared
	Weights   int      `json:"weights"`   // every element of which lies in one place, or in equal copies
	Elements  int64    `json:"elements"`
	Copies    int      `json:"copies"` // boxes that lie in several files and were compared
	Problems  []string `json:"problems"`
}

// Examine compares the files with their checksums, finds every element of every weight in the files, once, and
// compares the copies of those that are there more than once; of a training run the optimizer's state as well.
// A folder without a manifest has no checksums, but for those inside Megatron's archives. The error is of ctx
// or of the folder itself; all else is in Problems.
func Examine(ctx context.Context, dir string, params []axis.Param) (x Examination, err error) {
	x = Examination{Dir: dir, Checksums: "none", Problems: []string{}}
	if x.Format, err = Detect(dir); err != nil {
		return x, err
	}
	switch m, err := Verify(dir); {
	case errors.Is(err, fs.ErrNotExist) && m.Format == "":
	case err != nil:
		x.Checksums = "manifest"
		var d *Damage
		if errors.As(err, &d) {
			for _, e := range d.List {
				x.wrong(e)
			}
		} else {
			x.wrong(err)
		}
	default:
		x.Checksums, x.Files = "manifest", len(m.Files)
	}
	if err := x.weights(ctx, dir, params); err != nil {
		return x, err
	}
	r, err := readRun(dir)
	if err != nil || r == nil {
		return x, nil // the error is said above
	}
	groups, _, err := r.divide()
	if err != nil {
		return x, nil
	}
	for _, name := range groups {
		if err := x.weights(ctx, filepath.Join(dir, filepath.FromSlash(name)), params); err != nil {
			return x, err
		}
	}
	return x, nil
}

func (x *Examination) wrong(err error) { x.Problems = append(x.Problems, err.Error()) }

// weights examines one set of weights.
func (x *Examination) weights(ctx context.Context, dir string, params []axis.Param) error {
	c, err := Open(dir, params, Options{})
	var p *Problems
	switch {
	case errors.As(err, &p):
		for _, e := range p.List {
			x.wrong(e)
		}
		return nil
	case err != nil:
		x.wrong(err)
		return nil
	}
	defer c.Close()
	problems := c.matched.covered(params)
	for _, e := range problems {
		x.wrong(e)
	}
	x.Weights += len(params) - len(problems)
	for _, p := range params {
		x.Elements += int64(p.Elements())
	}
	if x.Format == Megatron && x.Checksums == "none" {
		x.Checksums = "archives"
		for _, f := range c.source.files {
			if err := f.checkArchive(ctx); err != nil {
				x.wrong(fmt.Errorf("%s: %w", f.name, err))
			}
			x.Files++
		}
	}
	x.Copies += len(c.matched.replicas)
	if err := c.compareReplicas(ctx, runtime.GOMAXPROCS(0)); err != nil {
		x.wrong(err)
	}
	return ctx.Err()
}

// checkArchive compares every entry of a .pt file with its checksum.
func (f *File) checkArchive(ctx context.Context) (err error) {
	defer fault(f.name, &err)()
	t, err := torchfile.Parse(regionReader{f.region}, f.region.size())
	if err != nil {
		return err
	}
	entries, err := t.Entries()
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.At < 0 || e.Bytes < 0 || e.At > f.region.size()-e.Bytes {
			return fmt.Errorf("%w: entry %s", ErrTruncated, quote(e.Name))
		}
		sum := uint32(0)
		for at := int64(0); at < e.Bytes; at += stretch {
			if err := ctx.Err(); err != nil {
				return err
			}
			n := min(stretch, e.Bytes-at)
			if _, some := f.region.filled(e.At+at, n); !some {
				sum = zeroBytes(crc32.IEEE, sum, n)
				continue
			}
			b, err := f.region.view(e.At+at, n)
			if err != nil {
				return err
			}
			sum = crc32.Update(sum, crc32.IEEETable, b)
			f.region.drop(e.At+at, n)
		}
		if sum != e.CRC32 {
			return fmt.Errorf("%w: entry %s: CRC-32 is %08x, want %08x", ErrDamaged, quote(e.Name), sum, e.CRC32)
		}
	}
	return nil
}

// Print writes the examination as text.
func (x Examination) Print(w io.Writer) error {
	for _, p := range x.Problems {
		fmt.Fprintln(w, "problem:", p)
	}
	against := map[string]string{"manifest": "the manifest's checksums", "archives": "their archives' checksums", "none": "nothing: there is no " + ManifestFile}[x.Checksums]
	_, err := fmt.Fprintf(w, "%s: format %s, %d files compared with %s, %d weights of %d elements found once, %d copies compared\n",
		x.Dir, x.Format, x.Files, against, x.Weights, x.Elements, x.Copies)
	return err
}
