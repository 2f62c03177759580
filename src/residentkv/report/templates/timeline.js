/* What a reader does: filter, zoom, select by mouse, touch and keyboard, and links to an event. */
(() => {
  const $ = (id) => document.getElementById(id);
  const ROWS = 100;
  const box = $("lanebox");
  const canvas = $("canvas");
  const state = { shown: { lanes: [], events: new Int32Array() }, from: 0, to: 1, inTime: false, selected: -1, finding: -1, page: 0, lane: -1 };
  const axis = () => (state.inTime ? model.clock : model.ordinal);
  let planned = 0;
  let tableTimer = 0;

  function view() {
    const width = box.clientWidth;
    const left = Math.min(190, Math.max(110, width * 0.24));
    return { from: state.from, to: state.to, position: axis().position, left, right: width - 16, inTime: state.inTime, all: axis().all };
  }

  function draw() {
    planned = 0;
    const size = { width: box.clientWidth, height: box.clientHeight };
    drawing.lanes(canvas, size, state.shown.lanes, view(), box.scrollTop, state.selected, state.lane);
    drawing.overview($("overview"), box.clientWidth, state.shown.events, view());
  }

  function plan() {
    if (!planned) planned = requestAnimationFrame(draw);
    clearTimeout(tableTimer);
    tableTimer = setTimeout(fillTable, 60);
  }

  function look(from, to) {
    const [least, most] = axis().all;
    const room = (most - least) * 0.02 || 1;
    const span = Math.min(Math.max(to - from, state.inTime ? 1e-4 : 4), most - least + 2 * room);
    const middle = (from + to) / 2;
    const start = Math.min(Math.max(middle - span / 2, least - room), most + room - span);
    [state.from, state.to] = [start, start + span];
    state.page = 0;
    plan();
  }

  const lookAtAll = () => { const [a, b] = axis().all; look(a - (b - a), b + (b - a)); };
  function zoom(factor, at = (state.from + state.to) / 2) {
    look(at - (at - state.from) * factor, at + (state.to - at) * factor);
  }

  function filter() {
    state.shown = model.select({
      words: $("find").value.trim().toLowerCase(), verdict: $("verdict").value,
      withRequests: $("requests").getAttribute("aria-pressed") === "true",
    });
    const claims = state.shown.lanes.filter((lane) => lane.kind === "claim").length;
    $("shown").textContent = `${claims} of ${model.data.claims.length} claims, ${state.shown.events.length} of ${model.count} events`;
    const needed = drawing.AXIS + state.shown.lanes.length * drawing.LANE + 4;
    box.style.height = `${Math.max(Math.min(needed, innerHeight * 0.6, 640), 120)}px`;
    $("spacer").style.height = `${Math.max(needed - 4, box.clientHeight)}px`;
    state.lane = state.selected < 0 ? -1 : laneOf(state.selected);
    state.page = 0;
    plan();
  }

  function laneOf(at) {
    const kind = { c: "claim", r: "request", s: "source" }[model.l[at]];
    const number = { c: model.c, r: model.r, s: model.s }[model.l[at]][at];
    return state.shown.lanes.findIndex((lane) => lane.kind === kind && lane.number === number);
  }

  function cell(row, text) {
    const made = row.insertCell();
    made.textContent = text;
    return made;
  }

  const claimName = (at) => (model.c[at] < 0 ? "" : model.data.claims[model.c[at]].id);
  const requestName = (at) => (model.r[at] < 0 ? "" : model.data.requests[model.r[at]].id);
  const milliseconds = (at) => (model.t[at] / 1e6).toLocaleString("en", { minimumFractionDigits: 3, maximumFractionDigits: 3 });

  function inView() {
    const { events } = state.shown;
    const position = axis().position;
    if (!state.inTime) return events.subarray(model.lower(events, state.from), model.lower(events, state.to + 1e-9));
    return events.filter((at) => position(at) >= state.from && position(at) <= state.to);
  }

  function fillTable() {
    const events = inView();
    const pages = Math.max(1, Math.ceil(events.length / ROWS));
    state.page = Math.min(state.page, pages - 1);
    const body = $("body");
    body.textContent = "";
    for (const at of events.subarray(state.page * ROWS, state.page * ROWS + ROWS)) {
      const row = body.insertRow();
      row.id = `event-${at}`;
      const worst = model.worst(at);
      row.className = [at === state.selected ? "on" : "", { violating: "bad", inconclusive: "open" }[worst] || ""].join(" ");
      if (at === state.selected) row.setAttribute("aria-current", "true");
      const link = document.createElement("a");
      link.href = `#event-${at}`;
      link.textContent = at;
      row.insertCell().append(link);
      cell(row, milliseconds(at));
      cell(row, `${model.data.sources[model.s[at]]} ${model.q[at]}`);
      const what = cell(row, model.name(at));
      if (worst) what.append(hidden(`, ${worst}`));
      cell(row, claimName(at));
      cell(row, requestName(at));
      cell(row, model.says(at).filter(([, v]) => v !== null && v !== "").map(([field, v]) => `${field} ${v}`).join("; "));
    }
    const first = state.page * ROWS;
    $("page").textContent = events.length
      ? `${first + 1} to ${Math.min(first + ROWS, events.length)} of ${events.length} events in view` : "No event in view: zoom out, or clear the filter.";
    $("before").disabled = state.page === 0;
    $("after").disabled = state.page >= pages - 1;
  }

  function hidden(text) {
    const made = document.createElement("span");
    made.className = "off";
    made.textContent = text;
    return made;
  }

  function fact(list, name, value) {
    const term = document.createElement("dt");
    const told = document.createElement("dd");
    term.textContent = name;
    told.textContent = value === null || value === "" ? "none" : String(value);
    list.append(term, told);
  }

  function showDetail(at) {
    const detail = $("detail");
    detail.textContent = "";
    const title = document.createElement("h3");
    title.textContent = `${at} ${model.name(at)}`;
    const list = document.createElement("dl");
    list.className = "facts";
    for (const number of model.marks.get(at) || []) {
      const finding = model.data.findings[number];
      const told = document.createElement("p");
      told.className = "small";
      const word = document.createElement("span");
      word.className = `v ${finding.verdict}`;
      word.textContent = finding.verdict;
      const link = document.createElement("a");
      link.href = `#finding-${number}`;
      link.textContent = finding.code;
      told.append(word, " ", link, ` ${finding.story.join(" ")}`);
      detail.append(told);
    }
    fact(list, "source, seq", `${model.data.sources[model.s[at]]} ${model.q[at]}`);
    fact(list, "ms", milliseconds(at));
    if (model.r[at] >= 0) fact(list, "request", requestName(at));
    if (model.c[at] >= 0) {
      const claim = model.data.claims[model.c[at]];
      fact(list, "claim", claim.id);
      fact(list, "owner", claim.owner);
      for (const [field, value] of model.says(at)) fact(list, field, value);
      for (const [field, value] of Object.entries(claim.identity)) fact(list, field, value);
    } else {
      for (const [field, value] of model.says(at)) fact(list, field, value);
    }
    detail.prepend(title);
    detail.append(list);
  }

  function select(at, { reveal = true } = {}) {
    if (at < 0 || at >= model.count) return;
    state.selected = at;
    if (laneOf(at) < 0) {
      $("find").value = "";
      $("verdict").value = "";
      $("requests").setAttribute("aria-pressed", "true");
      filter();
    }
    state.lane = laneOf(at);
    if (reveal) {
      const where = axis().position(at);
      const span = state.to - state.from;
      if (where < state.from || where > state.to) look(where - span / 2, where + span / 2);
      const y = drawing.AXIS + state.lane * drawing.LANE;
      if (y < box.scrollTop + drawing.AXIS || y + drawing.LANE > box.scrollTop + box.clientHeight) {
        box.scrollTop = y - box.clientHeight / 2;
      }
    }
    const events = inView();
    state.page = Math.max(0, Math.floor(model.lower(events, at) / ROWS));
    history.replaceState(null, "", `#event-${at}`);
    showDetail(at);
    const worst = model.worst(at);
    $("said").textContent = `event ${at}, ${model.name(at)}${claimName(at) ? `, claim ${claimName(at)}` : ""}${worst ? `, ${worst}` : ""}`;
    plan();
  }

  function step(by) {
    const { events } = state.shown;
    if (!events.length) return;
    const n = state.selected < 0 ? (by > 0 ? 0 : events.length - 1) : model.lower(events, state.selected) + by;
    select(events[Math.min(Math.max(n, 0), events.length - 1)]);
  }

  function stepLane(by) {
    const { lanes } = state.shown;
    for (let n = state.lane + by; n >= 0 && n < lanes.length; n += by) {
      const { events } = lanes[n];
      if (!events.length) continue;
      const near = model.lower(events, Math.max(state.selected, 0));
      select(events[Math.min(near, events.length - 1)]);
      return;
    }
  }

  function goFinding(by) {
    const found = model.data.findings.map((finding, n) => [finding.events[finding.events.length - 1], n]).filter(([at]) => at !== undefined)
      .sort((a, b) => a[0] - b[0]);
    if (!found.length) {
      $("said").textContent = "no finding names an event";
      return;
    }
    state.finding = (state.finding + by + found.length + (state.finding < 0 && by < 0 ? 1 : 0)) % found.length;
    const [at, number] = found[state.finding];
    const story = $(`finding-${number}`);
    if (story) story.open = true;
    close(at);
    select(at);
  }

  function close(at) {
    const where = axis().position(at);
    const [a, b] = axis().all;
    const span = Math.min(state.to - state.from, state.inTime ? Math.max((b - a) / 50, 1e-3) : 120);
    look(where - span / 2, where + span / 2);
  }

  function clearSelection() {
    state.selected = -1;
    state.lane = -1;
    $("detail").textContent = "Select an event on a lane or in the table.";
    history.replaceState(null, "", location.pathname + location.search);
    plan();
  }

  function follow() {
    const event = /^#event-(\d+)$/.exec(location.hash);
    if (event) {
      const at = Number(event[1]);
      if (at >= model.count) {
        $("said").textContent = `there is no event ${at}`;
        return;
      }
      close(at);
      select(at);
      $("lanes").scrollIntoView();
      return;
    }
    const finding = /^#finding-\d+$/.test(location.hash) && $(location.hash.slice(1));
    if (finding) {
      finding.open = true;
      finding.scrollIntoView();
    }
  }

  function toggleAxis() {
    const now = state.inTime ? "false" : "true";
    const kept = inView();
    state.inTime = !state.inTime;
    $("axis").setAttribute("aria-pressed", now);
    if (kept.length > 1 && kept.length < state.shown.events.length) {
      const places = [axis().position(kept[0]), axis().position(kept[kept.length - 1])];
      look(Math.min(...places), Math.max(...places));
    } else lookAtAll();
  }

  const keys = {
    ArrowRight: () => step(1), ArrowLeft: () => step(-1), ArrowDown: () => stepLane(1), ArrowUp: () => stepLane(-1),
    "+": () => zoom(0.5, centre()), "=": () => zoom(0.5, centre()), "-": () => zoom(2, centre()), 0: lookAtAll,
    n: () => goFinding(1), p: () => goFinding(-1), t: toggleAxis, Escape: clearSelection,
    Home: () => state.shown.events.length && select(state.shown.events[0]),
    End: () => state.shown.events.length && select(state.shown.events[state.shown.events.length - 1]),
  };
  const centre = () => {
    const where = state.selected < 0 ? NaN : axis().position(state.selected);
    return where >= state.from && where <= state.to ? where : (state.from + state.to) / 2;
  };
  box.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });

  const place = (event) => {
    const v = view();
    const x = event.clientX - canvas.getBoundingClientRect().left;
    return { x, at: v.from + ((x - v.left) / (v.right - v.left)) * (v.to - v.from), v };
  };
  const pointers = new Map();
  let pressed = null;
  box.addEventListener("pointerdown", (event) => {
    pointers.set(event.pointerId, event);
    pressed = { x: event.clientX, y: event.clientY, from: state.from, to: state.to, moved: false };
  });
  addEventListener("pointermove", (event) => {
    if (!pressed || !pointers.has(event.pointerId)) return;
    if (pointers.size === 2) {
      const old = [...pointers.values()];
      const before = Math.abs(old[0].clientX - old[1].clientX);
      pointers.set(event.pointerId, event);
      const now = [...pointers.values()];
      const after = Math.abs(now[0].clientX - now[1].clientX);
      if (before > 8 && after > 8) zoom(before / after, place({ clientX: (now[0].clientX + now[1].clientX) / 2 }).at);
      pressed.moved = true;
      return;
    }
    const v = view();
    const shift = ((event.clientX - pressed.x) / (v.right - v.left)) * (pressed.to - pressed.from);
    if (Math.abs(event.clientX - pressed.x) > 4) pressed.moved = true;
    if (pressed.moved) look(pressed.from - shift, pressed.to - shift);
  });
  addEventListener("pointerup", (event) => {
    if (!pointers.delete(event.pointerId) || !pressed) return;
    const click = !pressed.moved && event.target.closest("#lanebox");
    pressed = null;
    if (!click) return;
    const { at, v } = place(event);
    const y = event.clientY - box.getBoundingClientRect().top + box.scrollTop - drawing.AXIS;
    const lane = state.shown.lanes[Math.floor(y / drawing.LANE)];
    if (!lane || !lane.events.length) return;
    const reach = ((v.to - v.from) / (v.right - v.left)) * 9;
    const near = lane.events.filter((e) => Math.abs(v.position(e) - at) <= reach);
    if (near.length > 6) zoom(0.2, at);
    else if (near.length) select(near.reduce((a, b) => (Math.abs(v.position(a) - at) <= Math.abs(v.position(b) - at) ? a : b)), { reveal: false });
  });
  addEventListener("pointercancel", (event) => { pointers.delete(event.pointerId); pressed = null; });
  box.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && Math.abs(event.deltaX) <= Math.abs(event.deltaY)) return;
    event.preventDefault();
    if (event.ctrlKey) zoom(Math.exp(event.deltaY * 0.01), place(event).at);
    else {
      const shift = (event.deltaX / box.clientWidth) * (state.to - state.from);
      look(state.from + shift, state.to + shift);
    }
  }, { passive: false });

  let brush = false;
  const move = (event) => {
    const v = view();
    const x = event.clientX - $("overview").getBoundingClientRect().left;
    const where = v.all[0] + ((x - v.left) / (v.right - v.left)) * (v.all[1] - v.all[0]);
    const half = (state.to - state.from) / 2;
    look(where - half, where + half);
  };
  $("overview").addEventListener("pointerdown", (event) => { brush = true; move(event); });
  addEventListener("pointermove", (event) => { if (brush) move(event); });
  addEventListener("pointerup", () => { brush = false; });

  $("find").addEventListener("input", filter);
  $("verdict").addEventListener("input", filter);
  $("requests").addEventListener("click", () => {
    const button = $("requests");
    button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
    filter();
  });
  $("axis").addEventListener("click", toggleAxis);
  $("in").addEventListener("click", () => zoom(0.5, centre()));
  $("out").addEventListener("click", () => zoom(2, centre()));
  $("fit").addEventListener("click", lookAtAll);
  $("later").addEventListener("click", () => goFinding(1));
  $("earlier").addEventListener("click", () => goFinding(-1));
  $("before").addEventListener("click", () => { state.page -= 1; fillTable(); });
  $("after").addEventListener("click", () => { state.page += 1; fillTable(); });
  $("body").addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    if (!row) return;
    event.preventDefault();
    select(Number(row.id.slice(6)));
  });
  box.addEventListener("scroll", plan);
  addEventListener("resize", plan);
  addEventListener("hashchange", follow);
  lookAtAll();
  filter();
  fillTable();
  addEventListener("load", () => setTimeout(follow));
})();
