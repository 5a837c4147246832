package report

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"mix/internal/golden"
)

// The golden's style and script are left out. Its history is read from rows as a resumed run's is.
func TestPageGolden(t *testing.T) {
	golden.Run(t, "testdata/page/*.txtar", func(t *testing.T, in map[string]string) string {
		_, _, h, err := resume(t, in["rows"], in["evaluations"], math.MaxInt)
		require.NoError(t, err)
		h.last.Steps = 6
		h.saved(2)
		rows, err := settings([]byte(in["settings"]))
		require.NoError(t, err)
		p := &page{title: "A <run> & more", settings: rows, every: 5 * time.Second}
		v := view{history: h, running: in["running"] != "", at: time.UnixMilli(1700000000000), left: 75 * time.Second}
		var b strings.Builder
		require.NoError(t, pageTemplate.Execute(&b, p.fill(v, "", "")))
		return b.String()
	})
}

// long is the page of a run of that many steps with as much as a page can hold.
func long(t testing.TB, steps, layers int) string {
	path := filepath.Join(t.TempDir(), "run.html")
	p := &page{path: path, title: "long", every: time.Second}
	h := &history{}
	s := walk(1, steps, layers, 8)
	text := strings.Repeat("word ", 1000)
	for step := 1; step <= steps; step++ {
		s.Step, s.CE, s.GradNorm = step, 2+1/float64(step), 1+float64(step%17)
		h.step(s)
		if step%(steps/500) == 0 {
			e := evaluate(step)
			for range 10 {
				e.Samples = append(e.Samples, Sample{text, text})
			}
			h.eval(e)
		}
	}
	require.NoError(t, p.write(view{history: h, running: true}))
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(b)
}

func TestLongRunsHaveSmallPages(t *testing.T) {
	require.Less(t, len(long(t, 500_000, 56)), 1_000_000)
}

func TestPageNeedsNothingElse(t *testing.T) {
	text := strings.ReplaceAll(long(t, 1000, 4), "http://www.w3.org/2000/svg", "") // a name, nothing is fetched
	for _, pattern := range []string{`https?:`, `//[a-z]`, `\ssrc=`, `\shref=`, `url\((?:[^#"])`, `@import`, `fetch\(`} {
		// Comments of the script are the only thing that may look like an address.
		require.NotRegexp(t, regexp.MustCompile(pattern), regexp.MustCompile(`// .*`).ReplaceAllString(text, ""))
	}
}

func TestPageEscapesText(t *testing.T) {
	const attack = `</script><script>alert("x")</script><!--`
	config, err := json.Marshal(map[string]any{attack: attack})
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "run.html")
	r, err := Open(Options{Title: attack, HTML: path, Config: config})
	require.NoError(t, err)
	require.NoError(t, r.Start(0, 2))
	require.NoError(t, r.Step(Step{Step: 1, Steps: 2, CE: 1}))
	require.NoError(t, r.Eval(Eval{Step: 1, Samples: []Sample{{attack, attack}}}))
	require.NoError(t, r.Close())
	text := read(t, path)
	require.NotContains(t, text, "alert(\"x\")")
	require.Equal(t, 2, strings.Count(text, "<script"), "the data and the page's own")
	require.Equal(t, 6, strings.Count(text, "alert(&#34;x&#34;)"), "twice the title, a name, a value, a prompt and a text")
}

func TestSettingsAreRows(t *testing.T) {
	rows, err := settings([]byte(`{"b":1e-3,"a":{"x":"text","y":{"z":[1, 2]},"empty":{}},"none":null,"yes":true}`))
	require.NoError(t, err)
	require.Equal(t, []setting{{"b", "1e-3"}, {"a.x", "text"}, {"a.y.z", "[1,2]"}, {"a.empty", "{}"}, {"none", "null"}, {"yes", "true"}}, rows)
}

// stage is just enough of a browser for the script to run from end to end.
const stage = `
const node = () => new Proxy(function () {}, { get(t, k) {
  if (k in t && k !== "name" && k !== "length") return t[k];
  if (k === "clientWidth") return 800;
  if (k === "textContent") return "";
  if (k === "dataset") return { at: 0, refresh: 5 };
  if (k === "getBoundingClientRect") return () => ({ left: 0, top: 0, width: 800, height: 100 });
  if (k === "createImageData") return (w, h) => ({ data: new Uint8ClampedArray(4 * w * h) });
  if (k === Symbol.toPrimitive) return () => "";
  return (...a) => { for (const x of a) if (String(x).includes("NaN")) throw new Error(k + " " + a); return node(); };
}, set(t, k, v) { if (/^on/.test(k)) handlers.push(v); t[k] = v; return true; } });
const handlers = [];
const data = Object.assign(node(), { textContent: require("fs").readFileSync(process.argv[2], "utf8") });
globalThis.document = { getElementById: (id) => (id === "data" ? data : node()), createElement: node, createElementNS: node, body: node(),
  documentElement: node(), querySelectorAll: () => [node()] };
globalThis.sessionStorage = { getItem: () => null, setItem() {} };
globalThis.getComputedStyle = () => ({ getPropertyValue: () => " #102030" });
globalThis.matchMedia = node;
globalThis.ResizeObserver = class { constructor(f) { this.f = f; } observe() { this.f(); } };
globalThis.setInterval = () => {};
process.on("exit", (code) => { if (code === 0) console.log(handlers.length + " handlers"); });
setImmediate(() => { for (const h of [...handlers]) for (const clientX of [0, 400, 900]) h({ clientX, clientY: 5 }); });
`

func TestScriptRuns(t *testing.T) {
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("needs node")
	}
	nothing, short, uneven, bad := &history{}, &history{}, &history{}, &history{}
	for step := 1; step <= 3000; step++ {
		if step < 5 {
			short.step(walk(step, 9, 2, 4))
		}
		uneven.step(walk(step, 9000, 2, 4))
	}
	uneven.eval(Eval{Step: 0, Loss: 8})
	uneven.eval(Eval{Step: 2000, Loss: math.NaN()})
	bad.step(Step{Step: 7, Steps: 9, CE: math.NaN(), GradNorm: math.Inf(1)})
	for name, h := range map[string]*history{"nothing": nothing, "short": short, "uneven": uneven, "bad": bad} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			data, err := json.Marshal(charts(h))
			require.NoError(t, err)
			require.NoError(t, errors.Join(os.WriteFile(filepath.Join(dir, "data.json"), data, 0o644),
				os.WriteFile(filepath.Join(dir, "page.js"), []byte(stage+pageScript), 0o644)))
			out, err := exec.Command("node", filepath.Join(dir, "page.js"), filepath.Join(dir, "data.json")).CombinedOutput()
			require.NoError(t, err, "%s", out)
			require.Contains(t, string(out), " handlers")
		})
	}
}
