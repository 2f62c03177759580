"""Active requests: they come in, are looked up, and may be computed again."""

from __future__ import annotations

from residentkv.audit.ranges import clean, intersect, say, union
from residentkv.audit.rules import coverage, failure, refusal, restore
from residentkv.audit.state import ClaimState, RequestState, SourceState
from residentkv.audit.steps.endings import check_let_go
from residentkv.audit.steps.joins import link, not_joined
from residentkv.audit.table import DEMOTED, EXPIRED, HARMED, IS_OPEN, RELEASED, RESTORED
from residentkv.trace.events import Event, RequestEvent, RequestInitialized, RequestRecomputed

SERVED = frozenset({"stopped", "stop", "length", "length_capped", "eos", "repetition", "finished"})
"""Finish words of a request that got its answer, in lower case; any other word is not a served request."""
WITHDRAWN = frozenset({"aborted", "abort", "cancelled", "canceled"})
"""Finish words of a request that its client, or the engine on its behalf, took back."""
FAILED = frozenset({"error", "refused", "rejected", "ignored"})
"""Finish words of a request that got an error instead of an answer."""
FINAL = SERVED | WITHDRAWN | FAILED


def finish_word(status: str) -> str:
    """Return the finish word in the form of the sets above: `FINISHED_LENGTH_CAPPED` is `length_capped`."""
    return status if status in FINAL else status.lower().removeprefix("finished_")


def ended_at(s: SourceState, request_id: str) -> int | None:
    """Return where a request ended, if it is one of the recent ones."""
    over = s.recent.get(request_id)
    return over if over is not None else s.less_recent.get(request_id)


def open_request(s: SourceState, e: RequestEvent, c: ClaimState | None = None) -> RequestState | None:
    """Return the open request of the event; None after filing that there is none."""
    r = s.requests.get(e.request_id)
    if r is None:
        over = ended_at(s, e.request_id)
        s.find(
            coverage.UNKNOWN_REQUEST,
            c,
            (over if over is not None else -1, e.seq),
            f"{s.at(e)} is of request {e.request_id}, which "
            + (f"ended at {s.seq(over)}." if over is not None else "was never initialized."),
            missing="request_initialized",
        )
    return r


def check_not_refused(s: SourceState, r: RequestState, e: Event) -> None:
    """File that a request is admitted or served after it was refused."""
    if r.denied_seq >= 0:
        s.find(
            refusal.REFUSED_BUT_SERVED,
            r.claim,
            (r.denied_seq, e.seq),
            f"{s.at(e)}: request {r.request_id} was refused at {s.seq(r.denied_seq)}.",
        )


def on_initialized(s: SourceState, e: RequestInitialized) -> None:
    """The request comes in and says which claim it is about, before there is any pressure."""
    s.authoritative = True
    if s.let_go:
        check_let_go(s, e)
    old = s.requests.get(e.request_id)
    if old is not None:
        s.find(
            coverage.REQUEST_ORDER,
            old.claim,
            (old.init_seq, e.seq),
            f"{s.at(e)}: request {e.request_id} was initialized at {s.seq(old.init_seq)} and has not ended.",
        )
        return
    if e.claim_id is None:
        s.requests[e.request_id] = RequestState(e.request_id, None, e.seq)
        return
    key = (e.owner_scope or "", e.claim_id)
    r = s.requests[e.request_id] = RequestState(e.request_id, key, e.seq)
    c = s.claims.get(key)
    if c is not None and IS_OPEN[c.state]:
        link(c, r)


def on_recomputed(s: SourceState, e: RequestRecomputed) -> None:
    """Tokens were computed again; for claimed positions the claim must have had its own outcome before."""
    r = open_request(s, e)
    if r is None:
        return
    check_not_refused(s, r, e)
    pos = clean(e.recomputed_pos)
    if e.claim_id is None:
        over = r.claim is not None and r.failure is None and r.claim.state in (RELEASED, EXPIRED)
        if r.claim is not None and not over:
            not_joined(s, r.claim, r, e)
    elif r.key is None or e.claim_id != r.key[1] or e.owner_scope != r.key[0]:
        not_joined(s, None, r, e)
    again = r.recomputed_seq >= 0 and intersect(pos, r.recomputed_pos)
    if again:
        s.find(
            coverage.REQUEST_ORDER,
            r.claim,
            (r.recomputed_seq, e.seq),
            f"{s.at(e)}: positions {say(again)} were recomputed at {s.seq(r.recomputed_seq)}.",
        )
    c = r.claim
    read = intersect(pos, r.reused_pos)
    if read:
        s.find(
            restore.RECOMPUTE_COUNTED_AS_RESTORE,
            c,
            (r.reused_seq, e.seq),
            f"{s.at(e)} computes positions {say(read)} again, which the request had reused at {s.seq(r.reused_seq)}.",
            unknown=True,
        )
    if c is not None and c.materialized_seq >= 0 and (c.traits is None or c.traits.reports_loss):
        _recomputed_claim(s, c, r, e, pos)
    r.recomputed_pos = union(r.recomputed_pos, pos)
    r.recomputed_seq = e.seq
    r.served_seq = e.seq


def _recomputed_claim(
    s: SourceState, c: ClaimState, r: RequestState, e: RequestRecomputed, pos: tuple[tuple[int, int], ...]
) -> None:
    c.count("recomputed")
    needed = intersect(pos, c.needed_pos)
    if not needed and pos:
        return
    if r.failure is not None and r.failure.policy == "fail":
        s.find(
            failure.FAILURE_POLICY_BROKEN,
            c,
            (r.failure.failed_seq, e.seq),
            f"{s.at(e)} computes again after the failure at {s.seq(r.failure.failed_seq)}, whose policy is fail.",
        )
    elif r.failure is not None and r.failure.policy == "retry" and r.failure is r.cycle:
        s.find(
            failure.FAILURE_POLICY_BROKEN,
            c,
            (r.failure.failed_seq, e.seq),
            f"{s.at(e)} computes again; the failure at {s.seq(r.failure.failed_seq)} announced a retry, and none came.",
            missing="resident_claim_restore_required",
            unknown=True,
        )
    if not c.ended:
        s.find(
            failure.RECOMPUTE_WITHOUT_OUTCOME,
            c,
            (r.failure.failed_seq if r.failure is not None else c.step_seq, e.seq),
            f"{s.at(e)} computes positions {say(pos)} again, while the claim is {c.state_name()} and has no outcome.",
            missing="resident_claim_demoted or resident_claim_harmed",
        )
    elif r.failure is not None and c.state not in (DEMOTED, HARMED):
        s.find(
            failure.RECOMPUTE_WITHOUT_OUTCOME,
            c,
            (c.end_seq, e.seq),
            f"{s.at(e)} computes again after a failed restoration; the claim ended as {c.state_name()} at "
            f"{s.seq(c.end_seq)}, which does not say so.",
            missing="resident_claim_demoted or resident_claim_harmed",
        )
    cycle = r.cycle
    if cycle is not None and cycle.restored_seq >= 0 and cycle is c.cycle and c.state == RESTORED:
        s.find(
            restore.RECOMPUTE_COUNTED_AS_RESTORE,
            c,
            (cycle.restored_seq, e.seq),
            f"{s.at(e)} computes positions {say(pos)} again that were called restored at {s.seq(cycle.restored_seq)}.",
        )
