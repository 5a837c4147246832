// The drawing of experts: the way of one token through all layers, the first experts of token after token, and
// the share of each expert in an answer. Layers and experts count from 0, as the server's do.

import { element, hue, shade } from "./answer.js";

const font = "11px system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif";
const gutter = 22; // for the numbers of layers, in pixels

export class Experts {
  constructor(at) {
    this.at = at; // grid, loom, load, which, evenly
    this.answer = null;
    this.chosen = -1;
    this.shape(0, 0);
    const again = () => this.draw();
    new ResizeObserver(again).observe(at.grid);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  }

  // shape sets the numbers of layers and of experts in each.
  shape(layers, experts) {
    this.layers = layers;
    this.experts = experts;
    this.bars = Array.from({ length: experts }, (_, e) => {
      const bar = element("i", {});
      bar.style.setProperty("--shade", shade(e, experts));
      return bar;
    });
    this.at.load.replaceChildren(...this.bars.map((bar, e) => element("li", {}, bar, String(e))));
    this.show(this.answer, this.chosen);
  }

  // show draws an answer, and in it one token, or the latest for -1.
  show(answer, chosen = -1) {
    if (answer !== this.answer) this.use = null;
    this.answer = answer;
    this.chosen = chosen;
    this.draw();
  }

  // draw draws before the next frame, once however often it was asked for.
  draw() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.count();
      const style = getComputedStyle(document.documentElement);
      const ink = (name) => style.getPropertyValue(name).trim();
      this.ink = { ground: ink("--ground"), raised: ink("--raised"), rule: ink("--rule"), muted: ink("--muted"), ink: ink("--ink") };
      this.paint = (e, alpha = 1) => `oklch(${ink("--expert-light")} ${ink("--expert-chroma")} ${hue(e, this.experts)} / ${alpha})`;
      this.drawGrid();
      this.drawLoom();
      this.drawLoad();
    });
  }

  get tokens() { return this.answer?.tokens || []; }

  // place is the token that is shown.
  get place() { return this.chosen >= 0 ? Math.min(this.chosen, this.tokens.length - 1) : this.tokens.length - 1; }

  // count goes on with the numbers of tokens of each expert in each layer.
  count() {
    this.use ||= { tokens: 0, by: Array.from({ length: this.layers }, () => new Array(this.experts).fill(0)) };
    for (const t of this.tokens.slice(this.use.tokens)) {
      this.use.tokens++;
      t.experts?.forEach((chosen, l) => chosen.forEach((e) => { if (this.use.by[l]) this.use.by[l][e]++; }));
    }
  }

  canvas(c, height) {
    const width = c.parentElement.clientWidth, scale = devicePixelRatio || 1;
    c.style.height = `${height}px`;
    c.width = Math.round(width * scale);
    c.height = Math.round(height * scale);
    const g = c.getContext("2d");
    g.setTransform(scale, 0, 0, scale, 0, 0);
    g.clearRect(0, 0, width, height);
    g.font = font;
    return { g, width };
  }

  // numbers writes the numbers of layers, as many as there is room for.
  numbers(g, row) {
    g.fillStyle = this.ink.muted;
    g.textAlign = "right";
    g.textBaseline = "middle";
    const each = Math.ceil(13 / row);
    for (let l = 0; l < this.layers; l += each) g.fillText(String(l), gutter - 7, Math.max(6, (l + 0.5) * row));
  }

  // drawGrid draws a row of experts for each layer: how much the answer used them, and which the token did. The
  // first is full, the others are rings, and a line goes from first to first.
  drawGrid() {
    const row = Math.max(8, Math.min(26, 300 / Math.max(this.layers, 1)));
    const { g, width } = this.canvas(this.at.grid, this.layers ? this.layers * row + 18 : 60);
    const t = this.tokens[this.place];
    const col = (width - gutter) / Math.max(this.experts, 1);
    const x = (e) => gutter + (e + 0.5) * col, y = (l) => (l + 0.5) * row;
    const gap = row > 14 ? 3 : 1.5, radius = Math.min(5, row / 4);
    for (let l = 0; l < this.layers; l++) {
      for (let e = 0; e < this.experts; e++) {
        const part = this.use.tokens ? this.use.by[l][e] / this.use.tokens : 0;
        const box = [x(e) - col / 2 + gap / 2, l * row + gap / 2, col - gap, row - gap, radius];
        for (const color of [this.ink.raised, this.paint(e, Math.min(0.42, part * 0.7))]) {
          g.fillStyle = color;
          g.beginPath();
          g.roundRect(...box);
          g.fill();
        }
      }
    }
    this.numbers(g, row);
    g.textAlign = "center";
    for (let e = 0; e < this.experts; e++) g.fillText(String(e), x(e), this.layers * row + 10);
    this.drawWay(g, t?.experts || [], x, y, Math.min(row * (row < 14 ? 0.48 : 0.36), col * 0.36));
    this.at.which.textContent = t ? `of token ${this.place + 1}${this.chosen < 0 ? ", the latest" : ""}` : "of each token";
    this.at.grid.setAttribute("aria-label", "Experts of the shown token, by layer: " +
      (t?.experts ? t.experts.map((c, l) => `${l}: ${c.join(" and ")}`).join("; ") : "none yet"));
  }

  drawWay(g, experts, x, y, r) {
    g.strokeStyle = this.ink.ink;
    g.lineWidth = 1.25;
    g.globalAlpha = 0.55;
    g.beginPath();
    experts.forEach((chosen, l) => (l ? g.lineTo(x(chosen[0]), y(l)) : g.moveTo(x(chosen[0]), y(l))));
    g.stroke();
    g.globalAlpha = 1;
    experts.forEach((chosen, l) => chosen.forEach((e, k) => {
      g.beginPath();
      g.arc(x(e), y(l), k ? r - 1 : r, 0, 2 * Math.PI);
      g.fillStyle = k ? this.ink.ground : this.paint(e);
      g.fill();
      g.strokeStyle = k ? this.paint(e) : this.ink.ground;
      g.lineWidth = k ? 2 : 1;
      g.stroke();
    }));
  }

  // window is the tokens that the loom has room for.
  window(width) {
    const n = this.tokens.length, room = width - gutter;
    const step = Math.max(4, Math.min(10, Math.floor(room / Math.max(n, 1))));
    const fit = Math.floor(room / step);
    let from = Math.max(0, n - fit);
    if (this.place < from) from = Math.max(0, this.place - Math.floor(fit / 2));
    return { step, from, to: Math.min(n, from + fit) };
  }

  // drawLoom draws a column for each token: for each layer the first expert, and below it, thin, the second.
  drawLoom() {
    const row = Math.max(5, Math.min(16, 200 / Math.max(this.layers, 1)));
    const { g, width } = this.canvas(this.at.loom, Math.max(this.layers * row, 24) + 8);
    const w = this.window(width);
    g.fillStyle = this.ink.raised;
    g.fillRect(gutter, 0, width - gutter, this.layers * row);
    for (let i = w.from; i < w.to; i++) {
      const left = gutter + (i - w.from) * w.step;
      this.tokens[i].experts?.forEach((chosen, l) => {
        const first = chosen.length > 1 ? row * 0.66 : row;
        g.fillStyle = this.paint(chosen[0]);
        g.fillRect(left, l * row, w.step - 0.75, first - 0.75);
        if (chosen.length > 1) {
          g.fillStyle = this.paint(chosen[1], 0.6);
          g.fillRect(left, l * row + first - 0.75, w.step - 0.75, row - first - 0.5);
        }
      });
    }
    this.numbers(g, row);
    if (this.place >= w.from && this.place < w.to) {
      const middle = gutter + (this.place - w.from + 0.5) * w.step - 0.4;
      g.fillStyle = this.ink.ink;
      g.beginPath();
      g.moveTo(middle, this.layers * row + 1);
      g.lineTo(middle - 4, this.layers * row + 8);
      g.lineTo(middle + 4, this.layers * row + 8);
      g.fill();
    }
  }

  // under is the token of the loom at a place of the window, -1 for none.
  under(clientX) {
    const box = this.at.loom.getBoundingClientRect(), w = this.window(box.width);
    const i = w.from + Math.floor((clientX - box.left - gutter) / w.step);
    return i >= w.from && i < w.to ? i : -1;
  }

  drawLoad() {
    const sum = new Array(this.experts).fill(0);
    for (const layer of this.use.by) layer.forEach((n, e) => { sum[e] += n; });
    const all = sum.reduce((a, b) => a + b, 0), most = Math.max(...sum, 1);
    this.bars.forEach((bar, e) => {
      bar.style.setProperty("--part", (sum[e] / most).toFixed(3));
      bar.parentElement.title = all ? `expert ${e}: ${(100 * sum[e] / all).toFixed(1)}%` : "";
      bar.parentElement.setAttribute("aria-label", `expert ${e}: ${all ? (100 * sum[e] / all).toFixed(1) : 0}%`);
    });
    this.at.evenly.textContent = all ? `${(100 * most / all).toFixed(0)}% at most, even is ${(100 / this.experts).toFixed(1)}%` : "";
  }
}
