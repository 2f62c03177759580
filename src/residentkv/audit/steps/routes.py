"""Route bindings of a claim and where its requests were really served."""

from __future__ import annotations

from residentkv.audit.rules import lifecycle, restore, routing
from residentkv.audit.state import SourceState
from residentkv.audit.steps.copies import check_read
from residentkv.audit.steps.joins import acting, claim_of, generation_differs, mentioned
from residentkv.audit.table import IS_OPEN
from residentkv.trace.events import ClaimRouteBound, ClaimRouteOutcome


def on_route_bound(s: SourceState, e: ClaimRouteBound) -> None:
    """The claim is bound to one worker incarnation."""
    c = claim_of(s, e)
    if c is None:
        return
    if e.generation != c.generation:
        generation_differs(s, c, e, c.generation)
    mentioned(s, c, e)
    if not IS_OPEN[c.state] and not c.unaccepted:
        s.find(
            lifecycle.ILLEGAL_TRANSITION,
            c,
            (c.step_seq, e.seq),
            f"{s.at(e)}: a claim that is {c.state_name()} cannot be bound.",
        )
    worker = (e.worker_id, e.worker_epoch)
    if c.worker == worker:
        s.find(
            routing.ROUTE_UNBOUND,
            c,
            (c.worker_seq, e.seq),
            f"{s.at(e)}: the claim was bound to {e.worker_id} epoch {e.worker_epoch} at {s.seq(c.worker_seq)}.",
        )
    elif c.worker is not None and c.worker[0] == e.worker_id and c.worker[1] > e.worker_epoch:
        s.find(
            routing.STALE_WORKER,
            c,
            (c.worker_seq, e.seq),
            f"{s.at(e)} binds to {e.worker_id} epoch {e.worker_epoch}; epoch {c.worker[1]} of it was bound at "
            f"{s.seq(c.worker_seq)}.",
        )
    c.worker = worker
    c.worker_seq = e.seq
    c.count("bound")


def on_route_outcome(s: SourceState, e: ClaimRouteOutcome) -> None:
    """Where a request of the claim was served."""
    c = claim_of(s, e)
    if c is None:
        return
    if e.generation != c.generation:
        generation_differs(s, c, e, c.generation)
    r = acting(s, c, e)
    if e.outcome_claim_id != c.claim_id:
        s.find(
            lifecycle.OUTCOME_NAMES_OTHER_CLAIM,
            c,
            (e.seq,),
            f"{s.at(e)} is the outcome of claim {c.claim_id} and names {e.outcome_claim_id}.",
        )
    c.count(f"route_{e.outcome}")
    if c.worker is None:
        if not c.unaccepted:
            s.find(
                routing.ROUTE_UNBOUND,
                c,
                (c.accepted_seq, e.seq),
                f"{s.at(e)}: the claim was bound to no worker.",
                missing="resident_claim_route_bound",
            )
        return
    here = (e.worker_id, e.worker_epoch) == c.worker
    bound = f"{c.worker[0]} epoch {c.worker[1]}"
    if e.outcome == "served_by_binding" and not here:
        s.find(
            routing.STALE_WORKER,
            c,
            (c.worker_seq, e.seq),
            f"{s.at(e)} counts {e.worker_id} epoch {e.worker_epoch} as the binding; the claim is bound to {bound}.",
        )
    reused = e.reused_blocks or 0
    wrong = ""
    if e.outcome == "served_by_binding" and not reused:
        wrong = "was served by its binding and reused no blocks"
    elif e.outcome in ("lost", "refused") and reused:
        wrong = f"is {e.outcome} and reused {reused} blocks"
    elif e.outcome == "moved" and here:
        wrong = f"is moved and names the worker of the binding, {bound}"
    elif e.outcome == "refused" and not here:
        wrong = f"is refused by {e.worker_id} epoch {e.worker_epoch}, and the claim is bound to {bound}"
    needed = sum(hi - lo for lo, hi in c.needed_pos)
    too_few = e.outcome == "served_by_binding" and 0 < reused < needed
    if too_few:
        wrong = f"reused {reused} blocks of the {needed} that {c.predicate_text} needs"
    if wrong:
        s.find(
            routing.ROUTE_OUTCOME_CONTRADICTS_ITSELF,
            c,
            (c.worker_seq, e.seq),
            f"{s.at(e)}: the request {wrong}.",
            unknown=too_few,
        )
    if e.outcome == "served_by_binding" and c.materialized_seq < 0:
        s.find(
            restore.REUSE_WITHOUT_RESTORATION,
            c,
            (c.accepted_seq, e.seq),
            f"{s.at(e)}: the claim was never materialized, so there was nothing to reuse.",
            missing="resident_claim_materialized",
        )
    if e.outcome == "served_by_binding":
        check_read(s, c, e)
        c.note("route_binding", c.worker_seq, e.seq)  # A binding that no request was ever served by binds nothing.
    c.note("route_outcome", e.seq)
    c.note("scoped_outcome", e.seq)
    if e.outcome == "lost" and c.lost_seq < 0:
        c.lost_seq = e.seq
    if r is not None:
        if e.outcome == "refused":
            r.denied_seq = e.seq
        if r.served_seq >= 0:
            s.find(
                routing.ROUTE_OUTCOME_CONTRADICTS_ITSELF,
                c,
                (r.served_seq, e.seq),
                f"{s.at(e)}: the outcome of request {r.request_id} was said at {s.seq(r.served_seq)}.",
            )
        r.served_seq = e.seq
