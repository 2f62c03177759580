"""Merging what sources left, in any order, and the report that follows from all of it."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from residentkv.audit.closing import SourceAudit
from residentkv.audit.model import AuditReport, ClaimResult, Finding, Profile, Rule, SourceResult, Verdict, worse
from residentkv.audit.ranges import say
from residentkv.audit.rules import acceptance, coverage, offload, sequence
from residentkv.audit.workers import Detail, WorkerLedger, compare_ledgers
from residentkv.trace.codes import EMPTY


class Partial(msgspec.Struct, frozen=True, kw_only=True):
    """The audits of some sources of one trace, and what could not be read (code, message).

    `merge_partials` is associative and commutative, `Partial()` neutral."""

    sources: tuple[SourceAudit, ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()


def merge_partials(a: Partial, b: Partial) -> Partial:
    """Join two parts of one trace; which of them was audited first makes no difference."""
    return Partial(
        sources=tuple(sorted((*a.sources, *b.sources), key=_place)),
        unreadable=tuple(sorted((*a.unreadable, *b.unreadable))),
    )


def _place(audit: SourceAudit) -> tuple[str, int, int, bytes]:
    r = audit.result
    return (r.source, r.epoch, r.events, msgspec.json.encode(r.findings))


def report_of(part: Partial, *, path: str, sha256: str) -> AuditReport:
    """Draw up the report of a whole trace; the order of its sources makes no difference."""
    sources = sorted(part.sources, key=_place)
    findings = [
        _file_finding(sequence.NO_EVENTS if code == EMPTY.code else sequence.UNREADABLE_TRACE, story)
        for code, story in part.unreadable
    ]
    findings += _doubled(sources)
    first_accepted = _first_accepted(sources)
    claims = [_voided(c, first_accepted) for a in sources for c in a.claims]
    claims.sort(key=lambda c: (c.source, c.epoch, c.first_seq, c.owner_scope, c.claim_id, c.instance))
    if len({a.result.run_id for a in sources}) > 1:
        runs = ", ".join(sorted({a.result.run_id for a in sources})[:5])
        findings.append(_file_finding(sequence.MIXED_RUNS, f"The sources of the trace are of runs {runs}."))
    findings += _cross_check(sources)
    if not claims and not any(f.code == acceptance.CLAIM_NEVER_ACCEPTED.code for f in _source_findings(sources)):
        findings.append(_nothing_claimed(sources, bool(part.unreadable)))
    verdict = Verdict.CONFORMING
    for audit in sources:
        verdict = worse(verdict, audit.verdict)
    for claim in claims:
        verdict = worse(verdict, claim.verdict)
    for finding in findings:
        verdict = worse(verdict, finding.verdict)
    return (
        AuditReport(
            path=path,
            sha256=sha256,
            profile=Profile.SPEC,
            verdict=verdict,
            events=sum(a.result.events for a in sources),
            sources=tuple(a.result for a in sources),
            claims=tuple(claims),
            findings=tuple(findings),
            gates=(),
        )
        if sources
        else _empty(part, path, sha256, findings)
    )


def _empty(part: Partial, path: str, sha256: str, findings: list[Finding]) -> AuditReport:
    if not part.unreadable:
        findings = [_file_finding(sequence.NO_EVENTS, "The trace holds no event.")]
    return AuditReport(
        path=path,
        sha256=sha256,
        profile=Profile.SPEC,
        verdict=Verdict.INCONCLUSIVE,
        events=0,
        sources=(),
        claims=(),
        findings=tuple(f for f in findings if f.code != coverage.NO_CLAIM.code),
        gates=(),
    )


def _source_findings(audits: Iterable[SourceAudit]) -> list[Finding]:
    return [f for a in audits for f in a.result.findings]


def _file_finding(
    rule: Rule,
    *story: str,
    source: str = "",
    epoch: int = 0,
    seqs: tuple[int, ...] = (),
    verdict: Verdict | None = None,
) -> Finding:
    verdict = rule.verdict if verdict is None else verdict
    return Finding(
        code=rule.code,
        slug=rule.slug,
        verdict=verdict,
        source=source,
        epoch=epoch,
        seqs=seqs,
        owner_scope=None,
        claim_id=None,
        story=story,
        required_order=rule.required_order,
        missing_event=None,
        contradicts=rule.contradicts if verdict is Verdict.VIOLATING else (),
    )


def _doubled(audits: Iterable[SourceAudit]) -> list[Finding]:
    seen: set[tuple[str, int]] = set()
    out = []
    for a in audits:
        place = (a.result.source, a.result.epoch)
        if place in seen:
            out.append(
                _file_finding(
                    sequence.DUPLICATE_EPOCH,
                    f"{place[0]}/{place[1]} appears in more than one part of the trace.",
                    source=place[0],
                    epoch=place[1],
                    seqs=(0,),
                )
            )
        seen.add(place)
    return out


def _first_accepted(audits: Iterable[SourceAudit]) -> dict[tuple[str, str, str], int]:
    """Return the first epoch that accepted a claim, by (source, owner, claim)."""
    first: dict[tuple[str, str, str], int] = {}
    for a in audits:
        for c in a.claims:
            if c.mode is not None:
                key = (c.source, c.owner_scope, c.claim_id)
                first[key] = min(c.epoch, first.get(key, c.epoch))
    return first


def _voided(claim: ClaimResult, first_accepted: dict[tuple[str, str, str], int]) -> ClaimResult:
    """A claim that nobody accepted in its epoch, and that an earlier epoch of the same source had accepted."""
    if not any(f.code == acceptance.CLAIM_NEVER_ACCEPTED.code for f in claim.findings):
        return claim
    earlier = first_accepted.get((claim.source, claim.owner_scope, claim.claim_id), claim.epoch)
    if earlier >= claim.epoch:
        return claim
    rule = acceptance.CLAIM_VOIDED_BY_RESTART
    findings = tuple(
        msgspec.structs.replace(
            f,
            code=rule.code,
            slug=rule.slug,
            required_order=rule.required_order,
            story=(
                f"Claim {claim.claim_id} of {claim.owner_scope} was accepted in epoch {earlier} of "
                f"{claim.source}; epoch {claim.epoch} uses it from seq {claim.first_seq} on and never accepted it.",
            ),
        )
        if f.code == acceptance.CLAIM_NEVER_ACCEPTED.code
        else f
        for f in claim.findings
    )
    return msgspec.structs.replace(claim, findings=findings)


def _cross_check(audits: Iterable[SourceAudit]) -> list[Finding]:
    learned, said = WorkerLedger(), WorkerLedger()
    for a in audits:
        learned.absorb(a.learned)
        said.absorb(a.said)
    contradicting, miscounted, unmatched = compare_ledgers(learned, said)
    out = []
    for verdict, pairs in ((Verdict.VIOLATING, contradicting), (Verdict.INCONCLUSIVE, miscounted)):
        for (job_id, worker), scheduler_word, worker_word in pairs[:16]:
            source, epoch, seq = learned.places[job_id, worker]
            other = said.places[job_id, worker]
            out.append(
                _file_finding(
                    offload.WORKER_DISAGREES,
                    f"Worker {worker} wrote at {other[0]}/{other[1]} seq {other[2]} that job {job_id} was a "
                    f"{_result(worker_word)}; the scheduler learned at {source}/{epoch} seq {seq} that it was a "
                    f"{_result(scheduler_word)}.",
                    source=source,
                    epoch=epoch,
                    seqs=(seq,),
                    verdict=verdict,
                )
            )
    for worker in unmatched[:16]:
        mine = learned.sums.get(worker, (0, 0))[0]
        out.append(
            _file_finding(
                offload.WORKER_DISAGREES,
                f"Worker {worker} wrote {said.sums[worker][0]} finished transfers, the scheduler learned of {mine}; "
                "they do not match one to one.",
                verdict=Verdict.INCONCLUSIVE,
            )
        )
    return out


def _result(detail: Detail) -> str:
    direction, success, nbytes, ok_pos, failed_pos, request_id, owner, claim_id, workers_total = detail
    named = f"claim {claim_id} of {owner}" if claim_id is not None else "no claim"
    return (
        f"{direction} for {request_id} and {named} that {'succeeded' if success else 'failed'} with {nbytes} bytes, "
        f"good {say(ok_pos)}, failed {say(failed_pos)}, workers {workers_total}"
    )


def _nothing_claimed(audits: Iterable[SourceAudit], unreadable: bool) -> Finding:
    audits = list(audits)
    failed = next((a for a in audits if a.unclaimed_failure_seq >= 0), None)
    if failed is not None:
        r = failed.result
        return _file_finding(
            coverage.UNCLAIMED_FAILURE,
            f"A load failed at {r.source}/{r.epoch} seq {failed.unclaimed_failure_seq}, and no claim was decided "
            "in the trace.",
            source=r.source,
            epoch=r.epoch,
            seqs=(failed.unclaimed_failure_seq,),
        )
    if any(a.transfers for a in audits):
        total = sum(a.transfers for a in audits)
        return _file_finding(
            coverage.OFFLOAD_WITHOUT_CLAIM,
            f"The trace has {total} transfer events, and no claim was decided in it.",
        )
    counters = sum(a.counters for a in audits)
    if counters and not unreadable and not any(a.other_events for a in audits):
        return _file_finding(
            coverage.GENERIC_COUNTER_ONLY,
            f"The trace has {counters} process-wide counters and nothing that names a claim.",
        )
    return _file_finding(coverage.NO_CLAIM, "No claim was accepted, clipped or rejected in the trace.")


__all__ = ["Partial", "SourceResult", "merge_partials", "report_of"]
