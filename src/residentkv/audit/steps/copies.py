"""Where a claim's blocks are said to be: materialized, offloaded, reused in place."""

from __future__ import annotations

from residentkv.audit.ranges import clean, say, subtract, union, within
from residentkv.audit.rules import capacity, coverage, offload, restore, terms
from residentkv.audit.state import ClaimState, SourceState
from residentkv.audit.steps.endings import unprotect
from residentkv.audit.steps.joins import acting, claim_of, generation_differs, mentioned, take
from residentkv.audit.steps.losses import account_for_loss
from residentkv.audit.steps.preference import use
from residentkv.audit.steps.requests import check_not_refused
from residentkv.audit.table import MATERIALIZE, MATERIALIZED, OFFLOAD, RESTORATION_FAILED, RESTORE_REQUIRED
from residentkv.claims.predicates import Ranges
from residentkv.trace.events import ClaimEvent, ClaimMaterialized, ClaimOffloaded, ClaimRestoreRequired, ClaimReused
from residentkv.trace.published_map import NOT_STATED

MAX_SEARCHED = 4096
"""Open claims among which the owner of a foreign job is looked for, so that a bad trace costs no more than its size."""


def on_materialized(s: SourceState, e: ClaimMaterialized) -> None:
    """The predicate is said to hold; it is evaluated again over the positions that are named."""
    c = claim_of(s, e)
    if c is None:
        return
    if e.generation != c.generation:
        generation_differs(s, c, e, c.generation)
    if e.request_id is not None and e.request_id != c.first_request:
        acting(s, c, e)
    take(s, c, e, MATERIALIZE)
    if c.materialized_seq >= 0:
        return
    c.materialized_seq = c.held_seq = e.seq
    if c.deadline_ns is not None and e.mono_ns > c.deadline_ns:
        s.find(
            terms.EXPIRY_OVERDUE,
            c,
            (c.accepted_seq, e.seq),
            f"{s.at(e)} at {e.mono_ns} ns is {e.mono_ns - c.deadline_ns} ns after the deadline of the claim.",
            missing="resident_claim_expired",
            unknown=True,
        )
    c.object_blocks = e.object_blocks
    c.primary_tier = e.tier
    retrievable = c.retrievable_pos = clean(e.retrievable_pos)
    beyond_object(s, c, e, retrievable)
    if e.footprint_blocks != c.footprint_blocks and not c.unaccepted:
        s.find(
            capacity.PROTECTED_SUM_DIFFERS,
            c,
            (c.accepted_seq, e.seq),
            f"{s.at(e)} has a footprint of {e.footprint_blocks} blocks; {c.footprint_blocks} were accepted.",
        )
    predicate = c.predicate
    if predicate is None:
        return
    start, count = predicate.needed(e.object_blocks)
    c.needed_pos = ((start, start + count),)
    if c.footprint_blocks < count and c.traits is not None and c.traits.reserves:
        s.find(
            capacity.PROTECTED_SUM_DIFFERS,
            c,
            (c.accepted_seq, e.seq),
            f"{s.at(e)}: {c.predicate_text} needs {count} blocks, and the claim was accepted with a footprint of "
            f"{c.footprint_blocks}.",
        )
    if not predicate.holds(retrievable, e.object_blocks):
        s.find(
            offload.MATERIALIZED_BELOW_PREDICATE,
            c,
            (c.accepted_seq, e.seq),
            f"{s.at(e)}: retrievable are positions {say(retrievable)} of {e.object_blocks}; {c.predicate_text} needs "
            f"{say(((start, start + count),))}.",
            unknown=not retrievable,
        )
    hashes = e.block_hashes
    if hashes:
        if len(hashes) != e.object_blocks:
            s.find(
                offload.BLOCK_COPIES_UNCLEAR,
                c,
                (e.seq,),
                f"{s.at(e)} names {len(hashes)} blocks of an object of {e.object_blocks}.",
            )
        c.hashes = hashes
        c.needed_hashes = hashes[start : start + count]
        other = s.blocks.watcher_of(c.needed_hashes)
        if other is not None and other.cache_identity != c.cache_identity:
            s.find(
                offload.BLOCK_COPIES_UNCLEAR,
                c,
                (other.materialized_seq, e.seq),
                f"{s.at(e)} names block {c.needed_hashes[0]} for cache identity {c.cache_identity}; claim "
                f"{other.claim_id} needs it for {other.cache_identity}.",
            )
        s.blocks.watch(c)


