"""Mutants that are not lies: each kind with its reason, and the only ones that may stay positive.

A trace that was changed and still conforms is either a hole of the audit or a true history of another run. A kind
belongs here only when the contract has nothing to say about what was changed. The list is short on purpose: a long one
would mean that a trace carries less than it should.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import msgspec

from residentkv.claims.modes import Mode
from residentkv.suite.context import ENDINGS, Context, copies_of
from residentkv.suite.independence import SWAPPABLE, are_independent, is_block_event
from residentkv.suite.mutate import Mutant, event_name
from residentkv.trace import events as ev

Holds = Callable[[Mutant, Context], bool]


class Equivalence(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of equivalent mutant."""

    name: str
    reason: str
    holds: Holds


def _field(m: Mutant, kind: type[ev.Event] | tuple[type[ev.Event], ...], *names: str) -> bool:
    return isinstance(m.before, kind) and m.field in names


def _attribution(m: Mutant, c: Context) -> bool:
    return _field(m, (ev.BlockStored, ev.BlockRemoved), "request_id")


_REQUEST_OPTIONAL = (ev.ClaimAccepted, ev.ClaimMaterialized, ev.ClaimOffloaded, ev.ClaimRouteBound, ev.ClaimRenewed)


def _acting_request(m: Mutant, c: Context) -> bool:
    e = m.before
    if m.field != "request_id" or not isinstance(e, (*_REQUEST_OPTIONAL, *ENDINGS)):
        return False
    if m.new is None or c.claim_of(m.new) == (e.owner_scope, e.claim_id):
        return True
    return isinstance(e, ENDINGS) and c.is_open(m.new, m.at)


def _no_claim(m: Mutant, c: Context) -> bool:
    e = m.before
    if m.beside is not None:
        return _is_unclaimed(e, m.at, c) and _is_unclaimed(m.beside, m.at, c)
    if m.field == "owner_scope":
        return getattr(e, "claim_id", "") is None
    if isinstance(e, ev.RequestTerminated) and m.field == "finish_status":
        return c.is_unclaimed(e)
    if isinstance(e, ev.RequestInitialized) and m.field == "claim_id":
        return m.new is None and not c.acts_for_claim(e.request_id)
    if m.field == "request_id" and m.new is not None:
        return _is_unclaimed(e, m.at, c) and c.is_open(m.new, m.at) and not c.has_open_claim(m.new, m.at)
    return m.operator.startswith("outcome") and _is_unclaimed(e, m.at, c)


def _is_unclaimed(e: ev.Event, at: int, c: Context) -> bool:
    """Tell whether an event is about the work of a request for which no claim is open; decisions about it are not."""
    kinds = (ev.RequestInitialized, ev.LookupResult, ev.JobCreated, ev.TransferFinished, ev.RequestTerminated)
    return isinstance(e, kinds) and getattr(e, "claim_id", None) is None and not c.has_open_claim(e.request_id, at)


def _finish_word(m: Mutant, c: Context) -> bool:
    served = {"stopped", "length"}
    return _field(m, ev.RequestTerminated, "finish_status") and (m.new == "aborted" or {m.old, m.new} <= served)


def _rejected(m: Mutant, c: Context) -> bool:
    return _field(m, ev.ClaimRejected, "object_id", "token_map_id", "cache_identity", "predicate", "mode")


def _untested_term(m: Mutant, c: Context) -> bool:
    e = m.before
    if isinstance(e, ev.ClaimAccepted) and m.field == "on_restore_failure":
        return not c.failed_restoration(e)
    if isinstance(e, ev.ClaimAccepted) and m.field == "priority":
        return not c.is_compared(e, m.new)
    if isinstance(e, ev.ClaimAccepted | ev.ClaimRenewed) and m.field == "revision":
        return not c.renewed_after(e)
    if isinstance(e, ev.ClaimMaterialized) and m.field == "tier":
        return not c.reports_blocks(e) and not c.is_read_after(e)
    if isinstance(e, ev.ClaimRouteBound) and (m.operator == "delete" or m.field in ("worker_id", "worker_epoch")):
        return not c.is_used_after(e)
    return isinstance(e, ev.ClaimOffloaded) and m.field == "tier_to" and not c.is_read_after(e)


