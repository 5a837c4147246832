package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/gomlx/compute/dtypes"

	"mix/sharding/axis"
	"mix/sharding/ckpt"
)

// Snapshot is what a checkpoint shall hold.
type Snapshot struct {
	Step    int             // steps done
	State   json.RawMessage // of the run, whatever it needs to go on
	Groups  []Group
	Folders []Folder // beside the groups
	Score   float64  // of the weights, lower is better; NaN for unknown
	Done    func()   // told when the groups have been read; may be nil
}

// Group is one tensor for every weight of a catalogue.
type Group struct {
	Name   string       // "" for the weights, else a folder below the checkpoint's, such as "optimizer/first"
	DType  dtypes.DType // in the file: Float32 (also if none is given), BFloat16 or Float16
	Params []axis.Param // nil for the store's
	Plain  bool         // names are not Hugging Face's but ckpt.Plain's, for catalogues of other weights
	From   Reader       // asked for Float32, from several goroutines at once
}

// Folder is a folder below the checkpoint's that its owner writes, in a format of his: adapters, for one.
type Folder struct {
	Name  string
	Write func(dir string) error // makes dir, whose parent is there, and syncs its files
}

// envelope is the state in a checkpoint's manifest.
type envelope struct {
	Step   int             `json:"step"`
	Score  *float64        `json:"score"` // null for unknown
	Groups []record        `json:"groups"`
	Run    json.RawMessage `json:"run"`
}

// record is what reading a group back needs.
type record struct {
	Name   string   `json:"name"`
	Plain  bool     `json:"plain"`
	Params []weight `json:"params"` // null for the store's
}

// weight is an axis.Param.
type weight struct {
	Path string         `json:"path"`
	Axes []axis.Logical `json:"axes"`
	Dims []int          `json:"dims"`
}

func recordOf(g Group) record {
	r := record{Name: g.Name, Plain: g.Plain}
	for _, p := range g.Params {
		r.Params = append(r.Params, weight(p))
	}
	return r
}

// catalogue is the weights of the group, nil for the store's.
func (r record) catalogue() (params []axis.Param) {
	for _, w := range r.Params {
		params = append(params, axis.Param(w))
	}
	return params
}

func parseEnvelope(state json.RawMessage) (x envelope, err error) {
	if err := json.Unmarshal(state, &x); err != nil {
		return x, fmt.Errorf("state of the manifest: %w", err)
	}
	if x.Step < 0 || x.Run == nil {
		return x, fmt.Errorf("state of the manifest: step %d, want at least 0, and the run's state", x.Step)
	}
	for _, g := range x.Groups {
		if err := checkName(g.Name); err != nil {
			return x, fmt.Errorf("state of the manifest: %w", err)
		}
	}
	return x, nil
}

// check refuses a snapshot that cannot be written.
func (s *Store) check(x Snapshot) error {
	switch {
	case x.Step < 0 || x.Step > math.MaxInt32:
		return fmt.Errorf("save: step %d, want 0 to %d", x.Step, math.MaxInt32)
	case x.State != nil && !json.Valid(x.State):
		return fmt.Errorf("save step %d: the state is not valid JSON", x.Step)
	case math.IsInf(x.Score, 0):
		return fmt.Errorf("save step %d: score %g, want a number or NaN", x.Step, x.Score)
	case len(x.Groups) == 0:
		return fmt.Errorf("save step %d: no groups", x.Step)
	}
	seen := map[string]bool{}
	for _, f := range x.Folders {
		if err := checkName(f.Name); err != nil || f.Name == "" || strings.Contains(f.Name, "/") {
			return fmt.Errorf("save step %d: folder %q, want the name of one in the checkpoint's", x.Step, f.Name)
		}
		if key := strings.ToLower(f.Name); seen[key] {
			return fmt.Errorf("save step %d: folder %q is there twice", x.Step, f.Name)
		} else {
			seen[key] = true
		}
	}
	for _, g := range x.Groups {
		if err := checkName(g.Name); err != nil {
			return fmt.Errorf("save step %d: %w", x.Step, err)
		}
		// Two names for one folder would be one on a disk that does not tell cases apart.
		key := strings.ToLower(g.Name)
		if top, _, _ := strings.Cut(key, "/"); seen[key] || slices.ContainsFunc(x.Folders, func(f Folder) bool { return strings.ToLower(f.Name) == top }) {
			return fmt.Errorf("save step %d: group %q is there twice", x.Step, g.Name)
		}
		seen[key] = true
		if g.From == nil {
			return fmt.Errorf("save step %d: group %q has nothing to read from", x.Step, g.Name)
		}
		if err := s.options(g).Check(s.params(g)); err != nil {
			return fmt.Errorf("save step %d: group %q: %w", x.Step, g.Name, err)
		}
	}
	return nil
}

