/* What is drawn: lanes with bands, attempts, jobs and marks; many events in a few pixels become a bar of their number. */
const drawing = (() => {
  const LANE = 26;
  const AXIS = 24;
  const TIERS = ["#3b7dd8", "#2f8f5b", "#8a5fbf", "#b3661a", "#4d7f8c"];
  const tiers = new Map();
  const style = () => {
    const css = getComputedStyle(document.documentElement);
    return Object.fromEntries(["bg", "panel", "line", "strong", "text", "soft", "bad", "open", "focus", "mono", "sans"]
      .map((key) => [key, css.getPropertyValue(`--${key}`).trim()]));
  };
  let colour = style();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { colour = style(); dispatchEvent(new Event("resize")); });

  function tierColour(tier) {
    if (!tiers.has(tier)) tiers.set(tier, TIERS[tiers.size % TIERS.length]);
    return tiers.get(tier);
  }

  function fitCanvas(canvas, width, height) {
    const scale = devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
      canvas.style.height = `${height}px`;
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    return pen;
  }

  function clip(pen, text, width) {
    if (pen.measureText(text).width <= width) return text;
    let a = 0;
    let b = Math.min(text.length, 200);
    while (a < b) {
      const middle = (a + b + 1) >> 1;
      const cut = `${text.slice(0, Math.ceil(middle / 2))}…${text.slice(text.length - Math.floor(middle / 2))}`;
      if (pen.measureText(cut).width <= width) a = middle;
      else b = middle - 1;
    }
    return `${text.slice(0, Math.ceil(a / 2))}…${a > 1 ? text.slice(text.length - Math.floor(a / 2)) : ""}`;
  }

  function hatch(pen, x, y, width, height, ink, gap, slope) {
    pen.save();
    pen.beginPath();
    pen.rect(x, y, width, height);
    pen.clip();
    pen.strokeStyle = ink;
    pen.lineWidth = 1.5;
    pen.beginPath();
    const from = Math.floor(x / gap) * gap - height;
    for (let at = from; at < x + width + height; at += gap) {
      pen.moveTo(at, slope > 0 ? y + height : y);
      pen.lineTo(at + height, slope > 0 ? y : y + height);
    }
    pen.stroke();
    pen.restore();
  }

  function ticks(from, to, width) {
    const rough = (to - from) / Math.max(width / 90, 1);
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((m) => m * power).find((m) => m >= rough) || rough;
    const out = [];
    for (let at = Math.ceil(from / step) * step; at <= to && out.length < 60; at += step) out.push([at, step]);
    return out;
  }

  function label(value, step, inTime) {
    const digits = step >= 1 ? 0 : Math.min(6, Math.ceil(-Math.log10(step)));
    return (value + 0 || 0).toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }) + (inTime ? " ms" : "");
  }

  function drawBands(pen, lane, y, x, view) {
    for (const [first, last, kind, name] of lane.claim.bands) {
      const a = Math.max(x(first), view.left);
      const b = Math.min(last === null ? view.right : x(last), view.right);
      if (b < view.left || a > view.right) continue;
      const width = Math.max(b - a, 2);
      if (kind === "tier") {
        const ink = tierColour(name);
        pen.globalAlpha = 0.32;
        pen.fillStyle = ink;
        pen.fillRect(a, y + 5, width, LANE - 10);
        pen.globalAlpha = 1;
        pen.fillStyle = ink;
        pen.fillRect(a, y + LANE - 7, width, 2);
      } else if (name === "restoring") {
        hatch(pen, a, y + 5, width, LANE - 10, "#b47a00", 6, 1);
      } else if (name === "not restored") {
        hatch(pen, a, y + 5, width, LANE - 10, "#c43c32", 4, -1);
      } else {
        pen.strokeStyle = colour.strong;
        pen.setLineDash([3, 3]);
        pen.strokeRect(a + 0.5, y + 5.5, width - 1, LANE - 11);
        pen.setLineDash([]);
      }
      pen.font = `11px ${colour.sans}`;
      if (width > 46) {
        const text = clip(pen, name, width - 18);
        if (kind !== "tier" && name !== "accepted") {
          pen.fillStyle = colour.bg;
          pen.fillRect(a + 6, y + 7, pen.measureText(text).width + 6, LANE - 14);
        }
        pen.fillStyle = colour.text;
        pen.fillText(text, a + 9, y + 12);
      }
    }
    for (const [first, last, how] of lane.claim.restores) {
      const a = Math.max(x(first), view.left);
      const b = Math.min(last === null ? view.right : x(last), view.right);
      if (b < view.left || a > view.right) continue;
      pen.strokeStyle = how === "restored" ? colour.text : colour.bad;
      pen.lineWidth = 1.5;
      pen.beginPath();
      pen.moveTo(a, y + 2);
      pen.lineTo(a, y + 5);
      pen.moveTo(a, y + 3.5);
      pen.lineTo(b, y + 3.5);
      pen.moveTo(b, y + 2);
      pen.lineTo(b, y + 5);
      pen.stroke();
      pen.lineWidth = 1;
    }
  }

  function drawRequest(pen, lane, y, x, view) {
    const a = Math.max(x(lane.request.first), view.left);
    const b = Math.min(x(lane.request.last), view.right);
    if (b >= view.left && a <= view.right) {
      pen.fillStyle = colour.line;
      pen.fillRect(a, y + LANE / 2 - 2, Math.max(b - a, 2), 4);
    }
    for (const [first, last, direction, , , , ok] of lane.jobs) {
      const from = Math.max(x(first), view.left);
      const to = Math.min(last === null ? view.right : x(last), view.right);
      if (to < view.left || from > view.right) continue;
      const width = Math.max(to - from, 3);
      pen.strokeStyle = ok === false ? colour.bad : colour.soft;
      pen.strokeRect(from + 0.5, y + 6.5, width, LANE - 13);
      if (ok === false) hatch(pen, from, y + 6, width, LANE - 12, colour.bad, 4, -1);
      if (width > 40) {
        pen.font = `10.5px ${colour.sans}`;
        pen.fillStyle = colour.bg;
        const text = ok === false ? `${direction} failed` : direction;
        pen.fillRect(from + 3, y + 8, Math.min(pen.measureText(text).width + 6, width - 4), LANE - 16);
        pen.fillStyle = colour.text;
        pen.fillText(clip(pen, text, width - 8), from + 6, y + 12);
      }
    }
  }

  function drawEvents(pen, lane, y, x, view, selected) {
    const list = lane.events;
    const from = model.lower(list, view.from, view.position);
    const to = model.lower(list, view.to + 1e-9, view.position);
    const middle = y + LANE / 2;
    if (to - from > (view.right - view.left) / 7) {
      const bins = new Map();
      for (let n = from; n < to; n += 1) {
        const bin = Math.floor(x(list[n]) / 3);
        bins.set(bin, (bins.get(bin) || 0) + 1);
      }
      const top = Math.max(...bins.values(), 1);
      pen.fillStyle = colour.soft;
      for (const [bin, many] of bins) {
        const height = 3 + (LANE - 12) * (Math.log1p(many) / Math.log1p(top));
        pen.fillRect(bin * 3, middle - height / 2, 2, height);
      }
    } else {
      for (let n = from; n < to; n += 1) {
        const here = x(list[n]);
        const alone = (n === 0 || here - x(list[n - 1]) > 5) && (n + 1 === list.length || x(list[n + 1]) - here > 5);
        pen.fillStyle = alone ? colour.bg : colour.text;
        pen.strokeStyle = colour.text;
        pen.beginPath();
        if (alone) {
          pen.arc(here, middle, 3.5, 0, 7);
          pen.fill();
          pen.stroke();
        } else pen.fillRect(here - 0.5, middle - 5, 1, 10);
      }
    }
    pen.font = `700 13px ${colour.mono}`;
    pen.textAlign = "center";
    for (let n = from; n < to; n += 1) {
      const verdict = model.worst(list[n]);
      if (!verdict) continue;
      const ink = verdict === "violating" ? colour.bad : colour.open;
      pen.fillStyle = colour.bg;
      pen.strokeStyle = ink;
      pen.beginPath();
      pen.arc(x(list[n]), middle, 8, 0, 7);
      pen.fill();
      pen.stroke();
      pen.fillStyle = ink;
      pen.fillText(verdict === "violating" ? "✕" : "?", x(list[n]), middle + 0.5);
    }
    pen.textAlign = "left";
    if (selected >= 0) {
      const n = model.lower(list, selected);
      if (list[n] === selected) {
        pen.strokeStyle = colour.focus;
        pen.lineWidth = 2.5;
        pen.beginPath();
        pen.arc(x(selected), middle, 10, 0, 7);
        pen.stroke();
        pen.lineWidth = 1;
      }
    }
  }

  /** Draw the lanes that the box shows. `view` has from, to, position, left, right, inTime; `scroll` is in pixels. */
  function lanes(canvas, size, shown, view, scroll, selected, activeLane) {
    const pen = fitCanvas(canvas, size.width, size.height);
    const x = (at) => view.left + ((view.position(at) - view.from) / (view.to - view.from)) * (view.right - view.left);
    pen.textBaseline = "middle";
    const first = Math.max(0, Math.floor((scroll - AXIS) / LANE));
    const last = Math.min(shown.length - 1, Math.ceil((scroll + size.height) / LANE));
    const steps = ticks(view.from, view.to, view.right - view.left);
    const at = (value) => view.left + ((value - view.from) / (view.to - view.from)) * (view.right - view.left);
    pen.fillStyle = colour.line;
    for (const [value] of steps) pen.fillRect(Math.round(at(value)), AXIS, 1, size.height);
    for (let n = first; n <= last; n += 1) {
      const lane = shown[n];
      const y = AXIS + n * LANE - scroll;
      if (n === activeLane) {
        pen.fillStyle = colour.panel;
        pen.fillRect(0, y, size.width, LANE);
      }
      pen.fillStyle = colour.line;
      pen.fillRect(0, y + LANE - 1, size.width, 1);
      pen.save();
      pen.beginPath();
      pen.rect(view.left - 10, y, size.width, LANE);
      pen.clip();
      if (lane.kind === "claim") drawBands(pen, lane, y, x, view);
      if (lane.kind === "request") drawRequest(pen, lane, y, x, view);
      drawEvents(pen, lane, y, x, view, selected);
      pen.restore();
      pen.fillStyle = n === activeLane ? colour.panel : colour.bg;
      pen.fillRect(0, y, view.left - 10, LANE - 1);
      const indent = lane.kind === "request" ? 20 : 6;
      const mark = { violating: "✕ ", inconclusive: "? ", conforming: "● " }[lane.verdict] || "";
      pen.font = `${lane.kind === "claim" ? "600 " : ""}12px ${colour.sans}`;
      pen.fillStyle = { violating: colour.bad, inconclusive: colour.open }[lane.verdict] || (lane.kind === "claim" ? colour.text : colour.soft);
      pen.fillText(mark + clip(pen, lane.title, view.left - indent - 30), indent, y + 13);
    }
    pen.fillStyle = colour.bg;
    pen.fillRect(0, 0, size.width, AXIS);
    pen.fillStyle = colour.strong;
    pen.fillRect(0, AXIS - 1, size.width, 1);
    pen.font = `11px ${colour.sans}`;
    pen.fillStyle = colour.soft;
    pen.fillText(view.inTime ? "time" : "event in file", 6, AXIS / 2);
    pen.textAlign = "center";
    for (const [value, step] of steps) {
      const place = at(value);
      if (place > view.left - 4 && place < view.right - 14) pen.fillText(label(value, step, view.inTime), place, AXIS / 2);
    }
    pen.textAlign = "left";
  }

  /** Draw where the shown events lie in the whole trace, and the part that is in view. */
  function overview(canvas, width, events, view) {
    const height = 44;
    const pen = fitCanvas(canvas, width, height);
    const [from, to] = view.all;
    const place = (at) => view.left + ((view.position(at) - from) / (to - from)) * (view.right - view.left);
    const bins = new Float64Array(Math.ceil(width / 2) + 1);
    const bad = new Map();
    for (const at of events) {
      const bin = Math.floor(place(at) / 2);
      bins[bin] += 1;
      const verdict = model.worst(at);
      if (verdict && bad.get(bin) !== "violating") bad.set(bin, verdict);
    }
    let top = 1;
    for (const many of bins) if (many > top) top = many;
    pen.fillStyle = colour.strong;
    bins.forEach((many, bin) => {
      if (many) pen.fillRect(bin * 2, height - 4 - (height - 18) * Math.sqrt(many / top), 1.5, (height - 18) * Math.sqrt(many / top));
    });
    for (const [bin, verdict] of bad) {
      pen.fillStyle = verdict === "violating" ? colour.bad : colour.open;
      pen.fillRect(bin * 2 - 1, 2, 3, 9);
    }
    const scale = (value) => view.left + ((value - from) / (to - from)) * (view.right - view.left);
    const a = scale(view.from);
    const b = Math.max(scale(view.to), a + 3);
    pen.globalAlpha = 0.12;
    pen.fillStyle = colour.focus;
    pen.fillRect(a, 0, b - a, height);
    pen.globalAlpha = 1;
    pen.strokeStyle = colour.focus;
    pen.strokeRect(a + 0.5, 0.5, b - a - 1, height - 1);
    pen.font = `11px ${colour.sans}`;
    pen.textBaseline = "middle";
    pen.fillStyle = colour.soft;
    pen.fillText("all events", 6, height / 2);
  }

  return { LANE, AXIS, lanes, overview };
})();
