package show

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"mix/graph"
	"mix/internal/demo"
	"mix/serve"
	"mix/train/report"
)

func TestParametersOfTheDemoModel(t *testing.T) {
	c, err := graph.ParseConfig(demo.Config())
	require.NoError(t, err)
	all, used := Parameters(c)
	require.Equal(t, 5986720, all)
	require.Equal(t, all-4*6*3*160*320, used, "4 layers, 6 experts of 8 not used, 3 matrices each")
}

func TestTextAndTokenizerFit(t *testing.T) {
	text, err := Text()
	require.NoError(t, err)
	require.NotEmpty(t, text)
	tok, err := Tokenizer()
	require.NoError(t, err)
	require.Equal(t, 2048, tok.VocabSize())
}

// parts counts the elements of a piece of XML, which it must be.
func parts(t *testing.T, text string) map[string]int {
	n := map[string]int{}
	d := xml.NewDecoder(strings.NewReader(text))
	d.Entity = map[string]string{"thinsp": " "}
	for {
		x, err := d.Token()
		if err == io.EOF {
			return n
		}
		require.NoError(t, err, "%s", text)
		if e, ok := x.(xml.StartElement); ok {
			n[e.Name.Local]++
		}
	}
}

// plot draws losses, of a run of ten steps among 8 tokens, and returns the pictures.
func plot(t *testing.T, losses ...float64) (pictures []string) {
	l := &Loss{vocab: 8, show: func(svg string) error { pictures = append(pictures, svg); return nil }}
	require.NoError(t, l.Start(0, 10))
	for i, x := range losses {
		require.NoError(t, l.Step(report.Step{Step: i + 1, Steps: 10, CE: x, TokensPerSecond: 1000}))
	}
	require.NoError(t, l.Close())
	for _, p := range pictures {
		require.Equal(t, 1, parts(t, p)["svg"])
	}
	return pictures
}

func TestLossIsDrawn(t *testing.T) {
	pictures := plot(t, 2, 4, 1)
	require.Contains(t, pictures[0], "compiling")
	last := pictures[len(pictures)-1]
	require.Contains(t, last, "step 3 of 10: 2.33 nats a token, 1000 tokens a second")
	require.Contains(t, last, "guessing among 8 tokens")
	// From x = 46 to 708 in 10 steps, from y = 284 to 30 for 0 to 4 nats.
	require.Contains(t, last, `class="each" d="M112.2 157.0L178.4 30.0L244.6 220.5"`)
	require.Contains(t, last, `class="mean" d="M112.2 157.0L178.4 93.5L244.6 135.8"`)
}

func TestLossThatIsNoNumberIsAGap(t *testing.T) {
	pictures := plot(t, 2, math.NaN(), math.Inf(1), 2)
	last := pictures[len(pictures)-1]
	require.Contains(t, last, `class="each" d="M112.2 114.7M310.8 114.7"`)
	require.Contains(t, last, `class="mean" d="M112.2 114.7L178.4 114.7L244.6 114.7L310.8 114.7"`)
}

func TestLossIsNotDrawnTooOften(t *testing.T) {
	n := 0
	l := &Loss{vocab: 8, show: func(string) error { n++; return nil }}
	for i := range 1000 {
		require.NoError(t, l.Step(report.Step{Step: i + 1, Steps: 1001}))
	}
	require.Less(t, n, 1000)
}

func TestLossReportsThatItCannotBeShown(t *testing.T) {
	t.Setenv(pipeEnv, "")
	require.ErrorIs(t, NewLoss(8).Start(0, 10), ErrNoNotebook)
	require.ErrorIs(t, HTML("text"), ErrNoNotebook)
	broken := errors.New("broken")
	l := &Loss{vocab: 8, show: func(string) error { return broken }}
	require.ErrorIs(t, l.Step(report.Step{Step: 1, Steps: 1}), broken)
}

func TestPipeThatIsNotThere(t *testing.T) {
	t.Setenv(pipeEnv, t.TempDir()+"/none")
	require.ErrorIs(t, new(pipe).show(display{}), os.ErrNotExist)
}

// traced is a trace of two layers and three tokens, two choices each of four experts.
func traced() *serve.Trace {
	dims := []int{3, 2}
	return &serve.Trace{
		RouterChosen:  []serve.Array{{Dims: dims, Ints: []int32{0, 1, 2, 3, 3, 0}}, {Dims: dims, Ints: []int32{1, 0, 1, 2, 1, 3}}},
		RouterWeights: []serve.Array{{Dims: dims, Floats: []float32{.75, .25, .5, .5, 1, 0}}, {Dims: dims, Floats: []float32{.6, .4, .6, .4, .6, .4}}},
	}
}

func TestChoices(t *testing.T) {
	text, err := Choices([]string{"<s>", "▁a", "\""}, traced(), 4)
	require.NoError(t, err)
	n := parts(t, text)
	require.Equal(t, []int{1, 3, 6, 6, 4}, []int{n["table"], n["tr"], n["td"], n["b"], n["span"]})
	require.Contains(t, text, "&lt;s&gt;")
	require.Contains(t, text, "<b>3</b>&thinsp;<small>4</small><br/><small>50% · 50%</small>")
	colours := regexp.MustCompile(`<td style="background:(hsl[^;]*);[^>]*><b>(\d)`).FindAllStringSubmatch(text, -1)
	of := map[string]string{}
	for _, c := range colours {
		if of[c[2]] == "" {
			of[c[2]] = c[1]
		}
		require.Equal(t, of[c[2]], c[1], "expert %s has one colour", c[2])
	}
	require.Len(t, of, 4)
}

func TestChoicesRefuses(t *testing.T) {
	for _, x := range []struct {
		name    string
		pieces  []string
		experts int
		want    string
	}{
		{"another number of tokens", []string{"a", "b"}, 4, "layer 0 has choices of 3 tokens, want 2"},
		{"an expert that is not there", []string{"a", "b", "c"}, 3, "layer 0, token 1: expert 3, want 0 to 2"},
	} {
		t.Run(x.name, func(t *testing.T) {
			_, err := Choices(x.pieces, traced(), x.experts)
			require.EqualError(t, err, x.want)
		})
	}
}

func TestOpenWithoutWeights(t *testing.T) {
	c, err := graph.ParseConfig(demo.Config())
	require.NoError(t, err)
	dir := t.TempDir()
	_, err = Open(t.Context(), nil, c, dir)
	require.EqualError(t, err, "folder "+dir+" has no weights, want those of a training run")
}
