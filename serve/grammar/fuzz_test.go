package grammar

import (
	"encoding/json"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/graph/token"
)

// explore holds a grammar to what every one of them keeps: no dead ends, and masks that agree with Accept.
func explore(t *testing.T, g *Grammar, err error, seed uint64) {
	if err != nil {
		require.ErrorIs(t, err, ErrGrammar)
		require.Nil(t, g)
		return
	}
	tok := smallT()
	r := rand.New(rand.NewPCG(seed, 0))
	m := g.Mask()
	for range 12 {
		ids := idsOf(bitsOf(m, tok.VocabSize()))
		require.NotEmpty(t, ids)
		id := ids[r.IntN(len(ids))]
		done := m.Done()
		if err := m.Accept(id); err != nil {
			require.ErrorIs(t, err, ErrAmbiguous)
			return
		}
		if id == tok.EOS() {
			require.True(t, done)
			return
		}
	}
}

func FuzzRegex(f *testing.F) {
	for _, s := range []string{``, `a*`, `(a|b){2,3}`, `^x$`, `[^a-z]+é`, `(?i)k(?:b|c)?`, `((a*)*)*`, `\pL{3}`} {
		f.Add(s, uint64(1))
	}
	f.Fuzz(func(t *testing.T, s string, seed uint64) {
		g, err := small().Regex(s)
		explore(t, g, err, seed)
	})
}

func FuzzGrammar(f *testing.F) {
	for _, s := range []string{`root ::= "a"`, "root ::= [a-z]+ | x{2,}\nx ::= '(' root ')' # c", `root ::= . ("\n" | "\x41"){0,9}`, `root = ((("" | root2)*)*){2,3}` + "\nroot2 = 'a'?"} {
		f.Add(s, uint64(1))
	}
	f.Fuzz(func(t *testing.T, s string, seed uint64) {
		g, err := small().Grammar(s)
		explore(t, g, err, seed)
	})
}

func FuzzJSONSchema(f *testing.F) {
	for _, c := range sound {
		f.Add([]byte(c.schema), uint64(1))
	}
	f.Fuzz(func(t *testing.T, s []byte, seed uint64) {
		g, err := small().JSONSchema(s)
		explore(t, g, err, seed)
		g, err = small().ToolCalls([]token.Tool{{Name: "a", Parameters: s}}, 1)
		explore(t, g, err, seed)
	})
}

// FuzzJSON holds the grammar of any value to encoding/json: what it reads is JSON, and what a writer makes
// of JSON is read.
func FuzzJSON(f *testing.F) {
	for _, s := range []string{`{"a":[1,-2.5e3,"x\n\u00e9",null,true]}`, `[]`, `"\ud83d\ude00"`, `1e5`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, s []byte) {
		g, err := small().JSONSchema([]byte(`{}`))
		require.NoError(t, err)
		if reads(g, string(s)) {
			require.True(t, json.Valid(s), "%q", s)
		}
		var v any
		if json.Unmarshal(s, &v) != nil || !plainNumbers(v, 0) {
			return
		}
		for _, write := range []func(any) ([]byte, error){json.Marshal, func(v any) ([]byte, error) { return json.MarshalIndent(v, "", " ") }} {
			text, err := write(v)
			require.NoError(t, err)
			require.True(t, reads(g, string(text)), "%s", text)
		}
	})
}

// plainNumbers tells whether the numbers and the depth of a value are within what is read.
func plainNumbers(v any, depth int) bool {
	switch v := v.(type) {
	case float64:
		return v == 0 || v > 1e-99 && v < 1e99 || v < -1e-99 && v > -1e99
	case []any:
		for _, x := range v {
			if !plainNumbers(x, depth+1) {
				return false
			}
		}
	case map[string]any:
		for _, x := range v {
			if !plainNumbers(x, depth+1) {
				return false
			}
		}
	}
	return depth < 60
}
