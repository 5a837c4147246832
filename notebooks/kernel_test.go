//go:build unix

package notebooks

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// kernel executes cells as gonb does: it keeps the declarations of cells, and makes of each a program that
// has them all, which it runs with two pipes. It knows as much of gonb as the notebook uses.
//
// Source: github.com/janpfeifer/gonb v0.11.4, internal/goexec and internal/jpyexec.
type kernel struct {
	t       *testing.T
	dir     string            // of the programs
	imports map[string]bool   // by path
	decls   map[string]string // by name
	shown   map[string]int    // versions of an output by its display id
}

func newKernel(t *testing.T) *kernel {
	k := &kernel{t: t, dir: t.TempDir(), imports: map[string]bool{"flag": true}, decls: map[string]string{}, shown: map[string]int{}}
	k.must(exec.Command("go", "mod", "init", "gonb_test"))
	return k
}

// prepare sets where a command runs, and with what.
func (k *kernel) prepare(cmd *exec.Cmd, env ...string) {
	here, err := os.Getwd()
	require.NoError(k.t, err)
	cmd.Dir = k.dir
	// The network is no part of the test: what is not in the module's cache is an error.
	cmd.Env = append(append(os.Environ(), "PWD="+k.dir, "GONB_DIR="+here, "GONB_TMP_DIR="+k.dir, "GOPROXY=off", "GOFLAGS="), env...)
}

func (k *kernel) must(cmd *exec.Cmd) {
	k.t.Helper()
	k.prepare(cmd)
	out, err := cmd.CombinedOutput()
	require.NoError(k.t, err, "%s: %s", cmd, out)
}

// mainBegins is what stands for a line of %%.
const mainBegins = "func main() { flag.Parse()"

// execute runs a cell and gives its outputs.
func (k *kernel) execute(source string) []output {
	var code []string
	for _, line := range strings.Split(source, "\n") {
		switch shell, isShell := strings.CutPrefix(line, "!*"); {
		case isShell:
			k.must(exec.Command("bash", "-c", shell))
		case line == "%noautoget":
		case line == "%%":
			code = append(code, mainBegins)
		case strings.HasPrefix(line, "%") || strings.HasPrefix(line, "!"):
			k.t.Fatalf("command %q is not known here", line)
		default:
			code = append(code, line)
		}
	}
	hasMain := slices.Contains(code, mainBegins)
	if hasMain {
		code = append(code, "}")
	}
	if strings.TrimSpace(strings.Join(code, "")) == "" {
		return nil
	}
	program := k.compose("package main\n" + strings.Join(code, "\n"))
	require.NoError(k.t, os.WriteFile(filepath.Join(k.dir, "main.go"), program, 0o666))
	if !hasMain {
		return nil // later programs hold what was declared
	}
	k.must(exec.Command("go", "build", "-ldflags=-s -w", "-o", "program"))
	return k.run()
}

// compose adds the declarations of a cell to those of the cells before and writes the program. main is the
// cell's alone. Imports that the program has no use for are left out.
func (k *kernel) compose(cell string) []byte {
	files := token.NewFileSet()
	f, err := parser.ParseFile(files, "cell", cell, 0)
	require.NoError(k.t, err, "%s", cell)
	source := func(n ast.Node) string { return cell[files.Position(n.Pos()).Offset:files.Position(n.End()).Offset] }
	main := "func main() { flag.Parse() }"
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Name.Name == "main" {
				main = source(d)
			} else {
				k.decls[d.Name.Name] = source(d)
			}
		case *ast.GenDecl:
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.ImportSpec:
					p, err := strconv.Unquote(s.Path.Value)
					require.NoError(k.t, err)
					k.imports[p] = true
				case *ast.ValueSpec:
					k.decls[s.Names[0].Name] = d.Tok.String() + " " + source(s)
				default:
					k.t.Fatalf("declaration %s is not known here", source(d))
				}
			}
		}
	}
	body := strings.Join(slices.Sorted(maps.Values(k.decls)), "\n") + "\n" + main + "\n"
	f, err = parser.ParseFile(files, "program", "package main\n"+body, 0)
	require.NoError(k.t, err)
	used := map[string]bool{}
	ast.Inspect(f, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok {
				used[x.Name] = true
			}
		}
		return true
	})
	var b bytes.Buffer
	b.WriteString("package main\n")
	for _, p := range slices.Sorted(maps.Keys(k.imports)) {
		if used[path.Base(p)] {
			fmt.Fprintf(&b, "import %q\n", p)
		}
	}
	b.WriteString(body)
	return b.Bytes()
}

