package grammar

import (
	"fmt"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func grammarOf(t *testing.T, schema string, args ...any) *Grammar {
	t.Helper()
	g, err := small().JSONSchema(fmt.Appendf(nil, schema, args...))
	require.NoError(t, err)
	return g
}

func TestIntegersBetween(t *testing.T) {
	r := rand.New(rand.NewPCG(17, 18))
	for range 150 {
		lo := r.IntN(2400) - 1200
		hi := lo + r.IntN(1<<r.IntN(11))
		g := grammarOf(t, `{"type":"integer","minimum":%d,"maximum":%d}`, lo, hi)
		for n := -1300; n <= 2400; n++ {
			if got, want := reads(g, fmt.Sprint(n)), lo <= n && n <= hi; got != want {
				t.Fatalf("%d to %d reads %d: %v, want %v", lo, hi, n, got, want)
			}
		}
		require.False(t, reads(g, "-0"))
		require.False(t, reads(g, "007"))
	}
}

func TestBoundsOfIntegers(t *testing.T) {
	for _, c := range []struct{ schema, yes, no string }{
		{`{"type":"integer","exclusiveMinimum":3,"exclusiveMaximum":5}`, "4", "3 5"},
		{`{"type":"integer","minimum":2.5,"maximum":3.5}`, "3", "2 4"},
		{`{"type":"integer","exclusiveMinimum":2.5,"exclusiveMaximum":3.5}`, "3", "2 4"},
		{`{"type":"integer","minimum":0}`, "0 7 9223372036854775807", "-1 9223372036854775808"},
		{`{"type":"integer","maximum":-1}`, "-1 -9223372036854775808", "0 -0 1"},
		{`{"type":"integer","minimum":1e20}`, "100000000000000000000 1000000000000000000000", "99999999999999999999"},
		{`{"type":"integer","maximum":-1e20}`, "-100000000000000000000", "-99999999999999999999 0"},
	} {
		g := grammarOf(t, "%s", c.schema)
		for s := range strings.FieldsSeq(c.yes) {
			require.True(t, reads(g, s), "%s %s", c.schema, s)
		}
		for s := range strings.FieldsSeq(c.no) {
			require.False(t, reads(g, s), "%s %s", c.schema, s)
		}
	}
	_, err := small().JSONSchema([]byte(`{"type":"integer","minimum":3,"maximum":2}`))
	require.ErrorContains(t, err, "matches no text")
	_, err = small().JSONSchema([]byte(`{"type":"integer","exclusiveMinimum":2,"exclusiveMaximum":3}`))
	require.ErrorContains(t, err, "matches no text")
}

func TestDecimalsBetween(t *testing.T) {
	r := rand.New(rand.NewPCG(19, 20))
	decimal := func() string {
		s := fmt.Sprint(r.IntN(1 << r.IntN(8)))
		if n := r.IntN(4); n > 0 {
			s += "." + fmt.Sprintf("%03d", r.IntN(1000))[:n]
		}
		if r.IntN(3) == 0 {
			s = "-" + s
		}
		return s
	}
	rat := func(s string) *big.Rat {
		v, ok := new(big.Rat).SetString(s)
		require.True(t, ok)
		return v
	}
	inside := 0
	for range 200 {
		a, b := decimal(), decimal()
		if rat(a).Cmp(rat(b)) > 0 {
			a, b = b, a
		}
		lower, upper := "minimum", "maximum"
		if r.IntN(2) == 0 {
			lower = "exclusiveMinimum"
		}
		if r.IntN(2) == 0 {
			upper = "exclusiveMaximum"
		}
		switch r.IntN(6) {
		case 0:
			lower = "x-" + lower
		case 1:
			upper = "x-" + upper
		}
		schema := fmt.Sprintf(`{"type":"number",%q:%s,%q:%s}`, lower, a, upper, b)
		g, err := small().JSONSchema([]byte(schema))
		if rat(a).Cmp(rat(b)) == 0 && err != nil {
			continue // nothing is between
		}
		require.NoError(t, err, schema)
		for i := range 400 {
			s := decimal()
			switch {
			case i == 0:
				s = a
			case i == 1:
				s = b
			case i%2 == 0: // near a bound
				s = []string{a, b}[r.IntN(2)]
				if !strings.Contains(s, ".") {
					s += "."
				}
				s += fmt.Sprint(r.IntN(20))
			}
			v := rat(s)
			if v.Sign() == 0 && s[0] == '-' {
				continue // zero is written without a sign
			}
			want := (lower[0] == 'x' || v.Cmp(rat(a)) > 0 || lower == "minimum" && v.Cmp(rat(a)) == 0) &&
				(upper[0] == 'x' || v.Cmp(rat(b)) < 0 || upper == "maximum" && v.Cmp(rat(b)) == 0)
			require.Equal(t, want, reads(g, s), "%s %s", schema, s)
			if want {
				inside++
			}
		}
	}
	require.Greater(t, inside, 5000)
}
