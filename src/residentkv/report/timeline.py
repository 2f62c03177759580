"""A trace as lanes: one a claim, one a request, one a source; bands, restore attempts, jobs and findings. Pure.

Nothing is judged here. A band says what the last event about a claim said, restore attempts run from the requirement
to the outcome, and findings are those of the audit, at the events that they name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from residentkv.audit.model import AuditReport, Finding, Verdict, worse
from residentkv.report.plain import escape_controls
from residentkv.trace import events as ev

MAX_VALUES = 12
"""Values of a list that an event shows; the number of the others is told."""

_ENVELOPE = frozenset(ev.Event.__struct_fields__) | {"event"}
_IDENTITY = ("object_id", "token_map_id", "cache_identity", "predicate")
_JOINS = frozenset({"claim_id", "owner_scope", "request_id", *_IDENTITY})
_ENDS = (ev.ClaimReleased, ev.ClaimExpired, ev.ClaimDemoted, ev.ClaimHarmed)
_FAILED = (ev.ClaimRestorationFailed, ev.SchedulerRestorationFailed)

Place = tuple[str, int]
Band = tuple[int, int | None, str, str]
"""First event, last event, `tier` or `state`, and its name."""


@dataclass(slots=True)
class _Claim:
    key: tuple[Place, str, str]
    identity: dict[str, str] = field(default_factory=dict)
    mode: str = ""
    first: int = 0
    bands: list[Band] = field(default_factory=list)
    restores: list[list[Any]] = field(default_factory=list)
    verdict: Verdict | None = None
    state: str = ""

    def turn(self, at: int, kind: str, name: str) -> None:
        """End the band that is open and begin another; none begins without a name."""
        if self.bands and self.bands[-1][1] is None:
            first, _, old_kind, old_name = self.bands[-1]
            if (old_kind, old_name) == (kind, name):
                return
            self.bands[-1] = (first, at, old_kind, old_name)
        if name:
            self.bands.append((at, None, kind, name))

    def end_restore(self, at: int, outcome: str) -> None:
        if self.restores and self.restores[-1][1] is None:
            self.restores[-1][1:3] = [at, outcome]


@dataclass(slots=True)
class _Build:
    sources: dict[Place, int] = field(default_factory=dict)
    claims: dict[tuple[Place, str, str], _Claim] = field(default_factory=dict)
    numbers: dict[tuple[Place, str, str], int] = field(default_factory=dict)
    requests: dict[tuple[Place, str], list[Any]] = field(default_factory=dict)
    jobs: dict[tuple[Place, int], list[Any]] = field(default_factory=dict)
    kinds: dict[str, tuple[int, tuple[str, ...]]] = field(default_factory=dict)
    at: dict[tuple[str, int, int], int] = field(default_factory=dict)
    columns: dict[str, list[Any]] = field(default_factory=lambda: {k: [] for k in "tkcrsqlf"})
    count: int = 0


def timeline_data(chunks: Iterable[Sequence[ev.AnyEvent]], report: AuditReport) -> dict[str, Any]:
    """Return what the page draws, as plain data.

    Args:
        chunks: the events that were audited, in the order of the file.
        report: what the audit said about them.

    Returns:
        Columns of events (time in ns since the first, kind, claim, request, source, seq, lane, further fields), and the
        claims, requests, jobs and findings that point at them by position in the file, from 0.
    """
    build = _Build()
    for chunk in chunks:
        for event in chunk:
            _add(build, event)
    for result in report.claims:
        claim = build.claims.get(((result.source, result.epoch), result.owner_scope, result.claim_id))
        if claim is not None:
            claim.verdict = result.verdict if claim.verdict is None else worse(claim.verdict, result.verdict)
            claim.state = result.state
    start = min(build.columns["t"], default=0)
    build.columns["t"] = [t - start for t in build.columns["t"]]
    return {
        "events": build.columns,
        "kinds": [{"name": name, "fields": fields} for name, (_, fields) in build.kinds.items()],
        "sources": [_text(f"{source}/{epoch}") for source, epoch in build.sources],
        "claims": [_claim_data(build, c) for c in build.claims.values()],
        "requests": [
            {"id": _text(name), "claim": claim, "first": first, "last": last}
            for (_, name), (_, claim, first, last) in build.requests.items()
        ],
        "jobs": list(build.jobs.values()),
        "findings": [_finding_data(build, f) for f in report.all_findings()],
    }


def _add(build: _Build, event: ev.AnyEvent) -> None:
    at, place = build.count, (event.source, event.epoch)
    build.count += 1
    source = build.sources.setdefault(place, len(build.sources))
    build.at[(event.source, event.epoch, event.seq)] = at
    claim = _claim_of(build, place, event, at)
    request = _request_of(build, place, event, at, claim)
    if isinstance(event, ev.ClaimEvent):
        lane = "c"
        _follow(build.claims[(place, event.owner_scope, event.claim_id)], event, at)
    else:
        lane = "r" if isinstance(event, ev.RequestEvent) else "s"
    if isinstance(event, ev.JobCreated):
        build.jobs[(place, event.job_id)] = [at, None, event.direction, request, claim, event.job_id, None]
    elif isinstance(event, ev.TransferFinished) and (job := build.jobs.get((place, event.job_id))):
        job[1] = at
        job[6] = event.success and job[6] is not False
    number, values = _fields(build, event)
    row = (event.mono_ns, number, claim, request, source, event.seq, lane, values)
    for name, value in zip("tkcrsqlf", row, strict=True):
        build.columns[name].append(value)


def _claim_of(build: _Build, place: Place, event: ev.AnyEvent, at: int) -> int:
    owner = getattr(event, "owner_scope", None)
    name = getattr(event, "claim_id", None)
    if isinstance(event, ev.SchedulerRequestRefused):
        name = event.outcome_claim_id
    if owner is None or name is None:
        return -1
    key = (place, owner, name)
    if key not in build.claims:
        build.claims[key] = _Claim(key, first=at)
        build.numbers[key] = len(build.numbers)
    return build.numbers[key]


def _request_of(build: _Build, place: Place, event: ev.AnyEvent, at: int, claim: int) -> int:
    name = getattr(event, "request_id", None)
    if name is None:
        return -1
    entry = build.requests.setdefault((place, name), [len(build.requests), -1, at, at])
    if claim >= 0 and entry[1] < 0:
        entry[1] = claim
    entry[3] = at
    return int(entry[0])


def _follow(claim: _Claim, event: ev.ClaimEvent, at: int) -> None:
    """Extend the bands and restore attempts of a claim by what one event says."""
    claim.identity = {name: getattr(event, name) for name in _IDENTITY}
    if isinstance(event, ev.ClaimAccepted):
        claim.mode = event.mode
        claim.turn(at, "state", "accepted")
    elif isinstance(event, ev.ClaimMaterialized):
        claim.turn(at, "tier", event.tier)
    elif isinstance(event, ev.ClaimOffloaded):
        claim.turn(at, "tier", event.tier_to)
    elif isinstance(event, ev.ClaimRestoreRequired):
        claim.turn(at, "state", "restoring")
        claim.restores.append([at, None, "open", event.request_id, event.generation])
    elif isinstance(event, ev.ClaimRestored):
        claim.turn(at, "tier", event.tier_to)
        claim.end_restore(at, "restored")
    elif isinstance(event, _FAILED):
        claim.turn(at, "state", "not restored")
        claim.end_restore(at, "failed")
    elif isinstance(event, _ENDS):
        claim.turn(at, "state", "")
        claim.end_restore(at, "claim ended")


def _fields(build: _Build, event: ev.AnyEvent) -> tuple[int, list[Any]]:
    """Return the number of the kind of an event and the values of its own fields, in the order of that kind."""
    name = str(event.__struct_config__.tag)
    if name not in build.kinds:
        joined = _ENVELOPE | (_JOINS if isinstance(event, ev.ClaimEvent) else _JOINS - set(_IDENTITY))
        build.kinds[name] = (len(build.kinds), tuple(f for f in event.__struct_fields__ if f not in joined))
    number, fields = build.kinds[name]
    return number, [_plain(getattr(event, f)) for f in fields]


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, tuple):
        if value and isinstance(value[0], tuple):
            shown = [f"{first}-{end - 1}" if end > first + 1 else str(first) for first, end in value[:MAX_VALUES]]
        else:
            shown = [_text(str(v)) for v in value[:MAX_VALUES]]
        more = len(value) - MAX_VALUES
        return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
    return value


def _claim_data(build: _Build, claim: _Claim) -> dict[str, Any]:
    place, owner, name = claim.key
    return {
        "id": _text(name),
        "owner": _text(owner),
        "source": build.sources[place],
        "mode": _text(claim.mode),
        "first": claim.first,
        "verdict": None if claim.verdict is None else claim.verdict.value,
        "state": _text(claim.state),
        "identity": {key: _text(value) for key, value in claim.identity.items()},
        "bands": [[first, last, kind, _text(label)] for first, last, kind, label in claim.bands],
        "restores": [[first, last, how, _text(r or ""), g] for first, last, how, r, g in claim.restores],
    }


def _finding_data(build: _Build, finding: Finding) -> dict[str, Any]:
    key = ((finding.source, finding.epoch), finding.owner_scope or "", finding.claim_id or "")
    seen = (build.at.get((finding.source, finding.epoch, seq)) for seq in finding.seqs)
    return {
        "code": finding.code,
        "slug": finding.slug,
        "verdict": finding.verdict.value,
        "claim": build.numbers.get(key, -1),
        "events": [at for at in seen if at is not None],
        "story": [_text(s) for s in finding.story],
    }


def _text(text: str) -> str:
    return escape_controls(text)
