"""A failed restoration: the scheduler's word, the connector's word, and who is named in them."""

from __future__ import annotations

from residentkv.audit.ranges import clean, intersect, say, within
from residentkv.audit.rules import failure, refusal
from residentkv.audit.state import ClaimState, Cycle, JobState, SourceState
from residentkv.audit.steps.joins import acting, claim_of, generation_differs, take
from residentkv.audit.table import FAIL_RESTORE, RESTORATION_FAILED
from residentkv.trace.events import ClaimRestorationFailed, SchedulerRestorationFailed

Failed = ClaimRestorationFailed | SchedulerRestorationFailed


def on_scheduler_failed(s: SourceState, e: SchedulerRestorationFailed) -> None:
    """The claim-scoped outcome of a failed restoration."""
    c = claim_of(s, e)
    if c is None:
        return
    job = s.jobs.get(e.job_id) if e.job_id is not None else None
    if _of_another_claim(s, c, e, job):
        return
    if e.generation != c.generation:
        generation_differs(s, c, e, c.generation)
    r = acting(s, c, e)
    cycle = _fail(s, c, e, by_scheduler=True)
    _check_job(s, c, cycle, e, job)
    _check_names(s, c, e)
    if cycle.request_id != e.request_id and cycle.request_id is not None:
        s.find(
            failure.WRONG_CLAIM_FAILURE,
            c,
            (cycle.required_seq, e.seq),
            f"{s.at(e)} is told to request {e.request_id}; request {cycle.request_id} required the restoration.",
        )
    cycle.failed_seq = e.seq
    cycle.failed_pos = clean(e.failed_pos)
    cycle.policy = e.failure_policy
    cycle.finish_status = e.finish_status
    if job is not None:
        job.told_seq = e.seq
    cycle.untold = None
    if not c.unaccepted:
        asked = "fail" if c.on_restore_failure == "refuse" else "recompute"
        if e.failure_policy not in ("retry", asked):
            s.find(
                failure.FAILURE_POLICY_BROKEN,
                c,
                (c.accepted_seq, e.seq),
                f"{s.at(e)} applies {e.failure_policy}; the claim was accepted with on_restore_failure "
                f"{c.on_restore_failure}.",
            )
    c.count("restoration_failed")
    if r is not None:
        r.failure = cycle


def on_connector_failed(s: SourceState, e: ClaimRestorationFailed) -> None:
    """The connector's word; it does not replace the scheduler's."""
    c = claim_of(s, e)
    if c is None:
        return
    job = s.jobs.get(e.job_id) if e.job_id is not None else None
    if _of_another_claim(s, c, e, job):
        return
    if e.generation != c.generation:
        generation_differs(s, c, e, c.generation)
    acting(s, c, e)
    cycle = _fail(s, c, e, by_scheduler=False)
    _check_job(s, c, cycle, e, job)
    _check_names(s, c, e)
    cycle.connector_seq = e.seq


def _of_another_claim(s: SourceState, c: ClaimState, e: Failed, job: JobState | None) -> bool:
    """File a failure that is told to a claim whose load did not fail; such an event steps nothing."""
    if e.outcome_claim_id != c.claim_id:
        s.find(
            failure.WRONG_CLAIM_FAILURE,
            c,
            (e.seq,),
            f"{s.at(e)} is about claim {c.claim_id} and names {e.outcome_claim_id} as the claim of the outcome.",
        )
        return False
    if job is None or job.claim is c:
        return False
    owner = f"claim {job.key[1]} of {job.key[0]}" if job.key else "no claim"
    if job.told_seq >= 0:
        s.find(
            failure.SMEARED_FAILURE,
            c,
            (job.created_seq, job.told_seq, e.seq),
            f"{s.at(e)} tells claim {c.claim_id} of the failure of job {job.job_id}, which belongs to {owner} and was "
            f"told there at {s.seq(job.told_seq)}.",
        )
    else:
        s.find(
            failure.WRONG_CLAIM_FAILURE,
            c,
            (job.created_seq, job.finished_seq, e.seq),
            f"{s.at(e)} tells claim {c.claim_id} of the failure of job {job.job_id}, which belongs to {owner}.",
        )
    return True


