"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const remember = {
    get(k) { try { return sessionStorage.getItem(k); } catch { return null; } },
    set(k, v) { try { sessionStorage.setItem(k, v); } catch { /* a page without storage forgets */ } },
  };
  const element = (name, attributes, parent) => {
    const e = document.createElement(name);
    Object.assign(e, attributes);
    if (parent) parent.append(e);
    return e;
  };
  const shape = (name, attributes, parent, text) => {
    const e = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const k in attributes) e.setAttribute(k, attributes[k]);
    if (text !== undefined) e.textContent = text;
    if (parent) parent.append(e);
    return e;
  };

  // Numbers.
  const trim = (s) => (s.includes(".") ? s.replace(/\.?0+$/, "") : s);
  const short = (v) => {
    if (v === null || v === undefined || !isFinite(v)) return "–";
    const a = Math.abs(v);
    if (a === 0) return "0";
    if (a >= 1e9) return trim((v / 1e9).toPrecision(3)) + "B";
    if (a >= 1e6) return trim((v / 1e6).toPrecision(3)) + "M";
    if (a >= 1e5) return trim((v / 1e3).toPrecision(3)) + "k";
    if (a >= 1e3) return String(Math.round(v));
    if (a >= 1e-3) return trim(v.toPrecision(3));
    return v.toExponential(1).replace(".0e", "e").replace("-", "\u2212");
  };
  const fixed = (v) => (v === null || v === undefined ? "–" : Math.abs(v) < 1e5 ? v.toFixed(3) : short(v));
  const science = (v) => (v === null || v === undefined ? "–" : v === 0 ? "0" : v.toExponential(2).replace("-", "\u2212"));

  // ticks are round numbers from lo to hi, about n, and unit is their distance.
  const ticks = (lo, hi, n) => {
    const rough = (hi - lo) / Math.max(n, 1);
    const power = 10 ** Math.floor(Math.log10(rough));
    const unit = power * [1, 2, 5, 10].find((m) => m * power >= rough * 0.999);
    const out = [];
    for (let i = Math.ceil(lo / unit - 1e-9); i * unit <= hi * (1 + 1e-9); i++) out.push(+(i * unit).toPrecision(12));
    out.unit = unit;
    return out;
  };
  // label has as many decimals as the distance of ticks asks for.
  const label = (v, unit) => {
    if (v === 0) return "0";
    if (unit === undefined || unit < 1e-3 || Math.abs(v) >= 1e5) return short(v);
    return v.toFixed(Math.max(0, -Math.floor(Math.log10(unit) + 1e-9)));
  };
  const logTicks = (lo, hi, n) => {
    const out = [], decades = Math.log10(hi / lo);
    const every = Math.max(1, Math.ceil(decades / n));
    const mantissas = decades > 3 ? [1] : decades > 1.2 ? [1, 3] : decades > 0.7 ? [1, 2, 3, 5, 7] : [1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9];
    for (let e = Math.floor(Math.log10(lo)); e <= Math.log10(hi); e += every) {
      for (const m of mantissas) {
        const v = +(m * 10 ** e).toPrecision(3);
        if (v >= lo * 0.999 && v <= hi * 1.001) out.push(v);
      }
    }
    return out.length >= 2 ? out : ticks(lo, hi, n);
  };

  const known = (values) => values.filter((v) => v !== null).length;
  // smooth averages exponentially from both sides, so that it does not lag.
  const smooth = (values) => {
    const keep = 1 - 1 / Math.max(1, known(values) / 80);
    const pass = (list) => {
      let sum = 0, weight = 0;
      return list.map((v) => {
        if (v === null) return null;
        sum = keep * sum + (1 - keep) * v;
        weight = keep * weight + (1 - keep);
        return sum / weight;
      });
    };
    const forth = pass(values), back = pass([...values].reverse()).reverse();
    return forth.map((v, i) => (v === null ? null : (v + back[i]) / 2));
  };

  const first = (i) => i * data.width + 1;
  const last = (i) => Math.min((i + 1) * data.width, data.step);
  const center = (i) => (first(i) + last(i)) / 2;
  const range = (i) => (first(i) >= last(i) ? `step ${first(i)}` : `steps ${first(i)}–${last(i)}`);

  // Charts. All show the same step under the pointer.
  const all = [];
  let hovered = null;
  const hover = (step) => {
    hovered = step;
    for (const c of all) c.point();
  };

  function chart(o) {
    const figure = element("figure", { className: o.wide ? "wide" : "" }, document.getElementById("charts"));
    const caption = element("figcaption", {}, figure);
    element("h2", { textContent: o.title }, caption);
    const readout = element("output", {}, caption);
    let log = false;
    if (o.log !== undefined) {
      const key = "log " + o.title, kept = remember.get(key);
      log = kept === null ? o.log : kept === "1";
      const button = element("button", { type: "button", textContent: "log", title: "logarithmic axis" }, caption);
      const press = () => button.setAttribute("aria-pressed", String(log));
      press();
      button.onclick = () => { log = !log; remember.set(key, log ? "1" : "0"); press(); draw(); };
    }
    const svg = shape("svg", { role: "img", "aria-label": o.title }, figure);
    const height = o.wide ? 300 : 190, left = 52, right = 20, top = 8, bottom = 34;
    let x, y, width, over;

    function extent() {
      let lo = Infinity, hi = -Infinity;
      const take = (v) => { if (v !== null && isFinite(v) && (!log || v > 0)) { lo = Math.min(lo, v); hi = Math.max(hi, v); } };
      o.mean.forEach(take);
      if (o.spread && o.min) { o.min.forEach(take); o.max.forEach(take); }
      (o.points || { y: [] }).y.forEach(take);
      if (lo > hi) return log ? [0.1, 1] : [0, 1];
      if (o.zero && !log) lo = Math.min(lo, 0);
      if (log) return lo === hi ? [lo / 2, hi * 2] : [lo / (hi / lo) ** 0.04, hi * (hi / lo) ** 0.04];
      const pad = lo === hi ? Math.abs(lo) * 0.1 || 1 : (hi - lo) * 0.05;
      return [lo - (o.zero && lo === 0 ? 0 : pad), hi + pad];
    }
    const drawable = (v) => v !== null && v !== undefined && (!log || v > 0);
    const path = (xs, ys) => {
      // Not every step is told of, so a line goes over gaps.
      const there = [...ys.keys()].filter((i) => drawable(ys[i]));
      const d = there.map((i) => `${x(xs(i)).toFixed(1)} ${y(ys[i]).toFixed(1)}`);
      return d.length === 0 ? "" : "M" + d.join("L") + (d.length === 1 ? "h2" : "");
    };
    const area = (low, high) => {
      const there = [...low.keys()].filter((i) => drawable(low[i]) && drawable(high[i]));
      const edge = (side, list) => list.map((i) => `${x(center(i)).toFixed(1)} ${y(side[i]).toFixed(1)}`).join("L");
      return there.length < 2 ? "" : "M" + edge(high, there) + "L" + edge(low, there.reverse()) + "Z";
    };

    function draw() {
      width = Math.max(figure.clientWidth, 240);
      svg.replaceChildren();
      svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
      svg.setAttribute("height", height);
      const [lo, hi] = extent(), begin = o.points && o.points.x[0] === 0 ? 0 : 1, end = Math.max(data.step, begin + 1);
      const inner = width - left - right, tall = height - top - bottom;
      x = (s) => left + (s - begin) / (end - begin) * inner;
      y = log ? (v) => top + Math.log(hi / v) / Math.log(hi / lo) * tall : (v) => top + (hi - v) / (hi - lo) * tall;
      const rungs = log ? logTicks(lo, hi, 6) : ticks(lo, hi, o.wide ? 6 : 4);
      for (const t of rungs) {
        const at = y(t).toFixed(1);
        shape("line", { class: "grid", x1: left, x2: width - right, y1: at, y2: at }, svg);
        shape("text", { x: left - 7, y: +at + 4, "text-anchor": "end" }, svg, (o.tick || label)(t, rungs.unit));
      }
      shape("line", { class: "axis", x1: left, x2: width - right, y1: top + tall, y2: top + tall }, svg);
      const steps = ticks(begin, end, Math.max(2, inner / 85));
      for (const t of steps) {
        if (t !== Math.round(t)) continue;
        shape("line", { class: "axis", x1: x(t), x2: x(t), y1: top + tall, y2: top + tall + 4 }, svg);
        shape("text", { x: x(t), y: top + tall + 16, "text-anchor": "middle" }, svg, label(t, Math.max(1, steps.unit)));
      }
      shape("text", { x: left + inner / 2, y: height - 3, "text-anchor": "middle" }, svg, "step");
      shape("text", { transform: `translate(11 ${top + tall / 2}) rotate(-90)`, "text-anchor": "middle" }, svg, o.unit);

      const id = "clip" + all.indexOf(self);
      shape("rect", { x: left, y: top - 4, width: inner + 4, height: tall + 5 }, shape("clipPath", { id }, svg));
      const plot = shape("g", { "clip-path": `url(#${id})` }, svg);
      if (o.min) shape("path", { class: "band", d: area(o.min, o.max) }, plot);
      if (o.smooth && known(o.mean) > 60) {
        shape("path", { class: "raw", d: path(center, o.mean) }, plot);
        shape("path", { class: "line", d: path(center, smooth(o.mean)) }, plot);
      } else {
        shape("path", { class: "line", d: path(center, o.mean) }, plot);
      }
      if (o.points) {
        shape("path", { class: "eval", d: path((i) => o.points.x[i], o.points.y) }, plot);
        if (o.points.x.length <= 60) {
          o.points.x.forEach((s, i) => {
            if (drawable(o.points.y[i])) shape("circle", { class: "dot", cx: x(s).toFixed(1), cy: y(o.points.y[i]).toFixed(1), r: 2.6 }, plot);
          });
        }
      }
      if (o.skips) {
        for (const [bin, n] of data.skipped) {
          const s = shape("line", { class: "skip", x1: x(center(bin)), x2: x(center(bin)), y1: top + tall - 8, y2: top + tall }, svg);
          shape("title", {}, s, `${n} skipped, ${range(bin)}`);
        }
      }
      over = shape("g", { "pointer-events": "none" }, svg);
      point();
    }

    // near is the index of the evaluation at a step or before it; -1 when there is none.
    const near = (step) => o.points.x.findLastIndex((s) => s <= step);
    function point() {
      over.replaceChildren();
      const step = hovered === null ? data.step : hovered;
      const skippedIn = (bin) => data.skipped.find((s) => s[0] === bin);
      let i = Math.min(o.mean.length - 1, Math.max(0, Math.ceil(step / data.width) - 1));
      while (i > 0 && o.mean[i] === null && !skippedIn(i)) i--; // the last that was told of
      readout.replaceChildren();
      if (i < 0) return;
      const say = (name, value, kind) => {
        readout.append(name ? ", " + name + " " : " ");
        element("b", { textContent: value, className: kind || "" }, readout);
      };
      readout.append(range(i) + ":");
      if (o.name) readout.append(" " + o.name);
      say("", o.format(o.mean[i]), o.points ? "train" : "");
      if (o.min && o.min[i] !== null) readout.append(` (${o.format(o.min[i])}–${o.format(o.max[i])})`);
      if (hovered !== null) {
        shape("line", { class: "cross", x1: x(center(i)), x2: x(center(i)), y1: top, y2: height - bottom }, over);
        if (drawable(o.mean[i]) && y(o.mean[i]) >= top - 1) shape("circle", { class: "mark", cx: x(center(i)), cy: y(o.mean[i]), r: 4 }, over);
      }
      const e = o.points ? near(last(i)) : -1;
      if (e >= 0) {
        say("evaluation", o.format(o.points.y[e]), "eval");
        if (o.points.x[e] < first(i)) readout.append(` at ${o.points.x[e]}`);
        if (hovered !== null && drawable(o.points.y[e])) {
          shape("circle", { class: "mark eval", cx: x(o.points.x[e]), cy: y(o.points.y[e]), r: 4 }, over);
        }
      }
      (o.also || []).forEach((a) => say(a.name, a.format(a.values[i])));
      const skipped = o.skips && skippedIn(i);
      if (skipped) element("span", { className: "bad", textContent: skipped[1] > 1 ? `, ${skipped[1]} updates skipped` : ", update skipped" }, readout);
    }
    svg.onpointermove = (event) => {
      const box = svg.getBoundingClientRect();
      const begin = o.points && o.points.x[0] === 0 ? 0 : 1;
      const share = (event.clientX - box.left - left) / (width - left - right);
      hover(Math.min(data.step, Math.max(1, Math.round(begin + share * (Math.max(data.step, begin + 1) - begin)))));
    };
    svg.onpointerleave = () => hover(null);
    const self = { point, draw };
    all.push(self);
    draw();
  }

  const power = (v) => (v === 0 ? "0" : v.toExponential().replace("-", "\u2212"));
  const rate = (v) => (v === null || v === undefined ? "–" : short(v));
  if (data.step > 0) {
    const also = data.aux || data.z ? [{ name: "with router losses", values: data.loss, format: fixed }] : [];
    chart({ title: "Loss", wide: true, unit: "nats a token", name: "training", ...data.ce, points: { x: data.eval.step, y: data.eval.loss },
      also, format: fixed, log: false, smooth: true, skips: true });
    chart({ title: "Gradient norm", unit: "before clipping", name: "", ...data.norm, format: fixed, log: true, spread: true, skips: true });
    chart({ title: "Learning rate", unit: "", name: "", mean: data.lr, format: science, tick: power, zero: true });
    chart({ title: "Tokens a second", unit: "", name: "", mean: data.rate, format: rate, zero: true });
    if (data.aux) chart({ title: "Load-balancing loss", unit: "before its coefficient", name: "", mean: data.aux, format: fixed, smooth: true });
    if (data.dropped) chart({ title: "Dropped by experts", unit: "share of routed tokens", name: "", mean: data.dropped, format: fixed, smooth: true });
    if (data.z) chart({ title: "Router z-loss", unit: "before its coefficient", name: "", mean: data.z, format: fixed, smooth: true });
  }

  // Expert load.
  const heat = data.load, cells = [];
  const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  // share is null before the first column that was told of; the gaps after it show the one before.
  const share = (layer, expert, column) => {
    const row = 2 * expert * heat.columns, text = heat.layers[layer];
    let at = row + 2 * column;
    while (at > row && text[at] === ".") at -= 2;
    return text[at] === "." ? null : (64 * digits.indexOf(text[at]) + digits.indexOf(text[at + 1])) / 4095;
  };
  const rgb = (name) => {
    const hex = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  };
  function paint() {
    const cold = rgb("--cold"), even = rgb("--even"), hot = rgb("--hot");
    const mix = (a, b, t) => a.map((v, i) => Math.round(v + (b[i] - v) * t));
    cells.forEach((canvas, layer) => {
      const context = canvas.getContext("2d"), image = context.createImageData(heat.columns, heat.experts);
      for (let e = 0; e < heat.experts; e++) {
        for (let c = 0; c < heat.columns; c++) {
          const v = share(layer, e, c);
          if (v === null) continue;
          const times = v * heat.experts;
          const color = times < 1 ? mix(cold, even, times) : mix(even, hot, Math.min(times - 1, 1));
          image.data.set([...color, 255], 4 * (e * heat.columns + c));
        }
      }
      context.putImageData(image, 0, 0);
    });
  }
  if (heat.columns > 0) {
    document.getElementById("load").hidden = false;
    document.getElementById("load-width").textContent = heat.width === 1 ? "one step" : `the mean of ${heat.width} steps`;
    const value = document.getElementById("load-value");
    heat.layers.forEach((_, layer) => {
      const figure = element("figure", {}, document.getElementById("layers"));
      const caption = element("figcaption", {}, figure);
      const canvas = element("canvas", { width: heat.columns, height: heat.experts }, figure);
      canvas.style.height = Math.max(48, Math.min(7 * heat.experts, 160)) + "px";
      let worst = 0;
      for (let e = 0; e < heat.experts; e++) worst = Math.max(worst, share(layer, e, heat.columns - 1) * heat.experts);
      element("span", { textContent: `layer ${layer}` }, caption);
      element("span", { textContent: `busiest now ${worst.toFixed(2)}×` }, caption);
      canvas.onpointermove = (event) => {
        const box = canvas.getBoundingClientRect();
        const c = Math.min(heat.columns - 1, Math.max(0, Math.floor((event.clientX - box.left) / box.width * heat.columns)));
        const e = Math.min(heat.experts - 1, Math.max(0, Math.floor((event.clientY - box.top) / box.height * heat.experts)));
        const v = share(layer, e, c), from = c * heat.width + 1, to = Math.min((c + 1) * heat.width, data.step);
        value.textContent = `layer ${layer}, expert ${e}, step${from < to ? `s ${from}–${to}` : ` ${from}`}: ` +
          (v === null ? "nothing" : `${(100 * v).toFixed(1)}% of tokens, ${(v * heat.experts).toFixed(2)}×`);
        hover(to);
      };
      canvas.onpointerleave = () => { value.textContent = ""; hover(null); };
      cells.push(canvas);
    });
    paint();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
  }

  let width = 0;
  new ResizeObserver(() => {
    if (width !== (width = document.body.clientWidth)) for (const c of all) c.draw();
  }).observe(document.body);

  // What a reader opened stays open over reloads.
  for (const d of document.querySelectorAll("details")) {
    const kept = remember.get(d.id);
    if (kept !== null) d.open = kept === "1";
    d.addEventListener("toggle", () => remember.set(d.id, d.open ? "1" : "0"));
  }

  // While the run goes on the page reloads, but not under a pointer that reads a chart, nor unseen.
  const refresh = 1000 * (document.body.dataset.refresh || 0);
  if (refresh > 0) {
    const age = () => Date.now() - document.body.dataset.at;
    if (age() > 10 * refresh + 60000) {
      const status = document.getElementById("status");
      status.className = "stale";
      status.textContent += `; no news since ${new Date(+document.body.dataset.at).toLocaleString()}`;
    }
    const selected = () => String(getSelection()) !== "";
    setInterval(() => {
      if (!document.hidden && hovered === null && !selected()) location.reload();
    }, refresh);
  }
})();
