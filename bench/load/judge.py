"""What a load left, judged: by the audit of the real log, by the answers, by the memory. No condition is about time."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from bench.load.plan import Item, Kind, Plan
from bench.load.server import MemorySample
from residentkv.audit import AuditReport, Verdict
from residentkv.errors import InputError
from residentkv.trace import events as ev
from residentkv.trace.reader import read_trace

OUTCOMES = ("released", "expired", "demoted", "harmed")
WARM_SAMPLES = 30
FLAT_SHARE = 0.05
FLAT_BYTES = 16 << 20
"""Memory is flat when, after these samples, the last quarter's median is at most so much above the first quarter's."""

ENDS: dict[type, str] = {
    ev.ClaimReleased: "released",
    ev.ClaimExpired: "expired",
    ev.ClaimDemoted: "demoted",
    ev.ClaimHarmed: "harmed",
}


class Truth(StrEnum):
    """Whether a condition holds; what cannot be told is not a pass."""

    HOLDS = "holds"
    BROKEN = "broken"
    UNKNOWN = "unknown"


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that has to be so, and the figures that say whether it is."""

    name: str
    truth: Truth
    found: str


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What one client saw of one request; `cached` are tokens, as vLLM reports them."""

    number: int
    prompt: int
    anew: bool
    first: bool
    status: int
    error: str
    tokens: list[int]
    finish: str | None
    cached: int | None
    ttft_ns: int | None
    hung: bool
    done: bool
    start_ns: int
    end_ns: int

    @property
    def served(self) -> bool:
        """Whether the answer is whole."""
        return self.status == 200 and self.done and not self.error and not self.hung and self.finish == "length"


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """All records of one load and how many requests were begun, None when the generator did not say."""

    records: list[Record]
    begun: int | None

    @property
    def items(self) -> list[Item]:
        """Return what was asked, in the order of the plan."""
        return [Item(r.prompt, r.anew, r.first) for r in sorted(self.records, key=lambda r: r.number)]


def read_answers(path: Path) -> Answers:
    """Read what the generator wrote.

    Raises:
        InputError: a line is no record.
    """
    records: list[Record] = []
    begun: int | None = None
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            raw = msgspec.json.decode(line)
            if isinstance(raw, dict) and "begun" in raw:
                begun = int(raw["begun"])
            else:
                records.append(msgspec.convert(raw, Record))
        except (msgspec.DecodeError, msgspec.ValidationError) as e:
            raise InputError(f"no record of a request: {e}", path=str(path), line=number) from None
    return Answers(records=records, begun=begun)


class ClaimCounts(msgspec.Struct, kw_only=True):
    """What the log says about claims, counted event by event and apart from the audit's own rules.

    `accepted` and `ended` are by kind; `open` are claims without an outcome, `twice` outcomes without an open claim;
    `refused` are requests that were refused in order; `late` are deferred ones that were let in after their deadline,
    or about which nothing was decided any more.
    """

    names: set[tuple[str, str]] = msgspec.field(default_factory=set)
    accepted: Counter[str] = msgspec.field(default_factory=Counter)
    rejected: Counter[str] = msgspec.field(default_factory=Counter)
    ended: Counter[tuple[str, str]] = msgspec.field(default_factory=Counter)
    restored: int = 0
    open: int = 0
    twice: int = 0
    refused: int = 0
    deferred: int = 0
    late: int = 0


def count_claims(trace: Path) -> ClaimCounts:
    """Count what became of claims, from the log alone."""
    counts = ClaimCounts()
    standing: set[tuple[str, str]] = set()
    waiting: dict[str, int] = {}
    for chunk in read_trace(trace):
        for event in chunk:
            if isinstance(event, ev.ClaimAccepted):
                key = (event.owner_scope, event.claim_id)
                counts.twice += key in standing
                standing.add(key)
                counts.names.add(key)
                counts.accepted[kind_of(event.claim_id)] += 1
            elif isinstance(event, ev.ClaimRejected):
                counts.rejected[event.reason] += 1
            elif isinstance(event, ev.ClaimRestored):
                counts.restored += 1
            elif isinstance(event, (ev.RequestRefused, ev.SchedulerRequestRefused)):
                counts.refused += 1
                waiting.pop(event.request_id, None)
            elif isinstance(event, ev.RequestDeferred):
                counts.deferred += 1
                waiting[event.request_id] = event.deadline_ns
            elif isinstance(event, ev.RequestAdmitted):
                counts.late += event.mono_ns > waiting.pop(event.request_id, event.mono_ns)
            elif isinstance(event, ev.RequestTerminated):
                waiting.pop(event.request_id, None)  # Its client left.
            elif type(event) in ENDS and isinstance(event, ev.ClaimEvent):
                key = (event.owner_scope, event.claim_id)
                counts.twice += key not in standing
                standing.discard(key)
                counts.ended[kind_of(event.claim_id), ENDS[type(event)]] += 1
    counts.open = len(standing)
    counts.late += len(waiting)
    return counts


def kind_of(claim_id: str) -> str:
    """Return the kind of prefix that a claim of the plan is about."""
    return claim_id.partition("-")[0]


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a load is judged by.

    `control` are (prompt, tokens) of requests made after the bytes in the second tier were overwritten.
    """

    plan: Plan
    claimed: Answers
    stock: Answers
    report: AuditReport
    counts: ClaimCounts
    memory: Sequence[MemorySample]
    control: Sequence[tuple[int, list[int]]]


