// What the elements of the page do. All text from the model or from the server is set as text, never as HTML.

import { Answer, Card, element, find, spoken } from "./answer.js";
import { ask, chatTokens, completionTokens, events, ready, Refusal } from "./client.js";
import { Experts } from "./experts.js";

const $ = (id) => document.getElementById(id);
const experts = new Experts({ grid: $("grid"), loom: $("loom"), load: $("load"), which: $("which"), evenly: $("evenly") });
const card = new Card($("card"));
let model = null;    // the server's word on it
let history = [];    // of the chat: messages
let latest = null;   // the answer that was asked for last
let running = null;  // its AbortController
let state = "";

const mode = () => document.querySelector("input[name=mode]:checked").value;
const key = () => $("key").value.trim();
const tinting = () => ({ by: $("tint").value, layer: Number($("layer").value), experts: model?.experts || 8 });

// Settings.

const optional = (id) => ($(id).value === "" ? undefined : Number($(id).value));
const unescape = (line) => line.replace(/\\([nt\\])/g, (_, c) => ({ n: "\n", t: "\t", "\\": "\\" })[c]);

function sampling() {
  const stop = $("stops").value.split("\n").filter(Boolean).map(unescape);
  const body = {
    model: model.id, temperature: optional("temperature"), top_p: optional("top_p"), min_p: optional("min_p"), top_k: optional("top_k"),
    max_tokens: optional("max_tokens"), seed: optional("seed"), stop: stop.length ? stop : undefined,
  };
  return $("details").checked ? { ...body, return_experts: true, return_token_ids: true } : body;
}

const messages = (draft) => [
  ...($("system").value.trim() ? [{ role: "system", content: $("system").value }] : []),
  ...history,
  ...(draft ? [{ role: "user", content: draft }] : []),
];

function slides() {
  for (const o of document.querySelectorAll("#settings .slide output")) o.value = Number($(o.htmlFor.value).value);
}

// The server, and the room in its context.

async function meet() {
  try {
    const m = (await ask("v1/models", null, { key: key() })).data[0];
    if (model?.id !== m.id) {
      experts.shape(m.layers, m.experts);
      $("layer").max = m.layers - 1;
      $("layer").value = Math.floor(m.layers / 2);
    }
    model = m;
    $("model").textContent = document.title = m.id;
    return true;
  } catch (e) {
    if (e.status === 401) tell("locked", "needs an API key");
    return false;
  }
}

function tell(to, words) {
  if ($("state").textContent !== words) $("state").textContent = words;
  $("state").dataset.state = state = to;
  $("send").disabled = to !== "ready";
}

const words = { ready: "ready", starting: "preparing the model", draining: "shutting down", gone: "no answer from the server" };

async function watch() {
  clearTimeout(watch.again);
  const before = state, now = await ready();
  if (now !== "ready" || before === "ready" || await meet()) tell(now, words[now] || now);
  if (now === "ready" && before !== "ready") count();
  watch.again = setTimeout(watch, state === "ready" ? 15000 : 800);
}

let counting = null;

// count asks how many tokens the prompt has, and gives their number, or undefined where that is not known.
async function count() {
  counting?.abort();
  const mine = (counting = new AbortController()), draft = $("prompt").value, all = messages(draft);
  if (state !== "ready" || running) return undefined;
  if (mode() === "chat" ? !all.length : !draft) return room(0);
  try {
    const body = mode() === "chat" ? { messages: all } : { prompt: draft };
    return room((await ask("tokenize", body, { key: key(), signal: mine.signal })).count);
  } catch (e) {
    if (e.name !== "AbortError") $("count").value = "–";
    return undefined;
  }
}

function room(n) {
  const most = model?.max_model_len || 1;
  $("meter").max = most;
  $("meter").value = n;
  $("count").value = `${n} of ${most} tokens`;
  $("context").classList.toggle("full", n >= most);
  return n;
}

function countSoon() {
  clearTimeout(countSoon.later);
  countSoon.later = setTimeout(count, 250);
}

// Asking and answering.

function entry(kind, ...children) {
  $("empty").hidden = true;
  const e = element("article", { className: `said ${kind}` }, ...children);
  e.dataset.mode = mode();
  $("talk").append(e);
  e.scrollIntoView({ block: "end" });
  return e;
}

