package house

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// row is one line of the tables below.
type row struct {
	pkg string
	may []string
	why string
}

// rooms says which packages of ours a package may import outside tests. A package that is in no
// row may not exist. Names ending in /… are that folder and all below it.
var rooms = []row{
	{"cmd/…", []string{"…"}, "flags live in commands, and commands hold everything together"},
	{"notebooks/…", []string{"…"}, "notebooks are commands of another form"},
	{"serve/infer", nil, "a leaf: the words of servers and engines"},
	{"train", []string{"graph/…", "sharding/…", "lower", "lower/target", "train/…"}, "training knows the compiler's front and its targets, not its rooms, and never serving"},
	{"train/data", []string{"graph/token"}, "tokens in, batches out: no graph, no device"},
	{"train/store", []string{"sharding/…"}, "folders of tensors: no graph, no device"},
	{"train/report", nil, "a leaf: numbers in, pages out"},
	{"train/lora", []string{"graph", "sharding/…"}, "adapters on the host: names, files and arithmetic, no graph functions"},
	{"serve/sched", []string{"serve/infer"}, "who runs next: no graph, no device"},
	{"serve/grammar", []string{"graph/token", "serve/infer"}, "what may come next: bytes and ids"},
	{"serve/web", nil, "a leaf: files and their headers"},
	{"serve/api", []string{"graph/token", "serve/infer", "serve/grammar"}, "HTTP over an engine, whichever"},
	{"serve", []string{"graph/…", "sharding/…", "lower", "lower/target", "serve/infer", "serve/sched"}, "serving knows the compiler's front and its targets, not its rooms, and never training"},
	{"lower", []string{"lower/trace", "lower/pass", "lower/target", "lower/ir", "lower/pjrt", "lower/plugin", "sharding", "sharding/axis"},
		"the compiler does not know that it compiles Mixtral"},
	{"graph", []string{"graph/composite", "sharding/axis"}, "the model does not know that it is compiled, nor for which machine"},
	{"lower/pass", []string{"lower/ir", "lower/target", "lower/triton", "sharding", "sharding/axis", "graph/composite"},
		"passes read IR, targets and sharding rules, and share the composites' names"},
	{"sharding/ckpt", []string{"sharding", "sharding/axis", "sharding/ckpt/torchfile"}, "checkpoints know names, shapes and layouts"},
	{"sharding/ckpt/torchfile", nil, "a leaf: the files of another library"},
	{"sharding/ckpt/hub", nil, "a leaf: files from a server"},
	{"graph/composite", []string{"sharding/axis"}, "a composite is a name, a body and a gradient"},
	{"lower/trace", []string{"lower/ir"}, "tracing only records"},
	{"sharding", []string{"sharding/axis"}, "sharding is arithmetic on names and integers"},
	{"sharding/axis", nil, "a leaf"},
	{"graph/token", nil, "a leaf, and public"},
	{"lower/ir", nil, "a leaf"},
	{"lower/pjrt", nil, "a leaf"},
	{"lower/pjrt/internal/gen", nil, "a generator"},
	{"lower/plugin", nil, "a leaf"},
	{"lower/target", nil, "a leaf"},
	{"lower/triton", nil, "a leaf"},
	{"lower/triton/interp", []string{"lower/triton"}, "runs kernels as their text says, for tests of them"},
	{"lower/aot", []string{"lower/pjrt", "lower/plugin", "lower/target", "sharding", "sharding/axis"}, "compiles text for a target, whatever it says, and reads what XLA makes of it"},
	{"internal/knob", nil, "usable anywhere"},
	{"internal/cli", []string{"internal/knob"}, "what all commands share"},
	{"internal/demo", []string{"sharding/ckpt"}, "files, and the form checkpoints are opened in"},
	{"internal/corpus", nil, "files"},
	{"internal/golden", nil, "for tests"},
	{"internal/ref", nil, "for tests: plain loops, no graph"},
	{"internal/oracle", []string{"sharding/…"}, "for tests"},
	{"internal/optimized", []string{"lower/aot", "sharding"}, "for tests: what XLA made of a program"},
	{"internal/purego", []string{"internal/ref"}, "for tests: graph functions on the pure-Go backend"},
}

