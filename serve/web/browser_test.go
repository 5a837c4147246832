package web

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"
)

// chromium starts a browser, or skips the test where there is none.
var chromium = sync.OnceValues(func() (string, error) {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("no Chromium")
})

// tab is a page in a browser of its own.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu   sync.Mutex
	said []string // errors of the page: exceptions, refused loads
}

func open(t *testing.T, url string) *tab {
	t.Helper()
	path, err := chromium()
	if err != nil {
		t.Skip("needs Chromium in PATH")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.WindowSize(1280, 860), chromedp.UserDataDir(t.TempDir()))
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // Chromium's sandbox does not run as root; the page is our own
	}
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	b := &tab{t: t, ctx: ctx}
	require.NoError(t, chromedp.Listen(ctx, b.note))
	_, err = chromedp.Call(ctx, log.Enable, cdp.Empty{})
	require.NoError(t, err)
	b.do(chromedp.Navigate(url))
	return b
}

// note keeps what went wrong in the page. A refused request is the page's to tell, not an error in it.
func (b *tab) note(e any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := e.(type) {
	case *runtime.EventExceptionThrown:
		b.said = append(b.said, fmt.Sprint(e.ExceptionDetails.Text, " ", e.ExceptionDetails.URL, ":", e.ExceptionDetails.LineNumber+1))
	case *runtime.EventConsoleAPICalled:
		b.said = append(b.said, fmt.Sprint("console: ", e.Type))
	case *log.EventEntryAdded:
		if e.Entry.Source != log.EntrySourceNetwork {
			b.said = append(b.said, e.Entry.Text)
		}
	}
}

// quiet demands that nothing went wrong.
func (b *tab) quiet() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	require.Empty(b.t, b.said)
}

func (b *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	require.NoError(b.t, chromedp.Do(b.ctx, actions...))
}

func (b *tab) click(selector string) {
	b.t.Helper()
	b.do(chromedp.Click(chromedp.CSS(selector)))
}

// write types into an element, key by key.
func (b *tab) write(selector, keys string) {
	b.t.Helper()
	b.do(chromedp.SendKeys(chromedp.CSS(selector), keys))
}

// set gives an element a value and tells the page.
func (b *tab) set(selector, value string) {
	b.t.Helper()
	eval[bool](b, fmt.Sprintf(`(() => { const e = document.querySelector(%q); e.value = %q; return e.dispatchEvent(new Event("input", { bubbles: true })) })()`, selector, value))
}

// key presses a key where the focus is.
func (b *tab) key(key string, with ...chromedp.Modifier) {
	b.t.Helper()
	b.do(chromedp.KeyEvent(key, chromedp.KeyModifiers(with...)))
}

// enter presses Enter as a keyboard does: what it types comes with the key, and not where a page keeps the key to itself.
func (b *tab) enter(with chromedp.Modifier) {
	b.t.Helper()
	for _, p := range []input.DispatchKeyEventParams{{Type: input.DispatchKeyEventTypeKeyDown, Text: "\r"}, {Type: input.DispatchKeyEventTypeKeyUp}} {
		p.Key, p.Code, p.WindowsVirtualKeyCode, p.Modifiers = "Enter", "Enter", 13, int64(with)
		_, err := chromedp.Call(b.ctx, input.DispatchKeyEvent, p)
		require.NoError(b.t, err)
	}
}

// eval is the value of an expression in the page.
func eval[T any](b *tab, expression string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	require.NoError(b.t, err, expression)
	return v
}

// until waits for an expression to be true.
func (b *tab) until(expression string) {
	b.t.Helper()
	_, err := chromedp.Run(b.ctx, chromedp.Poll[bool]("Boolean("+expression+")", chromedp.WithPollingInterval(20*time.Millisecond), chromedp.WithPollingTimeout(15*time.Second)))
	if err != nil {
		b.shot("failed")
		b.t.Fatalf("%s: %v; the page reads: %s", expression, err, eval[string](b, "document.body.innerText"))
	}
}

const (
	isReady = `document.querySelector("#state").dataset.state === "ready"`
	isDone  = `!document.querySelector("#send").hidden && document.querySelectorAll(".writing").length === 0`
)

// send types a prompt and sends it by keyboard.
func (b *tab) send(prompt string) {
	b.t.Helper()
	b.until(isReady)
	b.write("#prompt", prompt)
	b.enter(kb.ModifierNone)
}

// answer is the text of the last answer.
func (b *tab) answer() string {
	b.t.Helper()
	return eval[string](b, `[...document.querySelectorAll(".tokens")].at(-1).textContent`)
}

// point moves the mouse onto an element.
func (b *tab) point(selector string) {
	b.t.Helper()
	at := eval[[]float64](b, `(() => { const b = document.querySelector(`+fmt.Sprintf("%q", selector)+`).getClientRects()[0]; return [b.x + b.width / 2, b.y + b.height / 2] })()`)
	b.do(chromedp.MouseEvent("mouseMoved", at[0], at[1]))
}

// scheme is dark or light.
func (b *tab) scheme(name string) {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}}})
	require.NoError(b.t, err)
	b.frames()
}

// frames waits until what was asked for is drawn.
func (b *tab) frames() {
	b.t.Helper()
	eval[bool](b, `new Promise((r) => requestAnimationFrame(() => requestAnimationFrame(() => r(true))))`)
}

// shot keeps a picture among the artifacts of the test.
func (b *tab) shot(name string) {
	b.t.Helper()
	png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	require.NoError(b.t, err)
	path := filepath.Join(b.t.ArtifactDir(), strings.ReplaceAll(name, " ", "_")+".png")
	require.NoError(b.t, os.WriteFile(path, png, 0o644))
	b.t.Log("picture:", path)
}
