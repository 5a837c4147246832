package web

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"

	"mix/serve/api"
)

const tale = "A router reads each token and sends it to two of eight experts.\nNaïve — 世界 🙂 <b onclick=\"x()\">not HTML</b> ends here."

func TestChat(t *testing.T) {
	e, url := newStub(t, func(e *stub, _ *api.Options) { e.pause = 5 * time.Millisecond })
	e.say(tale)
	b := open(t, url)
	b.send("Tell me of experts")
	b.until(`document.querySelectorAll(".token").length > 3`)
	b.until(isDone)
	require.Equal(t, tale, b.answer())
	require.Equal(t, "Tell me of experts", eval[string](b, `document.querySelector(".said.user").textContent`))
	require.Zero(t, eval[int](b, `document.querySelectorAll(".tokens b").length`), "text became elements")
	require.Contains(t, eval[string](b, `document.querySelector(".foot").textContent`), "ended by itself")
	require.Equal(t, "", eval[string](b, `document.querySelector("#prompt").value`))

	r := e.last()
	require.True(t, r.Experts)
	require.Equal(t, 5, r.LogProbs)
	require.Equal(t, float32(0.7), r.Sampling.Temperature)

	e.say("Again.")
	b.send("And now?")
	b.until(isDone + ` && document.querySelectorAll(".said").length === 4`)
	require.Equal(t, "Again.", b.answer())
	require.Greater(t, len(e.last().Prompt), len(r.Prompt)+20, "the history is part of the prompt")
	b.until(fmt.Sprintf(`document.querySelector("#count").value.endsWith(" of %d tokens")`, e.context))

	b.click("#clear")
	require.Zero(t, eval[int](b, `document.querySelectorAll(".said").length`))
	b.until(fmt.Sprintf(`document.querySelector("#count").value === "0 of %d tokens"`, e.context))
	b.quiet()
}

func TestHoverAndExperts(t *testing.T) {
	e, url := newStub(t, nil)
	e.say(tale)
	b := open(t, url)
	b.send("Experts?")
	b.until(isDone + ` && document.querySelectorAll(".token").length > 5`)

	const at = 4
	b.point(fmt.Sprintf(".token:nth-child(%d)", at+1))
	b.until(`!document.querySelector("#card").hidden`)
	card := eval[string](b, `document.querySelector("#card").innerText`)
	require.Contains(t, card, "25.0%") // the second of three chances
	require.Contains(t, card, fmt.Sprintf("token %d", at+1))
	require.Equal(t, 5, eval[int](b, `document.querySelectorAll("#card li").length`))
	require.Equal(t, 1, eval[int](b, `document.querySelectorAll("#card li.taken").length`))

	b.frames()
	var want []string
	for l := range stubLayers {
		c := stubChosen(at, l)
		want = append(want, fmt.Sprintf("%d: %d and %d", l, c[0], c[1]))
	}
	require.Equal(t, "Experts of the shown token, by layer: "+strings.Join(want, "; "), eval[string](b, `document.querySelector("#grid").getAttribute("aria-label")`))
	drawn := strengths(b)
	for l := range stubLayers {
		for x := range stubExperts {
			require.Equal(t, x == int(stubChosen(at, l)[0]), drawn[l][x] > 0.6, "layer %d, expert %d", l, x)
		}
	}

	b.point("#prompt")
	b.until(`document.querySelector("#card").hidden && !document.querySelector(".token.chosen")`)
	b.frames()
	require.Contains(t, eval[string](b, `document.querySelector("#which").value`), "latest")

	eval[bool](b, `document.querySelector("#loom").dispatchEvent(new PointerEvent("pointermove",
		{ clientX: document.querySelector("#loom").getBoundingClientRect().x + 25, bubbles: true }))`)
	require.Equal(t, 0, eval[int](b, `[...document.querySelectorAll(".token")].findIndex((e) => e.classList.contains("chosen"))`))
	require.Equal(t, stubExperts, eval[int](b, `document.querySelectorAll("#load li").length`))
	b.quiet()
}

