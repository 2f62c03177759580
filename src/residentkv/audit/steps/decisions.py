"""Decisions about claims: accepted, clipped, deferred, rejected, renewed."""

from __future__ import annotations

from residentkv.audit.rules import acceptance, capacity, coverage, lifecycle, terms
from residentkv.audit.state import TRAITS, ClaimState, SourceState, submitted
from residentkv.audit.steps.endings import check_let_go, collapse
from residentkv.audit.steps.joins import (
    after_end,
    claim_of,
    generation_differs,
    identity_changed,
    illegal,
    join,
    mentioned,
    still_open,
    take,
)
from residentkv.audit.steps.refusals import check_usable
from residentkv.audit.table import ACCEPTED, DEFER, DEFERRED, IS_OPEN, REJECT
from residentkv.claims.model import MAX_TTL_S
from residentkv.claims.predicates import Predicate, parse_predicate
from residentkv.errors import InputError
from residentkv.trace.events import ClaimAccepted, ClaimDeferred, ClaimEvent, ClaimRejected, ClaimRenewed

ROUNDING_NS = 2000
"""How far a deadline may be off because `ttl_s` is a binary fraction of a second."""


def on_accepted(s: SourceState, e: ClaimAccepted) -> None:
    """The runtime takes responsibility: everything later is judged by these terms."""
    c = _submission(s, e)
    if c is None:
        return
    if s.let_go:
        check_let_go(s, e)
    if e.generation != 0:
        generation_differs(s, c, e, 0)
    s.owners.setdefault(e.claim_id, {})[e.owner_scope] = None
    c.state = ACCEPTED
    c.accepted_seq = e.seq
    c.last_seq = e.seq
    if e.predicate in s.predicates:
        c.predicate = s.predicates[e.predicate]
    else:
        c.predicate = s.predicates[e.predicate] = _readable(e.predicate)
    if c.predicate is None:
        s.find(
            acceptance.PREDICATE_UNREADABLE,
            c,
            (e.seq,),
            f"{s.at(e)}: the predicate {e.predicate[:80]!r} cannot be evaluated over positions.",
        )
    traits = TRAITS.get(e.mode)
    if traits is None:
        s.find(acceptance.MODE_UNKNOWN, c, (e.seq,), f"{s.at(e)}: the mode {e.mode[:80]!r} is not one of the seven.")
    if (e.decision == "clipped") is not bool(e.clipped_from):
        found = ", ".join(e.clipped_from) or "nothing"
        s.find(acceptance.CLIP_UNNAMED, c, (e.seq,), f"{s.at(e)}: decision {e.decision}, clipped_from names {found}.")
    c.traits = traits
    c.on_restore_failure = e.on_restore_failure
    c.priority = e.priority
    c.footprint_blocks = e.footprint_blocks
    c.revision = e.revision
    deadline_ns = c.deadline_ns = e.deadline_ns
    if deadline_ns is None:
        if e.ttl_s is not None or e.mode == "expiring":
            s.find(terms.TERM_MISSING, c, (e.seq,), f"{s.at(e)}: mode {e.mode}, ttl_s {e.ttl_s} and no deadline_ns.")
    elif deadline_ns <= e.mono_ns:
        s.find(
            terms.TERM_MISSING,
            c,
            (e.seq,),
            f"{s.at(e)}: the deadline {deadline_ns} ns is not after the acceptance at {e.mono_ns} ns.",
        )
    elif e.ttl_s is not None:
        _check_term(s, c, e, e.ttl_s, deadline_ns)
    rid = e.request_id
    if rid is not None:
        r = s.requests.get(rid)
        if r is None:
            s.find(
                coverage.UNKNOWN_REQUEST,
                c,
                (e.seq,),
                f"{s.at(e)} decides for request {rid}, which is not open.",
                missing="request_initialized",
            )
        else:
            join(s, c, r, e)
            c.first_request = rid
    if e.protected_blocks is not None and e.protected_blocks != s.protected_blocks:
        s.find(
            capacity.PROTECTED_SUM_DIFFERS,
            c,
            (e.seq,),
            f"{s.at(e)} was decided with {e.protected_blocks} protected blocks; the claims that are open before it "
            f"hold {s.protected_blocks}.",
        )
    if e.usable_blocks is not None:
        check_usable(s, c, e, e.usable_blocks)
    if traits is not None and traits.reserves:
        if (
            e.usable_blocks is not None
            and max(e.protected_blocks or 0, s.protected_blocks) + e.footprint_blocks > e.usable_blocks
        ):
            held = max(e.protected_blocks or 0, s.protected_blocks)
            s.find(
                acceptance.ACCEPTANCE_INFEASIBLE,
                c,
                (e.seq,),
                f"{s.at(e)}: {held} protected + {e.footprint_blocks} footprint > {e.usable_blocks} usable blocks.",
            )
        c.protects = True
        s.protected_blocks += e.footprint_blocks
        s.holders.setdefault(c.claim_id, []).append(c)


