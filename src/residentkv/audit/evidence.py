"""From reports to evidence and back: what conforming claims support and what violations contradict. Pure.

An evidence file is a list of what an audit found, for `residentkv check`. It is never believed: whoever uses it reads
the traces again, audits them again, and takes only what that audit says (`confirm_evidence`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from residentkv import __version__
from residentkv.audit.model import AuditReport, ClaimResult, Finding, Profile, SourceResult, Verdict
from residentkv.audit.steps.preference import LOST_BEFORE_LESS_IMPORTANT, LOST_WHILE_NEWER, LOST_WHILE_OLDER
from residentkv.errors import InputError, UsageError
from residentkv.trace.codes import InputRule

SCHEMA = "residentkv.evidence/1"
NOT_EVIDENCE = InputRule("RKV114", "evidence-not-understood", "the file is no evidence that an audit wrote")
MAX_SEQS = 64
MIN_TRIALS = 5
"""Losses with either assignment that an experiment on eviction preference needs before it supports anything."""

Place = tuple[str, int]


class EventRange(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Numbers of events of one (source, epoch) of one trace; `trace` is the digest of its stored bytes."""

    trace: str
    source: str
    epoch: int
    seqs: tuple[int, ...]


class EvidenceItem(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One statement: this trace supports, or contradicts, one obligation of one mode at one depth.

    Attributes:
        kind: `trace` for what one trace shows; `experiment` is for what repetitions with the swapped assignment as
            control show, and may rest on several traces.
        mode: null when the claim was never accepted, so that no mode was promised; then it is about every mode.
        claims: how many claims showed it.
        code: rule that was broken, null for support.
        stands_in: what stood in for something else in the run, and limits the evidence.
    """

    kind: Literal["trace", "experiment"]
    polarity: Literal["supports", "contradicts"]
    obligation: str
    mode: str | None
    runtime: str
    runtime_version: str
    primitive: str
    adapter: str | None
    adapter_version: str | None
    depth: str
    stands_in: tuple[str, ...]
    run_id: str
    claims: int
    code: str | None
    note: str
    events: tuple[EventRange, ...]


class AuditedTrace(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A trace that was audited; a relative `path` is relative to the evidence file."""

    path: str
    sha256: str
    verdict: str
    events: int


class EvidenceFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an audit found in some traces."""

    schema: Literal["residentkv.evidence/1"]
    residentkv: str
    traces: tuple[AuditedTrace, ...]
    items: tuple[EvidenceItem, ...]


def evidence_of(report: AuditReport) -> tuple[EvidenceItem, ...]:
    """Return what a report is evidence for.

    Support comes from conforming claims of a trace whose verdict is conforming; contradiction from every violation.
    An inconclusive trace supports nothing.

    Raises:
        UsageError: the report was made with the published gates, which are never evidence.
    """
    if report.profile is not Profile.SPEC:
        raise UsageError(
            "evidence: found a report of the published profile, expected the spec profile; the published gates only "
            "compare with published figures"
        )
    sources = {(s.source, s.epoch): s for s in report.sources if s.runtime is not None}
    items: dict[tuple[Any, ...], EvidenceItem] = {}
    if report.verdict is Verdict.CONFORMING:
        for claim in report.claims:
            source = sources.get((claim.source, claim.epoch))
            if source is None or claim.verdict is not Verdict.CONFORMING or claim.mode is None:
                continue
            for obligation, seqs in sorted(claim.observed.items()):
                _add(items, _support(report, source, claim, obligation, seqs))
    for item in experiments_of(report):
        _add(items, item)
    for claim in report.claims:
        source = sources.get((claim.source, claim.epoch))
        for finding in claim.findings:
            if source is not None and finding.verdict is Verdict.VIOLATING:
                for obligation in finding.contradicts:
                    _add(items, _contradiction(report, source, finding, obligation, claim.mode))
    for finding in _unclaimed(report):
        source = sources.get((finding.source, finding.epoch))
        if source is None or finding.verdict is not Verdict.VIOLATING:
            continue
        modes: list[str | None] = list(_modes_of(report, finding.source, finding.epoch)) or [None]
        for obligation in finding.contradicts:
            for mode in modes:
                _add(items, _contradiction(report, source, finding, obligation, mode))
    return tuple(items[key] for key in sorted(items, key=lambda k: tuple(str(part) for part in k)))


def _unclaimed(report: AuditReport) -> Iterable[Finding]:
    yield from report.findings
    for source in report.sources:
        yield from source.findings


def _modes_of(report: AuditReport, source: str, epoch: int) -> list[str]:
    found = {c.mode for c in report.claims if (c.source, c.epoch) == (source, epoch) and c.mode is not None}
    return sorted(found)


def _add(items: dict[tuple[Any, ...], EvidenceItem], item: EvidenceItem) -> None:
    """Join what several claims of one (source, epoch) show alike; the first ones name the events."""
    place = (item.events[0].source, item.events[0].epoch) if item.events else ("", 0)
    key = (item.polarity, item.mode or "", item.obligation, item.code or "", *place)
    old = items.get(key)
    if old is None:
        items[key] = item
        return
    events = old.events
    have = sum(len(r.seqs) for r in events)
    if have < MAX_SEQS and events:
        merged = tuple(sorted({*events[0].seqs, *item.events[0].seqs}))
        events = (msgspec.structs.replace(events[0], seqs=merged), *events[1:])
    items[key] = msgspec.structs.replace(old, claims=old.claims + item.claims, events=events)


def _support(
    report: AuditReport, source: SourceResult, claim: ClaimResult, obligation: str, seqs: tuple[int, ...]
) -> EvidenceItem:
    return _item(
        report,
        source,
        polarity="supports",
        obligation=obligation,
        mode=claim.mode,
        code=None,
        note=f"claims of mode {claim.mode} that were kept from acceptance to outcome",
        seqs=tuple(sorted(set(seqs))),
    )


def experiments_of(report: AuditReport) -> tuple[EvidenceItem, ...]:
    """Return what the trials of eviction preference in each (source, epoch) show, taken together."""
    items = (
        _preference(report, s, [c for c in report.claims if (c.source, c.epoch) == (s.source, s.epoch)])
        for s in report.sources
        if s.runtime is not None
    )
    return tuple(item for item in items if item is not None)


def _preference(report: AuditReport, source: SourceResult, claims: list[ClaimResult]) -> EvidenceItem | None:
    """Judge the trials of eviction preference in one (source, epoch) as one experiment.

    It supports when the less important claim always went first, at least `MIN_TRIALS` times while it was used less
    recently and as often while it was used more recently; that swapped assignment is the control, since recency alone
    would decide the other way. It contradicts when a claim went before a less important one: one is a counterexample,
    in however many trials, so that short traces do not hide it.
    """

    def trials(word: str) -> list[ClaimResult]:
        return [c for c in claims if c.counts.get(word)]

    older, newer, wrong = trials(LOST_WHILE_OLDER), trials(LOST_WHILE_NEWER), trials(LOST_BEFORE_LESS_IMPORTANT)
    told = (
        f"{len(older) + len(newer)} of {len(older) + len(newer) + len(wrong)} times the less important claim went first"
    )
    if wrong:
        shown = wrong
    elif not wrong and min(len(older), len(newer)) >= MIN_TRIALS and report.verdict is Verdict.CONFORMING:
        shown = older + newer
    else:
        return None
    item = _item(
        report,
        source,
        polarity="contradicts" if wrong else "supports",
        obligation="eviction_preference",
        mode="soft_priority",
        code=None,
        note=f"{told}, {len(newer)} of them although it was used more recently",
        seqs=tuple(sorted(seq for c in shown for seq in (c.first_seq, c.last_seq)))[:MAX_SEQS],
    )
    return msgspec.structs.replace(item, kind="experiment", claims=len(shown))


def _contradiction(
    report: AuditReport, source: SourceResult, finding: Finding, obligation: str, mode: str | None
) -> EvidenceItem:
    return _item(
        report,
        source,
        polarity="contradicts",
        obligation=obligation,
        mode=mode,
        code=finding.code,
        note=f"{finding.code} {finding.slug}: {finding.story[0]}",
        seqs=finding.seqs,
    )


def _item(
    report: AuditReport,
    source: SourceResult,
    *,
    polarity: Literal["supports", "contradicts"],
    obligation: str,
    mode: str | None,
    code: str | None,
    note: str,
    seqs: tuple[int, ...],
) -> EvidenceItem:
    return EvidenceItem(
        kind="trace",
        polarity=polarity,
        obligation=obligation,
        mode=mode,
        runtime=source.runtime or "",
        runtime_version=source.runtime_version or "",
        primitive=source.primitive or "",
        adapter=source.adapter,
        adapter_version=source.adapter_version,
        depth=source.depth or "",
        stands_in=source.stands_in,
        run_id=source.run_id,
        claims=1,
        code=code,
        note=note,
        events=(EventRange(trace=report.sha256, source=source.source, epoch=source.epoch, seqs=seqs),),
    )


def evidence_file(reports: Iterable[AuditReport], *, paths: Iterable[str] | None = None) -> EvidenceFile:
    """Join reports into an evidence file; `paths` are the traces' paths as the file shall name them."""
    reports = list(reports)
    named = list(paths) if paths is not None else [r.path for r in reports]
    return EvidenceFile(
        schema="residentkv.evidence/1",
        residentkv=__version__,
        traces=tuple(
            AuditedTrace(path=path, sha256=r.sha256, verdict=r.verdict.value, events=r.events)
            for path, r in zip(named, reports, strict=True)
        ),
        items=tuple(item for r in reports for item in evidence_of(r)),
    )


def encode_evidence(evidence: EvidenceFile) -> bytes:
    """Return the JSON text of an evidence file; the same evidence always gives the same bytes."""
    return msgspec.json.format(msgspec.json.encode(evidence), indent=2) + b"\n"


def decode_evidence(data: bytes, *, path: str) -> EvidenceFile:
    """Read an evidence file strictly.

    Raises:
        InputError: not JSON, a key twice, an unknown or missing field, a wrong type, or another schema.
    """
    try:
        json.loads(data, object_pairs_hook=_once)
        return msgspec.json.decode(data, type=EvidenceFile, strict=True)
    except (ValueError, RecursionError, msgspec.MsgspecError) as e:
        raise InputError(
            f"found {str(e)[:200]}, expected a file that `residentkv audit --evidence-out` wrote ({SCHEMA})",
            path=path,
            code=NOT_EVIDENCE.code,
        ) from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        names = [k for k, _ in pairs]
        twice = next(k for k in names if names.count(k) > 1)
        raise ValueError(f"the key {twice!r} twice")
    return out
