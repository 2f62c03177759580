"""Joining events to the claim and the request that they are about; the first place where a mutant shows."""

from __future__ import annotations

from residentkv.audit.model import Verdict
from residentkv.audit.rules import acceptance, coverage, lifecycle
from residentkv.audit.state import ClaimState, RequestState, SourceState, submitted
from residentkv.audit.steps.endings import amend_result, collapse
from residentkv.audit.table import ACCEPTED, INDEX, MATERIALIZED, SUBMITTED, Move, mistake
from residentkv.claims.lifecycle import State, Step
from residentkv.trace.events import ClaimAccepted, ClaimEvent, Event

_IDENTITY = ("object_id", "token_map_id", "cache_identity", "predicate")


def claim_of(s: SourceState, e: ClaimEvent) -> ClaimState | None:
    """Return the open claim of the event with its identity checked, or None when there is nothing to step.

    A claim that nobody accepted is entered all the same, so that what follows is judged once and not on every event.
    """
    c = s.claims.get((e.owner_scope, e.claim_id))
    if c is None:
        return _unknown_claim(s, e)
    if (
        e.object_id != c.object_id
        or e.token_map_id != c.token_map_id
        or e.cache_identity != c.cache_identity
        or e.predicate != c.predicate_text
    ):
        identity_changed(s, c, e)
    c.last_seq = e.seq
    if c.ended:
        after_end(s, c, e)
        return None
    return c


def identity_changed(s: SourceState, c: ClaimState, e: ClaimEvent) -> None:
    """File which part of the identity changed, and from what to what."""
    kept = {
        "object_id": c.object_id,
        "token_map_id": c.token_map_id,
        "cache_identity": c.cache_identity,
        "predicate": c.predicate_text,
    }
    changes = [
        f"{name} was {kept[name]} and is {getattr(e, name)}" for name in _IDENTITY if getattr(e, name) != kept[name]
    ]
    if changes:
        s.find(
            acceptance.IDENTITY_CHANGED,
            c,
            (c.first_seq, e.seq),
            f"{s.at(e)}: {'; '.join(changes)}.",
            f"The identity was stated at {s.seq(c.first_seq)} and may not change while the claim lives.",
        )


def _unknown_claim(s: SourceState, e: ClaimEvent) -> ClaimState | None:
    key = (e.owner_scope, e.claim_id)
    ended = s.ended.get(key)
    if ended is not None:
        finding = s.make(
            lifecycle.CLAIM_ALREADY_ENDED,
            Verdict.INCONCLUSIVE if s.broken_seq >= 0 else Verdict.VIOLATING,
            key,
            (s.results[ended.result].last_seq, e.seq),
            (
                f"{s.at(e)} comes after the claim ended as {s.results[ended.result].state} "
                f"at {s.seq(s.results[ended.result].last_seq)}.",
            ),
            None,
        )
        amend_result(s, ended.result, finding)
        return None
    c = submitted(e, 0)
    c.unaccepted = True
    c.unaccepted_known = s.broken_seq < 0
    c.skipped = ["resident_claim_accepted"]
    s.claims[key] = c
    return c


def after_end(s: SourceState, c: ClaimState, e: ClaimEvent) -> None:
    s.find(
        lifecycle.CLAIM_ALREADY_ENDED,
        c,
        (c.end_seq, e.seq),
        f"{s.at(e)} comes after the claim ended as {c.state_name()} at {s.seq(c.end_seq)}.",
    )


def take(s: SourceState, c: ClaimState, e: Event, move: Move) -> bool:
    """Advance the claim; an illegal step is filed and then carried out, so that one mistake is one finding.

    Returns:
        Whether the step was legal.
    """
    after = move.table[c.state]
    if after >= 0:
        c.state = after
        c.step_seq = e.seq
        return True
    illegal(s, c, e, move)
    c.state = move.target
    c.step_seq = e.seq
    return False


def illegal(s: SourceState, c: ClaimState, e: Event, move: Move) -> None:
    """File a step that the lifecycle does not allow; of a claim that nobody accepted only what it skipped is kept."""
    if not c.unaccepted:
        s.find(
            lifecycle.ILLEGAL_TRANSITION,
            c,
            (c.step_seq, e.seq),
            f"{s.at(e)}: {mistake(c.state, move)}.",
            missing=_skipped(c.state, move),
        )
    elif c.skipped is not None and c.state == SUBMITTED and move.target > MATERIALIZED:
        c.skipped.append("resident_claim_materialized")