// strengths are how strong the color is in each cell of the drawn grid, [layer][expert], left of the middle: as
// a part of what a first expert has.
func strengths(b *tab) [][]float64 {
	return eval[[][]float64](b, fmt.Sprintf(`(() => {
		const c = document.querySelector("#grid"), scale = c.width / c.clientWidth, row = 26, col = (c.clientWidth - 22) / %d;
		const all = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
		return Array.from({ length: %d }, (_, l) => Array.from({ length: %d }, (_, e) => {
			const x = Math.round((22 + (e + 0.5) * col - 5) * scale), y = Math.round((l + 0.5) * row * scale) - 3;
			const [r, g, b] = all.slice(4 * (y * c.width + x));
			return (Math.max(r, g, b) - Math.min(r, g, b)) / 110;
		}));
	})()`, stubExperts, stubLayers, stubExperts))
}

func TestKeyboard(t *testing.T) {
	e, url := newStub(t, nil)
	e.say("One two three four.")
	b := open(t, url)
	b.send("Count")
	b.until(isDone + ` && document.querySelectorAll(".token").length > 3`)
	// From the prompt back into the answer, and through it.
	b.key(kb.Tab, kb.ModifierShift)
	require.True(t, eval[bool](b, `document.activeElement.matches(".tokens")`), "Shift+Tab goes into the answer")
	b.key(kb.ArrowRight)
	b.key(kb.ArrowRight)
	require.Equal(t, 1, eval[int](b, `[...document.querySelectorAll(".token")].findIndex((e) => e.classList.contains("chosen"))`))
	require.Contains(t, eval[string](b, `document.querySelector("#told").textContent`), "␣two, 25.0%; experts of layer 0: 3 and 5")
	require.False(t, eval[bool](b, `document.querySelector("#card").hidden`))
	b.key(kb.End)
	b.key(kb.ArrowRight)
	require.True(t, eval[bool](b, `document.querySelector(".tokens").lastChild.classList.contains("chosen")`))
	b.key(kb.Escape)
	require.True(t, eval[bool](b, `document.querySelector("#card").hidden`))
	// Every control has a name.
	require.Empty(t, eval[[]string](b, `[...document.querySelectorAll("input, textarea, select, button, meter, canvas")]
		.filter((e) => !(e.labels?.length || e.getAttribute("aria-label") || e.textContent.trim())).map((e) => e.id || e.outerHTML)`))
	b.quiet()
}

func TestStop(t *testing.T) {
	for name, stop := range map[string]func(b *tab){
		"button": func(b *tab) { b.click("#stop") },
		"escape": func(b *tab) { b.key(kb.Escape) },
		"clear":  func(b *tab) { b.click("#clear") },
	} {
		t.Run(name, func(t *testing.T) {
			e, url := newStub(t, func(e *stub, _ *api.Options) { e.pause = 20 * time.Millisecond })
			e.say("on and on ")
			e.endless.Store(true)
			b := open(t, url)
			b.send("Go")
			b.until(`document.querySelectorAll(".token").length > 5`)
			b.until(`parseInt(document.querySelector("#count").value) > 10`)
			require.Zero(t, e.ended.Load())
			stop(b)
			b.until(isDone)
			require.Eventually(t, func() bool { return e.ended.Load() == 1 }, 10*time.Second, 10*time.Millisecond, "the engine goes on")
			if name == "clear" {
				require.Zero(t, eval[int](b, `document.querySelectorAll(".said").length`))
			} else {
				require.Contains(t, eval[string](b, `document.querySelector(".foot").textContent`), "stopped by you")
				require.True(t, eval[bool](b, `document.activeElement.id === "prompt"`))
			}
			before := len(e.last().Prompt)
			e.endless.Store(false)
			b.send("More")
			b.until(isDone + ` && [...document.querySelectorAll(".foot")].at(-1)?.textContent.includes("ended by itself")`)
			require.Equal(t, name != "clear", len(e.last().Prompt) > before+5, "what was said before a stop is history, unless cleared")
			b.quiet()
		})
	}
}

