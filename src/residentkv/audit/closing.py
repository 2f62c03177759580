"""The end of a (source, epoch): what is still open, and the result that is left of it."""

from __future__ import annotations

import msgspec

from residentkv.audit.model import ClaimResult, SourceResult, Verdict
from residentkv.audit.rules import acceptance, capacity, coverage, lifecycle, refusal, sequence
from residentkv.audit.state import ClaimState, RequestState, SourceState
from residentkv.audit.steps.endings import collapse
from residentkv.audit.steps.losses import blocks_unclear, silent_loss
from residentkv.audit.steps.request_ends import refusal_missing, scheduler_word_missing, untold_failure
from residentkv.audit.table import DEFERRED, RESTORE_REQUIRED
from residentkv.audit.workers import WorkerLedger


class SourceAudit(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one (source, epoch) contributes to a report; these merge in any order."""

    result: SourceResult
    claims: tuple[ClaimResult, ...]
    verdict: Verdict
    learned: WorkerLedger
    said: WorkerLedger
    transfers: int
    counters: int
    other_events: int
    unclaimed_failure_seq: int


def close_source(s: SourceState) -> SourceAudit:
    """Judge what is open at the end; absence proves something only when the source was closed and has no gap."""
    if not s.closed:
        s.find(
            sequence.TRACE_TRUNCATED,
            None,
            (s.last_seq,),
            f"The last event of {s.source}/{s.epoch} is seq {s.last_seq}, and it is not trace_closed.",
            missing="trace_closed",
        )
        if s.broken_seq < 0:
            s.broken_seq = s.last_seq
    for r in list(s.requests.values()):
        _open_request(s, r)
    for job in list(s.jobs.values()):
        if job.finished_seq < 0:
            s.find(
                coverage.JOB_UNFINISHED,
                job.claim,
                (job.created_seq,),
                f"Job {job.job_id} ({job.direction}), created at {s.seq(job.created_seq)}, has no end on some worker.",
                missing="offload_worker_transfer_finished",
            )
    late = {id(r.claim): r.claim for r in s.requests.values() if r.claim is not None and r.claim.result_index >= 0}
    for c in late.values():
        collapse(s, c)  # What was found about their open requests belongs to their results.
    for c in list(s.claims.values()):
        _open_claim(s, c)
        collapse(s, c)
    for key, seq in s.prenamed.items():
        s.find(
            acceptance.CLAIM_NEVER_ACCEPTED,
            None,
            (seq,),
            f"A transfer was made in the name of claim {key[1]} of {key[0]} at {s.seq(seq)}; nobody accepted it.",
            missing="resident_claim_accepted",
        )
    if s.decided_seq >= 0 and s.unadmitted:
        s.find(
            capacity.ADMISSION_MISSING,
            None,
            (s.unadmitted_seq,),
            f"{s.source}/{s.epoch} decides on requests, and {s.unadmitted} have no admission and were not refused; the "
            f"first of them ended at {s.seq(s.unadmitted_seq)}.",
            missing="active_request_admitted",
        )
    opened = s.opened
    result = SourceResult(
        source=s.source,
        epoch=s.epoch,
        run_id=s.run_id,
        events=s.events,
        closed=s.closed,
        runtime=opened.runtime if opened is not None else None,
        runtime_version=opened.runtime_version if opened is not None else None,
        primitive=opened.primitive if opened is not None else None,
        adapter=opened.adapter if opened is not None else None,
        adapter_version=opened.adapter_version if opened is not None else None,
        depth=opened.depth if opened is not None else None,
        stands_in=opened.stands_in if opened is not None else (),
        findings=tuple(s.findings),
        findings_dropped=s.findings_dropped,
    )
    envelope = (opened is not None) + s.closed
    return SourceAudit(
        result=result,
        claims=tuple(s.results),
        verdict=s.verdict,
        learned=s.learned,
        said=s.said,
        transfers=s.transfers,
        counters=s.counters,
        other_events=s.events - s.counters - envelope,
        unclaimed_failure_seq=s.unclaimed_failure_seq,
    )


def _open_request(s: SourceState, r: RequestState) -> None:
    """A request without an end: hanging, or owing the end that its refusal announced."""
    c = r.claim
    owes = False
    if c is not None:
        owes = untold_failure(s, c, r, s.last_seq)
        if r.failure is not None and r.failure.policy == "fail" and r.refused_seq < 0:
            refusal_missing(s, c, r, s.last_seq)
            owes = True
        elif not owes and r.failure is None and r.cycle is not None and r.cycle.connector_seq >= 0:
            scheduler_word_missing(s, c, r.cycle, s.last_seq)
    refused_seq = r.denied_seq
    if refused_seq >= 0:
        s.find(
            refusal.TERMINATION_MISSING,
            c,
            (refused_seq, s.last_seq),
            f"Request {r.request_id} was refused at {s.seq(refused_seq)} and never ended.",
            missing="active_request_terminated",
            unknown=r.refused_seq < 0 and r.capacity_refused_seq < 0,
        )
        return
    if not owes:
        s.find(
            coverage.REQUEST_UNFINISHED,
            c,
            (r.init_seq, s.last_seq),
            f"Request {r.request_id}, initialized at {s.seq(r.init_seq)}, never ended.",
            missing="active_request_terminated",
        )


def _open_claim(s: SourceState, c: ClaimState) -> None:
    """A claim without an outcome: undecided, in the middle of a restoration, or just open."""
    if c.ended or c.unaccepted:
        return
    if c.state == DEFERRED:
        s.find(
            coverage.CLAIM_UNDECIDED,
            c,
            (c.last_seq,),
            f"The decision about claim {c.claim_id} of {c.owner_scope} was deferred at {s.seq(c.last_seq)} and never "
            "given.",
            missing="resident_claim_accepted or resident_claim_rejected",
        )
        return
    if c.lost_seq >= 0:
        silent_loss(s, c)
    blocks_unclear(s, c)
    cycle = c.cycle
    if cycle is not None and cycle.connector_seq >= 0 and cycle.failed_seq < 0 and c.open_requests == 0:
        scheduler_word_missing(s, c, cycle, s.last_seq)
    if c.state == RESTORE_REQUIRED:
        s.find(
            lifecycle.RESTORATION_UNFINISHED,
            c,
            (c.step_seq, c.last_seq),
            f"The restoration required at {s.seq(c.step_seq)} neither ended well nor failed.",
            missing="resident_claim_restored or scheduler_resident_claim_restoration_failed",
        )
    s.find(
        lifecycle.CLAIM_UNFINISHED,
        c,
        (c.last_seq,),
        f"The claim is {c.state_name()} since {s.seq(c.step_seq)}; no outcome came before the end.",
        missing="resident_claim_released, _expired, _demoted or _harmed",
    )