// The messages of a program and to it, as gonb has them.
type (
	displayData struct {
		Data      map[string]any
		Metadata  map[string]any
		DisplayID string
	}
	commValue struct {
		Address string
		Request bool
		Value   any
	}
)

// run starts the program and takes in what it prints and shows.
func (k *kernel) run() []output {
	gob.RegisterName("github.com/janpfeifer/gonb/gonbui/protocol.CommValue", commValue{})
	pipes := make([]*os.File, 2)
	for i, name := range []string{"to", "back"} {
		p := filepath.Join(k.dir, name)
		require.NoError(k.t, syscall.Mkfifo(p, 0o600))
		defer os.Remove(p)
		var err error
		pipes[i], err = os.OpenFile(p, os.O_RDWR, 0) // both ways: opening waits for nobody
		require.NoError(k.t, err)
		defer pipes[i].Close()
	}
	cmd := exec.Command("./program")
	k.prepare(cmd, "GONB_PIPE="+pipes[0].Name(), "GONB_PIPE_BACK="+pipes[1].Name())
	var said, complained bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &complained
	shown := make(chan []output)
	go func() { shown <- k.listen(pipes[0], pipes[1]) }()
	err := cmd.Run()
	pipes[0].Close() // all was acknowledged before the program ended
	outputs := <-shown
	require.NoError(k.t, err, "%s", complained.String())
	return append(outputs, output{Kind: "stream", Name: "stdout", Text: text(said.String())})
}

// listen reads until the pipe is closed.
func (k *kernel) listen(from io.Reader, back io.Writer) (outputs []output) {
	in, out := gob.NewDecoder(from), gob.NewEncoder(back)
	places := map[string]int{}
	for {
		var d displayData
		if err := in.Decode(&d); err != nil {
			return outputs
		}
		if v, ok := d.Data["gonb/comm_value"].(commValue); ok && v.Address == "#gonbui/sync" {
			if out.Encode(&commValue{Address: "#gonbui/sync_ack", Value: v.Value}) != nil {
				return outputs
			}
			continue
		}
		o := output{Kind: "display_data", Data: map[string]json.RawMessage{}}
		for mime, x := range d.Data {
			o.Data[mime], _ = json.Marshal(x)
		}
		place, again := places[d.DisplayID]
		k.shown[d.DisplayID]++
		switch {
		case d.DisplayID != "" && again:
			outputs[place] = o
		default:
			places[d.DisplayID] = len(outputs)
			outputs = append(outputs, o)
		}
	}
}

// TestNotebookRuns executes the notebook without Jupyter, with fewer and smaller steps.
func TestNotebookRuns(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and runs a program a cell")
	}
	const steps = 3
	n := read(t, file)
	k := newKernel(t)
	for i := range n.Cells {
		c := &n.Cells[i]
		if c.Kind != "code" {
			continue
		}
		source := string(c.Source)
		if len(c.Metadata.Tags) > 0 {
			for name, v := range map[string]int{"steps": steps, "batch": 1, "length": 32} {
				require.Positive(t, parameter(t, n, name))
				source = assigned(name).ReplaceAllString(source, "${1}"+strconv.Itoa(v))
			}
		}
		c.Outputs = k.execute(source)
	}
	checkOutputs(t, n, steps)
	live := 0
	for id, versions := range k.shown {
		if id != "" {
			live = max(live, versions)
		}
	}
	require.Greater(t, live, 2, "times that the plot was drawn: empty, during the run, at its end")
}
