"""Lookups, transfer jobs and what workers report."""

from __future__ import annotations

from residentkv.audit.ranges import clean, intersect, say, subtract, union, within
from residentkv.audit.rules import acceptance, offload, restore
from residentkv.audit.state import ClaimState, JobState, Key, SourceState
from residentkv.audit.steps.endings import check_let_go, collapse
from residentkv.audit.steps.joins import not_joined
from residentkv.audit.steps.requests import ended_at, open_request
from residentkv.audit.table import RESTORE_REQUIRED
from residentkv.trace.events import JobCreated, LookupResult, TransferFinished

MAX_UNCLAIMED_STORES = 4096


def on_lookup(s: SourceState, e: LookupResult) -> None:
    """The tier was asked; the last answer counts."""
    s.lookups += 1
    r = open_request(s, e)
    if r is None:
        return
    claim_id = e.claim_id
    if r.key is None:
        if claim_id is not None:
            not_joined(s, None, r, e)
    elif (claim_id != r.key[1] or e.owner_scope != r.key[0]) and (
        claim_id is not None or (r.claim is not None and not r.claim.ended)
    ):
        not_joined(s, None, r, e)
    r.lookup_seq = e.seq
    r.lookup_pos = clean(e.hit_pos)
    r.lookup_tier = e.tier


def on_job_created(s: SourceState, e: JobCreated) -> None:
    """A transfer begins; from here on it is joined by its number."""
    s.transfers += 1
    s.authoritative = True
    if s.let_go:
        check_let_go(s, e)
    jobs = s.jobs
    old = jobs.get(e.job_id)
    key: Key | None = None
    c: ClaimState | None = None
    if e.claim_id is not None:
        key = (e.owner_scope or "", e.claim_id)
        c = s.claims.get(key)
        if c is None:
            _nobody_accepted(s, e, key)
    if old is not None or (c is not None and c.stored is not None and e.job_id in c.stored):
        s.find(
            offload.TRANSFER_REPEATED,
            c if c is not None else (old.claim if old is not None else None),
            (old.created_seq if old is not None else -1, e.seq),
            f"{s.at(e)} creates job {e.job_id} a second time.",
        )
        return
    pos = clean(e.pos)
    job = JobState(e.job_id, e.direction, e.request_id, key, c, e.generation, pos, e.seq, pos)
    jobs[e.job_id] = job
    if c is not None:
        c.open_jobs += 1
    if e.direction == "load":
        _begin_load(s, e, job, c)
    elif c is not None:
        if e.generation != c.generation:
            _other_generation(s, e, c, c.step_seq)
        r = s.requests.get(e.request_id)
        if r is not None:
            if r.key != key:
                not_joined(s, c, r, e)
        elif e.request_id not in (c.first_request, c.last_request):
            open_request(s, e, c)
    elif e.request_id not in s.requests:
        _unclaimed_store(s, e)


def _unclaimed_store(s: SourceState, e: JobCreated) -> None:
    if ended_at(s, e.request_id) is None:
        open_request(s, e)


def _nobody_accepted(s: SourceState, e: JobCreated, key: Key) -> None:
    ended = s.ended.get(key)
    if ended is None:
        s.prenamed.setdefault(key, e.seq)
    elif s.results[ended.result].state == "rejected":
        s.find(
            acceptance.CLAIM_NEVER_ACCEPTED,
            None,
            (s.results[ended.result].last_seq, e.seq),
            f"{s.at(e)} moves blocks in the name of claim {key[1]} of {key[0]}, which was rejected at "
            f"{s.seq(s.results[ended.result].last_seq)}.",
            missing="resident_claim_accepted",
        )