// anywhere may be imported by every package; testsOnly by none outside tests; mainsOnly by commands.
var (
	anywhere  = []string{"internal/knob"}
	testsOnly = []string{"internal/golden", "internal/ref", "internal/oracle", "internal/optimized", "internal/purego"}
	mainsOnly = []string{"internal/cli", "internal/corpus", "internal/demo"}
)

// foreign says which packages of ours may import a package of others outside tests.
var foreign = []row{
	{"github.com/gomlx/gomlx/…", []string{"graph/…", "train", "serve", "internal/purego"}, "GoMLX graphs are written where the mathematics is"},
	{"github.com/gomlx/compute", []string{"lower", "lower/trace", "internal/purego"}, "the backend interface is the compiler's border"},
	{"github.com/gomlx/go-xla/…", []string{"lower/plugin"}, "only its installer is used; the PJRT binding is ours"},
	{"github.com/ebitengine/purego", []string{"lower/pjrt"}, "C is called in one place"},
	{"github.com/alecthomas/kong", []string{"cmd/…", "internal/cli"}, "flags live in commands"},
	{"flag", []string{"internal/golden", "lower/pjrt/internal/gen"}, "flags live in commands, and are kong's there"},
	{"net/http", []string{"serve/…", "sharding/ckpt", "sharding/ckpt/hub", "lower/plugin", "cmd/…"}, "the network is touched in few places"},
	{"github.com/stretchr/testify/…", testsOnly, "for tests"},
	{"testing", testsOnly, "for tests"},
	{"C", nil, "the product builds without a C compiler"},
}

// module is the path before the names of our packages.
const module = "mix/"

func TestImportsPointDownwards(t *testing.T) {
	for pkg, imports := range goList(t) {
		i := slices.IndexFunc(rooms, func(r row) bool { return in(pkg, r.pkg) })
		if i < 0 {
			t.Errorf("package %s is in no room: add a row for it here and in house.md", pkg)
			continue
		}
		for _, imp := range imports {
			ours, isOurs := strings.CutPrefix(imp, module)
			if !isOurs {
				checkForeign(t, pkg, imp)
				continue
			}
			command := in(pkg, "cmd/…") || in(pkg, "notebooks/…")
			switch {
			case slices.Contains(testsOnly, ours):
				if !slices.Contains(testsOnly, pkg) {
					t.Errorf("%s imports %s, which is for tests only", pkg, ours)
				}
			case slices.Contains(mainsOnly, ours):
				if !command {
					t.Errorf("%s imports %s, which is for commands only", pkg, ours)
				}
			case !slices.Contains(anywhere, ours) && !inAny(ours, rooms[i].may):
				t.Errorf("%s imports %s, it may import %v: %s", pkg, ours, rooms[i].may, rooms[i].why)
			}
		}
	}
}

func checkForeign(t *testing.T, pkg, imp string) {
	for _, f := range foreign {
		if in(imp, f.pkg) && !inAny(pkg, f.may) {
			t.Errorf("%s imports %s, only %v may: %s", pkg, imp, f.may, f.why)
		}
	}
}

// in tells whether pkg is pattern, or below it if pattern ends in /….
func in(pkg, pattern string) bool {
	if folder, found := strings.CutSuffix(pattern, "…"); found {
		return strings.HasPrefix(pkg+"/", folder)
	}
	return pkg == pattern
}

func inAny(pkg string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return in(pkg, p) })
}

func TestIn(t *testing.T) {
	require.True(t, in("graph/token", "graph/…"))
	require.True(t, in("graph", "graph/…"))
	require.False(t, in("graphs", "graph/…"))
	require.False(t, in("graph/token", "graph"))
	require.True(t, in("any/thing", "…"))
}

// goList gives the imports of every package of the module, outside tests, by path in the module.
func goList(t *testing.T) map[string][]string {
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Imports,GoFiles", "./...")
	cmd.Dir = root(t)
	out, err := cmd.Output()
	require.NoError(t, err)
	all := map[string][]string{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath string
			Imports    []string
			GoFiles    []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else {
			require.NoError(t, err)
		}
		if len(p.GoFiles) > 0 {
			all[strings.TrimPrefix(p.ImportPath, module)] = p.Imports
		}
	}
	require.NotEmpty(t, all)
	return all
}
