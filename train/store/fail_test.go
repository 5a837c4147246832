package store

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/sharding/axis"
)

// failing is a reader that fails after some reads.
type failing struct {
	Reader
	left *atomic.Int64
}

var errLost = errors.New("device lost")

func (f failing) Read(q axis.Piece, dst []byte) error {
	if f.left.Add(-1) < 0 {
		return errLost
	}
	return f.Reader.Read(q, dst)
}

func TestAFailedSaveLeavesTheOthers(t *testing.T) {
	dir := t.TempDir()
	o := options()
	o.KeepLast = 1
	s := open(t, dir, o)
	save(t, s, snapshot(1))
	for group := range 3 {
		for _, left := range []int64{0, 5, 20} {
			x := snapshot(2)
			f := failing{x.Groups[group].From, new(atomic.Int64)}
			f.left.Store(left)
			x.Groups[group].From = f
			done := 0
			x.Done = func() { done++ }
			require.NoError(t, s.Save(x))
			y := snapshot(3)
			y.Done = func() { done++ }
			err := s.Save(y)
			require.ErrorIs(t, err, errLost)
			require.ErrorContains(t, err, "save step 2: ")
			require.ErrorContains(t, err, ".safetensors: tensor ")
			require.NotContains(t, err.Error(), "\n")
			require.Equal(t, 2, done, "of both")
			require.NoError(t, s.Wait(), "told once")
			require.Equal(t, []string{"step-00000001"}, folders(t, dir))
			consistent(t, latest(t, s))
		}
	}
	save(t, s, snapshot(2)) // and it goes on
	require.Equal(t, []string{"step-00000002"}, folders(t, dir))

	x := snapshot(2) // a replacement that fails
	x.Groups[2].From = failing{x.Groups[2].From, new(atomic.Int64)}
	require.NoError(t, s.Save(x))
	require.ErrorIs(t, s.Close(), errLost)
	consistent(t, latest(t, open(t, dir, o)))
}

func TestSaveRefuses(t *testing.T) {
	tests := []struct {
		name   string
		change func(x *Snapshot)
		want   string
	}{
		{"a negative step", func(x *Snapshot) { x.Step = -1 }, "step -1, want 0 to"},
		{"a step beyond bounds", func(x *Snapshot) { x.Step = 1 << 40 }, "step 1099511627776, want 0 to 2147483647"},
		{"a state that is no JSON", func(x *Snapshot) { x.State = []byte("{") }, "save step 7: the state is not valid JSON"},
		{"an infinite score", func(x *Snapshot) { x.Score = math.Inf(1) }, "save step 7: score +Inf, want a number or NaN"},
		{"nothing", func(x *Snapshot) { x.Groups = nil }, "save step 7: no groups"},
		{"a group elsewhere", func(x *Snapshot) { x.Groups[1].Name = "../x" }, `group "../x", want the name of a folder`},
		{"a group from the root", func(x *Snapshot) { x.Groups[1].Name = "/x" }, `group "/x", want`},
		{"a group twice", func(x *Snapshot) { x.Groups[1].Name = "Optimizer/Second" }, `group "optimizer/second" is there twice`},
		{"a group of nothing", func(x *Snapshot) { x.Groups[1].From = nil }, `group "optimizer/first" has nothing to read from`},
		{"weights of no name", func(x *Snapshot) { x.Groups[1].Params = []axis.Param{{Path: "x"}} }, `group "optimizer/first": no tensor of a Hugging Face Mixtral holds weight x`},
	}
	dir := t.TempDir()
	s := open(t, dir, options())
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			x := snapshot(7)
			done := 0
			x.Done = func() { done++ }
			tt.change(&x)
			err := s.Save(x)
			require.ErrorContains(t, err, tt.want)
			require.NotContains(t, err.Error(), "\n")
			require.Equal(t, 1, done)
			require.NoError(t, s.Wait())
			require.Empty(t, folders(t, dir))
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	good := func(change func(o *Options)) Options {
		o := options()
		change(&o)
		return o
	}
	tests := []struct {
		name, dir string
		o         Options
		want      string
	}{
		{"no name", "", options(), "save folder : no name"},
		{"a negative number to keep", "x", good(func(o *Options) { o.KeepLast = -1 }), "keep the last -1 checkpoints, want 0 for all or at least 1"},
		{"negative shards", "x", good(func(o *Options) { o.ShardBytes = -1 }), "shards of -1 bytes, want"},
		{"files elsewhere", "x", good(func(o *Options) { o.Files["a/b"] = nil }), `file "a/b", want`},
		{"the manifest", "x", good(func(o *Options) { o.Files["manifest.json"] = nil }), `file "manifest.json", want`},
		{"weights of no name", "x", good(func(o *Options) { o.Params = []axis.Param{{Path: "x"}} }), "holds weight x"},
		{"a file for a folder", file, options(), file},
		{"a file above it", filepath.Join(file, "x"), options(), file},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := tt.dir
			if dir == "x" {
				dir = filepath.Join(t.TempDir(), "x")
			}
			_, err := Open(dir, tt.o)
			require.ErrorContains(t, err, tt.want)
			require.ErrorContains(t, err, "save folder "+dir)
			require.NotContains(t, err.Error(), "\n")
			if tt.dir == "x" {
				require.NoDirExists(t, dir)
			}
		})
	}
}

func TestOpenRefusesAFolderThatCannotBeWritten(t *testing.T) {
	if os.Getuid() == 0 || runtime.GOOS == "windows" {
		t.Skip("needs a user whom permissions bind")
	}
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o500))
	_, err := Open(dir, options())
	require.ErrorIs(t, err, os.ErrPermission)
}

func TestOneProcessHasTheFolder(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, options())
	_, err := Open(dir, options())
	require.ErrorContains(t, err, "another run has it")
	require.NoError(t, s.Close())
	open(t, dir, options())
}
