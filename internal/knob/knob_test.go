package knob

import (
	"bytes"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFrom(t *testing.T) {
	tests := []struct {
		name    string
		environ []string
		want    Values
	}{
		{"nothing set", []string{"HOME=/", "MIXED=1"}, Values{}},
		{"all set", []string{"MIX_DUMP=d", "MIX_DIFF=a", "MIX_SKIP=a,b", "MIX_VERIFY=1", "MIX_FAKE_DEVICES=8"},
			Values{Dump: "d", Diff: []string{"a"}, Skip: []string{"a", "b"}, Verify: true, FakeDevices: 8}},
		{"empty is unset", []string{"MIX_DUMP=", "MIX_VERIFY=0"}, Values{}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := From(test.environ, slog.New(slog.DiscardHandler))
			require.NoError(t, err)
			require.Equal(t, test.want, got)
		})
	}
}

func TestFromRefuses(t *testing.T) {
	tests := []struct{ entry, want string }{
		{"MIX_DUMB=x", "knob: unknown variable MIX_DUMB, known are MIX_DUMP, MIX_DIFF, MIX_SKIP, MIX_VERIFY, MIX_FAKE_DEVICES"},
		{"MIX_VERIFY=yes", "knob: MIX_VERIFY=yes: wanted 0 or 1"},
		{"MIX_SKIP=a,,b", "knob: MIX_SKIP=a,,b: wanted passes, with commas between"},
		{"MIX_FAKE_DEVICES=0", "knob: MIX_FAKE_DEVICES=0: wanted a number from 1 to 512"},
		{"MIX_FAKE_DEVICES=many", "knob: MIX_FAKE_DEVICES=many: wanted a number from 1 to 512"},
	}
	for _, test := range tests {
		_, err := From([]string{test.entry}, slog.New(slog.DiscardHandler))
		require.EqualError(t, err, test.want)
	}
}

func TestASetSwitchIsLogged(t *testing.T) {
	var b bytes.Buffer
	_, err := From([]string{"MIX_DUMP=d"}, slog.New(slog.NewTextHandler(&b, nil)))
	require.NoError(t, err)
	require.Contains(t, b.String(), "name=MIX_DUMP value=d")
}
