"""No single edit of a conforming trace may stay conforming and keep the same evidence, unless it changes nothing.

The edits are made with numbers and times given anew, so that the gap check alone does not give them away. What stays
conforming has to be on the list below, each entry with its reason.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from residentkv.audit import Verdict, audit_events
from residentkv.trace import events as ev
from residentkv.trace.reader import read_trace
from tests.audit.mutants import Mutant, all_mutants, signature
from tests.audit.notation import trace
from tests.audit.stories import CONFORMING

CORPUS = Path(__file__).parent.parent / "traces"
RECORDED = sorted((CORPUS / "reference").glob("*.jsonl"))

Trace = list[ev.Event]
AS_LATE_AS_THEY_LIKE = ev.BlockStored | ev.BlockRemoved
OUTCOME = ev.ClaimReleased | ev.ClaimExpired | ev.ClaimDemoted | ev.ClaimHarmed
DECISION = ev.RequestAdmitted | ev.RequestDeferred | ev.RequestRefused


def subjects(e: ev.Event) -> set[object]:
    """What an event is about: claims, requests, jobs, blocks."""
    out: set[object] = set()
    if getattr(e, "claim_id", None) is not None:
        out.add(("claim", e.owner_scope, e.claim_id))
    if getattr(e, "request_id", None) is not None:
        out.add(("request", e.request_id))
    if getattr(e, "job_id", None) is not None:
        out.add(("job", e.job_id))
    for block in getattr(e, "block_hashes", ()):
        out.add(("block", block))
    return out


def reason(m: Mutant, events: Trace) -> str | None:
    """Return why an edit changes nothing that the contract speaks of, or None."""
    e = events[m.index]
    if m.kind.startswith("swap"):
        return swap_reason(e, events[m.index + 1])
    if m.kind in ("delete", "duplicate"):
        return drop_reason(m.kind, e)
    field = m.kind.split("=")[0]
    changed = m.events[m.index]
    return edit_reason(field, e, changed, events)


def swap_reason(a: ev.Event, b: ev.Event) -> str | None:
    if (a.source, a.epoch) != (b.source, b.epoch):
        return "events of two processes have no order"
    if a.source.startswith("worker"):
        return "the log of a worker is compared as a set of statements"
    if not subjects(a) & subjects(b) and not (isinstance(a, DECISION) and isinstance(b, DECISION)):
        return "the events are about different claims, requests, jobs and blocks, so their order means nothing"
    if isinstance(a, AS_LATE_AS_THEY_LIKE) or isinstance(b, AS_LATE_AS_THEY_LIKE):
        return "a block report may come a little earlier or later; losses are still before or after their excuse"
    if isinstance(a, ev.RequestTerminated) or isinstance(b, ev.RequestTerminated):
        other = b if isinstance(a, ev.RequestTerminated) else a
        if isinstance(other, ev.ClaimMaterialized | ev.ClaimOffloaded | ev.ClaimRenewed | OUTCOME):
            return "the end of a request says nothing about what was stored of it, or about the end of its claim"
    if isinstance(a, ev.ClaimMaterialized | ev.TransferFinished | ev.JobCreated) and isinstance(
        b, ev.ClaimMaterialized | ev.TransferFinished | ev.JobCreated
    ):
        pair = {type(a), type(b)}
        if ev.ClaimMaterialized in pair and len(pair) == 2:
            return "materialization may be said before or after the store that keeps it for later"
        if isinstance(a, ev.TransferFinished) and isinstance(b, ev.TransferFinished) and a.worker != b.worker:
            return "two workers finish one job in either order"
    if isinstance(a, ev.RequestAdmitted) or isinstance(b, ev.RequestAdmitted):
        other = b if isinstance(a, ev.RequestAdmitted) else a
        if isinstance(other, ev.LookupResult):
            return "the tier may be asked before or after the request is admitted"
        if isinstance(
            other, ev.ClaimMaterialized | ev.ClaimRouteOutcome | ev.ClaimRouteBound | ev.ClaimRejected | ev.ClaimHarmed
        ):
            return "admission weighs blocks, which this event does not change"
        if isinstance(other, ev.ClaimAccepted) and other.mode in ("best_effort", "soft_priority", "routed_reuse"):
            return "a claim that reserves nothing does not change what admission weighs"
    if isinstance(a, ev.LookupResult | ev.RequestInitialized) or isinstance(b, ev.LookupResult | ev.RequestInitialized):
        other = b if isinstance(a, ev.LookupResult | ev.RequestInitialized) else a
        if isinstance(other, ev.ClaimOffloaded | ev.ClaimRouteBound):
            return "a request may come, and ask, before or after the claim is said to be where it is"
    if isinstance(a, ev.ClaimMaterialized) and isinstance(b, ev.ClaimRouteBound):
        return "a binding and the materialization that it points to are said by the same router step"
    if isinstance(a, ev.ClaimRouteBound) and isinstance(b, ev.ClaimMaterialized):
        return "a binding and the materialization that it points to are said by the same router step"
    if isinstance(a, ev.LookupResult) and isinstance(b, ev.ClaimReused) and not a.hit_pos:
        return "a lookup that found nothing beyond the primary tier changes nothing"
    return None


def drop_reason(kind: str, e: ev.Event) -> str | None:
    if isinstance(e, ev.RuntimeEvent | ev.GenericCounter):
        return "never evidence"
    if isinstance(e, ev.LookupResult):
        if kind == "duplicate":
            return "asking the tier twice changes nothing"
        if not e.hit_pos:
            return "a lookup that found nothing beyond the primary tier changes nothing"
    if kind == "delete" and isinstance(e, ev.BlockStored | ev.BlockRemoved):
        return "blocks of no claim; nothing is promised about them"
    return None


def edit_reason(field: str, e: ev.Event, changed: ev.Event, events: Trace) -> str | None:
    if isinstance(e, ev.RequestTerminated):
        return "how a request ended whose claim was not in question, within the words for its kind of end"
    if isinstance(e, ev.BlockStored | ev.BlockRemoved) and field == "request_id":
        return "on whose behalf a block came or went is not judged"
    if field == "owner_scope" and getattr(e, "claim_id", None) is None:
        return "the tenant of a request or a lookup that names no claim"
    if isinstance(e, ev.ClaimRejected):
        return "identity of a claim about which nothing was promised"
    if isinstance(e, ev.ClaimAccepted) and field == "on_restore_failure":
        return "a term that no failure put to the test"
    if isinstance(e, ev.SchedulerRestorationFailed) and e.failure_policy != "fail":
        if field == "blocking_claim_ids":
            return "nobody is refused, so nobody blocks"
        if field == "finish_status":
            return "the word announced is the one that the request ended with, or no final word"
    if isinstance(e, ev.ClaimOffloaded) and e.generation > 1 and field == "job_ids" and not changed.job_ids:
        return "said again of the stores that were named before"
    if isinstance(e, ev.ClaimOffloaded | ev.ClaimRouteBound) and field == "request_id":
        return "on whose behalf a copy or binding is said; it names a request of the claim all the same"
    if isinstance(e, ev.ClaimDemoted | ev.ClaimHarmed) and field == "request_id":
        return "on whose behalf a claim was given up; it names an open request or the last one of the claim"
    if isinstance(e, ev.ClaimMaterialized) and field == "retrievable_pos":
        return "the predicate holds over what is left"
    if isinstance(e, ev.ClaimRouteOutcome) and e.outcome in ("moved", "lost"):
        return "where a request was served instead of at its binding is known from this event alone"
    return None


def cases() -> list[tuple[str, Trace]]:
    out = [(name, trace(text)) for name, text in CONFORMING.items()]
    for path in RECORDED:
        events: Trace = [e for chunk in read_trace(path) for e in chunk]
        if len(events) <= 100:
            out.append((path.stem, events))
    return out


@pytest.mark.parametrize(("name", "events"), cases(), ids=lambda v: v if isinstance(v, str) else "")
def test_no_edit_goes_unnoticed(name, events, record_property):
    """Every mutant is violating, inconclusive, or evidence for less; survivors are on the list of equivalents."""
    before = audit_events([events])
    assert before.verdict is Verdict.CONFORMING
    base = signature(before)
    killed = 0
    survivors: Counter[str] = Counter()
    unexplained = []
    for m in all_mutants(events):
        report = audit_events([m.events])
        if report.verdict is not Verdict.CONFORMING or (base and not signature(report) >= base):
            killed += 1
            continue
        why = reason(m, events)
        if why is None:
            unexplained.append((m.kind, m.index, m.event))
        else:
            survivors[why] += 1
    record_property("killed", killed)
    record_property("equivalent", sum(survivors.values()))
    assert not unexplained
    assert killed > 4 * sum(survivors.values()), survivors


def test_evidence_of_a_mutant_never_grows():
    """An edit must not make a trace evidence for something that it was not evidence for before."""
    grown = []
    for name, text in CONFORMING.items():
        events = trace(text)
        base = {(s[0], s[1], s[2]) for s in signature(audit_events([events]))}
        for m in all_mutants(events):
            found = {(s[0], s[1], s[2]) for s in signature(audit_events([m.events]))}
            if not found <= base:
                grown.append((name, m.kind, m.index, m.event, found - base))
    assert not grown