def beyond_object(s: SourceState, c: ClaimState, e: ClaimEvent, pos: Ranges) -> None:
    """File positions that the object does not have: what is said about them is about no block of the claim."""
    if c.materialized_seq >= 0 and pos and pos[-1][1] > c.object_blocks:
        s.find(
            offload.BLOCK_COPIES_UNCLEAR,
            c,
            (c.materialized_seq, e.seq),
            f"{s.at(e)} names positions {say(pos)} of an object of {c.object_blocks} blocks.",
        )


def on_offloaded(s: SourceState, e: ClaimOffloaded) -> None:
    """The tier says what it can give back; the store jobs named must have put exactly that there."""
    c = claim_of(s, e)
    if c is None:
        return
    c.generation += 1
    if e.generation != c.generation:
        generation_differs(s, c, e, c.generation)
        c.generation = e.generation if e.generation is not None else c.generation
    mentioned(s, c, e)
    take(s, c, e, OFFLOAD)
    if c.suspended_loss_seq >= 0 and c.lost_seq < 0 and any(h not in s.blocks.where for h in c.needed_hashes):
        c.lost_seq = (
            c.suspended_loss_seq
        )  # It promises again what had gone while a failed restoration owed its outcome.
    if c.lost_seq >= 0:
        account_for_loss(s, c, e)
    if c.materialized_seq >= 0 and e.tier_from != c.primary_tier:
        s.find(
            restore.TIER_DIFFERS,
            c,
            (c.materialized_seq, e.seq),
            f"{s.at(e)} is from {e.tier_from}; the claim was materialized in {c.primary_tier}.",
            unknown=NOT_STATED in (e.tier_from, c.primary_tier),
        )
    c.offload_tier = e.tier_to
    retrievable = c.offload_pos = clean(e.retrievable_pos)
    beyond_object(s, c, e, retrievable)
    check_copies_in(s, c, e, e.tier_to, retrievable)
    if c.protects and c.traits is not None and c.traits.frees_on_offload:
        unprotect(s, c)
    c.count("offloaded")
    c.offload_seqs = _stored_by(s, c, e, retrievable)
    predicate = c.predicate
    if predicate is not None and c.materialized_seq >= 0 and not predicate.holds(retrievable, c.object_blocks):
        s.find(
            offload.OFFLOAD_UNCOVERED,
            c,
            (e.seq,),
            f"{s.at(e)}: the tier promises positions {say(retrievable)}; {c.predicate_text} needs {say(c.needed_pos)}.",
            unknown=not retrievable,
        )
    if c.offload_seqs:
        c.note("offload_identity", *c.offload_seqs)


def copies_missing(s: SourceState, c: ClaimState, pos: Ranges, tier: str) -> list[int]:
    """Return the positions of which no copy lies in a tier by the block events; none when those do not tell."""
    if not c.hashes or c.unseen:
        return []
    hashes, in_tier = c.hashes, s.blocks.in_tier
    return [p for lo, hi in pos for p in range(lo, min(hi, len(hashes))) if not in_tier(hashes[p], tier)]


def check_copies_in(
    s: SourceState, c: ClaimState, e: ClaimOffloaded | ClaimRestoreRequired, tier: str, pos: Ranges
) -> None:
    """File copies that are said to lie in a second tier into which, by its block events, they never came."""
    blocks, hashes = s.blocks, c.hashes
    if not hashes or not blocks.places:
        return
    known, tells_tier = (c.primary_tier, tier), tier in blocks.places
    gone = next(
        (
            p
            for lo, hi in pos
            for p in range(lo, min(hi, len(hashes)))
            if not blocks.in_tier(hashes[p], tier)
            and (tells_tier or any(other not in known for other in blocks.tiers_of(hashes[p])))
        ),
        None,
    )
    if gone is not None:
        s.find(
            offload.BLOCK_COPIES_UNCLEAR,
            c,
            (e.seq,),
            f"{s.at(e)} rests on a copy of position {gone} in {tier}; by the block events none lies there.",
            missing="block_stored",
        )