def _begin_load(s: SourceState, e: JobCreated, job: JobState, c: ClaimState | None) -> None:
    r = open_request(s, e, c)
    if r is None:
        return
    if r.loads is None:
        r.loads = []
    r.loads.append(e.job_id)
    if c is None:
        joined = r.claim
        if (
            joined is not None
            and joined.state == RESTORE_REQUIRED
            and joined.cycle is r.cycle
            and not (job.pos and r.cycle is not None and not intersect(job.pos, r.cycle.required_pos))
        ):
            s.find(
                restore.LOAD_WITHOUT_REQUIREMENT,
                joined,
                (joined.step_seq, e.seq),
                f"{s.at(e)} loads for request {r.request_id}, which requires claim {joined.claim_id}, and does not "
                "name the claim.",
            )
        return
    if r.key != job.key:
        not_joined(s, c, r, e)
    if c.ended:
        return
    cycle = c.cycle
    if c.state != RESTORE_REQUIRED or cycle is None or cycle.request_id != e.request_id:
        if not c.unaccepted:
            s.find(
                restore.LOAD_WITHOUT_REQUIREMENT,
                c,
                (c.step_seq, e.seq),
                f"{s.at(e)} loads for request {e.request_id} while the claim is {c.state_name()} since "
                f"{s.seq(c.step_seq)}.",
                missing="resident_claim_restore_required",
            )
    elif e.generation != c.generation:
        _other_generation(s, e, c, cycle.required_seq)
    elif cycle.job is None:
        cycle.job = job


def _other_generation(s: SourceState, e: JobCreated, c: ClaimState, since: int) -> None:
    s.find(
        offload.TRANSFER_DIFFERS,
        c,
        (since, e.seq),
        f"{s.at(e)} is of generation {e.generation}; the claim is at {c.generation} since {s.seq(since)}.",
    )


def on_transfer_finished(s: SourceState, e: TransferFinished) -> None:
    """One worker's part of a job is over."""
    s.transfers += 1
    job = s.jobs.get(e.job_id)
    if job is None or job.finished_seq >= 0:
        _no_open_job(s, e, job)
        return
    s.learned.add(e)
    if e.workers_total != s.learned.workers_total:
        s.find(
            offload.TRANSFER_DIFFERS,
            job.claim,
            (job.created_seq, e.seq),
            f"{s.at(e)} says that there are {e.workers_total} workers; other transfers say {s.learned.workers_total}.",
            unknown=True,
        )
    key = job.key
    if (
        e.direction != job.direction
        or e.request_id != job.request_id
        or (e.claim_id is not None if key is None else e.claim_id != key[1] or e.owner_scope != key[0])
    ):
        named = f"claim {e.claim_id} of {e.owner_scope}" if e.claim_id is not None else "no claim"
        made = f"claim {key[1]} of {key[0]}" if key else "no claim"
        s.find(
            offload.TRANSFER_DIFFERS,
            job.claim,
            (job.created_seq, e.seq),
            f"{s.at(e)} is a {e.direction} for request {e.request_id} and {named}; job {e.job_id} was made as a "
            f"{job.direction} for request {job.request_id} and {made}.",
        )
    if e.workers_total == 1 and not e.worker and job.workers is None:
        job.workers_total = 1
        job.ok_pos = job.pos if e.ok_pos == job.pos else intersect(job.pos, e.ok_pos)
        job.failed_pos = clean(e.failed_pos) if e.failed_pos else ()
    elif not _part(s, e, job):
        return
    job.bytes += e.bytes
    _check_result(s, e, job)
    if not e.success:
        job.success = False
    if job.workers is None or len(job.workers) == job.workers_total:
        _finish(s, e, job)


def _part(s: SourceState, e: TransferFinished, job: JobState) -> bool:
    """Enter one of several workers; a position is good only when every worker has it."""
    if job.workers is None:
        job.workers = set()
        job.workers_total = e.workers_total
    if e.worker in job.workers:
        s.find(
            offload.TRANSFER_REPEATED,
            job.claim,
            (job.created_seq, e.seq),
            f"{s.at(e)}: worker {e.worker} had finished job {e.job_id} before.",
        )
        return False
    if e.workers_total != job.workers_total or e.worker >= e.workers_total:
        s.find(
            offload.TRANSFER_DIFFERS,
            job.claim,
            (job.created_seq, e.seq),
            f"{s.at(e)} is of worker {e.worker} of {e.workers_total}; other parts of job {e.job_id} say "
            f"{job.workers_total} workers.",
        )
    job.workers.add(e.worker)
    job.ok_pos = intersect(job.ok_pos, e.ok_pos)
    job.failed_pos = union(job.failed_pos, e.failed_pos)
    return True


