package notebooks

import (
	"encoding/json"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const file = "train.ipynb"

// notebook is what we read of a file in Jupyter's format 4.
type notebook struct {
	Cells    []cell
	Major    int `json:"nbformat"`
	Minor    int `json:"nbformat_minor"`
	Metadata struct {
		Kernel struct {
			Name     string
			Language string
		} `json:"kernelspec"`
	}
}

type cell struct {
	ID       string
	Kind     string `json:"cell_type"`
	Source   text
	Count    *int     `json:"execution_count"`
	Outputs  []output // of code
	Metadata struct{ Tags []string }
}

// output is of one of two kinds: a stream has a name and a text, the others have data by MIME type.
type output struct {
	Kind string `json:"output_type"`
	Name string
	Text text
	Data map[string]json.RawMessage
}

// html is what the output shows as HTML, "" for none.
func (o output) html(t *testing.T) string {
	raw, ok := o.Data["text/html"]
	if !ok {
		return ""
	}
	var x text
	require.NoError(t, json.Unmarshal(raw, &x))
	return string(x)
}

// text is a string, or a list of lines.
type text string

func (x *text) UnmarshalJSON(b []byte) error {
	var lines []string
	if json.Unmarshal(b, &lines) == nil {
		*x = text(strings.Join(lines, ""))
		return nil
	}
	return json.Unmarshal(b, (*string)(x))
}

func read(t *testing.T, path string) (n notebook) {
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &n))
	return n
}

func TestNotebookIsValidAndClean(t *testing.T) {
	n := read(t, file)
	require.Equal(t, []int{4, 5}, []int{n.Major, n.Minor})
	require.Equal(t, "gonb", n.Metadata.Kernel.Name)
	require.Equal(t, "go", n.Metadata.Kernel.Language)
	ids := map[string]bool{}
	tagged := 0
	for _, c := range n.Cells {
		require.Regexp(t, `^[a-zA-Z0-9_-]{1,64}$`, c.ID)
		require.False(t, ids[c.ID], "two cells have the id %s", c.ID)
		ids[c.ID] = true
		require.NotEmpty(t, strings.TrimSpace(string(c.Source)), c.ID)
		require.Contains(t, []string{"markdown", "code"}, c.Kind, c.ID)
		require.Nil(t, c.Count, "%s: outputs are committed", c.ID)
		require.Empty(t, c.Outputs, "%s: outputs are committed", c.ID)
		for _, tag := range c.Metadata.Tags {
			require.Equal(t, "parameters", tag)
			tagged++
		}
	}
	require.Equal(t, 1, tagged, "cells with parameters")
	require.Equal(t, 200, parameter(t, n, "steps"))
}

// parameter reads a number of the cell with parameters.
func parameter(t *testing.T, n notebook, name string) int {
	for _, c := range n.Cells {
		if m := assigned(name).FindStringSubmatch(string(c.Source)); m != nil && len(c.Metadata.Tags) > 0 {
			v, err := strconv.Atoi(m[2])
			require.NoError(t, err)
			return v
		}
	}
	t.Fatalf("no parameter %s", name)
	return 0
}

func assigned(name string) *regexp.Regexp {
	return regexp.MustCompile(`(?m)^(\s*` + name + `\s*=\s*)(\d+)`)
}

// checkOutputs holds an executed notebook to what it promises: a plot of the steps of training, a text, and
// a table of experts.
func checkOutputs(t *testing.T, n notebook, steps int) {
	shown := map[string]string{} // HTML by cell
	said := map[string]string{}  // standard output by cell
	for _, c := range n.Cells {
		for _, o := range c.Outputs {
			require.NotEqual(t, "error", o.Kind, "cell %s", c.ID)
			shown[c.ID] += o.html(t)
			if o.Name == "stdout" {
				said[c.ID] += string(o.Text)
			}
		}
	}
	require.Contains(t, said["device"], "mix: ")
	require.Contains(t, said["model"], "6.0 million weights, of which a token uses 2.3 million")

	plot := shown["training"]
	require.Equal(t, 1, strings.Count(plot, `<svg class="mix-loss"`), "plots that stay")
	require.Contains(t, plot, "step "+strconv.Itoa(steps)+" of "+strconv.Itoa(steps)+":")
	each := regexp.MustCompile(`class="each" d="([^"]*)"`).FindStringSubmatch(plot)
	require.NotNil(t, each, "no line of losses")
	require.Len(t, regexp.MustCompile(`[ML]`).FindAllString(each[1], -1), steps, "points of the plot")
	require.Regexp(t, `(?m)^`+strconv.Itoa(steps)+` steps, loss \d+\.\d\d$`, said["training"])

	require.Greater(t, len(said["text"]), len("In the beginning")+20)
	require.Contains(t, said["text"], "In the beginning")

	table := shown["experts"]
	require.Contains(t, table, `<table class="mix-experts"`)
	rows := strings.Split(table, "<tr>")[1:]
	require.Len(t, rows, 1+4, "a heading and a row a layer")
	tokens := strings.Count(rows[0], "<th") - 1
	require.Greater(t, tokens, 15)
	for _, row := range rows[1:] {
		require.Len(t, regexp.MustCompile(`<b>[1-8]</b>&thinsp;<small>[1-8]</small>`).FindAllString(row, -1), tokens)
	}
}