def _stored_by(s: SourceState, c: ClaimState, e: ClaimOffloaded, retrievable: Ranges) -> tuple[int, ...]:
    """Check the store jobs named; return the events that prove them, or nothing when they prove nothing."""
    stored = c.stored
    if not e.job_ids and e.generation is not None and e.generation > 1 and stored is not None:
        ids: tuple[int, ...] = tuple(stored)
    else:
        ids = e.job_ids
    if not ids:
        s.find(
            offload.OFFLOAD_UNPROVEN,
            c,
            (e.seq,),
            f"{s.at(e)} names no store job.",
            missing="offload_job_created (store)",
            unknown=not s.transfers,
        )
        return ()
    covered: Ranges = ()
    seqs: list[int] = []
    for job_id in ids:
        job = stored.get(job_id) if stored is not None else None
        if job is None:
            _unproven(s, c, e, job_id)
            return ()
        covered = job.pos if covered == job.pos or not covered else union(covered, job.pos)
        seqs.append(job.created_seq)
        seqs.append(job.finished_seq)
    if not within(retrievable, covered):
        s.find(
            offload.OFFLOAD_UNCOVERED,
            c,
            (*seqs, e.seq),
            f"{s.at(e)} promises positions {say(retrievable)}; the stores it names moved {say(covered)}.",
        )
        return ()
    seqs.append(e.seq)
    return tuple(seqs)


def _unproven(s: SourceState, c: ClaimState, e: ClaimOffloaded, job_id: int) -> None:
    job = s.jobs.get(job_id)
    if job is not None and job.key != c.key:
        owner = f"claim {job.key[1]} of {job.key[0]}" if job.key else "no claim"
        s.find(
            offload.OFFLOAD_FOREIGN,
            c,
            (job.created_seq, e.seq),
            f"{s.at(e)} names job {job_id}, which was made for {owner} at {s.seq(job.created_seq)}.",
        )
        return
    if job is not None:
        if job.direction != "store":
            why = "is a load"
        elif job.finished_seq < 0:
            why = "is not finished on all workers"
        else:
            why = f"failed at {s.seq(job.finished_seq)} for positions {say(job.failed_pos)}"
        s.find(
            offload.OFFLOAD_UNPROVEN,
            c,
            (job.created_seq, job.finished_seq, e.seq),
            f"{s.at(e)} names job {job_id}, which {why}.",
            missing="offload_worker_transfer_finished (store, success)",
        )
        return
    unclaimed = s.unclaimed_stores.get(job_id)
    searched = s.claims.values() if len(s.claims) <= MAX_SEARCHED else ()
    other = next((d for d in searched if d.stored is not None and job_id in d.stored), None)
    if unclaimed is not None or other is not None:
        owner = f"claim {other.claim_id} of {other.owner_scope}" if other is not None else "no claim"
        made = other.stored[job_id].created_seq if other is not None and other.stored is not None else unclaimed
        s.find(
            offload.OFFLOAD_FOREIGN,
            c,
            (made if made is not None else e.seq, e.seq),
            f"{s.at(e)} names store job {job_id}, which was made for {owner}.",
        )
        return
    s.find(
        offload.OFFLOAD_UNPROVEN,
        c,
        (e.seq,),
        f"{s.at(e)} names job {job_id}; no such store of the claim has finished well.",
        missing="offload_job_created (store)",
        unknown=not s.transfers,
    )


def check_read(s: SourceState, c: ClaimState, e: ClaimEvent) -> None:
    """File a read of the claim after its term, or after a loss that nobody had told."""
    if c.deadline_ns is not None and e.mono_ns > c.deadline_ns:
        s.find(
            terms.READ_AFTER_TERM,
            c,
            (c.accepted_seq, e.seq),
            f"{s.at(e)} at {e.mono_ns} ns is {e.mono_ns - c.deadline_ns} ns after the deadline of the claim.",
            missing="resident_claim_expired",
        )
    if c.lost_seq >= 0:
        account_for_loss(s, c, e)


