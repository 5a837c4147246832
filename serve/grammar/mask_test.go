package grammar

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/graph/token"
	"mix/serve/infer"
)

// Tokenizers are in the folder of the package that reads them: 2048, 32000 and 32768 pieces.
var (
	small  = sync.OnceValue(func() *Compiler { return compilerOf("demo/tokenizer.model") })
	large  = sync.OnceValue(func() *Compiler { return compilerOf("tokenizer.model") })
	largeT = sync.OnceValue(func() *token.Tokenizer { return tokenizerOf("tokenizer.model") })
	third  = sync.OnceValue(func() *token.Tokenizer { return tokenizerOf("tokenizer.model.v3") })
	smallT = sync.OnceValue(func() *token.Tokenizer { return tokenizerOf("demo/tokenizer.model") })
)

func tokenizerOf(name string) *token.Tokenizer {
	b, err := os.ReadFile("../../graph/token/testdata/" + name)
	if err != nil {
		panic(err)
	}
	t, err := token.FromModel(b)
	if err != nil {
		panic(err)
	}
	return t
}

func compilerOf(name string) *Compiler {
	t := tokenizerOf(name)
	c, err := New(t, t.VocabSize())
	if err != nil {
		panic(err)
	}
	return c
}

// reads tells whether a grammar reads a whole text, byte after byte.
func reads(g *Grammar, text string) bool {
	s := g.automaton.start
	return g.after(s, []byte(text)).end
}

// bitsOf returns the mask of a text under way.
func bitsOf(m infer.Mask, vocab int) []uint32 {
	bits := make([]uint32, (vocab+31)/32)
	m.Allowed(bits)
	return bits
}

func idsOf(bits []uint32) []int32 {
	var ids []int32
	for i, w := range bits {
		for b := range 32 {
			if w>>b&1 != 0 {
				ids = append(ids, int32(32*i+b))
			}
		}
	}
	return ids
}

// closers end things. A walk that has become long draws among them.
const closers = `}]"01:abc `

// walk draws allowed tokens at random until the text ends, and returns its text as Decode reads it.
func walk(t *testing.T, tok *token.Tokenizer, m infer.Mask, r *rand.Rand, long int) string {
	t.Helper()
	var ids []int32
	for n := 0; ; n++ {
		allowed := idsOf(bitsOf(m, tok.VocabSize()))
		require.NotEmpty(t, allowed, "a dead end after %q", tok.Decode(ids))
		id := allowed[r.IntN(len(allowed))]
		if n > long {
			require.Less(t, n, long+4000, "the walk does not end: %.200q", tok.Decode(ids))
			id = closer(tok, allowed, m.Done(), r)
		}
		require.NoError(t, m.Accept(id))
		if id == tok.EOS() {
			return tok.Decode(ids)
		}
		ids = append(ids, id)
	}
}

func closer(tok *token.Tokenizer, allowed []int32, done bool, r *rand.Rand) int32 {
	if done {
		return tok.EOS()
	}
	var good []int32
	for _, a := range allowed {
		if text := tok.Bytes(a); len(text) == 1 && strings.Contains(closers, string(text)) {
			good = append(good, a)
		}
	}
	if len(good) == 0 {
		good = allowed
	}
	return good[r.IntN(len(good))]
}

func TestAMaskIsWhatAcceptAllows(t *testing.T) {
	tok := smallT()
	for name, g := range map[string]*Grammar{
		"choice":  must(small().Choice([]string{"yes", " no", "naïve", "▁", "", "日本"})),
		"object":  must(small().JSONObject()),
		"regex":   must(small().Regex(`[a-z]+( [a-z]{2,7})*\.?`)),
		"grammar": must(small().Grammar(`root ::= "(" root ")" | [^()]{0,3}`)),
	} {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			for _, begin := range []func() infer.Mask{g.Mask, g.MaskInside} {
				for range 5 {
					m := begin()
					for range 20 {
						allowed := idsOf(bitsOf(m, tok.VocabSize()))
						is := map[int32]bool{}
						for _, id := range allowed {
							is[id] = true
						}
						for id := range int32(tok.VocabSize()) {
							copied := *m.(*mask)
							err := copied.Accept(id)
							require.Equal(t, is[id], err == nil, "token %d %q: %v", id, tok.Piece(id), err)
						}
						require.Equal(t, m.Done(), is[tok.EOS()])
						id := allowed[r.IntN(len(allowed))]
						require.NoError(t, m.Accept(id))
						if id == tok.EOS() {
							require.Equal(t, []int32{tok.EOS()}, idsOf(bitsOf(m, tok.VocabSize())))
							break
						}
					}
				}
			}
		})
	}
}

func must(g *Grammar, err error) *Grammar {
	if err != nil {
		panic(err)
	}
	return g
}

