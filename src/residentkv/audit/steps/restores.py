"""The restore cycle of a claim: required, restored, reused, or failed by name."""

from __future__ import annotations

from residentkv.audit.ranges import clean, intersect, say, subtract, union, within
from residentkv.audit.rules import coverage, restore
from residentkv.audit.state import ClaimState, Cycle, RequestState, SourceState
from residentkv.audit.steps.copies import (
    beyond_object,
    check_copies_in,
    check_read,
    copies_missing,
    recompute_counted,
)
from residentkv.audit.steps.joins import acting, claim_of, generation_differs, take
from residentkv.audit.steps.preference import use
from residentkv.audit.steps.requests import check_not_refused
from residentkv.audit.table import REQUIRE_RESTORE, RESTORE, RESTORED
from residentkv.claims.predicates import ranges_of
from residentkv.trace.events import ClaimRestored, ClaimRestoreRequired, ClaimReusedAfterRestore, RequestTerminated
from residentkv.trace.published_map import NOT_STATED


def on_restore_required(s: SourceState, e: ClaimRestoreRequired) -> None:
    """A request wants the claim and the primary tier cannot serve it: a new cycle begins."""
    c = claim_of(s, e)
    if c is None:
        return
    if e.generation != c.generation:
        generation_differs(s, c, e, c.generation)
    r = acting(s, c, e)
    take(s, c, e, REQUIRE_RESTORE)
    check_read(s, c, e)
    required = clean(e.required_pos)
    beyond_object(s, c, e, required)
    cycle = c.cycle = Cycle(c.generation, e.request_id, required, e.seq)
    c.count("restore_required")
    if e.tier_from != c.offload_tier or e.tier_to != c.primary_tier:
        _tier_differs(s, c, e)
    check_copies_in(s, c, e, e.tier_from, required)
    if r is None:
        return
    r.cycle = cycle
    if r.lookup_seq < 0:
        s.find(
            restore.RESTORE_WITHOUT_HIT,
            c,
            (e.seq,),
            f"{s.at(e)}: the tier was never asked for request {r.request_id}.",
            missing="offload_lookup_result",
            unknown=not s.lookups,
        )
    elif (
        not required
        or not within(required, r.lookup_pos)
        or not within(required, c.offload_pos)
        or not within(intersect(r.lookup_pos, c.needed_pos), required)
    ):
        s.find(
            restore.RESTORE_WITHOUT_HIT,
            c,
            (r.lookup_seq, e.seq),
            f"{s.at(e)} requires positions {say(required)}; the lookup at {s.seq(r.lookup_seq)} hit "
            f"{say(r.lookup_pos)} and the tier had promised {say(c.offload_pos)}.",
            unknown=not required or not r.lookup_pos or not c.offload_pos,
        )
    elif r.lookup_tier != e.tier_from:
        _tier_differs(s, c, e)


def not_stated(tier: str) -> bool:
    """Tell whether a tier is the word of the importer for what the published format does not state."""
    return tier == NOT_STATED


def _tier_differs(s: SourceState, c: ClaimState, e: ClaimRestoreRequired | ClaimRestored) -> None:
    if not c.unaccepted:
        s.find(
            restore.TIER_DIFFERS,
            c,
            (e.seq,),
            f"{s.at(e)} goes from {e.tier_from} to {e.tier_to}; the claim lies in {c.primary_tier or 'no tier'} and "
            f"was offloaded to {c.offload_tier or 'no tier'}.",
            unknown=not_stated(e.tier_from) or not_stated(e.tier_to),
        )


def on_restored(s: SourceState, e: ClaimRestored) -> None:
    """The bytes are said to be back; the load that is named must have brought all of them, on all workers."""
    c = claim_of(s, e)
    if c is None:
        return
    if e.generation != c.generation:
        generation_differs(s, c, e, c.generation)
    r = acting(s, c, e)
    cycle = c.cycle
    if cycle is not None and cycle.reuse_seq >= 0 and cycle.restored_seq < 0:
        s.find(
            restore.RESTORE_AFTER_REUSE,
            c,
            (cycle.reuse_seq, e.seq),
            f"{s.at(e)} comes after the reuse at {s.seq(cycle.reuse_seq)}, which read the blocks before.",
        )
    take(s, c, e, RESTORE)
    c.count("restored")
    if e.tier_from != c.offload_tier or e.tier_to != c.primary_tier:
        _tier_differs(s, c, e)
    if cycle is None:
        cycle = c.cycle = Cycle(c.generation, e.request_id, (), -1)
    back = clean(e.retrievable_pos)
    beyond_object(s, c, e, back)
    if not _loaded(s, c, cycle, e):
        cycle.restored_seq = e.seq
        cycle.restored_pos = back
        return
    job = cycle.job
    ok_pos = job.ok_pos if job is not None else ()
    here = subtract(c.retrievable_pos, cycle.required_pos)
    gone = copies_missing(s, c, here, c.primary_tier)
    if gone:
        here = subtract(here, ranges_of(gone))
    available = back if not here else union(back, here)
    if not back or (back != ok_pos and not within(back, union(ok_pos, here))):
        s.find(
            restore.RESTORED_WITHOUT_LOAD,
            c,
            (cycle.required_seq, e.seq),
            f"{s.at(e)} calls positions {say(back)} restored; job {e.job_id} moved {say(ok_pos)}.",
            unknown=not back,
        )
    elif c.predicate is not None and not c.predicate.holds(available, c.object_blocks):
        s.find(
            restore.RESTORED_BELOW_PREDICATE,
            c,
            (cycle.required_seq, e.seq),
            f"{s.at(e)}: available are positions {say(available)}; {c.predicate_text} needs {say(c.needed_pos)}.",
            unknown=bool(gone) and c.primary_blurred,
        )
    cycle.restored_seq = e.seq
    cycle.restored_pos = available
    if r is not None and r.recomputed_seq >= 0 and intersect(back, r.recomputed_pos):
        recompute_counted(s, c, e, r.recomputed_seq, r.recomputed_pos)