def _check_term(s: SourceState, c: ClaimState, e: ClaimAccepted | ClaimRenewed, ttl_s: float, deadline_ns: int) -> None:
    """The term begins with the decision, which lies between the event before and this one."""
    if not 0 < ttl_s < MAX_TTL_S:
        begun_ns = -1.0
    else:
        begun_ns = deadline_ns - ttl_s * 1e9
    if not s.mono_ns - ROUNDING_NS <= begun_ns <= e.mono_ns + ROUNDING_NS:
        s.find(
            terms.TERM_MISSING,
            c,
            (e.seq,),
            f"{s.at(e)} at {e.mono_ns} ns: the deadline {deadline_ns} ns is not ttl_s {ttl_s} after the decision.",
            unknown=True,
        )


def _readable(text: str) -> Predicate | None:
    try:
        predicate = parse_predicate(text)
    except InputError:
        return None
    return None if predicate.sidecars else predicate


def _submission(s: SourceState, e: ClaimAccepted | ClaimRejected) -> ClaimState | None:
    """Return the claim that the decision is about, new or deferred; None when the decision may not be given."""
    key = (e.owner_scope, e.claim_id)
    c = s.claims.get(key)
    instance = 0
    if c is not None:
        if c.state == DEFERRED:
            identity_changed(s, c, e)
            return c
        if c.unaccepted:
            c.unaccepted = False
            s.find(
                acceptance.CLAIM_NEVER_ACCEPTED,
                c,
                (c.first_seq, e.seq),
                f"{s.at(e)} comes after the claim was already used at {s.seq(c.first_seq)}; "
                "a claim that is named afterwards promises nothing.",
                missing="resident_claim_accepted",
            )
            return c
        if c.ended and _resubmitted(e, c.first_request, c.revision):
            instance = c.instance + 1
            collapse(s, c)
        elif c.ended:
            after_end(s, c, e)
            return None
        else:
            illegal(s, c, e, REJECT)
            return None
    else:
        ended = s.ended.get(key)
        if ended is not None:
            if not _resubmitted(e, ended.first_request, ended.revision):
                claim_of(s, e)  # Files that the claim has ended.
                return None
            instance = ended.instance + 1
    c = submitted(e, instance)
    s.claims[key] = c
    posthoc = s.prenamed.pop(key, None)
    if posthoc is not None:
        s.find(
            acceptance.CLAIM_NEVER_ACCEPTED,
            c,
            (posthoc, e.seq),
            f"{s.at(e)} comes after a transfer was made in the name of the claim at {s.seq(posthoc)}; "
            "a claim that is named afterwards promises nothing.",
            missing="resident_claim_accepted",
        )
    return c


def _resubmitted(e: ClaimAccepted | ClaimRejected | ClaimDeferred, request_id: str | None, revision: int) -> bool:
    """Tell a new submission under an old name from a repeated event: another request, or a higher revision."""
    if e.request_id is not None:
        return e.request_id != request_id
    return isinstance(e, ClaimAccepted) and e.revision > revision


