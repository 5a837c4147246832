package triton

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// Tile is how a kernel cuts its work.
type Tile struct {
	M      int `json:"m"`      // rows a program
	N      int `json:"n"`      // columns a program
	K      int `json:"k"`      // what is summed at a time
	Group  int `json:"group"`  // blocks of rows that run side by side, so that they share matrices in the cache
	Split  int `json:"split"`  // programs that share one sum
	Warps  int `json:"warps"`  // of 32 threads
	Stages int `json:"stages"` // loads in flight
}

// check refuses what no kernel can run.
func (t Tile) check(kernel string) error {
	for _, f := range []struct {
		name        string
		n, from, to int
		power       bool
	}{
		{"m", t.M, 16, 512, true}, {"n", t.N, 16, 512, true}, {"k", t.K, 16, 512, true}, {"warps", t.Warps, 1, 16, true},
		{"group", t.Group, 1, 1 << 16, false}, {"split", t.Split, 1, maxSplits, false}, {"stages", t.Stages, 1, 8, false},
	} {
		if f.n < f.from || f.n > f.to || f.power && !isPowerOfTwo(f.n) {
			kind := "a number"
			if f.power {
				kind = "a power of two"
			}
			return fmt.Errorf("triton: %s: tile %s is %d, wanted %s from %d to %d", kernel, f.name, f.n, kind, f.from, f.to)
		}
	}
	return nil
}

// Choice is a row of a Table: the tile for products of up to Rows rows a group and K summed.
type Choice struct {
	Kernel string `json:"kernel"` // up, grouped, transposed, outer, decode_up, decode_down, linear, flash, flash_dq, flash_dkv, paged or fp8
	Elem   string `json:"elem"`   // empty for any
	Rows   int    `json:"rows"`   // 0 for any number
	Tile   Tile   `json:"tile"`

	// Library takes the kernel's place where it serves, for flash alone: CuDNN or, for none, empty. It then has the gradient too.
	Library string `json:"library,omitempty"`
}

// CuDNN is the library with attention of its own.
const CuDNN = "cudnn"

// Table chooses tiles by shape: the first row that fits is taken.
type Table []Choice

//go:embed tiles.json
var tilesJSON []byte

// Default is the table that comes with the package, measured by cmd/bench gpu where it was run.
func Default() Table {
	t, err := ParseTable(tilesJSON)
	if err != nil {
		panic(err) // the file is part of the program, and a test reads it
	}
	return t
}

// ParseTable reads a table, a JSON list of choices.
func ParseTable(text []byte) (Table, error) {
	var t Table
	if err := json.Unmarshal(text, &t); err != nil {
		return nil, fmt.Errorf("triton: tiles: %w", err)
	}
	if len(t) == 0 {
		return nil, errors.New("triton: tiles: the table is empty")
	}
	for i, c := range t {
		if err := c.Tile.check(c.Kernel); err != nil {
			return nil, fmt.Errorf("row %d: %w", i, err)
		}
		if _, ok := ParseElem(c.Elem); c.Elem != "" && !ok || c.Rows < 0 {
			return nil, fmt.Errorf("triton: tiles: row %d: element %q and %d rows, wanted a known type and at least 0", i, c.Elem, c.Rows)
		}
		if c.Library != "" && (c.Library != CuDNN || c.Kernel != "flash") {
			return nil, fmt.Errorf("triton: tiles: row %d: library %q for %s, wanted none, or %s for flash", i, c.Library, c.Kernel, CuDNN)
		}
	}
	return t, nil
}

// JSON is the table as ParseTable reads it, one row a line.
func (t Table) JSON() ([]byte, error) {
	out := []byte("[")
	for i, c := range t {
		row, err := json.Marshal(c)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			out = append(out, ',')
		}
		out = append(append(out, "\n  "...), row...)
	}
	return append(out, "\n]\n"...), nil
}

// Choose finds the tile of a kernel for so many rows in the average group.
func (t Table) Choose(kernel string, elem Elem, rows int) (Tile, error) {
	c, found := t.find(kernel, elem, rows)
	if !found {
		return Tile{}, fmt.Errorf("triton: tiles: no row for %s of %s and %d rows", kernel, elem, rows)
	}
	return c.Tile, nil
}

// Library is the library that takes a kernel's place, CuDNN or empty.
func (t Table) Library(kernel string, elem Elem, rows int) string {
	c, _ := t.find(kernel, elem, rows)
	return c.Library
}

func (t Table) find(kernel string, elem Elem, rows int) (Choice, bool) {
	for _, c := range t {
		if c.Kernel == kernel && (c.Elem == "" || c.Elem == elem.String()) && (c.Rows == 0 || rows <= c.Rows) {
			return c, true
		}
	}
	return Choice{}, false
}

// With is the table with a choice in it: in the place of that for the same kernel, elements and rows, or before the
// first that would hide it.
func (t Table) With(c Choice) Table {
	out := slices.Clone(t)
	hides := func(o Choice) bool {
		return o.Kernel == c.Kernel && (o.Elem == "" || o.Elem == c.Elem) && (o.Rows == 0 || c.Rows != 0 && o.Rows >= c.Rows)
	}
	for i, o := range out {
		if o.Kernel == c.Kernel && o.Elem == c.Elem && o.Rows == c.Rows {
			out[i] = c
			return out
		}
		if hides(o) {
			return slices.Insert(out, i, c)
		}
	}
	return append(out, c)
}

// sharedMemory is what a program of an H100 or H200 can have, in bytes.
const sharedMemory = 227 << 10

// Candidates are the tiles worth timing for a kernel at so many rows in the average group: those whose loads in
// flight fit the chip.
func Candidates(kernel string, elem Elem, rows int) []Tile {
	if _, attends := flashParts[kernel]; attends {
		return flashCandidates(kernel, elem)
	}
	matrices := map[string]int{"up": 2, "decode_up": 2}[kernel]
	matrices = max(matrices, 1)
	few := slices.Contains([]string{"decode_up", "decode_down", "linear", "paged"}, kernel)
	ms, splits, depths := []int{64, 128}, []int{1}, []int{2, 3, 4, 5}
	switch {
	case few || rows <= 16:
		ms = []int{max(16, min(powerOfTwo(rows), 64))}
		splits, depths = []int{1, 2, 4, 8}, []int{3, 4, 5}
	case kernel != "outer" && rows <= 64:
		ms = []int{64}
	}
	if !few {
		splits = []int{1}
	}
	var all []Tile
	for _, m := range ms {
		for _, n := range []int{32, 64, 128, 256} {
			for _, k := range []int{32, 64, 128, 256} {
				for _, warps := range []int{4, 8} {
					for _, stages := range depths {
						loads := stages * k * (m + matrices*n) * elem.Bits() / 8
						sums := matrices * m * n / (warps * 32) // registers of a thread
						if loads > sharedMemory || k*elem.Bits() < 1024 || sums > 128 || warps == 8 && sums < 32 {
							continue
						}
						for _, split := range splits {
							group := 8
							if rows <= 64 {
								group = 1
							}
							all = append(all, Tile{M: m, N: n, K: k, Group: group, Split: split, Warps: warps, Stages: stages})
						}
					}
				}
			}
		}
	}
	return all
}
