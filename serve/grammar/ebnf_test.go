package grammar

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestGrammars(t *testing.T) {
	for name, c := range map[string]struct {
		text    string
		yes, no []string
	}{
		"literal":    {`root ::= "a\n\x41é\u65e5\U0001F600\"" 'it\'s"'`, []string{"a\nAé日\U0001F600\"it's\""}, []string{"", "a"}},
		"class":      {`root ::= [a-c\]\-x] [^a-c\n] [-a] [a-]`, []string{"adaa", "]x--", "-日-a"}, []string{"dd--", "aaaa", "a\n-a"}},
		"dot":        {`root ::= . .`, []string{"ab", "\n日"}, []string{"a", "abc"}},
		"counts":     {`root ::= "a"{2} "b"{1,} "c"{,2} "d"{0,1} "e"? "f"* "g"+`, []string{"aabg", "aabbbccdeffggg"}, []string{"abg", "aab", "aabcccg"}},
		"lines":      {"# first\nroot ::= # here\n  \"a\" |\n  b\n\nb ::= \"b\"\n  \"c\" # end", []string{"a", "bc"}, []string{"b", "abc"}},
		"equal sign": {`root = a-b c_1; `[:14] + "\na-b = 'x'\nc_1 = 'y'", []string{"xy"}, []string{"x"}},
		"brackets":   {`root ::= "(" root ")" root | ""`, []string{"", "()", "(())()", strings.Repeat("(", 100) + strings.Repeat(")", 100)}, []string{"(", "())"}},
		"arithmetic": {"root ::= term (('+'|'-') term)*\nterm ::= factor ('*' factor)*\nfactor ::= [0-9]+ | '(' root ')'",
			[]string{"1", "1+2*3", "((1+2)*3-4)"}, []string{"", "1+", "(1", "1+*2"}},
		"palindrome": {`root ::= "a" root "a" | "b" root "b" | "c"`, []string{"c", "abcba", "aacaa"}, []string{"abcab", "ac", "aca "}},
		"ambiguous":  {`root ::= a a a a` + "\na ::= 'x'*", []string{"", "xxxxxxxxx"}, []string{"y"}},
		"right tail": {`root ::= "a" root | "b"`, []string{"b", strings.Repeat("a", 5000) + "b"}, []string{"a"}},
		"nullable":   {"root ::= (a b){2,3} 'z'\na ::= 'a'?\nb ::= b2 'b'?\nb2 ::= '' | 'c'", []string{"z", "abz", "bbbz", "acbacbacbz"}, []string{"abababab", "acbacbacbacbz"}},
	} {
		t.Run(name, func(t *testing.T) {
			g, err := small().Grammar(c.text)
			require.NoError(t, err)
			for _, s := range c.yes {
				require.True(t, reads(g, s), "%q", s)
			}
			for _, s := range c.no {
				require.False(t, reads(g, s), "%q", s)
			}
		})
	}
}

func TestBracketsStopAtTheLastFrame(t *testing.T) {
	g := must(small().Grammar("root ::= 'a' pair\npair ::= '(' pair ')' | '[' 'x' pair ']' | 'c'"))
	deep := func(n int) string { return "a" + strings.Repeat("(", n) }
	n := 1
	for g.after(g.automaton.start, []byte(deep(n+1))) != dead {
		n++
	}
	require.Equal(t, maxFrames, n)
	require.True(t, reads(g, deep(n)+"c"+strings.Repeat(")", n)), "what is open can be closed")

	// A rule that must go deeper to end is not begun where it could not.
	g = must(small().Grammar("root ::= '(' root ')' | '[' one ']'\none ::= '1' two '1'\ntwo ::= 'x'"))
	r := rand.New(rand.NewPCG(1, 1))
	for range 20 {
		s := g.automaton.start
		var text []byte
		for !s.end {
			var open []byte
			for _, b := range []byte("([1x)]") {
				if on := g.after(s, []byte{b}); on != dead {
					open = append(open, b)
				}
			}
			require.NotEmpty(t, open, "a dead end after %s", text)
			b := open[0]
			if r.IntN(300) == 0 {
				b = open[len(open)-1]
			}
			text = append(text, b)
			s = g.after(s, []byte{b})
		}
	}
}

