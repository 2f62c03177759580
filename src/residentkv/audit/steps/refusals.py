"""The scheduler's refusal, and the numbers of admission, deferral and refusal."""

from __future__ import annotations

from residentkv.audit.rules import capacity, coverage, failure, refusal, terms
from residentkv.audit.state import ClaimState, RequestState, SourceState
from residentkv.audit.steps.endings import check_let_go
from residentkv.audit.steps.requests import check_not_refused, ended_at, finish_word, open_request
from residentkv.audit.table import HARMED
from residentkv.trace.events import (
    ClaimAccepted,
    RequestAdmitted,
    RequestDeferred,
    RequestRefused,
    SchedulerRequestRefused,
)

Lost = RequestDeferred | RequestRefused


def on_scheduler_refused(s: SourceState, e: SchedulerRequestRefused) -> None:
    """The request is refused because its claim could not be restored."""
    r = s.requests.get(e.request_id)
    if r is None:
        over = ended_at(s, e.request_id)
        if over is None:
            open_request(s, e)
        else:
            c = s.claims.get((e.owner_scope, e.outcome_claim_id))
            s.find(
                refusal.TERMINATION_BEFORE_OUTCOME,
                c,
                (over, e.seq),
                f"{s.at(e)}: request {e.request_id} had ended at {s.seq(over)}.",
            )
        return
    c = r.claim
    told = r.failure
    if r.refused_seq >= 0:
        s.find(
            refusal.FINISH_STATUS_DIFFERS,
            c,
            (r.refused_seq, e.seq),
            f"{s.at(e)}: request {r.request_id} was refused at {s.seq(r.refused_seq)}.",
        )
        return
    r.refused_seq = r.denied_seq = e.seq
    r.refused_status = e.finish_status
    if c is not None:
        c.count("refused")
    if told is None:
        s.find(
            refusal.REFUSAL_BEFORE_FAILURE,
            c,
            (r.cycle.required_seq if r.cycle is not None else r.init_seq, e.seq),
            f"{s.at(e)}: no restoration had failed for request {r.request_id} by the scheduler's word.",
            missing="scheduler_resident_claim_restoration_failed",
        )
        return
    if told.policy != "fail":
        s.find(
            failure.FAILURE_POLICY_BROKEN,
            c,
            (told.failed_seq, e.seq),
            f"{s.at(e)} refuses; the failure at {s.seq(told.failed_seq)} was to be answered by {told.policy}.",
        )
    _check_naming(s, c, e, e.owner_scope)
    if finish_word(told.finish_status) != finish_word(e.finish_status):
        s.find(
            refusal.FINISH_STATUS_DIFFERS,
            c,
            (told.failed_seq, e.seq),
            f"{s.at(e)} announces {e.finish_status}; the failure at {s.seq(told.failed_seq)} announced "
            f"{told.finish_status}.",
        )


def _check_naming(
    s: SourceState, c: ClaimState | None, e: SchedulerRequestRefused | RequestRefused, owner: str | None
) -> None:
    if c is None:
        return
    if (
        e.outcome_claim_id != c.claim_id
        or (owner is not None and owner != c.owner_scope)
        or c.claim_id not in e.blocking_claim_ids
    ):
        s.find(
            refusal.REFUSAL_UNNAMED,
            c,
            (e.seq,),
            f"{s.at(e)} names {e.outcome_claim_id} of {owner} and blocking claims "
            f"{', '.join(e.blocking_claim_ids) or 'none'}; the claim that failed is {c.claim_id} of {c.owner_scope}.",
        )
    others = [name for name in e.blocking_claim_ids if name != c.claim_id]
    if others:
        s.find(
            failure.SMEARED_FAILURE,
            c,
            (e.seq,),
            f"{s.at(e)} refuses because of claim {c.claim_id} and also names {', '.join(others[:5])}.",
        )


def on_refused(s: SourceState, e: RequestRefused) -> None:
    """Capacity, or the connector's word about a failed restoration."""
    r = open_request(s, e)
    if r is None:
        return
    if e.outcome_claim_id is not None:
        _refused_by_connector(s, e, r)
        return
    _check_first(s, r, e, max(r.capacity_refused_seq, r.admitted_seq), "was decided")
    _check_first(s, r, e, max(r.reused_seq, r.recomputed_seq), "was being served")
    r.capacity_refused_seq = r.denied_seq = e.seq
    if (
        e.need_blocks is None
        or e.protected_blocks is None
        or e.active_blocks is None
        or e.usable_blocks is None
        or e.shortfall_blocks is None
    ):
        s.find(
            capacity.SHORTFALL_WRONG,
            None,
            (e.seq,),
            f"{s.at(e)} refuses for {e.reason} and does not give all numbers.",
            unknown=True,
        )
        return
    lose(s, e, r, e.need_blocks, e.protected_blocks, e.active_blocks, e.usable_blocks, e.shortfall_blocks)


