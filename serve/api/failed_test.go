package api

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

// lost is an engine whose device is gone.
type lost struct{ *fake }

func (lost) Failed() error { return errors.New("step 7: no device") }

// TestFailedEngine has probes see that the server has to be started again: it is not "starting".
func TestFailedEngine(t *testing.T) {
	f := newFake(t)
	f.starts = true
	o := options(f)
	o.Engine = lost{f}
	s := newServer(t, o)
	for _, path := range []string{"/health", "/ready"} {
		got := s.ask(t, "GET", path, "")
		require.Equal(t, 503, got.status)
		require.Equal(t, "failed", got.at(t, "status"))
	}
	got := s.ask(t, "POST", "/v1/completions", small)
	require.Equal(t, 503, got.status)
	require.Equal(t, "engine_failed", got.at(t, "error", "code"))
	require.NotContains(t, got.body, "step 7", "details are for the log")
}