async function send() {
  const draft = $("prompt").value, chat = mode() === "chat", past = history;
  if (running || state !== "ready" || !draft || (chat && !draft.trim()) || !$("settings").reportValidity()) return;
  running = new AbortController();
  counting?.abort();
  busy(true);
  const answer = (latest = new Answer("Tokens of the answer; arrow keys go from one to the next"));
  const foot = element("div", { className: "foot" });
  if (chat) {
    entry("user", draft);
    $("prompt").value = "";
  }
  const e = entry("model writing", ...(chat ? [] : [element("span", { className: "before" }, draft)]), answer.element, foot);
  e.setAttribute("aria-busy", "true");
  experts.show(answer);
  const how = { began: performance.now(), first: 0, reason: "", usage: null };
  try {
    await write(answer, chat, draft, how);
    foot.append(...summary(answer, how, running.signal.aborted));
  } catch (err) {
    if (err.name !== "AbortError") foot.append(...failure(err));
    else foot.append(...summary(answer, how, true));
  }
  e.classList.remove("writing");
  e.removeAttribute("aria-busy");
  if (chat && answer.text) {
    past.push({ role: "user", content: draft }, { role: "assistant", content: answer.text });
  } else if (chat && past === history && !$("prompt").value) {
    $("prompt").value = draft; // nothing was said to it: it may be sent again
  }
  if (!chat) foot.append(goOn(draft + answer.text));
  running = null;
  busy(false);
  count();
}

// write reads the answer's events into the page.
async function write(answer, chat, draft, how) {
  const signal = running.signal, body = sampling(), tokens = chat ? chatTokens : completionTokens;
  const [path, all] = chat ? ["v1/chat/completions", messages(draft)] : ["v1/completions", null];
  if (chat) Object.assign(body, { messages: all });
  else Object.assign(body, { prompt: draft, max_tokens: body.max_tokens ?? await fits(draft, signal) });
  if ($("details").checked) Object.assign(body, chat ? { logprobs: true, top_logprobs: 5 } : { logprobs: 5 });
  for await (const event of events(path, body, { key: key(), signal })) {
    how.usage = event.usage || how.usage;
    if (how.usage) room(how.usage.prompt_tokens + how.usage.completion_tokens);
    const choice = event.choices[0];
    if (!choice) continue;
    const text = chat ? choice.delta.content || "" : choice.text, from = answer.tokens.length, follow = atEnd();
    if (text || tokens(choice).length) how.first ||= performance.now();
    answer.add(text, tokens(choice));
    answer.tint(tinting(), from);
    experts.draw();
    how.reason = choice.finish_reason || how.reason;
    if (follow) $("talk").scrollTop = $("talk").scrollHeight;
  }
}

// fits is how many tokens there is room for after a prompt.
async function fits(prompt, signal) {
  const n = (await ask("tokenize", { prompt }, { key: key(), signal })).count;
  return Math.max(1, model.max_model_len - n);
}

const atEnd = () => $("talk").scrollHeight - $("talk").scrollTop - $("talk").clientHeight < 60;

function summary(answer, how, stopped) {
  const n = how.usage?.completion_tokens ?? answer.tokens.length, seconds = (performance.now() - how.first) / 1000;
  const said = [n === 1 ? "1 token" : `${n} tokens`];
  if (how.first && n > 1) said.push(`${((n - 1) / Math.max(seconds, 1e-3)).toFixed(1)} a second`, `first after ${((how.first - how.began) / 1000).toFixed(2)} s`);
  said.push(stopped ? "stopped by you" : { length: "cut at the length", stop: "ended by itself" }[how.reason] || how.reason);
  return said.filter(Boolean).map((s) => element("span", {}, s));
}

function failure(err) {
  const e = element("span", { className: "error" }, err instanceof Refusal ? err.message : `The server is gone: ${err.message}`);
  e.setAttribute("role", "alert");
  if (err.status === 401) $("key").focus();
  watch();
  return [e];
}

function goOn(text) {
  const b = element("button", { type: "button", className: "quiet" }, "Go on from here");
  b.addEventListener("click", () => {
    $("prompt").value = text;
    $("prompt").focus();
    count();
  });
  return b;
}

