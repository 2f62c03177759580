"""The one end of a claim: released, expired, demoted or harmed."""

from __future__ import annotations

from residentkv.audit.ranges import intersect, say
from residentkv.audit.rules import lifecycle, loss, terms
from residentkv.audit.state import ClaimState, SourceState
from residentkv.audit.steps.endings import collapse, excused, unprotect
from residentkv.audit.steps.joins import claim_of, generation_differs, still_open, take
from residentkv.audit.steps.losses import account_for_loss, blocks_unclear
from residentkv.audit.steps.preference import note_spared
from residentkv.audit.table import DEMOTE, EXPIRE, HARM, RELEASE, RESTORATION_FAILED, Move
from residentkv.claims.predicates import Ranges, ranges_of
from residentkv.trace.events import ClaimDemoted, ClaimExpired, ClaimHarmed, ClaimReleased

Ending = ClaimReleased | ClaimExpired | ClaimDemoted | ClaimHarmed


def _end(s: SourceState, c: ClaimState, e: Ending, move: Move) -> None:
    if e.generation != c.generation:
        generation_differs(s, c, e, c.generation)
    if e.outcome_claim_id != c.claim_id:
        s.find(
            lifecycle.OUTCOME_NAMES_OTHER_CLAIM,
            c,
            (e.seq,),
            f"{s.at(e)} is the outcome of claim {c.claim_id} and names {e.outcome_claim_id}.",
        )
    if not isinstance(e, ClaimDemoted | ClaimHarmed) or e.request_id != c.last_request:
        still_open(s, c, e)  # The last request of the claim may be the reason for its loss after its own end.
    legal = take(s, c, e, move)
    c.ended = True
    c.end_seq = e.seq
    unprotect(s, c)
    if c.lost_seq >= 0:
        account_for_loss(s, c, e)
    blocks_unclear(s, c)
    if c.needed_hashes:
        _evidence_of_blocks(s, c, legal)
        s.blocks.unwatch(c, excused(c) and c.lost_seq < 0)
    if c.traits is not None and c.traits.reserves and s.decided_seq > c.accepted_seq:
        c.note("feasibility_check", c.accepted_seq, s.decided_seq)
    if not c.open_requests and not c.open_jobs:
        collapse(s, c)


def _evidence_of_blocks(s: SourceState, c: ClaimState, legal: bool) -> None:
    """Under pressure newer blocks were evicted from the tier that holds the claim, and the claim was not."""
    if not c.open_requests:
        note_spared(s, c)
    if legal and c.spared_seq >= 0 and c.primary_loss_seq < 0 and not c.unseen:
        c.note("victim_exclusion", c.materialized_seq, c.spared_seq, c.end_seq)


def on_released(s: SourceState, e: ClaimReleased) -> None:
    """The owner or the engine lets the claim go."""
    c = claim_of(s, e)
    if c is None:
        return
    if e.released_by != c.owner_scope and not e.released_by.startswith("engine:"):
        s.find(
            terms.RELEASED_BY_STRANGER,
            c,
            (e.seq,),
            f"{s.at(e)}: released by {e.released_by}; the claim belongs to {c.owner_scope}.",
        )
    elif e.released_by != c.owner_scope and c.materialized_seq >= 0 and c.traits is not None and c.traits.reports_loss:
        s.let_go.append((c, e.seq))
    _end(s, c, e, RELEASE)


def on_expired(s: SourceState, e: ClaimExpired) -> None:
    """The term ended."""
    c = claim_of(s, e)
    if c is None:
        return
    if c.deadline_ns is None or e.deadline_ns != c.deadline_ns:
        promised = f"{c.deadline_ns} ns" if c.deadline_ns is not None else "none"
        s.find(
            terms.EXPIRED_EARLY,
            c,
            (e.seq,),
            f"{s.at(e)} names the deadline {e.deadline_ns} ns; the one that was promised is {promised}.",
        )
    elif e.mono_ns < c.deadline_ns:
        s.find(
            terms.EXPIRED_EARLY,
            c,
            (e.seq,),
            f"{s.at(e)} comes at {e.mono_ns} ns, {c.deadline_ns - e.mono_ns} ns before the deadline.",
        )
    else:
        c.note("expiry_enforcement", c.accepted_seq, e.seq)
    _end(s, c, e, EXPIRE)


def on_demoted(s: SourceState, e: ClaimDemoted) -> None:
    """The promise is withdrawn with notice."""
    c = claim_of(s, e)
    if c is None:
        return
    c.count("demoted")
    if c.traits is not None and c.traits.name == "demotable":
        c.note("scoped_outcome", e.seq)
    failed = c.state == RESTORATION_FAILED
    if c.traits is not None and c.traits.is_never_given_up and c.materialized_seq >= 0 and not failed:
        _broken(
            s, c, e, c.traits.name, "that is given up for nobody", "active_request_refused or active_request_deferred"
        )
    _end(s, c, e, DEMOTE)


def on_harmed(s: SourceState, e: ClaimHarmed) -> None:
    """The promise was broken and the runtime says so."""
    c = claim_of(s, e)
    if c is None:
        return
    c.count("harmed")
    if c.traits is not None and c.traits.loss_is_violation and c.state != RESTORATION_FAILED:
        missing = "resident_claim_released, resident_claim_expired or resident_claim_demoted"
        _broken(s, c, e, c.traits.name, "nothing had excused the loss", missing)
    _check_lost_positions(s, c, e)
    if c.lost_seq >= 0:
        c.note("loss_reporting", c.lost_seq, e.seq)
    _end(s, c, e, HARM)


def _broken(s: SourceState, c: ClaimState, e: ClaimDemoted | ClaimHarmed, mode: str, why: str, missing: str) -> None:
    story = f"{s.at(e)}: {e.reason}; the claim was accepted as {mode} at {s.seq(c.accepted_seq)}, and {why}."
    s.find(loss.PROMISE_BROKEN, c, (c.accepted_seq, e.seq), story, missing=missing)


def _check_lost_positions(s: SourceState, c: ClaimState, e: ClaimHarmed) -> None:
    """Compare what is said to be lost with what is needed, and with the copies that are left."""
    if not c.needed_pos:
        return
    lost = intersect(e.lost_pos, c.needed_pos)
    gone: Ranges | None = None
    wrong = not lost
    if c.needed_hashes and not c.unseen:
        start = c.needed_pos[0][0]
        where, ever, doubtful = s.blocks.where, c.gone or (), s.blocks.doubtful
        named = intersect(lost, ((start, start + len(c.needed_hashes)),))
        told = {p for lo, hi in named for p in range(lo, hi)}
        certain = [(start + i, block) for i, block in enumerate(c.needed_hashes) if block not in doubtful]
        said = [p for p, _ in certain if p in told]
        now = [p for p, block in certain if block not in where]
        gone = ranges_of(now)
        wrong = wrong or said not in (now, [p for p, block in certain if block in ever])
    if wrong:
        left = "" if gone is None else f", and by the block events no copy is left of {say(gone)}"
        s.find(
            loss.HARM_UNNAMED,
            c,
            (c.lost_seq, e.seq),
            f"{s.at(e)} calls positions {say(e.lost_pos)} lost; {c.predicate_text} needs {say(c.needed_pos)}{left}.",
        )