func TestGrammarsRefuse(t *testing.T) {
	for text, want := range map[string]string{
		``:                           `rule root has no ::=`,
		`a ::= "x"`:                  `rule root has no ::=`,
		`root ::= a`:                 `rule a has no ::=`,
		"root ::= 'a'\nroot ::= 'b'": `line 2: rule root is there twice`,
		`root ::= root "a" | "b"`:    `rule root reaches itself before it reads anything: root → root`,
		"root ::= a\na ::= b? c\nb ::= 'x'\nc ::= root 'y'": `root → a → c → root`,
		`root ::= "a" root`:                       `matches no text`,
		`root ::= "a`:                             `a literal has no end`,
		`root ::= [a`:                             `a class has no end`,
		`root ::= ("a"`:                           `want )`,
		`root ::= "a")`:                           `where a rule should begin`,
		`root ::= "a"{3,2}`:                       `the smaller number first`,
		`root ::= "a"{x}`:                         `repetition {x}, want numbers`,
		`root ::= "a"{9999999}`:                   `want numbers of 0 to 1048576`,
		`root ::= "a"{1`:                          `{ without }`,
		`root ::= "\q"`:                           `escape \q is not known`,
		`root ::= "\ud800"`:                       `is no character`,
		`root ::= [z-a]`:                          `the smaller first`,
		`root ::= *`:                              `want a literal`,
		"root ::= \"\xff\"":                       `UTF-8`,
		`root ::= ` + strings.Repeat("(", 300):    `brackets 201 deep, want at most 200`,
		`root ::= "a"` + strings.Repeat("*", 300): `more than 200 repetitions`,
		`root ::= ` + strings.Repeat(`("a"? "b"?){2,3} `, 60_000): `too large`,
		`root ::= ` + strings.Repeat(` `, maxSource):              `want at most 1048576`,
	} {
		_, err := small().Grammar(text)
		require.ErrorIs(t, err, ErrGrammar, "%.80s", text)
		require.ErrorContains(t, err, want)
	}
}

func TestTooManyWaysEndTheText(t *testing.T) {
	tok := smallT()
	id := func(piece string) int32 {
		id, ok := tok.ID(piece)
		require.True(t, ok)
		return id
	}
	// After n letters x there are 2^n stacks, and three ways to go on for each.
	g := must(small().Grammar("root ::= 'x' root 'p' | 'x' root 'q' | 'y'"))
	m := g.MaskInside()
	for range 9 {
		require.Contains(t, idsOf(bitsOf(m, tok.VocabSize())), id("x"))
		require.NoError(t, m.Accept(id("x")))
	}
	ids := idsOf(bitsOf(m, tok.VocabSize()))
	require.Contains(t, ids, id("y"))
	require.NotContains(t, ids, id("x"), "more than 2048 ways")
	require.Error(t, m.Accept(id("x")))
	require.NoError(t, m.Accept(id("y")))

	// Without another way on, the text ends with the error.
	g = must(small().Grammar("root ::= 'x' root 'p' | 'x' root 'q' | 'x' 'x' 'x' 'x' 'x' 'x' 'x' 'x' 'x' 'x' 'x' 'x' 'x' 'x' 'x' 'y'"))
	m = g.MaskInside()
	for n := 0; ; n++ {
		require.Less(t, n, 20)
		if ids := idsOf(bitsOf(m, tok.VocabSize())); len(ids) == 1 && ids[0] == tok.EOS() {
			break
		}
		require.NoError(t, m.Accept(id("x")))
	}
	require.False(t, m.Done())
	require.ErrorIs(t, m.Accept(tok.EOS()), ErrAmbiguous)
}

func TestAnAutomatonForgets(t *testing.T) {
	g := must(small().Regex(`[ab]*a[ab]{40}`))
	tok := smallT()
	r := rand.New(rand.NewPCG(15, 16))
	m := g.Mask()
	forgot, before := false, 0
	for range 2500 {
		ids := idsOf(bitsOf(m, tok.VocabSize()))
		require.NotEmpty(t, ids)
		id := ids[r.IntN(len(ids))]
		if id == tok.EOS() {
			continue
		}
		require.NoError(t, m.Accept(id))
		forgot, before = forgot || len(g.automaton.states) < before, len(g.automaton.states)
		require.LessOrEqual(t, len(g.automaton.states), maxStates)
		require.LessOrEqual(t, len(g.automaton.frames), maxHeld+8*maxWays)
	}
	require.True(t, forgot)
}