def on_rejected(s: SourceState, e: ClaimRejected) -> None:
    """The runtime declines; the claim ends here and nothing is promised."""
    c = _submission(s, e)
    if c is None:
        return
    _decided_for(s, c, e)
    s.owners.setdefault(e.claim_id, {}).setdefault(e.owner_scope)
    c.state = REJECT.target
    c.last_seq = c.end_seq = e.seq
    c.ended = True
    if not c.open_requests:
        collapse(s, c)


def on_deferred(s: SourceState, e: ClaimDeferred) -> None:
    """The decision stays open; nothing is promised yet."""
    key = (e.owner_scope, e.claim_id)
    c = s.claims.get(key)
    if c is None:
        ended = s.ended.get(key)
        if ended is not None and not _resubmitted(e, ended.first_request, ended.revision):
            claim_of(s, e)  # Files that the claim has ended.
            return
        c = submitted(e, 0 if ended is None else ended.instance + 1)
        s.claims[key] = c
    elif c.ended and _resubmitted(e, c.first_request, c.revision):
        collapse(s, c)
        c = submitted(e, c.instance + 1)
        s.claims[key] = c
    elif c.ended:
        after_end(s, c, e)
        return
    else:
        identity_changed(s, c, e)
    if DEFER.table[c.state] < 0:
        illegal(s, c, e, DEFER)
        return
    take(s, c, e, DEFER)
    _decided_for(s, c, e)
    c.last_seq = e.seq


def _decided_for(s: SourceState, c: ClaimState, e: ClaimEvent) -> None:
    """Check the request of a decision that promises nothing."""
    if e.generation != 0:
        generation_differs(s, c, e, 0)
    rid = e.request_id
    if rid is None:
        return
    r = s.requests.get(rid)
    if r is not None and r.key == c.key:
        c.first_request = rid
        return
    if r is None:
        mentioned(s, c, e)
    else:
        join(s, c, r, e)


def on_renewed(s: SourceState, e: ClaimRenewed) -> None:
    """The term is extended; an old renewal must not undo a newer one."""
    c = claim_of(s, e)
    if c is None:
        return
    if not IS_OPEN[c.state]:
        if not c.unaccepted:
            s.find(
                lifecycle.ILLEGAL_TRANSITION,
                c,
                (c.last_seq, e.seq),
                f"{s.at(e)}: a claim that is {c.state_name()} cannot be renewed.",
            )
        return
    if e.generation != c.generation:
        generation_differs(s, c, e, c.generation)
    still_open(s, c, e)
    old_ns = c.deadline_ns
    if old_ns is not None and e.mono_ns > old_ns:
        s.find(
            terms.RENEWAL_AFTER_TERM,
            c,
            (e.seq,),
            f"{s.at(e)} at {e.mono_ns} ns comes after the deadline {old_ns} ns; the claim had lapsed.",
        )
    if e.revision <= c.revision:
        s.find(
            terms.RENEWAL_NOT_NEWER,
            c,
            (e.seq,),
            f"{s.at(e)} carries revision {e.revision}; the claim is at revision {c.revision}.",
        )
    if old_ns is not None and e.deadline_ns is not None and e.deadline_ns < old_ns:
        s.find(
            terms.RENEWAL_NOT_NEWER,
            c,
            (e.seq,),
            f"{s.at(e)} moves the deadline from {old_ns} ns to {e.deadline_ns} ns.",
        )
    if e.deadline_ns is None and (e.ttl_s is not None or (c.traits is not None and c.traits.name == "expiring")):
        s.find(terms.TERM_MISSING, c, (e.seq,), f"{s.at(e)}: ttl_s {e.ttl_s} and no deadline_ns.")
    else:
        c.deadline_ns = e.deadline_ns
        if e.ttl_s is not None and e.deadline_ns is not None:
            _check_term(s, c, e, e.ttl_s, e.deadline_ns)
    c.revision = max(c.revision, e.revision)
    c.count("renewed")
