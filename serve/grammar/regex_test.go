package grammar

import (
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestRegexReadsWhatGoMatches(t *testing.T) {
	for _, expression := range []string{
		``, `a`, `abc|abd|b`, `a*`, `a+b?`, `(ab){2,4}`, `(a|b){3}`, `(a?b?){0,3}c`, `(a*)*b`, `(a*){2,5}`, `((a|b)?){3}`, `[ab]{2,}c`,
		`^ab$`, `^a|b$`, `(^a|b)c?`, `a$|^$`, `[^a]b`, `.b`, `(?s).b`, `(?i)ab`, `a.{0,2}c`, `(?:a|b)*?c`, `(?P<x>a)b`,
		`é|日a`, `[é-日]`, `[^é]`, `\d\w`, `\pL`, `a{0}b`, `(a|ab)(c|bcd)?`, `\x{10FFFF}|ÿ`, `[\x{800}-\x{ffff}]`, `(a|b|ab){2,3}`,
		`(?i)k`, `(?i)ſ`, `[[:alpha:]]`, `a|`, `(|a)(|b)`, `(()|b){2}`,
	} {
		t.Run(expression, func(t *testing.T) {
			g, err := small().Regex(expression)
			require.NoError(t, err)
			re := regexp.MustCompile(`^(?:` + expression + `)$`)
			r := rand.New(rand.NewPCG(3, 4))
			alphabet := []rune("abcdABé日 \n1kKKsſ\U0010FFFF\u0800\ud7ffÿ")
			matched := 0
			for range 3000 {
				s := make([]rune, r.IntN(7))
				letters := alphabet
				if r.IntN(3) > 0 {
					letters = alphabet[:3]
				}
				for i := range s {
					s[i] = letters[r.IntN(len(letters))]
				}
				want := re.MatchString(string(s))
				require.Equal(t, want, reads(g, string(s)), "%q", string(s))
				if want {
					matched++
				}
			}
			for range 30 {
				s := walk(t, smallT(), g.Mask(), r, 5)
				require.True(t, utf8.ValidString(s))
				require.Regexp(t, re, s)
			}
		})
	}
}

func TestRegexRefuses(t *testing.T) {
	for expression, want := range map[string]string{
		`a\bb`:                      `\b is not supported`,
		`a^b`:                       `^ is supported only at the beginning`,
		`a$b`:                       `$ is supported only at the end`,
		`(`:                         `missing closing`,
		`(?=a)`:                     `invalid`,
		`[^\x00-\x{10FFFF}]`:        `matches no text`,
		`a{1001}`:                   `invalid repeat count`,
		`(?m)^a`:                    `not supported`,
		"\xff":                      `UTF-8`,
		strings.Repeat(`\pL`, 3000): `too large: more than 200000 places`,
	} {
		_, err := small().Regex(expression)
		require.ErrorIs(t, err, ErrGrammar, expression)
		require.ErrorContains(t, err, want)
	}
}

func TestChoices(t *testing.T) {
	texts := []string{"red", "green", "great", "", "gre", "日本", "日", "red"}
	g := must(small().Choice(texts))
	for _, s := range texts {
		require.True(t, reads(g, s), s)
	}
	for _, s := range []string{"r", "gree", "greatly", "日本語", " "} {
		require.False(t, reads(g, s), s)
	}
	_, err := small().Choice(nil)
	require.ErrorIs(t, err, ErrGrammar)
	_, err = small().Choice([]string{"a", "\xff"})
	require.ErrorIs(t, err, ErrGrammar)
	require.NotSame(t, must(small().Choice([]string{"ab"})), must(small().Choice([]string{"a", "b"})))
}

func TestManyChoicesAreFewWays(t *testing.T) {
	var texts []string
	for r := rune(0x4e00); r < 0x4e00+5000; r++ {
		texts = append(texts, string(r)+string(r+1))
	}
	g := must(small().Choice(texts))
	for _, s := range texts {
		require.True(t, reads(g, s))
	}
	require.False(t, reads(g, string(rune(0x4e00))))
}

func TestClassesAreTheirCharacters(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	edges := []rune{0, 0x7f, 0x80, 0x7ff, 0x800, 0xfff, 0x1000, 0xd7ff, 0xe000, 0xffff, 0x10000, 0x3ffff, 0x40000, 0x10ffff}
	for range 12 {
		var pairs []rune
		for range 1 + r.IntN(4) {
			a := min(utf8.MaxRune, max(0, edges[r.IntN(len(edges))]+rune(r.IntN(140)-70)))
			b := min(utf8.MaxRune, max(a, edges[r.IntN(len(edges))]+rune(r.IntN(140)-70)))
			pairs = append(pairs, a, b)
		}
		p, err := compile(&rules{names: []string{"root"}, body: []*expr{class(pairs...)}})
		if err != nil { // all of them surrogates
			continue
		}
		a := newAutomaton(p)
		for c := rune(0); c <= utf8.MaxRune; c += 1 + rune(r.IntN(3)) {
			want := false
			for i := 0; i < len(pairs); i += 2 {
				want = want || pairs[i] <= c && c <= pairs[i+1]
			}
			s := a.start
			for _, b := range []byte(string(c)) {
				s = a.step(s, b)
			}
			if got := s.end; utf8.ValidRune(c) && got != want {
				t.Fatalf("class %x: character %x is %v, want %v", pairs, c, got, want)
			}
		}
	}
}

func TestEqualClassesAreBuiltOnce(t *testing.T) {
	g := must(small().Regex(`[a-\x{d800}][a-\x{fffd}][a-\x{d800}]+[a-\x{fffd}]`))
	require.True(t, reads(g, "a\ufffda\ufffd"))
	require.False(t, reads(g, "\ufffd\ufffda\ufffd"))
	require.False(t, reads(g, "a\ufffd\ufffd\ufffd"))
	require.True(t, reads(g, "日日日日日"))
}