def _loaded(s: SourceState, c: ClaimState, cycle: Cycle, e: ClaimRestored) -> bool:
    """Check the load job named by a restoration; keep it in the cycle when it proves the restoration."""
    job = s.jobs.get(e.job_id) if e.job_id is not None else None
    if job is None:
        s.find(
            restore.RESTORED_WITHOUT_LOAD,
            c,
            (cycle.required_seq, e.seq),
            f"{s.at(e)} names {'no load job' if e.job_id is None else f'job {e.job_id}, which was never created'}.",
            missing="offload_job_created (load)",
            unknown=not s.transfers,
        )
        return False
    why = ""
    if job.direction != "load":
        why = "is a store"
    elif job.claim is not c:
        why = "belongs to another claim" if job.key else "belongs to no claim"
    elif job.request_id != e.request_id or job.request_id != cycle.request_id:
        why = f"was made for request {job.request_id}"
    elif job.generation != c.generation:
        why = f"is of generation {job.generation}"
    elif job.finished_seq < 0:
        why = "is not finished on all workers"
    elif not job.success:
        why = f"failed at {s.seq(job.finished_seq)} for positions {say(job.failed_pos)}"
    elif job.ok_pos != cycle.required_pos and not within(cycle.required_pos, job.ok_pos):
        why = f"moved positions {say(job.ok_pos)} of the required {say(cycle.required_pos)}"
    if not why:
        cycle.job = job
        return True
    s.find(
        restore.RESTORED_WITHOUT_LOAD,
        c,
        (cycle.required_seq, job.created_seq, job.finished_seq, e.seq),
        f"{s.at(e)} for request {e.request_id}, generation {c.generation}, names job {job.job_id}, which {why}.",
        missing="offload_worker_transfer_finished (load, success)" if job.finished_seq < 0 else None,
    )
    return False


def on_reuse_after_restore(s: SourceState, e: ClaimReusedAfterRestore) -> None:
    """The request was computed on what came back."""
    c = claim_of(s, e)
    if c is None:
        return
    if e.generation != c.generation:
        generation_differs(s, c, e, c.generation)
    r = acting(s, c, e)
    check_read(s, c, e)
    c.count("reused_after_restore")
    use(s, c, e)
    cycle = c.cycle
    pos = clean(e.reused_pos)
    beyond_object(s, c, e, pos)
    if c.state != RESTORED or cycle is None or cycle.restored_seq < 0:
        if cycle is not None and cycle.reuse_seq < 0:
            cycle.reuse_seq = e.seq
        if not c.unaccepted:
            s.find(
                restore.REUSE_WITHOUT_RESTORATION,
                c,
                (cycle.required_seq if cycle is not None else -1, e.seq),
                f"{s.at(e)}: the claim is {c.state_name()} since {s.seq(c.step_seq)}; no restoration of generation "
                f"{c.generation} came before.",
                missing="resident_claim_restored",
            )
    elif cycle.request_id != e.request_id:
        s.find(
            restore.REUSE_WITHOUT_RESTORATION,
            c,
            (cycle.restored_seq, e.seq),
            f"{s.at(e)} is of request {e.request_id}; the restoration was for request {cycle.request_id}.",
        )
    elif cycle.reuse_seq >= 0:
        s.find(
            coverage.REQUEST_ORDER,
            c,
            (cycle.reuse_seq, e.seq),
            f"{s.at(e)}: the same restoration was reused at {s.seq(cycle.reuse_seq)}.",
        )
    elif not pos or not within(pos, cycle.restored_pos):
        s.find(
            restore.REUSE_WITHOUT_RESTORATION,
            c,
            (cycle.restored_seq, e.seq),
            f"{s.at(e)} reads positions {say(pos)}; available after the restoration were {say(cycle.restored_pos)}.",
            unknown=not pos,
        )
    elif pos != cycle.required_pos and not within(cycle.required_pos, pos):
        s.find(
            restore.RESTORED_NOT_REUSED,
            c,
            (cycle.required_seq, e.seq),
            f"{s.at(e)} reads positions {say(pos)}; {say(cycle.required_pos)} had been required for it.",
        )
    if cycle is not None and cycle.reuse_seq < 0:
        cycle.reuse_seq = e.seq
    if r is None:
        return
    check_not_refused(s, r, e)
    r.reused_seq = e.seq
    r.reused_pos = pos
    r.served_seq = e.seq
    if r.recomputed_seq >= 0 and intersect(pos, r.recomputed_pos):
        recompute_counted(s, c, e, r.recomputed_seq, r.recomputed_pos)


def check_restored_copies(s: SourceState, c: ClaimState, r: RequestState, e: RequestTerminated) -> None:
    """A served request still holds what it read: by the block events its copies lie in the primary tier by now."""
    cycle = r.cycle
    if cycle is None or cycle.restored_seq < 0 or cycle.reuse_seq < 0:
        return
    gone = copies_missing(s, c, r.reused_pos, c.primary_tier)
    if gone:
        s.find(
            restore.REUSE_WITHOUT_RESTORATION,
            c,
            (cycle.restored_seq, cycle.reuse_seq, e.seq),
            f"{s.at(e)}: the request reused what was restored at {s.seq(cycle.restored_seq)}; by the block events no "
            f"copy of position {gone[0]} (and {len(gone) - 1} more) came into {c.primary_tier}.",
            missing="block_stored",
            unknown=True,
        )