def _check_result(s: SourceState, e: TransferFinished, job: JobState) -> None:
    wrong = ""
    if e.success:
        if e.failed_pos:
            wrong = f"succeeded and names failed positions {say(e.failed_pos)}"
        elif job.pos and e.ok_pos != job.pos and not within(job.pos, e.ok_pos):
            wrong = f"succeeded with positions {say(e.ok_pos)} of {say(job.pos)}"
        elif job.pos and not e.bytes:
            wrong = "succeeded and moved no bytes"
    elif job.pos and not e.failed_pos:
        wrong = "failed and names no position that did"
    elif job.pos and not within(job.pos, union(e.ok_pos, e.failed_pos)):
        wrong = f"failed and says of positions {say(subtract(job.pos, union(e.ok_pos, e.failed_pos)))} neither"
    elif e.failed_pos and intersect(e.ok_pos, e.failed_pos):
        wrong = f"names positions {say(intersect(e.ok_pos, e.failed_pos))} both as good and as failed"
    elif job.pos and e.ok_pos and not e.bytes:
        wrong = f"failed, calls positions {say(e.ok_pos)} good and moved no bytes"
    if wrong:
        s.find(
            offload.TRANSFER_CONTRADICTS_ITSELF,
            job.claim,
            (job.created_seq, e.seq),
            f"{s.at(e)}: job {e.job_id} {wrong}.",
        )


def _finish(s: SourceState, e: TransferFinished, job: JobState) -> None:
    """The job is over on all workers."""
    job.finished_seq = e.seq
    c = job.claim
    if c is not None:
        c.open_jobs -= 1
        if job.direction == "store":
            if job.success:
                if c.stored is None:
                    c.stored = {}
                c.stored[e.job_id] = job
                del s.jobs[e.job_id]
            elif c.ended:
                del s.jobs[e.job_id]
            else:
                _keep(c, job)
        else:
            cycle = c.cycle
            if (
                not job.success
                and not c.ended
                and cycle is not None
                and c.state == RESTORE_REQUIRED
                and job.generation == c.generation
                and job.told_seq < 0
            ):
                cycle.untold = job
                cycle.job = job
            if job.request_id not in s.requests:
                if cycle is not None and cycle.job is job and not c.ended:
                    _keep(c, job)  # The request was taken back; what became of its load may still be told.
                else:
                    del s.jobs[e.job_id]
        if c.ended and not c.open_jobs and not c.open_requests and s.claims.get(c.key) is c:
            collapse(s, c)
        return
    if job.direction == "store":
        del s.jobs[e.job_id]
        stores = s.unclaimed_stores
        stores[e.job_id] = job.created_seq
        if len(stores) > MAX_UNCLAIMED_STORES:
            del stores[next(iter(stores))]
        return
    if not job.success and s.unclaimed_failure_seq < 0:
        s.unclaimed_failure_seq = e.seq
    if e.request_id not in s.requests:
        del s.jobs[e.job_id]


def _keep(c: ClaimState, job: JobState) -> None:
    """Keep a finished job until its claim collapses."""
    if c.dead_jobs is None:
        c.dead_jobs = []
    c.dead_jobs.append(job.job_id)


def _no_open_job(s: SourceState, e: TransferFinished, job: JobState | None) -> None:
    if job is None and not s.authoritative:
        s.said.add(e)
        return
    c = job.claim if job is not None else s.claims.get((e.owner_scope or "", e.claim_id or ""))
    if job is None and c is not None and c.stored is not None:
        job = c.stored.get(e.job_id)
    if job is not None:
        s.find(
            offload.TRANSFER_REPEATED,
            c,
            (job.created_seq, job.finished_seq, e.seq),
            f"{s.at(e)}: job {e.job_id} was finished on all its workers at {s.seq(job.finished_seq)}.",
        )
        return
    s.find(
        offload.TRANSFER_WITHOUT_JOB,
        c,
        (e.seq,),
        f"{s.at(e)} finishes job {e.job_id}, which is not open.",
        missing="offload_job_created",
    )
