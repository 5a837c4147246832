//go:build linux

package store

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// task names what the test binary does instead of running tests, in the folder that the other names.
const task, taskDir = "MIX_STORE_TEST_TASK", "MIX_STORE_TEST_DIR"

func TestMain(m *testing.M) {
	switch os.Getenv(task) {
	case "":
		os.Exit(m.Run())
	case "save":
		saveForever(os.Getenv(taskDir))
	case "hold":
		if _, err := Open(os.Getenv(taskDir), options()); err != nil {
			panic(err)
		}
		fmt.Println("held")
		io.Copy(io.Discard, os.Stdin)
	case "full":
		fullDisk(os.Getenv(taskDir))
	}
}

func child(t *testing.T, what, dir string) *exec.Cmd {
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), task+"="+what, taskDir+"="+dir)
	cmd.Stderr = os.Stderr
	return cmd
}

// keepTwo keeps few checkpoints, so that pruning is under way often.
func keepTwo() Options {
	o := options()
	o.KeepLast = 2
	return o
}

// saveForever goes on from the newest checkpoint and prints every step that is on the disk. Each step is
// saved twice, so that replacing is under way often too.
func saveForever(dir string) {
	s, err := Open(dir, keepTwo())
	if err != nil {
		panic(err)
	}
	c, err := s.Latest()
	if err != nil {
		panic(err)
	}
	step := 0
	if c != nil {
		step = c.Step()
	}
	for {
		for range 2 {
			if err := errors.Join(s.Save(snapshot(step+1)), s.Wait()); err != nil {
				panic(err)
			}
		}
		step++
		fmt.Println(step)
	}
}

func TestKilledAtAnyMoment(t *testing.T) {
	rounds := 25
	if testing.Short() {
		rounds = 5
	}
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	acknowledged := 0
	for range rounds {
		cmd := child(t, "save", dir)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		lines := bufio.NewScanner(out)
		if acknowledged == 0 {
			require.True(t, lines.Scan(), "the first is saved")
			_, err := fmt.Sscan(lines.Text(), &acknowledged)
			require.NoError(t, err)
		}
		time.AfterFunc(time.Duration(r.Int64N(int64(250*time.Millisecond))), func() { cmd.Process.Kill() })
		for lines.Scan() {
			_, err := fmt.Sscan(lines.Text(), &acknowledged)
			require.NoError(t, err)
		}
		err = cmd.Wait()
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit)
		require.Equal(t, syscall.SIGKILL, exit.Sys().(syscall.WaitStatus).Signal(), "it ended because it was killed")

		var log bytes.Buffer
		o := keepTwo()
		o.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
		s := open(t, dir, o) // the lock went with the process
		for _, name := range folders(t, dir) {
			require.False(t, strings.Contains(name, "."), "left over: %s", name)
		}
		c := latest(t, s)
		require.Empty(t, log.String(), "nothing is damaged")
		require.GreaterOrEqual(t, c.Step(), acknowledged)
		require.LessOrEqual(t, c.Step(), acknowledged+1)
		consistent(t, c)
		for _, name := range folders(t, dir) { // not the newest only
			step, _, ok := parseName(name)
			require.True(t, ok)
			other, err := s.verified(step)
			require.NoError(t, err)
			consistent(t, other)
			require.NoError(t, other.Close())
		}
		require.NoError(t, c.Close())
		require.NoError(t, s.Close())
		acknowledged = c.Step()
	}
	require.Greater(t, acknowledged, 1)
}

func TestAnotherProcessCannotHaveTheFolder(t *testing.T) {
	dir := t.TempDir()
	cmd := child(t, "hold", dir)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	require.True(t, bufio.NewScanner(out).Scan())
	_, err = Open(dir, options())
	require.ErrorContains(t, err, "save folder "+dir+": another run has it")
	require.NoError(t, in.Close())
	require.NoError(t, cmd.Wait())
	open(t, dir, options())
}

// limit lets this process write no file beyond some bytes, as a full disk would.
func limit(bytes uint64) {
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: bytes, Max: unix.RLIM_INFINITY}); err != nil {
		panic(err)
	}
}

// fullDisk saves while there is room, then without, then with room again, and prints what happened.
func fullDisk(dir string) {
	s, err := Open(dir, keepTwo())
	if err != nil {
		panic(err)
	}
	for step, bytes := range []uint64{unix.RLIM_INFINITY, 0, 1, 300, 3000, unix.RLIM_INFINITY} {
		limit(bytes)
		err := errors.Join(s.Save(snapshot(step)), s.Wait())
		c, e := s.Latest()
		if e != nil {
			panic(e)
		}
		fmt.Printf("%d; %d; %v\n", step, c.Step(), err)
	}
	limit(0)
	if err := s.Close(); err != nil {
		panic(err)
	}
	_, err = Open(dir, keepTwo())
	fmt.Println(err)
}

func TestAFullDisk(t *testing.T) {
	dir := t.TempDir()
	out, err := child(t, "full", dir).Output()
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	require.Len(t, lines, 7)
	require.Equal(t, "0; 0; <nil>", lines[0])
	for i, line := range lines[1:5] {
		require.Regexp(t, fmt.Sprintf(`^%d; 0; save step %d: .*step-0000000%d\.tmp/.*: file too large$`, i+1, i+1, i+1), line)
	}
	require.Equal(t, "5; 5; <nil>", lines[5])
	require.Regexp(t, `^save folder .*: cannot be written to: write .*: file too large$`, lines[6])
	require.Equal(t, []string{"step-00000000", "step-00000005"}, folders(t, dir))
	consistent(t, latest(t, open(t, dir, keepTwo())))
	require.NoFileExists(t, filepath.Join(dir, probes))
}