func TestTheFirstSpaceOfATextIsDropped(t *testing.T) {
	tok := largeT()
	g := must(large().Choice([]string{"yes", "no"}))
	spaced, ok := tok.ID("▁yes")
	require.True(t, ok)
	bare, ok := tok.ID("yes")
	require.True(t, ok)
	blank, ok := tok.ID("▁")
	require.True(t, ok)

	require.Subset(t, idsOf(bitsOf(g.Mask(), tok.VocabSize())), []int32{spaced, bare, blank})
	inside := idsOf(bitsOf(g.MaskInside(), tok.VocabSize()))
	require.Contains(t, inside, bare)
	require.NotContains(t, inside, spaced)
	require.NotContains(t, inside, blank)

	m := g.Mask()
	require.NoError(t, m.Accept(blank))
	require.False(t, m.Done())
	require.NotContains(t, idsOf(bitsOf(m, tok.VocabSize())), blank, "only the first space is dropped")
	require.Error(t, m.Accept(spaced))
	require.NoError(t, m.Accept(bare))
	require.True(t, m.Done())
	require.Equal(t, []int32{tok.EOS()}, idsOf(bitsOf(m, tok.VocabSize())))
}

func TestBytesOfACharacterMayComeOneByOne(t *testing.T) {
	tok := smallT()
	m := must(small().Choice([]string{"日"})).Mask()
	for _, b := range []byte("日") {
		require.False(t, m.Done())
		id, ok := tok.ID(fmt.Sprintf("<0x%02X>", b))
		require.True(t, ok)
		require.Contains(t, idsOf(bitsOf(m, tok.VocabSize())), id)
		require.NoError(t, m.Accept(id))
	}
	require.True(t, m.Done())
}

func TestMarks(t *testing.T) {
	tok := third()
	c, err := New(tok, tok.VocabSize())
	require.NoError(t, err)
	g := must(c.ToolCalls([]token.Tool{{Name: "weather"}}, 1))
	mark, ok := tok.ID("[TOOL_CALLS]")
	require.True(t, ok)
	open, ok := tok.ID("▁[{")
	require.True(t, ok)

	m := g.MaskAfter(mark)
	require.Equal(t, []int32{mark}, idsOf(bitsOf(m, tok.VocabSize())))
	require.False(t, m.Done())
	require.Error(t, m.Accept(open))
	require.NoError(t, m.Accept(mark))
	require.Contains(t, idsOf(bitsOf(m, tok.VocabSize())), open)
	require.NotContains(t, idsOf(bitsOf(m, tok.VocabSize())), mark)

	m = g.MaskOnce(mark)
	require.True(t, m.Done())
	require.Len(t, idsOf(bitsOf(m, tok.VocabSize())), tok.VocabSize())
	require.NoError(t, m.Accept(open))
	require.NoError(t, m.Accept(mark))
	require.NoError(t, m.Accept(open))
	require.Error(t, m.Accept(mark))
	m = g.MaskOnce(mark)
	require.NoError(t, m.Accept(tok.EOS()))
	require.Equal(t, []int32{tok.EOS()}, idsOf(bitsOf(m, tok.VocabSize())))
}

func TestVocabulary(t *testing.T) {
	tok := smallT()
	_, err := New(tok, tok.VocabSize()-1)
	require.ErrorIs(t, err, ErrGrammar)
	_, err = New(tok, tok.VocabSize(), 5000)
	require.ErrorIs(t, err, ErrGrammar)

	c, err := New(tok, 2100, 7)
	require.NoError(t, err)
	m := must(c.Regex(`(?s).*`)).Mask()
	ids := idsOf(bitsOf(m, 2100))
	require.Contains(t, ids, int32(7), "an id that ends a text")
	require.Contains(t, ids, tok.EOS())
	require.NotContains(t, ids, tok.BOS())
	require.NotContains(t, ids, tok.Unknown())
	require.NotContains(t, ids, int32(2048), "beyond the tokenizer")
	require.Error(t, m.Accept(-1))
	require.Error(t, m.Accept(2100))
	require.Error(t, m.Accept(2048))
	require.NoError(t, m.Accept(7))
	require.True(t, m.Done())
}

func TestGrammarsAreRemembered(t *testing.T) {
	c, err := New(smallT(), 2048)
	require.NoError(t, err)
	first := must(c.Regex("a"))
	require.Same(t, first, must(c.Regex("a")))
	require.NotSame(t, first, must(c.Choice([]string{"a"})))
	for i := range maxKept {
		must(c.Regex("b" + strings.Repeat("c", i)))
	}
	require.NotSame(t, first, must(c.Regex("a")))
	require.LessOrEqual(t, len(c.kept), maxKept)
	require.Equal(t, len(c.kept), c.used.Len())
}

func TestMasksOfOneGrammarWorkSideBySide(t *testing.T) {
	g := must(large().JSONObject())
	want := map[uint64]string{}
	for seed := range uint64(4) {
		want[seed] = walk(t, largeT(), g.Mask(), rand.New(rand.NewPCG(seed, 0)), 15)
	}
	var wait sync.WaitGroup
	for seed := range uint64(4) {
		wait.Go(func() {
			require.Equal(t, want[seed], walk(t, largeT(), g.Mask(), rand.New(rand.NewPCG(seed, 0)), 15))
		})
	}
	wait.Wait()
}