def baseline_of(stock: Answers) -> tuple[dict[int, list[int]], int]:
    """Return the tokens of each prompt without claims, and for how many prompts stock vLLM differs from itself."""
    tokens: dict[int, list[int]] = {}
    differing = set()
    for r in stock.records:
        if r.served and tokens.setdefault(r.prompt, r.tokens) != r.tokens:
            differing.add(r.prompt)
    return tokens, len(differing)


def judge(evidence: Evidence) -> list[Condition]:
    """Return every condition with what was found."""
    return [
        _all_ended(evidence.claimed, evidence.counts),
        _all_served(evidence.claimed, evidence.counts),
        _outputs(evidence),
        _control(evidence),
        _claims_made(evidence),
        _audited(evidence.report),
        _one_outcome(evidence.counts, evidence.report),
        _no_hard_harm(evidence.counts),
        _flat(evidence.memory),
    ]


def verdict_of(conditions: Iterable[Condition]) -> Truth:
    """Return the worst of all conditions: broken before unknown before holds; none at all is unknown."""
    found = {c.truth for c in conditions}
    for truth in (Truth.BROKEN, Truth.UNKNOWN):
        if truth in found:
            return truth
    return Truth.HOLDS if found else Truth.UNKNOWN


def _say(name: str, broken: bool, found: str, *, unknown: bool = False) -> Condition:
    return Condition(
        name=name, truth=Truth.BROKEN if broken else Truth.UNKNOWN if unknown else Truth.HOLDS, found=found
    )


def _all_ended(claimed: Answers, counts: ClaimCounts) -> Condition:
    hung = sum(r.hung for r in claimed.records)
    lost = 0 if claimed.begun is None else claimed.begun - len(claimed.records)
    return _say(
        "no request hangs or passes its deadline",
        bool(hung or lost or counts.late),
        f"{len(claimed.records)} ended of {claimed.begun} begun, {hung} at their clients' deadline; {counts.late} of "
        f"{counts.deferred} deferred ones were let in after the term of their wait",
        unknown=claimed.begun is None or not claimed.records,
    )


def _all_served(claimed: Answers, counts: ClaimCounts) -> Condition:
    failed = [r for r in claimed.records if not r.served]
    first = next((f"; first: {r.status} {r.error[:80]} {r.finish or ''}" for r in failed), "")
    return _say(
        "every request is served, or refused by name in the log",
        len(failed) != counts.refused,
        f"{len(failed)} not served, {counts.refused} refused in the log, {counts.deferred} deferred{first}",
    )


def _outputs(evidence: Evidence) -> Condition:
    baseline, differing = baseline_of(evidence.stock)
    served = [r for r in evidence.claimed.records if r.served]
    missing = sum(r.prompt not in baseline for r in served)
    wrong = sum(r.prompt in baseline and r.tokens != baseline[r.prompt] for r in served)
    return _say(
        "0 wrong outputs: token-identical with stock vLLM",
        bool(wrong) and not differing,
        f"{len(served)} outputs, {wrong} differ, {missing} without a counterpart, {differing} prompts on which stock "
        "vLLM differs from itself",
        unknown=bool(missing or differing or not served),
    )


def _control(evidence: Evidence) -> Condition:
    baseline, _ = baseline_of(evidence.stock)
    changed = sum(baseline.get(prompt) != tokens for prompt, tokens in evidence.control)
    return _say(
        "control: with the second tier overwritten outputs do change",
        False,
        f"{changed} of {len(evidence.control)} changed",
        unknown=not changed,
    )


def _claims_made(evidence: Evidence) -> Condition:
    shape = evidence.plan.shape
    wanted = {Kind.HARD.value: shape.hard, Kind.SOFT.value: shape.soft}
    found = Counter(kind_of(claim_id) for _, claim_id in evidence.counts.names)
    owners = {owner for owner, _ in evidence.counts.names}
    rejected = sum(evidence.counts.rejected.values())
    return _say(
        "the claims of the plan were accepted",
        any(found[kind] < count for kind, count in wanted.items()) or len(owners) < shape.owners,
        f"{found['hard']} of {shape.hard} hard, {found['soft']} of {shape.soft} soft, {len(owners)} owners, "
        f"{rejected} rejections {dict(evidence.counts.rejected) or ''}".rstrip(),
    )


def _audited(report: AuditReport) -> Condition:
    story = next((" ".join(f.story) for f in report.all_findings()), "")
    return _say(
        "the log conforms",
        report.verdict is Verdict.VIOLATING,
        f"{report.verdict.value}, {report.events} events{'; ' + story if story else ''}",
        unknown=report.verdict is Verdict.INCONCLUSIVE,
    )