func TestCompletionAndSettings(t *testing.T) {
	e, url := newStub(t, nil)
	e.say("time there was END and more")
	b := open(t, url)
	b.until(isReady)
	b.click(`input[value="completion"] + span`)
	for _, s := range [][2]string{{"#seed", "7"}, {"#top_k", "40"}, {"#stops", "END"}} {
		b.write(s[0], s[1])
	}
	for _, s := range [][2]string{{"#temperature", "0.25"}, {"#top_p", "0.9"}, {"#min_p", "0.05"}} {
		b.set(s[0], s[1])
	}
	require.True(t, eval[bool](b, `document.querySelector("#system-field").hidden`))
	b.write("#prompt", "Once upon a")
	b.enter(kb.ModifierCtrl)
	b.until(isDone + ` && document.querySelector(".foot button")`)
	require.Equal(t, " time there was ", b.answer())
	r := e.last()
	require.EqualValues(t, 7, r.Sampling.Seed)
	require.Equal(t, 40, r.Sampling.TopK)
	require.Equal(t, []float32{0.25, 0.9, 0.05}, []float32{r.Sampling.Temperature, r.Sampling.TopP, r.Sampling.MinP})
	require.Equal(t, e.context-len(r.Prompt), r.Max, "without max tokens the answer may fill the context")
	require.Equal(t, 5, r.LogProbs)

	b.click(".foot button")
	require.Equal(t, "Once upon a time there was ", eval[string](b, `document.querySelector("#prompt").value`))
	b.write("#max_tokens", "2")
	b.click("#details")
	b.click("#send")
	b.until(isDone + ` && document.querySelectorAll(".said").length === 2 && document.querySelectorAll(".foot button").length === 2`)
	require.Equal(t, 2, e.last().Max)
	require.False(t, e.last().Experts)
	require.Equal(t, -1, e.last().LogProbs)
	b.click(`#settings button[type="reset"]`)
	b.until(`document.querySelector("#seed").value === "" && document.querySelector("#settings .slide output").value === "0.7"`)
	b.quiet()
}

func TestKeyAndRefusals(t *testing.T) {
	e, url := newStub(t, func(e *stub, o *api.Options) { o.Keys = []string{"secret-key"}; e.context = 64; e.ready.Store(false) })
	e.say("Hello.")
	b := open(t, url)
	b.until(`document.querySelector("#state").textContent === "preparing the model"`)
	require.True(t, eval[bool](b, `document.querySelector("#send").disabled`))
	e.ready.Store(true)
	b.until(`document.querySelector("#state").textContent === "needs an API key"`)
	b.write("#key", "secret-key"+kb.Tab)
	b.until(isReady)
	b.send("Hi")
	b.until(isDone + ` && document.querySelectorAll(".token").length > 1`)
	require.Equal(t, "Hello.", b.answer())
	require.Zero(t, eval[int](b, `localStorage.length + sessionStorage.length + document.cookie.length`), "the key is kept")

	long := strings.Repeat("word ", 80)
	b.set("#prompt", long)
	b.do(chromedp.Focus(chromedp.CSS("#prompt")))
	b.enter(kb.ModifierNone)
	b.until(`document.querySelector("[role=alert]")?.textContent.includes("the context is 64 tokens")`)
	require.Equal(t, long, eval[string](b, `document.querySelector("#prompt").value`), "what was refused may be changed and sent again")
	b.quiet()
}

func TestLooks(t *testing.T) {
	e, url := newStub(t, func(e *stub, _ *api.Options) { e.layers = 32 }) // as many as Mixtral 8x7B has
	e.say(strings.Repeat("Each layer has its own router, and each token finds its own way through them. ", 3) + "世界 🙂")
	b := open(t, url)
	ground := map[string]string{}
	b.scheme("light")
	b.until(isReady)
	b.shot("empty light")
	b.send("How does a mixture of experts work?")
	b.until(isDone + ` && document.querySelectorAll(".token").length > 20`)
	for _, s := range []string{"dark", "light"} {
		b.scheme(s)
		b.point(".token:nth-child(9)")
		b.until(`!document.querySelector("#card").hidden`)
		b.frames()
		ground[s] = eval[string](b, `getComputedStyle(document.body).backgroundColor`)
		b.shot("chat " + s)
	}
	require.NotEqual(t, ground["dark"], ground["light"])
	b.do(chromedp.EmulateViewport(390, 800, chromedp.EmulateScale(2), chromedp.EmulateMobile))
	b.frames()
	require.LessOrEqual(t, eval[int](b, `document.documentElement.scrollWidth`), 390, "a narrow page scrolls sideways")
	b.shot("narrow")
	b.quiet()
}