def _outside_predicate(m: Mutant, c: Context) -> bool:
    e = m.before
    if isinstance(e, ev.ClaimRouteOutcome):
        return m.field == "reused_blocks" and e.outcome == "served_by_binding" and m.new > m.old
    if not isinstance(e, ev.ClaimMaterialized):
        return False
    needed = c.needed_pos(e)
    if m.field == "retrievable_pos":
        return all(any(lo <= p < hi for lo, hi in m.new) for p in needed)
    if m.field == "object_blocks":
        return not e.block_hashes and m.new > m.old
    if m.field == "block_hashes" and len(m.new) == len(m.old):
        return all(m.new[p] == m.old[p] for p in needed)
    return False


def _own_word(m: Mutant, c: Context) -> bool:
    e = m.before
    if isinstance(e, ev.RequestAdmitted) and m.field in ("need_blocks", "active_blocks", "actions"):
        new = m.events[m.at]
        assert isinstance(new, ev.RequestAdmitted)
        fits = new.protected_blocks + new.active_blocks + new.need_blocks <= new.usable_blocks
        return (fits or bool(new.actions)) and len(new.actions) <= len(e.actions)
    if isinstance(e, ev.ClaimReleased) and m.field == "released_by":
        return m.new.startswith("engine:") and not c.goes_on(m.at)
    if isinstance(e, ev.ClaimAccepted) and m.field == "clipped_from":
        return bool(m.old and m.new)
    if isinstance(e, ev.RequestRecomputed) and m.field == "recomputed_pos":
        return c.mode_of(c.claim_of(e.request_id), m.at) == Mode.BEST_EFFORT
    return isinstance(e, ev.RequestTerminated) and m.field == "output_tokens" and not c.was_turned_away(e.request_id)


def _spare_copy(m: Mutant, c: Context) -> bool:
    e = m.before
    if isinstance(e, ev.BlockStored) and m.operator == "duplicate":
        return not e.block_ids  # Copies without places: one more of them, which is never removed.
    fields = ("block_hashes", "tier") if isinstance(e, ev.BlockStored) else ("block_hashes",)
    if not isinstance(e, ev.BlockStored | ev.BlockRemoved) or (m.operator != "delete" and m.field not in fields):
        return False
    touched = _untold_copies(m, e)
    if touched is None or any(c.rests_on(h, e.tier, i, m.at) for h, i in touched):
        return False
    if isinstance(e, ev.BlockStored):
        return not any(c.is_removed_after(h, e.tier, i, m.at) for h, i in touched)
    return not any(c.is_stored_after(e.tier, i, m.at) for _, i in touched)


def _place(m: Mutant, c: Context) -> bool:
    e = m.before
    if isinstance(e, ev.SchedulerRestorationFailed):
        return m.field == "invalid_block_ids" and bool(m.new)
    if isinstance(e, ev.BlockStored) and m.field == "tier":
        removed = any(c.is_removed_after(h, e.tier, i, m.at) for h, i in copies_of(e))
        return not removed and not c.is_named_after(e.tier, m.at)
    if not isinstance(e, ev.BlockStored) or m.field != "block_ids" or len(m.new) not in (0, len(m.old)):
        return False
    moved = [copy for copy in copies_of(e) if copy[1] not in m.new]
    return not any(c.is_removed_after(h, e.tier, i, m.at) for h, i in moved)


def _never_evidence(m: Mutant, c: Context) -> bool:
    return isinstance(m.before, ev.RuntimeEvent | ev.GenericCounter) and m.operator not in ("delete-leaving-gap", "seq")


