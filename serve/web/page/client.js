// The server's HTTP: questions answered with JSON, and answers that come as events.

// Refusal is an answer of the server that says no. Its message is the server's own.
export class Refusal extends Error {
  constructor(status, error) {
    super(error?.message || `the server answered ${status}`);
    this.status = status;
    this.code = error?.code || "";
  }
}

async function request(path, body, { key, signal } = {}) {
  const headers = {};
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body) headers["Content-Type"] = "application/json";
  const r = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal, credentials: "omit" });
  if (r.ok) return r;
  let said = null;
  try { said = (await r.json()).error; } catch { /* some proxies answer with a page of their own */ }
  throw new Refusal(r.status, said);
}

// ask gets JSON, or posts a body and gets JSON.
export async function ask(path, body, options) {
  return (await request(path, body, options)).json();
}

// ready is "ready", "starting", "draining", or "gone" where nobody answers.
export async function ready() {
  try {
    return (await (await fetch("ready", { cache: "no-store" })).json()).status;
  } catch {
    return "gone";
  }
}

// events posts a body and gives the events of the answer as they come, each with the usage so far. An event that holds an error is thrown.
export async function* events(path, body, options) {
  const r = await request(path, { ...body, stream: true, stream_options: { include_usage: true, continuous_usage_stats: true } }, options);
  for await (const data of lines(r.body)) {
    if (data === "[DONE]") return;
    const event = JSON.parse(data);
    if (event.error) throw new Refusal(r.status, event.error);
    yield event;
  }
  throw new Error("the answer broke off");
}

// lines gives the data of each event. An event ends with an empty line; comments begin with a colon.
async function* lines(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", data = [];
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const whole = (rest + value).split("\n");
      rest = whole.pop();
      for (const line of whole.map((l) => l.replace(/\r$/, ""))) {
        if (line.startsWith("data:")) {
          data.push(line.slice(line[5] === " " ? 6 : 5));
        } else if (line === "" && data.length) {
          yield data.join("\n");
          data = [];
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // a stream that was aborted has nothing left to cancel
  }
}

// chatTokens lists the tokens of a piece of a chat: name, bytes, chance, alternatives, experts.
export function chatTokens(choice) {
  const told = choice.logprobs?.content || [];
  return zip(choice, told.length, (i) => told[i] && {
    name: told[i].token, bytes: told[i].bytes, logprob: told[i].logprob,
    top: told[i].top_logprobs.map((t) => ({ name: t.token, logprob: t.logprob })),
  });
}

// completionTokens does the same for a piece of a completion, whose alternatives are a map by name.
export function completionTokens(choice) {
  const told = choice.logprobs;
  return zip(choice, told?.tokens.length || 0, (i) => told && i < told.tokens.length && {
    name: told.tokens[i], bytes: bytesOf(told.tokens[i]), logprob: told.token_logprobs[i],
    top: Object.entries(told.top_logprobs[i] || {}).map(([name, logprob]) => ({ name, logprob })).sort((a, b) => b.logprob - a.logprob),
  });
}

function zip(choice, told, describe) {
  const n = Math.max(told, choice.token_ids?.length || 0, choice.experts?.length || 0);
  return Array.from({ length: n }, (_, i) => ({ id: choice.token_ids?.[i], experts: choice.experts?.[i], ...describe(i) }));
}

// bytesOf reads a name: its text, or bytes that are no character, written bytes:\xe2.
function bytesOf(name) {
  if (!/^bytes:(\\x[0-9a-f]{2})+$/.test(name)) return [...new TextEncoder().encode(name)];
  return name.slice(6).split("\\x").slice(1).map((h) => parseInt(h, 16));
}
