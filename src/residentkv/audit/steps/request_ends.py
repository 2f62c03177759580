"""The end of an active request: everything it owed must have come, and what was owed to it too."""

from __future__ import annotations

from residentkv.audit.ranges import intersect, say, within
from residentkv.audit.rules import coverage, failure, refusal, restore
from residentkv.audit.state import ClaimState, Cycle, RequestState, SourceState
from residentkv.audit.steps.endings import check_let_go, collapse
from residentkv.audit.steps.requests import FAILED, FINAL, SERVED, WITHDRAWN, finish_word, open_request
from residentkv.audit.steps.restores import check_restored_copies
from residentkv.audit.table import DEMOTED, HARMED
from residentkv.trace.events import RequestTerminated

MAX_RECENT = 4096
"""Ended requests remembered, twice over, to tell an event that is too late from one of a request never seen."""


def on_terminated(s: SourceState, e: RequestTerminated) -> None:
    """The request is over: everything it owed must have come, and what was owed to it too."""
    rid = e.request_id
    r = s.requests.pop(rid, None)
    if r is None:
        open_request(s, e)  # Files that there is none.
        return
    s.recent[rid] = e.seq
    if len(s.recent) > MAX_RECENT:
        s.less_recent, s.recent = s.recent, {}
    word = finish_word(e.finish_status)
    served = word in SERVED
    if r.admitted_seq < 0 and (served or r.loads is not None or (r.denied_seq < 0 and word not in WITHDRAWN)):
        s.unadmitted += 1
        if s.unadmitted_seq < 0:
            s.unadmitted_seq = e.seq
    c = r.claim
    if r.denied_seq >= 0:
        _end_refused(s, r, e, word)
    elif r.deferred_seq >= 0 and served and r.admitted_seq < 0:
        s.find(
            coverage.REQUEST_ORDER,
            c,
            (r.deferred_seq, e.seq),
            f"{s.at(e)}: request {rid} was deferred at {s.seq(r.deferred_seq)} and served without being admitted.",
            missing="active_request_admitted",
        )
    if served and s.let_go:
        check_let_go(s, e)
    if c is not None:
        _end_of_claimed(s, c, r, e, word)
        if served:
            check_restored_copies(s, c, r, e)
        c.open_requests -= 1
        if c.materialized_seq >= 0:
            c.held_seq = e.seq  # Until now the request may have held the blocks, whatever else went.
            if served and r.denied_seq < 0:
                c.used_seq = e.seq
        if c.ended and not c.open_requests and not c.open_jobs:
            collapse(s, c)
    elif r.key is not None:
        _end_unlinked(s, r, e)
    if r.loads is not None:
        for job_id in r.loads:
            job = s.jobs.get(job_id)
            if job is not None and job.finished_seq >= 0:
                del s.jobs[job_id]


def _end_refused(s: SourceState, r: RequestState, e: RequestTerminated, word: str) -> None:
    c = r.claim
    refused_seq = r.denied_seq
    if word not in FAILED and word not in WITHDRAWN:
        s.find(
            refusal.REFUSED_BUT_SERVED,
            c,
            (refused_seq, e.seq),
            f"{s.at(e)} ends as {e.finish_status}; the request was refused at {s.seq(refused_seq)}.",
        )
    elif e.output_tokens and r.capacity_refused_seq >= 0 and r.admitted_seq < 0:
        s.find(
            refusal.REFUSED_BUT_SERVED,
            c,
            (refused_seq, e.seq),
            f"{s.at(e)} ends with {e.output_tokens} output tokens; the request was refused at {s.seq(refused_seq)} "
            "and never admitted.",
        )
    elif r.refused_seq >= 0 and finish_word(r.refused_status) != word:
        s.find(
            refusal.FINISH_STATUS_DIFFERS,
            c,
            (r.refused_seq, e.seq),
            f"{s.at(e)} ends as {e.finish_status}; the refusal at {s.seq(r.refused_seq)} announced {r.refused_status}.",
        )


def _end_unlinked(s: SourceState, r: RequestState, e: RequestTerminated) -> None:
    """A request that named a claim which was not open for it."""
    key = r.key
    if key is None or key in s.ended:
        return
    c = s.claims.get(key)
    if c is not None and not c.unaccepted:
        return
    s.find(
        coverage.CLAIM_UNDECIDED,
        None,
        (r.init_seq, e.seq),
        f"Request {r.request_id} named claim {key[1]} of {key[0]} at {s.seq(r.init_seq)} and ended at {s.seq(e.seq)}; "
        "nobody decided on the claim.",
        missing="resident_claim_accepted or resident_claim_rejected",
    )


