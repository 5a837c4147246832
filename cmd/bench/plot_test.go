package main

import (
	"context"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPlot(t *testing.T) {
	s := serve(t)
	s.before = func(n int, w http.ResponseWriter, r *http.Request) bool {
		if n == 8 {
			w.WriteHeader(500)
		}
		return n == 8
	}
	for _, name := range []string{"a.html", "a.svg"} {
		path := filepath.Join(t.TempDir(), name)
		code, _, log := run(context.Background(), s.URL, "--requests", "20", "--model", "<b>m</b>", "--plot", path)
		require.Zero(t, code, log)
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		text := string(b)
		for _, want := range []string{"whole answer", "first token", "between tokens", "in flight", "&lt;b&gt;m&lt;/b&gt;"} {
			require.Contains(t, text, want)
		}
		require.NotRegexp(t, `NaN|Inf|<b>m|ZgotmplZ|src=|url\(|<script`, text)
		if name == "a.svg" {
			wellFormed(t, text)
		}
	}
}

func wellFormed(t *testing.T, text string) {
	for d := xml.NewDecoder(strings.NewReader(text)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else {
			require.NoError(t, err)
		}
	}
}

func TestPlotOfOddRecords(t *testing.T) {
	for _, records := range [][]record{
		{{err: errors.New("x")}},
		{{}},
		{{end: 1}, {due: 1, sent: 1, end: 1, chunks: []time.Duration{1, 1, 1}}},
		{{end: time.Hour, answer: 1 << 30}},
		make([]record, 3*most+1),
	} {
		b, err := plot(summarize(records), records, false)
		require.NoError(t, err)
		require.NotRegexp(t, `NaN|Inf`, string(b))
		wellFormed(t, string(b))
	}
	_, err := plot(summary{}, nil, true)
	require.Error(t, err)
}