def _refused_by_connector(s: SourceState, e: RequestRefused, r: RequestState) -> None:
    cycle = r.cycle
    c = r.claim
    if not _check_first(s, r, e, r.connector_refused_seq, "was refused"):
        return
    r.connector_refused_seq = r.denied_seq = e.seq
    if c is not None:
        c.count("refused_by_connector")
    harmed = c is not None and c.state == HARMED  # Then the loss was told, and is the reason.
    if r.failure is None and (cycle is None or cycle.connector_seq < 0) and not harmed:
        s.find(
            refusal.REFUSAL_BEFORE_FAILURE,
            c,
            (r.init_seq, e.seq),
            f"{s.at(e)}: no restoration had failed for request {r.request_id}.",
            missing="resident_claim_restoration_failed",
        )
    _check_naming(s, c, e, None)


def on_deferred_request(s: SourceState, e: RequestDeferred) -> None:
    """The request waits for the named claims."""
    r = open_request(s, e)
    if r is None:
        return
    _check_first(s, r, e, max(r.deferred_seq, r.admitted_seq, r.capacity_refused_seq), "was decided, or deferred,")
    _check_first(s, r, e, max(r.reused_seq, r.recomputed_seq), "was being served")
    r.deferred_seq = e.seq
    if e.deadline_ns <= e.mono_ns:
        s.find(
            coverage.REQUEST_ORDER,
            r.claim,
            (e.seq,),
            f"{s.at(e)} waits until {e.deadline_ns} ns, which is not after {e.mono_ns} ns.",
        )
    lose(s, e, r, e.need_blocks, e.protected_blocks, e.active_blocks, e.usable_blocks, e.shortfall_blocks)


def lose(
    s: SourceState, e: Lost, r: RequestState, need: int, protected: int, active: int, usable: int, shortfall: int
) -> None:
    """Check a decision that goes against a request: it does not fit, by these numbers, because of these claims."""
    s.decided_seq = e.seq
    check_usable(s, None, e, usable)
    missing = protected + active + need - usable
    if missing != shortfall:
        s.find(
            capacity.SHORTFALL_WRONG,
            None,
            (e.seq,),
            f"{s.at(e)}: {protected} protected + {active} active + {need} needed - {usable} usable blocks = {missing}, "
            f"not {shortfall}.",
        )
    held = min(protected, s.protected_blocks)
    if held + active + need <= usable:
        s.find(
            capacity.REFUSAL_THOUGH_FITS,
            None,
            (e.seq,),
            f"{s.at(e)}: {held} protected + {active} active + {need} needed <= {usable} usable blocks.",
        )
    if protected != s.protected_blocks:
        sum_differs(s, e, protected)
    own = r.claim.footprint_blocks if r.claim is not None and r.claim.protects else 0
    named = 0
    for claim_id in dict.fromkeys(e.blocking_claim_ids):
        holders = s.holders.get(claim_id)
        if holders is None:
            s.find(
                capacity.BLOCKING_CLAIM_NOT_OPEN,
                None,
                (e.seq,),
                f"{s.at(e)} names {claim_id}, which holds no blocks.",
            )
            continue
        for c in holders:
            named += c.footprint_blocks
            c.note("conflict_outcome", e.seq)
            if c.traits is not None and c.traits.name == "hard_protected":
                c.note("scoped_outcome", e.seq)
            c.count("blocked_others")
            if c.deadline_ns is not None and c.deadline_ns < e.mono_ns:
                s.find(
                    terms.EXPIRY_OVERDUE,
                    c,
                    (c.accepted_seq, e.seq),
                    f"{s.at(e)} at {e.mono_ns} ns names the claim, whose deadline was {c.deadline_ns} ns.",
                    missing="resident_claim_expired",
                )
    if need <= usable and named + own < min(shortfall, protected):
        s.find(
            capacity.BLOCKING_CLAIMS_MISSING,
            None,
            (e.seq,),
            f"{s.at(e)}: {shortfall} blocks are missing; the named claims "
            f"({', '.join(e.blocking_claim_ids) or 'none'}) hold {named}.",
        )