def _end_of_claimed(s: SourceState, c: ClaimState, r: RequestState, e: RequestTerminated, word: str) -> None:
    served = word in SERVED
    silent = untold_failure(s, c, r, e.seq)
    told = r.failure
    cycle = r.cycle
    if told is not None:
        _end_of_failed(s, c, r, e, word)
    elif cycle is not None and c.cycle is cycle and cycle.restored_seq < 0 and not c.ended:
        if cycle.connector_seq >= 0:
            if not silent:
                scheduler_word_missing(s, c, cycle, e.seq)
        elif served and not silent:
            s.find(
                restore.SERVED_WITHOUT_RESTORATION,
                c,
                (cycle.required_seq, e.seq),
                f"{s.at(e)} ends as {e.finish_status}; the restoration required at {s.seq(cycle.required_seq)} neither "
                "ended well nor failed by name.",
                missing="resident_claim_restored",
            )
    elif cycle is not None and cycle.restored_seq >= 0 and cycle.reuse_seq < 0:
        if served and not (c.ended and c.end_seq < e.seq):
            s.find(
                restore.RESTORED_NOT_REUSED,
                c,
                (cycle.restored_seq, e.seq),
                f"{s.at(e)} ends as {e.finish_status}; the restoration at {s.seq(cycle.restored_seq)} was not used.",
                missing="resident_claim_reuse_after_restore",
            )
    elif served and cycle is not None and cycle.reuse_seq >= 0:
        _restored(c, cycle.required_seq, cycle.restored_seq, cycle.reuse_seq, e.seq, r)
    refused = r.denied_seq >= 0
    if served and cycle is None and r.served_seq < 0 and not refused:
        _unexplained(s, c, r, e)
    if word not in SERVED and word not in WITHDRAWN and told is None and not refused and not silent:
        s.find(
            failure.ERROR_UNEXPLAINED,
            c,
            (r.init_seq, e.seq),
            f"{s.at(e)} ends as {e.finish_status} and nothing says why.",
            missing="scheduler_active_request_refused",
        )


def _restored(c: ClaimState, required: int, restored: int, reused: int, ended: int, r: RequestState) -> None:
    job = r.cycle.job if r.cycle is not None else None
    if job is not None:
        c.note("restore_before_reuse", required, job.created_seq, job.finished_seq, restored, reused, ended)


def _unexplained(s: SourceState, c: ClaimState, r: RequestState, e: RequestTerminated) -> None:
    """The claim was there for the request, and nothing says what the request was computed on."""
    if c.materialized_seq < 0 or r.init_seq < c.materialized_seq or c.unaccepted:
        return
    if c.ended and (c.state != HARMED or c.worker is None):
        return  # But where a request of a routed claim went that was harmed meanwhile has to be told.
    if r.lookup_seq > c.step_seq and c.offload_seqs and not intersect(r.lookup_pos, c.offload_pos):
        s.find(
            restore.SERVED_WITHOUT_RESTORATION,
            c,
            (c.offload_seqs[-1], r.lookup_seq, e.seq),
            f"The tier promised positions {say(c.offload_pos)} at {s.seq(c.offload_seqs[-1])}; the lookup at "
            f"{s.seq(r.lookup_seq)} found {say(r.lookup_pos)}, and request {r.request_id} ended as {e.finish_status} "
            "without a word about the claim.",
            missing="resident_claim_reused or scheduler_resident_claim_restoration_failed",
        )
        return
    s.find(
        coverage.SERVICE_UNEXPLAINED,
        c,
        (r.init_seq, e.seq),
        f"{s.at(e)}: request {r.request_id} came after the claim was materialized and ended as {e.finish_status}; "
        "nothing says what it was computed on.",
        missing="resident_claim_reused",
    )


def untold_failure(s: SourceState, c: ClaimState, r: RequestState, end_seq: int) -> bool:
    """File loads of an open claim that failed without the scheduler's word; tell whether there are any."""
    found = False
    for job_id in r.loads or ():
        job = s.jobs.get(job_id)
        if job is None or job.success or job.finished_seq < 0 or job.told_seq >= 0 or job.claim is not c:
            continue
        if c.ended and c.end_seq < job.finished_seq:
            continue
        found = True
        s.find(
            failure.FAILURE_WITHOUT_OUTCOME,
            c,
            (job.created_seq, job.finished_seq, end_seq),
            f"Load job {job_id} of the claim failed at {s.seq(job.finished_seq)} for positions {say(job.failed_pos)}.",
            f"Nothing said so at the scheduler's boundary before request {r.request_id} was over at {s.seq(end_seq)}.",
            missing="scheduler_resident_claim_restoration_failed",
        )
    return found