function busy(on) {
  const inside = document.activeElement === $("stop") || document.activeElement === $("send");
  $("send").hidden = on;
  $("stop").hidden = !on;
  if (inside) (on ? $("stop") : $("prompt")).focus();
}

function stop() {
  running?.abort();
  card.hide();
}

// Pointing at tokens, by pointer and by keyboard.

let shown = null; // the answer with a chosen token

function choose(answer, at, withCard = true) {
  if (shown && shown !== answer) shown.choose(-1);
  shown = answer;
  answer.choose(at);
  experts.show(answer, at);
  if (withCard) card.show(answer, at);
}

function leave() {
  shown?.choose(-1);
  shown = null;
  card.hide();
  experts.show(latest, -1);
}

$("talk").addEventListener("pointerover", (e) => {
  const found = find(e.target);
  if (found) choose(found.answer, found.at);
  else if (shown && !shown.element.matches(":focus-visible")) leave();
});
$("talk").addEventListener("pointerleave", (e) => { if (e.pointerType === "mouse" && shown) leave(); });
$("talk").addEventListener("scroll", () => card.hide());
$("loom").addEventListener("pointermove", (e) => {
  const at = experts.under(e.clientX);
  if (at >= 0) choose(experts.answer, at, false);
});
$("loom").addEventListener("pointerleave", () => { if (shown) leave(); });

const steps = { ArrowLeft: (i) => i - 1, ArrowRight: (i) => i + 1, Home: () => 0, End: () => Infinity };

function walk(e) {
  const answer = find(e.target.firstElementChild)?.answer;
  if (!answer || !e.target.matches(".tokens") || !steps[e.key] || e.ctrlKey || e.altKey || e.metaKey || e.shiftKey) return;
  e.preventDefault();
  answer.at = Math.max(0, Math.min(answer.tokens.length - 1, steps[e.key](answer.at)));
  const t = answer.tokens[answer.at];
  t.element.scrollIntoView({ block: "nearest" });
  choose(answer, answer.at);
  $("told").textContent = spoken(t);
}
$("talk").addEventListener("keydown", walk);
$("talk").addEventListener("focusout", () => { if (shown) leave(); });

// Controls.

$("composer").addEventListener("submit", (e) => { e.preventDefault(); send(); });
$("settings").addEventListener("submit", (e) => e.preventDefault());
$("stop").addEventListener("click", stop);
$("prompt").addEventListener("input", countSoon);
$("prompt").addEventListener("keydown", (e) => {
  if (e.key !== "Enter" || e.isComposing) return;
  const sends = mode() === "chat" ? !e.shiftKey : e.ctrlKey || e.metaKey;
  if (!sends) return;
  e.preventDefault();
  send();
});
document.addEventListener("keydown", (e) => {
  if (e.key !== "Escape") return;
  if (!$("card").hidden) card.hide();
  else stop();
});

function retint() {
  $("layer").hidden = $("layer-label").hidden = $("tint").value !== "expert";
  for (const e of document.querySelectorAll(".tokens")) find(e.firstElementChild)?.answer.tint(tinting());
}
$("tint").addEventListener("change", retint);
$("layer").addEventListener("input", retint);
$("settings").addEventListener("input", slides);
$("settings").addEventListener("reset", () => setTimeout(() => { slides(); count(); }));
$("system").addEventListener("input", countSoon);
$("key").addEventListener("change", () => { model = null; state = ""; watch(); });

function turn() {
  const chat = mode() === "chat";
  $("talk").dataset.mode = mode();
  $("system-field").hidden = !chat;
  $("prompt").placeholder = chat ? "Message" : "Text to go on from";
  $("hint").textContent = chat ? "Enter sends, Shift+Enter is a new line, Esc stops" : "Ctrl+Enter sends, Esc stops";
  $("greeting").textContent = chat ? "Say something to the model." : "Begin a text, and let the model go on.";
  $("empty").hidden = Boolean($("talk").querySelector(`.said[data-mode="${mode()}"]`));
  countSoon();
}
$("modes").addEventListener("change", turn);

$("clear").addEventListener("click", () => {
  stop();
  for (const e of document.querySelectorAll(`.said[data-mode="${mode()}"]`)) e.remove();
  if (mode() === "chat") history = [];
  latest = shown = null;
  experts.show(null);
  turn();
  $("prompt").focus();
});

slides();
retint();
turn();
watch();