def sum_differs(s: SourceState, e: Lost | RequestAdmitted, protected: int) -> None:
    """File that a decision was made with other protected blocks than the claims hold."""
    s.find(
        capacity.PROTECTED_SUM_DIFFERS,
        None,
        (e.seq,),
        f"{s.at(e)} was decided with {protected} protected blocks; the open claims hold {s.protected_blocks}.",
    )


def on_admitted(s: SourceState, e: RequestAdmitted) -> None:
    """The request fits, possibly after named actions that made room."""
    s.admissions += 1
    if s.let_go:
        check_let_go(s, e)
    r = open_request(s, e)
    if r is None:
        return
    _check_first(s, r, e, r.admitted_seq, "was admitted")
    check_not_refused(s, r, e)
    _check_first(s, r, e, max(r.reused_seq, r.recomputed_seq), "was being served")
    r.admitted_seq = e.seq
    s.decided_seq = e.seq
    check_usable(s, None, e, e.usable_blocks)
    protected = s.protected_blocks
    stated = held = e.protected_blocks
    if stated != protected or e.actions:
        relieved = _relieved(s, e) if e.actions else 0
        if stated != protected and stated != protected + relieved:
            sum_differs(s, e, stated)
        held = max(protected, stated - relieved)
    if held + e.active_blocks + e.need_blocks > e.usable_blocks:
        s.find(
            capacity.ADMISSION_INFEASIBLE,
            None,
            (e.seq,),
            f"{s.at(e)}: {held} protected + {e.active_blocks} active + {e.need_blocks} needed > {e.usable_blocks} "
            "usable blocks.",
        )


def _check_first(s: SourceState, r: RequestState, e: RequestAdmitted | Lost, seq: int, was: str) -> bool:
    """File a decision that comes too late, because of what happened to its request at `seq`; -1 when it did not."""
    if seq >= 0:
        story = f"{s.at(e)}: request {r.request_id} {was} at {s.seq(seq)}."
        s.find(coverage.REQUEST_ORDER, r.claim, (seq, e.seq), story)
    return seq < 0


def check_usable(s: SourceState, c: ClaimState | None, e: RequestAdmitted | Lost | ClaimAccepted, usable: int) -> None:
    """File that a decision weighs against another capacity than those before it: nothing tells which one is true."""
    if s.usable_seq < 0:
        s.usable_blocks, s.usable_seq = usable, e.seq
    elif usable != s.usable_blocks:
        s.find(
            capacity.PROTECTED_SUM_DIFFERS,
            c,
            (s.usable_seq, e.seq),
            f"{s.at(e)} was decided with {usable} usable blocks; at {s.seq(s.usable_seq)} there were "
            f"{s.usable_blocks}.",
        )


def _relieved(s: SourceState, e: RequestAdmitted) -> int:
    """Return the blocks that the claims named by the actions held; each must have had its event before."""
    total = 0
    for action in e.actions:
        verb, _, claim_id = action.partition(":")
        blocks = _relieved_by(s, verb, claim_id)
        if blocks is None:
            s.find(
                capacity.RELIEF_WITHOUT_EVENT,
                None,
                (e.seq,),
                f"{s.at(e)} made room by {action}; the claim is not told so by any event before.",
                missing={
                    "demote": "resident_claim_demoted",
                    "expire": "resident_claim_expired",
                    "offload": "resident_claim_offloaded",
                }.get(verb, "the event of the action"),
            )
        else:
            total += blocks
    return total


_STATES = {
    "demote": ("demoted",),
    "expire": ("expired",),
    "offload": ("offloaded", "restore_required", "restored", "restoration_failed"),
}


def _relieved_by(s: SourceState, verb: str, claim_id: str) -> int | None:
    wanted = _STATES.get(verb)
    if wanted is None:
        return None
    for owner in s.owners.get(claim_id, ()):  # Two owners may use one name; the action does not say whose it is.
        c = s.claims.get((owner, claim_id))
        if c is not None and c.state_name() in wanted and not c.protects:
            return c.footprint_blocks
        ended = s.ended.get((owner, claim_id)) if c is None else None
        if ended is not None and s.results[ended.result].state in wanted:
            return ended.footprint_blocks
    return None