def on_reused(s: SourceState, e: ClaimReused) -> None:
    """A request read the claim where it lay; that place must be able to serve it."""
    c = claim_of(s, e)
    if c is None:
        return
    if e.generation != c.generation:
        generation_differs(s, c, e, c.generation)
    r = acting(s, c, e)
    check_read(s, c, e)
    c.count("reused")
    use(s, c, e)
    if c.unaccepted:
        return
    if c.materialized_seq < 0:
        s.find(
            restore.REUSE_WITHOUT_RESTORATION,
            c,
            (c.accepted_seq, e.seq),
            f"{s.at(e)}: the claim was never materialized, so there was nothing to reuse.",
            missing="resident_claim_materialized",
        )
    elif c.state in (RESTORE_REQUIRED, RESTORATION_FAILED):
        since = c.cycle.required_seq if c.cycle is not None else -1
        s.find(
            restore.REUSE_WITHOUT_RESTORATION,
            c,
            (since, e.seq),
            f"{s.at(e)} reuses in place, while the claim is {c.state_name()} since {s.seq(c.step_seq)}.",
            missing="resident_claim_restored",
        )
    else:
        _readable_there(s, c, e)
    if r is None:
        return
    check_not_refused(s, r, e)
    if r.reused_seq >= 0:
        s.find(coverage.REQUEST_ORDER, c, (r.reused_seq, e.seq), f"{s.at(e)}: request {r.request_id} had reused it.")
    r.reused_seq = e.seq
    r.reused_pos = clean(e.reused_pos)
    if c.predicate is None or c.predicate.holds(r.reused_pos, c.object_blocks):
        r.served_seq = e.seq  # Less than what is useful does not explain what the request was computed on.
    if r.recomputed_seq >= 0 and subtract(r.reused_pos, r.recomputed_pos) != r.reused_pos:
        recompute_counted(s, c, e, r.recomputed_seq, r.recomputed_pos)


def recompute_counted(s: SourceState, c: ClaimState, e: ClaimEvent, seq: int, pos: Ranges) -> None:
    """File positions that count as read although they were computed again."""
    s.find(
        restore.RECOMPUTE_COUNTED_AS_RESTORE,
        c,
        (seq, e.seq),
        f"{s.at(e)} counts positions that were computed again at {s.seq(seq)} (positions {say(pos)}).",
    )


def _readable_there(s: SourceState, c: ClaimState, e: ClaimReused) -> None:
    pos = clean(e.reused_pos)
    outside = subtract(pos, ((0, c.object_blocks),))
    if not pos or outside:
        s.find(
            restore.REUSE_WITHOUT_RESTORATION,
            c,
            (e.seq,),
            f"{s.at(e)} reuses positions {say(pos)} of an object of {c.object_blocks} blocks.",
            unknown=not pos,
        )
        return
    if e.tier == c.offload_tier and c.state != MATERIALIZED and not within(pos, c.offload_pos):
        s.find(
            restore.REUSE_WITHOUT_RESTORATION,
            c,
            (e.seq,),
            f"{s.at(e)} reads positions {say(pos)} in {e.tier}, which promised {say(c.offload_pos)}.",
        )
    known = (c.primary_tier, c.offload_tier)
    if (not c.hashes or c.unseen) and e.tier not in known and NOT_STATED not in (e.tier, *known):
        s.find(
            restore.REUSE_WITHOUT_RESTORATION,
            c,
            (c.materialized_seq, e.seq),
            f"{s.at(e)} reads in {e.tier}; the claim is in {' and '.join(filter(None, known))}, by its events.",
            missing="block_stored",
            unknown=True,
        )
    gone = copies_missing(s, c, pos, e.tier)
    if gone:
        s.find(
            restore.REUSE_WITHOUT_RESTORATION,
            c,
            (c.primary_loss_seq, e.seq),
            f"{s.at(e)} reads in {e.tier}; no copy of position {gone[0]} (and {len(gone) - 1} more) lies there.",
            missing="resident_claim_restored",
            unknown=c.primary_blurred,
        )