def _skipped(state: int, move: Move) -> str | None:
    """Name the event without which the step has no ground."""
    if state == ACCEPTED:
        return "resident_claim_materialized"
    if move.step is Step.REQUIRE_RESTORE and state != INDEX[State.RESTORE_REQUIRED]:
        return "resident_claim_offloaded"
    if move.step in (Step.RESTORE, Step.FAIL_RESTORE):
        return "resident_claim_restore_required"
    return None


def generation_differs(s: SourceState, c: ClaimState, e: ClaimEvent, expected: int) -> None:
    """File that the event is of another generation, or that it does not say of which."""
    if e.generation is None:
        s.find(
            lifecycle.GENERATION_DIFFERS,
            c,
            (e.seq,),
            f"{s.at(e)} does not say its generation, so it joins no restore cycle.",
            unknown=True,
        )
    elif not c.unaccepted:
        s.find(
            lifecycle.GENERATION_DIFFERS,
            c,
            (e.seq,),
            f"{s.at(e)} is of generation {e.generation}; {expected} resident_claim_offloaded of the claim make "
            f"generation {expected}.",
        )


def link(c: ClaimState, r: RequestState) -> None:
    """Join a request to an open claim; the claim is kept until the request has ended."""
    r.claim = c
    c.open_requests += 1
    if c.join_seq < 0:
        c.join_seq = r.init_seq
    if c.first_request is None:
        c.first_request = r.request_id
    c.last_request = r.request_id


def acting(s: SourceState, c: ClaimState, e: ClaimEvent) -> RequestState | None:
    """Return the open request on whose behalf the claim event happened, joined; None after filing why there is none."""
    rid = e.request_id
    if rid is None:
        s.find(
            coverage.UNKNOWN_REQUEST,
            c,
            (e.seq,),
            f"{s.at(e)} names no request, and it happens on behalf of one.",
        )
        return None
    r = s.requests.get(rid)
    if r is None:
        s.find(
            coverage.UNKNOWN_REQUEST,
            c,
            (e.seq,),
            f"{s.at(e)} happens on behalf of request {rid}, which is not open.",
            missing="request_initialized",
        )
        return None
    if r.claim is not c:
        return join(s, c, r, e)
    return r


def join(s: SourceState, c: ClaimState, r: RequestState, e: ClaimEvent) -> RequestState | None:
    old = r.claim
    if r.key == c.key and (old is None or _claims_anew(old, r, e)):
        if old is not None:
            old.open_requests -= 1
            if not old.open_requests and not old.open_jobs:
                collapse(s, old)
        link(c, r)
        return r
    if c.unaccepted and r.key is None:
        return None  # Filed once, as a claim that nobody accepted.
    not_joined(s, c, r, e)
    return None


def _claims_anew(old: ClaimState, r: RequestState, e: ClaimEvent) -> bool:
    """Tell whether the request let the claim go that it found, and claims anew under the same name before all else."""
    return old.ended and isinstance(e, ClaimAccepted) and r.cycle is None and r.failure is None and r.served_seq < 0


def not_joined(s: SourceState, c: ClaimState | None, r: RequestState, e: Event) -> None:
    """File that a request acts for a claim that it did not name."""
    named = f"claim {r.key[1]} of {r.key[0]}" if r.key else "no claim"
    s.find(
        acceptance.REQUEST_NOT_JOINED,
        c if c is not None else r.claim,
        (r.init_seq, e.seq),
        f"{s.at(e)} acts for request {r.request_id}, which named {named} when it was initialized at "
        f"{s.seq(r.init_seq)}.",
        missing="request_initialized",
    )


def mentioned(s: SourceState, c: ClaimState, e: ClaimEvent) -> None:
    """Check a request that is only named: one of the claim or of its stores, or an open one of no other claim."""
    rid = e.request_id
    if rid is None or rid == c.first_request or rid == c.last_request:
        return
    if any(job.request_id == rid for job in (c.stored or {}).values()):
        return
    r = s.requests.get(rid)
    if r is not None and r.key is not None and r.key != c.key:
        not_joined(s, c, r, e)
    else:
        still_open(s, c, e)


def still_open(s: SourceState, c: ClaimState, e: ClaimEvent) -> None:
    """Check a request on whose behalf something ends: a request that has ended is the reason for nothing."""
    rid = e.request_id
    if rid is not None and rid not in s.requests:
        s.find(
            coverage.UNKNOWN_REQUEST,
            c,
            (e.seq,),
            f"{s.at(e)} names request {rid}, which is not open.",
            missing="request_initialized",
        )