// checkName refuses a group's name that is no folder below the checkpoint's.
func checkName(name string) error {
	if name != "" && (!fs.ValidPath(name) || name == "." || !filepath.IsLocal(filepath.FromSlash(name)) || strings.ContainsAny(name, "\\:\x00\n")) {
		return fmt.Errorf("group %q, want the name of a folder below the checkpoint's", name)
	}
	return nil
}

// What follows a checkpoint's name in the names of folders that are none.
const (
	partial  = ".tmp" // being written or being removed
	replaced = ".old" // about to be replaced by another of the same step
)

// path is the folder of a checkpoint.
func (s *Store) path(step int) string { return filepath.Join(s.dir, fmt.Sprintf("step-%08d", step)) }

// parseName reads a folder's name.
func parseName(name string) (step int, suffix string, ok bool) {
	number, ok := strings.CutPrefix(name, "step-")
	for _, x := range []string{partial, replaced} {
		if n, found := strings.CutSuffix(number, x); found {
			number, suffix = n, x
		}
	}
	step, err := strconv.Atoi(number)
	return step, suffix, ok && err == nil && step >= 0 && fmt.Sprintf("%08d", step) == number
}

// write makes the checkpoint of x. After an error there is nothing of it, and what was there before is.
// It calls done when it has read all groups.
func (s *Store) write(x Snapshot, done func()) (err error) {
	final := s.path(x.Step)
	temp := final + partial
	if err := os.RemoveAll(temp); err != nil {
		return err
	}
	if err := os.Mkdir(temp, 0o777); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(temp) // if not now, when the folder is opened next
		}
	}()
	e := envelope{Step: x.Step, Run: x.State}
	if e.Run == nil {
		e.Run = json.RawMessage("null")
	}
	if !math.IsNaN(x.Score) {
		e.Score = &x.Score
	}
	var sums []ckpt.Sum
	for _, g := range x.Groups {
		e.Groups = append(e.Groups, recordOf(g))
		written, err := s.writeGroup(temp, g)
		if err != nil {
			return err
		}
		sums = append(sums, written...)
	}
	for _, f := range x.Folders {
		dir := filepath.Join(temp, filepath.FromSlash(f.Name))
		if err := f.Write(dir); err != nil {
			return err
		}
		written, err := ckpt.SumFolder(dir, f.Name)
		if err != nil {
			return err
		}
		sums = append(sums, written...)
	}
	done()
	if err := ckpt.NewManifest(sums, jsonOf(e)).Write(temp); err != nil {
		return err
	}
	if err := s.place(temp, final); err != nil {
		return err
	}
	s.known[x.Step] = entry{score: e.Score}
	return nil
}

// writeGroup writes a group into the folder of a checkpoint.
func (s *Store) writeGroup(temp string, g Group) (sums []ckpt.Sum, err error) {
	o := s.options(g)
	o.Written = func(sum ckpt.Sum) {
		sum.Name = path.Join(g.Name, sum.Name)
		sums = append(sums, sum)
	}
	err = ckpt.WriteHF(filepath.Join(temp, filepath.FromSlash(g.Name)), s.params(g), g.From, o)
	return sums, err
}

// options says how a group is written, the weights with the store's files.
func (s *Store) options(g Group) ckpt.WriteOptions {
	o := ckpt.WriteOptions{DType: g.DType, ShardBytes: s.o.ShardBytes}
	if g.Plain {
		o.Layout = ckpt.Plain
	}
	if g.Name == "" {
		o.Files = s.o.Files
	}
	return o
}

// params is the catalogue of a group.
func (s *Store) params(g Group) []axis.Param {
	if g.Params == nil {
		return s.o.Params
	}
	return g.Params
}

// place gives a finished checkpoint its name. One of the same step makes way; if the process ends in
// between, recover puts it back.
func (s *Store) place(temp, final string) error {
	old := final + replaced
	if err := os.RemoveAll(old); err != nil {
		return err
	}
	had := true
	if err := os.Rename(final, old); errors.Is(err, fs.ErrNotExist) {
		had = false
	} else if err != nil {
		return err
	}
	if err := ckpt.Publish(temp, final); err != nil {
		if had {
			os.Rename(old, final) // if not now, when the folder is opened next
		}
		return err
	}
	if had {
		return os.RemoveAll(old)
	}
	return nil
}
