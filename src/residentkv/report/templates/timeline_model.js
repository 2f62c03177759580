"use strict";
/* The events of the page, their lanes, and which of them are shown. Texts come escaped and are only ever set as text. */
const model = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { t, k, c, r, s, q, l, f } = data.events;
  const count = k.length;
  const name = (at) => data.kinds[k[at]].name;
  const short = (at) => name(at).replace(/^(scheduler_)?(resident_claim_|active_request_|offload_worker_|offload_)/, "$1");

  const marks = new Map(); // event -> findings that name it
  data.findings.forEach((finding, number) => {
    for (const at of finding.events) marks.set(at, [...(marks.get(at) || []), number]);
  });
  const worst = (at) => {
    const found = marks.get(at);
    if (!found) return "";
    return found.some((n) => data.findings[n].verdict === "violating") ? "violating" : "inconclusive";
  };

  function makeLanes() {
    const claims = data.claims.map((claim, number) => ({
      kind: "claim", number, title: claim.id, note: claim.mode || "no mode", verdict: claim.verdict,
      words: `${claim.id} ${claim.owner}`.toLowerCase(), claim, events: [], jobs: [],
    }));
    const requests = data.requests.map((request, number) => ({
      kind: "request", number, title: request.id, note: "", words: request.id.toLowerCase(), request, events: [], jobs: [],
    }));
    const sources = data.sources.map((title, number) => ({
      kind: "source", number, title, note: "source", words: title.toLowerCase(), events: [], jobs: [],
    }));
    for (let at = 0; at < count; at += 1) {
      if (l[at] === "c") claims[c[at]].events.push(at);
      else if (l[at] === "r") requests[r[at]].events.push(at);
      else sources[s[at]].events.push(at);
    }
    for (const job of data.jobs) if (job[3] >= 0) requests[job[3]].jobs.push(job);
    return { claims, requests, sources };
  }

  const lanes = makeLanes();
  const byClaim = new Map();
  for (const lane of lanes.requests) {
    const owner = lane.request.claim;
    byClaim.set(owner, [...(byClaim.get(owner) || []), lane]);
  }
  const rank = { violating: 0, inconclusive: 1, conforming: 2 };
  const ordered = [...lanes.claims].sort((a, b) => (rank[a.verdict] ?? 3) - (rank[b.verdict] ?? 3)
    || a.claim.first - b.claim.first);

  /** Return the lanes of what is asked for, and the events on them, in order. */
  function select({ words, verdict, withRequests }) {
    const out = [];
    const hit = (lane) => !words || lane.words.includes(words);
    if (!words && !verdict) out.push(...lanes.sources);
    for (const lane of ordered) {
      if (verdict && lane.verdict !== verdict) continue;
      const below = byClaim.get(lane.number) || [];
      const found = below.filter(hit);
      if (!hit(lane) && !found.length) continue;
      out.push(lane);
      if (withRequests) out.push(...(hit(lane) ? below : found));
    }
    if (withRequests && !verdict) out.push(...(byClaim.get(-1) || []).filter(hit));
    const all = out.length === lanes.sources.length + lanes.claims.length + lanes.requests.length;
    const events = all ? Array.from({ length: count }, (_, at) => at) : out.flatMap((lane) => lane.events).sort((a, b) => a - b);
    return { lanes: out, events: Int32Array.from(events) };
  }

  /** Return the first place in a sorted list whose value is not below `value`. */
  function lower(list, value, of = (x) => x) {
    let a = 0;
    let b = list.length;
    while (a < b) {
      const middle = (a + b) >> 1;
      if (of(list[middle]) < value) a = middle + 1;
      else b = middle;
    }
    return a;
  }

  function says(at) {
    const fields = data.kinds[k[at]].fields;
    return fields.map((field, n) => [field, f[at][n]]);
  }

  const ordinal = { count, position: (at) => at, all: [0, Math.max(count - 1, 1)] };
  const clock = { position: (at) => t[at] / 1e6, all: [0, Math.max(...sample(t), 1) / 1e6] };
  function sample(list) {
    let top = 0;
    for (const value of list) if (value > top) top = value;
    return [top];
  }
  return { data, count, t, k, c, r, s, q, l, name, short, marks, worst, select, lower, says, ordinal, clock, lanes };
})();