def _only_one(m: Mutant, c: Context) -> bool:
    e = m.before
    if m.field == "usable_blocks":
        return sum(getattr(other, "usable_blocks", None) is not None for other in c.trace) == 1
    if m.operator != "delete" or not isinstance(e, ev.RequestAdmitted | ev.BlockStored):
        return False
    kinds = (ev.RequestAdmitted,) if isinstance(e, ev.RequestAdmitted) else (ev.BlockStored, ev.BlockRemoved)
    return sum(isinstance(other, kinds) for other in c.trace) == 1


def _elsewhere(m: Mutant, c: Context) -> bool:
    e = m.before
    if not isinstance(e, ev.ClaimRouteOutcome) or e.outcome not in ("lost", "moved"):
        return False
    if m.field == "reused_blocks":
        return e.outcome == "moved"
    return m.field in ("worker_id", "worker_epoch") or (m.field == "outcome" and m.new in ("lost", "moved"))


def _untold_copies(m: Mutant, e: ev.BlockStored | ev.BlockRemoved) -> list[tuple[str, int]] | None:
    """Return the copies of the event that the mutant does not tell, or None when it tells what cannot be read."""
    new = m.events[m.at]
    if m.operator == "delete" or m.field == "tier":
        return list(copies_of(e))
    assert isinstance(new, ev.BlockStored | ev.BlockRemoved)
    if new.block_ids and len(new.block_ids) != len(new.block_hashes):
        return None
    return list((Counter(copies_of(e)) - Counter(copies_of(new))).elements())


def _reaffirmed(m: Mutant, c: Context) -> bool:
    e = m.before
    return isinstance(e, ev.ClaimOffloaded) and m.field == "job_ids" and not m.new and (e.generation or 0) > 1


def _asked_again(m: Mutant, c: Context) -> bool:
    e = m.before
    if not isinstance(e, ev.LookupResult):
        return False
    return m.operator == "duplicate" or ((m.operator == "delete" or m.field == "tier") and not c.needs_lookup(e))


def _second_word(m: Mutant, c: Context) -> bool:
    e = m.before
    if isinstance(m.beside, ev.SchedulerRestorationFailed):
        return isinstance(e, ev.ClaimRestorationFailed)
    return (
        isinstance(e, ev.ClaimRestorationFailed)
        and (m.operator == "delete" or m.field == "blocking_claim_ids")
        and c.failed_by_scheduler(e)
    )


def _untold_positions(m: Mutant, c: Context) -> bool:
    return _field(m, ev.ClaimHarmed, "lost_pos") and bool(m.new) and not c.reports_blocks(m.before)


def _nobody_refused(m: Mutant, c: Context) -> bool:
    e = m.before
    return (
        isinstance(e, ev.SchedulerRestorationFailed)
        and e.failure_policy != "fail"
        and m.field in ("blocking_claim_ids", "finish_status")
    )


def _independent(m: Mutant, c: Context) -> bool:
    return m.beside is not None and are_independent(m.before, m.beside, c)


def _late_block_event(m: Mutant, c: Context) -> bool:
    if m.beside is None or isinstance(m.beside, ev.TraceClosed):
        return False
    return is_block_event(m.before) != is_block_event(m.beside)


def _either_order(m: Mutant, c: Context) -> bool:
    if m.beside is None or frozenset((event_name(m.before), event_name(m.beside))) not in SWAPPABLE:
        return False
    both = (m.before, m.beside)
    if any(isinstance(e, ev.JobCreated | ev.TransferFinished) and e.direction == "load" for e in both):
        return not any(isinstance(e, ev.RequestRecomputed) for e in both)
    if not isinstance(m.before, ev.ClaimAccepted) or not isinstance(m.beside, ev.RequestAdmitted):
        return True
    return not c.reserves((m.before.owner_scope, m.before.claim_id), m.before.seq)  # Its blocks count in the admission.