def scheduler_word_missing(s: SourceState, c: ClaimState, cycle: Cycle, end_seq: int) -> None:
    """File that only the connector spoke of a failure."""
    s.find(
        failure.SCHEDULER_WORD_MISSING,
        c,
        (cycle.connector_seq, end_seq),
        f"The connector said at {s.seq(cycle.connector_seq)} that the restoration failed; the scheduler never did, and "
        "no failed transfer is shown.",
        missing="scheduler_resident_claim_restoration_failed, scheduler_active_request_refused",
    )


def _end_of_failed(s: SourceState, c: ClaimState, r: RequestState, e: RequestTerminated, word: str) -> None:
    """The restoration failed by name; what follows depends on the policy."""
    told = r.failure
    if told is None:
        return
    cycle = r.cycle
    announced = finish_word(told.finish_status)
    if told.policy != "fail" and announced != word and announced in FINAL:
        s.find(
            refusal.FINISH_STATUS_DIFFERS,
            c,
            (told.failed_seq, e.seq),
            f"{s.at(e)} ends as {e.finish_status}; the failure at {s.seq(told.failed_seq)} announced "
            f"{told.finish_status}.",
        )
    if told.policy == "fail":
        if r.refused_seq < 0:
            refusal_missing(s, c, r, e.seq)
        elif word in FAILED or word in WITHDRAWN:
            _failed_by_name(c, r, e.seq, told.failed_seq, r.refused_seq)
        return
    if word in WITHDRAWN:
        return
    if told.policy == "retry" and cycle is not None and cycle is not told and cycle.restored_seq >= 0:
        if cycle.reuse_seq >= 0 and word in SERVED:
            c.count("retried")
            _restored(c, cycle.required_seq, cycle.restored_seq, cycle.reuse_seq, e.seq, r)
        elif word in SERVED:
            s.find(
                restore.RESTORED_NOT_REUSED,
                c,
                (cycle.restored_seq, e.seq),
                f"{s.at(e)} ends as {e.finish_status}; the restoration at {s.seq(cycle.restored_seq)} was not used.",
                missing="resident_claim_reuse_after_restore",
            )
        return
    if word not in SERVED:
        if told.policy == "retry" and r.refused_seq < 0:
            refusal_missing(s, c, r, e.seq)
        elif r.refused_seq < 0:
            s.find(
                failure.ERROR_UNEXPLAINED,
                c,
                (told.failed_seq, e.seq),
                f"{s.at(e)} ends as {e.finish_status} although the failure at {s.seq(told.failed_seq)} was to be "
                "answered by computing again.",
                missing="active_request_recomputed",
            )
        return
    if r.recomputed_seq < told.failed_seq or not within(told.failed_pos, r.recomputed_pos):
        rule = failure.RECOMPUTE_MISSING if told.policy == "recompute" else restore.SERVED_WITHOUT_RESTORATION
        s.find(
            rule,
            c,
            (told.failed_seq, e.seq),
            f"{s.at(e)} ends as {e.finish_status}; after the failure at {s.seq(told.failed_seq)} (policy "
            f"{told.policy}) nothing was restored and nothing is shown to have been computed again.",
            missing="active_request_recomputed" if told.policy == "recompute" else "resident_claim_restored",
        )
    elif told.policy == "recompute" and c.ended and c.state in (DEMOTED, HARMED):
        _failed_by_name(c, r, e.seq, told.failed_seq, c.end_seq, r.recomputed_seq)


def _failed_by_name(c: ClaimState, r: RequestState, ended: int, *told: int) -> None:
    job = r.failure.job if r.failure is not None else None
    before = (job.created_seq, job.finished_seq) if job is not None else ()
    c.note("restoration_failure_outcome", *before, *told, ended)
    c.note("scoped_outcome", *told)


def refusal_missing(s: SourceState, c: ClaimState, r: RequestState, end_seq: int) -> None:
    """File that a failed restoration was not followed by the scheduler's refusal."""
    told = r.failure
    if told is None:
        return
    s.find(
        refusal.REFUSAL_MISSING,
        c,
        (told.failed_seq, end_seq),
        f"The restoration failed at {s.seq(told.failed_seq)} (policy {told.policy}); request {r.request_id} was over "
        f"at {s.seq(end_seq)} and the scheduler had not refused it.",
        missing="scheduler_active_request_refused",
    )