def _one_outcome(counts: ClaimCounts, report: AuditReport) -> Condition:
    accepted = counts.accepted.total()
    ended = counts.ended.total()
    audited = Counter(c.state for c in report.claims)
    by_audit = sum(audited[state] for state in OUTCOMES)
    return _say(
        "every accepted claim ends in exactly one outcome",
        bool(counts.open or counts.twice or accepted != ended or by_audit != accepted),
        f"{accepted} accepted, {ended} ended, {counts.open} open, {counts.twice} ended twice; the audit: "
        + ", ".join(f"{audited[state]} {state}" for state in OUTCOMES if audited[state]),
        unknown=not accepted,
    )


def _no_hard_harm(counts: ClaimCounts) -> Condition:
    harmed = counts.ended["hard", "harmed"]
    return _say(
        "0 harmed hard claims",
        bool(harmed),
        f"{harmed} harmed of {counts.accepted['hard']}; soft: {counts.ended['soft', 'harmed']} harmed",
        unknown=not counts.accepted["hard"],
    )


def _flat(memory: Sequence[MemorySample]) -> Condition:
    warm = memory[WARM_SAMPLES:]
    quarter = len(warm) // 4
    if not quarter:
        return _say(
            "memory is flat", False, f"{len(memory)} samples, the first {WARM_SAMPLES} are warming up", unknown=True
        )
    before, after = warm[:quarter], warm[-quarter:]
    early = statistics.median(s.anonymous_bytes for s in before)
    late = statistics.median(s.anonymous_bytes for s in after)
    rss = [statistics.median(s.rss_bytes for s in part) / 1e6 for part in (before, after)]
    return _say(
        "memory is flat",
        late > early * (1 + FLAT_SHARE) + FLAT_BYTES,
        f"anonymous {early / 1e6:.0f} MB once warm, {late / 1e6:.0f} MB in the last quarter; resident {rss[0]:.0f} and "
        f"{rss[1]:.0f} MB; {len(memory)} samples",
    )


class Reuse(msgspec.Struct, frozen=True, kw_only=True):
    """Reuse of one kind of prefix under one engine; times in milliseconds, of requests after the first one."""

    kind: str
    requests: int
    hit_rate: float | None
    ttft_median_ms: float | None
    ttft_p95_ms: float | None


def measure_reuse(plan: Plan, answers: Answers) -> list[Reuse]:
    """Return how much of each kind of prefix was found in a cache, and the time to the first token.

    A prefix counts as reused from its second request on. The hit rate is in tokens of prefixes.
    """
    prefix_tokens = plan.shape.prefix_blocks * plan.shape.block_tokens
    seen: set[int] = set()
    found: dict[str, list[tuple[int, int | None]]] = {kind.value: [] for kind in Kind}
    for r in sorted(answers.records, key=lambda r: r.number):
        prefix = r.prompt // plan.shape.variants
        if prefix in seen and r.served and r.cached is not None:
            found[plan.kinds[r.prompt].value].append((min(r.cached, prefix_tokens), r.ttft_ns))
        seen.add(prefix)
    claimed = [*found["hard"], *found["soft"]]
    return [_reuse(kind, rows, prefix_tokens) for kind, rows in [*found.items(), ("hard and soft", claimed)]]


def _reuse(kind: str, rows: Sequence[tuple[int, int | None]], prefix_tokens: int) -> Reuse:
    times = sorted(ns for _, ns in rows if ns is not None)
    return Reuse(
        kind=kind,
        requests=len(rows),
        hit_rate=round(sum(cached for cached, _ in rows) / (len(rows) * prefix_tokens), 4) if rows else None,
        ttft_median_ms=round(statistics.median(times) / 1e6, 2) if times else None,
        ttft_p95_ms=round(times[max(0, -(-95 * len(times) // 100) - 1)] / 1e6, 2) if times else None,
    )


def measure_rate(answers: Answers) -> float | None:
    """Return the requests that were served, a second, from the begin of the first to the end of the last."""
    served = [r for r in answers.records if r.served]
    ns = max((r.end_ns for r in served), default=0) - min((r.start_ns for r in served), default=0)
    return round(len(served) / (ns / 1e9), 1) if ns > 0 else None


def as_json(evidence: Evidence, conditions: Sequence[Condition], about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the whole result as data."""
    counts = evidence.counts
    return {
        "verdict": verdict_of(conditions).value,
        "about": dict(about),
        "shape": msgspec.to_builtins(evidence.plan.shape),
        "conditions": msgspec.to_builtins(list(conditions)),
        "claims": {
            "accepted": dict(counts.accepted),
            "rejected": dict(counts.rejected),
            "ended": {f"{kind} {outcome}": n for (kind, outcome), n in sorted(counts.ended.items())},
            "restored": counts.restored,
            "requests_refused": counts.refused,
            "requests_deferred": counts.deferred,
        },
        "reuse": {
            "claims": msgspec.to_builtins(measure_reuse(evidence.plan, evidence.claimed)),
            "stock": msgspec.to_builtins(measure_reuse(evidence.plan, evidence.stock)),
        },
        "requests_per_s": {"claims": measure_rate(evidence.claimed), "stock": measure_rate(evidence.stock)},
        "memory": msgspec.to_builtins(list(evidence.memory)),
    }