EQUIVALENCES: tuple[Equivalence, ...] = (
    Equivalence(
        name="independent",
        reason="two events that share no claim, job, block or number of blocks, and no request unless it is the mere "
        "occasion for what is told of another claim: their order carries nothing",
        holds=_independent,
    ),
    Equivalence(
        name="either-order",
        reason="the contract leaves the order open: what happened to a claim may be said before or after the request "
        "ends, is admitted or asks the tier, and a store may begin before the claim is called materialized",
        holds=_either_order,
    ),
    Equivalence(
        name="late-block-event",
        reason="block events may be written in batches after the fact; they are ordered among themselves, a copy by "
        "its place, and a loss before its excuse is still seen",
        holds=_late_block_event,
    ),
    Equivalence(
        name="attribution",
        reason="on whose behalf a block came or went is told for readers; no obligation rests on it",
        holds=_attribution,
    ),
    Equivalence(
        name="acting-request",
        reason="a claim event that acts for no request may leave out the one that was the occasion, or name another "
        "one of the claim; an end of a claim any one that is open",
        holds=_acting_request,
    ),
    Equivalence(
        name="no-claim",
        reason="what a request did for which no claim was open, and how it ended, is about no promise (decisions are)",
        holds=_no_claim,
    ),
    Equivalence(
        name="finish-word",
        reason="`stopped` and `length` both say that the request got its answer, and a client may withdraw any request",
        holds=_finish_word,
    ),
    Equivalence(name="rejected", reason="a rejected claim promises nothing, whatever it was about", holds=_rejected),
    Equivalence(
        name="untested-term",
        reason="a term that the run never put to the test: no restoration failed, no renewal followed, nobody came for "
        "the claim where it was said to be or bound to, its priority is of another mode, keeps its order to those that "
        "a loss compares, or was put to fewer losses than make an experiment",
        holds=_untested_term,
    ),
    Equivalence(
        name="outside-predicate",
        reason="positions beyond the predicate: what is useful was retrievable before and after",
        holds=_outside_predicate,
    ),
    Equivalence(
        name="own-word",
        reason="the engine's own counts and words, which no other event tells and nothing rests on: what a request "
        "that fits needs and what others use, tokens before a failure, the end at which it releases, what made room, "
        "which has its own event, what a clipped claim was asked as, and what was computed again of a claim that "
        "promises only to be joinable",
        holds=_own_word,
    ),
    Equivalence(
        name="spare-copy",
        reason="a copy on which no open claim rests from there on: nobody needs the block, another copy stays, or the "
        "claim promises only to be joinable and is not read there",
        holds=_spare_copy,
    ),
    Equivalence(
        name="place",
        reason="the number of a physical block that no other event of the trace names, or the tier of a copy in which "
        "no claim is said to be and from which nothing is removed",
        holds=_place,
    ),
    Equivalence(
        name="never-evidence",
        reason="events of the runtime's own and process-wide counters are kept for order only",
        holds=_never_evidence,
    ),
    Equivalence(
        name="only-one",
        reason="the only admission, block event or capacity of its source: a source that reports none owes none, and "
        "there is nothing to compare it with",
        holds=_only_one,
    ),
    Equivalence(
        name="elsewhere",
        reason="where a request was served when it was not by the binding: no event says which workers there are",
        holds=_elsewhere,
    ),
    Equivalence(
        name="affirmed-again",
        reason="a tier that affirms what it holds may name the stores again or leave them out",
        holds=_reaffirmed,
    ),
    Equivalence(
        name="asked-again",
        reason="the tier may be asked twice, and need not be asked again or for a request that requires nothing of it",
        holds=_asked_again,
    ),
    Equivalence(
        name="untold-positions",
        reason="which positions were lost, in a source that does not tell blocks: some were, and that is said",
        holds=_untold_positions,
    ),
    Equivalence(
        name="second-word",
        reason="the connector's word about a failure adds nothing to the scheduler's own about the same job",
        holds=_second_word,
    ),
    Equivalence(
        name="nobody-refused",
        reason="a failed load that is tried again or computed again blocks nobody and finishes nobody",
        holds=_nobody_refused,
    ),
)


def equivalence_of(mutant: Mutant, context: Context) -> Equivalence | None:
    """Return why a mutant that still conforms is no lie, or None: then it is a hole."""
    return next((e for e in EQUIVALENCES if e.holds(mutant, context)), None)
