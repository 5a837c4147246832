package train

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"mix/lower"
)

// childEnv makes the test binary a training process that works in the folder it names.
const childEnv = "TRAIN_CHILD_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		child(dir)
		return
	}
	os.Exit(m.Run())
}

const killSteps = 40

// child trains with a checkpoint every other step, and appends a line a step to a file.
func child(dir string) {
	t := &childT{}
	be, err := lower.New(context.Background(), lower.Options{Platform: "cpu", CacheDir: filepath.Join(dir, "cache")})
	require.NoError(t, err)
	j, h := jobOf(t, be, filepath.Join(dir, "run"), killSteps)
	j.SaveEvery, j.EvalEvery = 2, 0
	f, err := os.OpenFile(filepath.Join(dir, "losses"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666)
	require.NoError(t, err)
	h.after = func(step int) {
		last := h.steps[len(h.steps)-1]
		fmt.Fprintf(f, "%d %x %x\n", step, last.Loss, last.GradNorm)
		time.Sleep(10 * time.Millisecond) // so that the parent meets it at many places
	}
	_, err = Run(context.Background(), j)
	require.NoError(t, err)
}

// childT is what helpers need of a test, in a process that is none.
type childT struct{ testing.TB }

func (*childT) Helper()        {}
func (*childT) Cleanup(func()) {}
func (*childT) Errorf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}
func (*childT) FailNow() { os.Exit(3) }

// TestKilledRunsGoOnBitForBit kills a training process with SIGKILL again and again, at whatever it is doing,
// and starts it anew. Every step that any of them made, some of them twice, has the loss and the gradient
// norm of a process that was left alone.
func TestKilledRunsGoOnBitForBit(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a dozen processes; needs go test without -short")
	}
	dir := t.TempDir()
	start := func(dir string) *exec.Cmd {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+dir)
		cmd.Stderr = os.Stderr
		return cmd
	}
	read := func(dir string) (steps map[int]string, lines int) {
		steps = map[int]string{}
		f, err := os.Open(filepath.Join(dir, "losses"))
		if os.IsNotExist(err) {
			return steps, 0
		}
		require.NoError(t, err)
		defer f.Close()
		for s := bufio.NewScanner(f); s.Scan(); lines++ {
			var step int
			var loss, norm string
			if n, _ := fmt.Sscan(s.Text(), &step, &loss, &norm); n != 3 {
				continue // torn
			}
			if before, ok := steps[step]; ok {
				require.Equal(t, before, loss+" "+norm, "step %d made twice", step)
			}
			steps[step] = loss + " " + norm
		}
		return steps, lines
	}
	calm := filepath.Join(dir, "calm")
	require.NoError(t, os.Mkdir(calm, 0o777))
	require.NoError(t, start(calm).Run())
	want, _ := read(calm)
	require.Len(t, want, killSteps)

	rough := filepath.Join(dir, "rough")
	require.NoError(t, os.MkdirAll(rough, 0o777))
	require.NoError(t, os.Rename(filepath.Join(calm, "cache"), filepath.Join(rough, "cache")))
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	kills := 0
	for {
		cmd := start(rough)
		require.NoError(t, cmd.Start())
		var err error
		ended := make(chan struct{})
		go func() { err = cmd.Wait(); close(ended) }()
		_, before := read(rough)
		for now := before; now == before; _, now = read(rough) { // for its first step, then a while
			select {
			case <-ended:
			case <-time.After(5 * time.Millisecond):
				continue
			}
			break
		}
		select {
		case <-ended:
		case <-time.After(time.Duration(r.IntN(250)) * time.Millisecond):
			cmd.Process.Kill()
			<-ended
		}
		if err == nil {
			break
		}
		kills++
		require.Less(t, kills, 100, "it does not get ahead")
	}
	got, _ := read(rough)
	require.Equal(t, want, got)
	require.Positive(t, kills, "no process was killed")
	t.Logf("%d processes killed", kills)
}
