// An answer: the text of its tokens, each in an element of its own, and the card that describes one.

export const element = (name, properties, ...children) => {
  const e = Object.assign(document.createElement(name), properties);
  e.append(...children);
  return e;
};

export const percent = (logprob) => {
  const p = 100 * Math.exp(logprob);
  if (!(p >= 0.01)) return "< 0.01%";
  return (p >= 99.95 ? Math.min(p, 99.99).toFixed(2) : p >= 10 ? p.toFixed(1) : p.toFixed(2)) + "%";
};

// visible writes a token's name so that blanks are seen.
export const visible = (name = "") => name.replace(/ /g, "␣").replace(/\n/g, "↵").replace(/\t/g, "⇥").replace(/\r/g, "␍") || "∅";

// shade is the color of an expert, as CSS that follows dark and light.
export const shade = (expert, experts) => `oklch(var(--expert-light) var(--expert-chroma) ${hue(expert, experts)})`;
export const hue = (expert, experts) => Math.round(28 + (360 * expert) / Math.max(experts, 1)) % 360;

const homes = new WeakMap(); // element of a token: its answer and its place

// find is the answer and the place of the token at an element, or undefined.
export const find = (target) => homes.get(target?.closest?.(".token"));

export class Answer {
  constructor(label) {
    this.tokens = [];
    this.text = "";
    this.at = -1; // where the keyboard is
    this.element = element("div", { className: "tokens", tabIndex: 0 });
    this.element.setAttribute("role", "group");
    this.element.setAttribute("aria-label", label);
  }

  // add takes a piece of text and the tokens whose text begins in it. A piece without tokens goes on with the
  // text of the last one.
  add(text, tokens) {
    this.text += text;
    if (!tokens.length) {
      if (text) (this.element.lastChild || this.element).append(text);
      return;
    }
    const parts = share(text, tokens);
    tokens.forEach((t, i) => {
      const e = element("span", { className: "token" }, parts[i]);
      if (!parts[i]) {
        e.classList.add("mark");
        e.dataset.mark = "·";
      }
      homes.set(e, { answer: this, at: this.tokens.length });
      this.tokens.push({ ...t, element: e });
      this.element.append(e);
    });
  }

  // choose marks one token, or none for -1.
  choose(at) {
    this.chosen?.classList.remove("chosen");
    this.chosen = this.tokens[at]?.element;
    this.chosen?.classList.add("chosen");
  }

  // tint colors the tokens from one place on.
  tint({ by, layer, experts }, from = 0) {
    this.element.classList.toggle("tinted", by !== "none");
    for (const t of this.tokens.slice(from)) {
      let color = "";
      if (by === "expert" && t.experts?.[layer]?.length) color = shade(t.experts[layer][0], experts);
      if (by === "chance" && t.logprob !== undefined && t.logprob !== null) {
        color = `oklch(var(--expert-light) 0.16 45 / ${(1 - Math.exp(t.logprob)).toFixed(3)})`;
      }
      t.element.style.setProperty("--shade", color || "transparent");
    }
  }
}

// share gives each of several tokens its part of their text, by their bytes; the last has the rest. A
// character of several tokens is the last one's.
function share(text, tokens) {
  const decoder = new TextDecoder();
  return tokens.map((t, i) => {
    if (i === tokens.length - 1) return text;
    let part = decoder.decode(new Uint8Array(t.bytes || []), { stream: true });
    if (part[0] === " " && text[0] !== " ") part = part.slice(1); // the blank before a text's first word is not written
    if (!text.startsWith(part)) return "";
    text = text.slice(part.length);
    return part;
  });
}

// Card shows what is known of one token, beside it.
export class Card {
  constructor(e) { this.element = e; }

  hide() { this.element.hidden = true; }

  show(answer, at) {
    const t = answer.tokens[at];
    if (!t || !t.name) return this.hide();
    const likely = element("ol", {});
    let listed = false;
    for (const o of t.top) {
      const taken = o.name === t.name && !listed;
      listed ||= taken;
      likely.append(line(o, taken));
    }
    if (!listed) likely.append(line(t, true));
    const more = element("div", { className: "more" }, `token ${at + 1}` + (t.id === undefined ? "" : ` · id ${t.id}`));
    this.element.replaceChildren(
      element("div", { className: "head" }, element("span", { className: "name" }, visible(t.name)), element("span", {}, percent(t.logprob))),
      likely, more);
    this.element.hidden = false;
    this.place(t.element);
  }

  // place puts the card above the token, below it where there is no room, and inside the window.
  place(target) {
    const box = (target.getClientRects()[0] || target.getBoundingClientRect()), own = this.element.getBoundingClientRect();
    const left = Math.max(8, Math.min(box.left, innerWidth - own.width - 8));
    const above = box.top - own.height - 8;
    this.element.style.transform = `translate(${Math.round(left)}px, ${Math.round(above >= 8 ? above : box.bottom + 8)}px)`;
  }
}

function line(t, taken) {
  const e = element("li", { className: taken ? "taken" : "" }, element("span", {}, visible(t.name)), element("span", {}, percent(t.logprob)));
  e.style.setProperty("--part", Math.exp(t.logprob).toFixed(4));
  return e;
}

// spoken says of a token what the card and the drawing show.
export function spoken(t) {
  const chance = t.logprob === undefined ? "" : `, ${percent(t.logprob)}`;
  const experts = (t.experts || []).map((chosen, l) => `layer ${l}: ${chosen.join(" and ")}`).join("; ");
  return `${visible(t.name ?? t.element.textContent)}${chance}${experts ? `; experts of ${experts}` : ""}`;
}