def _fail(s: SourceState, c: ClaimState, e: Failed, *, by_scheduler: bool) -> Cycle:
    """Step the claim; the second of the two words about one failure confirms the first."""
    cycle = c.cycle
    if c.state == RESTORATION_FAILED and cycle is not None:
        first, own = cycle.connector_seq, cycle.failed_seq
        if not by_scheduler:
            first, own = own, first
        if first >= 0 and own < 0:
            return cycle
    take(s, c, e, FAIL_RESTORE)
    if cycle is None:
        cycle = c.cycle = Cycle(c.generation, e.request_id, (), -1)
    return cycle


def _check_job(s: SourceState, c: ClaimState, cycle: Cycle, e: Failed, job: JobState | None) -> None:
    if c.unaccepted:
        return
    story = ""
    seqs: tuple[int, ...] = (cycle.required_seq, e.seq)
    if e.job_id is None:
        if cycle.job is not None:
            story = f"names no load job, and job {cycle.job.job_id} was created for this restoration"
            seqs = (cycle.job.created_seq, e.seq)
    elif job is None:
        story = f"names job {e.job_id}, which was never created or is long over"
    elif job.direction != "load":
        story = f"names job {e.job_id}, which is a store"
    elif job.generation != c.generation or job.request_id != cycle.request_id:
        story = f"names job {e.job_id} of request {job.request_id}, generation {job.generation}"
    elif job.finished_seq < 0 and job.success:
        story = f"names job {e.job_id}, which has not failed on any worker"
    elif job.success:
        story = f"names job {e.job_id}, which succeeded at {s.seq(job.finished_seq)}"
    if job is not None:
        seqs = (job.created_seq, job.finished_seq, e.seq)
    if story:
        s.find(
            failure.FAILURE_WITHOUT_FAILED_LOAD,
            c,
            seqs,
            f"{s.at(e)} {story}.",
            missing="offload_worker_transfer_finished (load, failure)",
            unknown=not s.transfers,
        )
        return
    failed = clean(e.failed_pos)
    asked = job.pos if job is not None else cycle.required_pos
    invalid = e.invalid_block_ids if isinstance(e, SchedulerRestorationFailed) else ()
    broken = job.failed_pos if job is not None else ()
    if c.materialized_seq >= 0:
        broken = intersect(broken, ((0, c.object_blocks),))  # A load may bring more than the claim is about.
    wrong = bool(asked and not within(failed, asked)) or not within(broken, failed)
    unnamed = not invalid and (not failed or (job is not None and isinstance(e, SchedulerRestorationFailed)))
    if wrong or unnamed:
        s.find(
            failure.FAILURE_WITHOUT_FAILED_LOAD,
            c,
            seqs,
            f"{s.at(e)}: failed are positions {say(failed)} and {len(invalid)} invalid blocks; to be loaded were "
            f"{say(asked)}, and the transfers failed for {say(broken)}.",
            unknown=not wrong or (not failed and not invalid),
        )


def _check_names(s: SourceState, c: ClaimState, e: Failed) -> None:
    others = [name for name in e.blocking_claim_ids if name != c.claim_id]
    if others:
        s.find(
            failure.SMEARED_FAILURE,
            c,
            (e.seq,),
            f"{s.at(e)} is the failure of claim {c.claim_id} and also names {', '.join(others[:5])}.",
        )
    wants_name = isinstance(e, SchedulerRestorationFailed) and e.failure_policy == "fail"
    if wants_name and c.claim_id not in e.blocking_claim_ids:
        s.find(
            refusal.REFUSAL_UNNAMED,
            c,
            (e.seq,),
            f"{s.at(e)} does not have claim {c.claim_id} among its blocking claims.",
        )
