package data

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// counting is samples that say which they are. Sample bad fails, and slow ones take a while.
type counting struct {
	n, bad int
	slow   func(i int) time.Duration
	calls  *atomic.Int64
}

func (c counting) Len() int    { return c.n }
func (c counting) SeqLen() int { return 2 }
func (c counting) Sample(i int, row Row) error {
	if c.calls != nil {
		c.calls.Add(1)
	}
	if c.slow != nil {
		time.Sleep(c.slow(i))
	}
	if i == c.bad {
		return fmt.Errorf("sample %d is bad", i)
	}
	copy(row.Tokens, []int32{int32(3 * i), int32(3*i + 1), int32(3*i + 2)})
	copy(row.Labels, row.Tokens[1:])
	for j := range row.Segments {
		row.Segments[j] = int32(i)
	}
	for j := range row.Positions {
		row.Positions[j] = int32(-i)
	}
	return nil
}

func TestLoaderKeepsTheOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := counting{n: 103, bad: -1, slow: func(i int) time.Duration { return time.Duration(i*7919%13) * time.Second }}
		for _, o := range []LoaderOptions{{Batch: 4}, {Batch: 4, Workers: 1, Ahead: 1}, {Batch: 4, Workers: 16, Ahead: 8, First: 8}} {
			l, err := NewLoader(t.Context(), s, o)
			require.NoError(t, err)
			for first := o.First; first+4 <= 103; first += 4 {
				b, err := l.Next()
				require.NoError(t, err)
				require.Equal(t, first, b.First)
				require.Len(t, b.Labels, 8)
				for i, id := range b.Tokens {
					require.Equal(t, int32(3*first+i), id)
				}
				require.Nil(t, b.Segments)
				require.Nil(t, b.Positions)
			}
			for range 2 {
				_, err = l.Next()
				require.ErrorIs(t, err, io.EOF, "three samples are no batch")
			}
			l.Close()
			l.Close()
		}
	})
}

func TestLoaderAsksForWhatIsWanted(t *testing.T) {
	l, err := NewLoader(t.Context(), counting{n: 2, bad: -1}, LoaderOptions{Batch: 2, Segments: true, Positions: true})
	require.NoError(t, err)
	defer l.Close()
	b, err := l.Next()
	require.NoError(t, err)
	require.Equal(t, Batch{Tokens: []int32{0, 1, 2, 3, 4, 5}, Labels: []int32{1, 2, 4, 5}, Segments: []int32{0, 0, 1, 1}, Positions: []int32{0, 0, -1, -1}}, b)
}

// In a synctest bubble the test fails if a goroutine is left.
func TestLoaderFailsAtTheFirstBadSample(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, err := NewLoader(t.Context(), counting{n: 1000, bad: 9}, LoaderOptions{Batch: 2, Workers: 8, Ahead: 8})
		require.NoError(t, err)
		for range 4 {
			_, err := l.Next()
			require.NoError(t, err)
		}
		for range 2 {
			_, err = l.Next()
			require.EqualError(t, err, "sample 9 is bad")
		}
		l.Close()
	})
}

func TestLoaderIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		l, err := NewLoader(t.Context(), counting{n: 1000, bad: -1, calls: &calls}, LoaderOptions{Batch: 2, Workers: 2, Ahead: 3})
		require.NoError(t, err)
		synctest.Wait()
		require.LessOrEqual(t, calls.Load(), int64(2*(3+1)), "three batches ready and one on its way")
		require.GreaterOrEqual(t, calls.Load(), int64(2*3))
		l.Close()
	})
}

func TestLoaderIsCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := counting{n: 1000, bad: -1, slow: func(int) time.Duration { return time.Hour }}
		l, err := NewLoader(ctx, s, LoaderOptions{Batch: 2})
		require.NoError(t, err)
		time.AfterFunc(time.Second, cancel)
		for range 2 {
			_, err = l.Next()
			require.ErrorIs(t, err, context.Canceled)
		}
		l.Close()
	})
}

func TestLoadersThatAreRefused(t *testing.T) {
	for _, tt := range []struct {
		n    int
		o    LoaderOptions
		want string
	}{
		{10, LoaderOptions{}, "batches of 0 samples"},
		{10, LoaderOptions{Batch: 1 << 30}, "want at least 1 of each and at most"},
		{10, LoaderOptions{Batch: 1, Workers: -1}, "-1 workers"},
		{10, LoaderOptions{Batch: 1, First: 11}, "first sample 11, want 0 to 10"},
		{10, LoaderOptions{Batch: 1, First: -1}, "first sample -1"},
		{10, LoaderOptions{Batch: 11}, "10 samples, want at least 11 for one batch"},
		{0, LoaderOptions{Batch: 1}, "0 samples, want at least 1 for one batch"},
	} {
		_, err := NewLoader(t.Context(), counting{n: tt.n}, tt.o)
		require.ErrorContains(t, err, tt.want)
	}
	l, err := NewLoader(t.Context(), counting{n: 10, bad: -1}, LoaderOptions{Batch: 2, First: 10})
	require.NoError(t, err, "a run that is over")
	_, err = l.Next()
	require.ErrorIs(t, err, io.EOF)
	l.Close()
}

func TestResumeIsExact(t *testing.T) {
	x := open(t, "u16_nobos")
	d, err := NewDataset(x, 0, 19, Options{SeqLen: 16, Samples: 200, Seed: 7, EOD: 2})
	require.NoError(t, err)
	all, err := NewLoader(t.Context(), d, LoaderOptions{Batch: 3})
	require.NoError(t, err)
	defer all.Close()
	for {
		want, err := all.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		again, err := NewDataset(x, 0, 19, Options{SeqLen: 16, Samples: 200, Seed: 7, EOD: 2})
		require.NoError(t, err)
		l, err := NewLoader(t.Context(), again, LoaderOptions{Batch: 3, First: want.First, Workers: 1 + want.First%runtime.NumCPU()})
		require.NoError(t, err)
		got, err := l.Next()
		require.NoError(t, err)
		require.Equal(t, want, got)
		l.Close()
	}
}
