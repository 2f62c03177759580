"""What the loss of a needed block means for the next word about its claim."""

from __future__ import annotations

from residentkv.audit.rules import loss, offload
from residentkv.audit.state import ClaimState, SourceState
from residentkv.trace.events import ClaimEvent, ClaimHarmed


def account_for_loss(s: SourceState, c: ClaimState, e: ClaimEvent) -> None:
    """The last copy of a needed block went earlier: only harm may be said next, and every other word is too late."""
    if isinstance(e, ClaimHarmed) or c.traits is None or not c.traits.reports_loss:
        return
    s.find(
        loss.LOSS_BEFORE_EXCUSE,
        c,
        (c.lost_seq, e.seq),
        f"The last copy of a block that {c.predicate_text} needs was removed at {s.seq(c.lost_seq)}.",
        f"{s.at(e)} comes after the loss and does not report it.",
        missing="resident_claim_harmed",
        unknown=c.lost_blurred,
    )


def silent_loss(s: SourceState, c: ClaimState) -> None:
    """The trace is over and the loss of an open claim was never reported."""
    if c.traits is None or not c.traits.reports_loss:
        return
    s.find(
        loss.SILENT_LOSS,
        c,
        (c.lost_seq,),
        f"The last copy of a block that {c.predicate_text} needs was removed at {s.seq(c.lost_seq)}, and nothing was "
        "said about the claim afterwards.",
        missing="resident_claim_harmed",
        unknown=c.lost_blurred,
    )


def blocks_unclear(s: SourceState, c: ClaimState) -> None:
    """The source reports blocks, and yet not those of the claim, or not so that copies can be told apart."""
    if not s.block_events or c.materialized_seq < 0 or c.predicate is None:
        return
    if not c.hashes:
        s.find(
            offload.BLOCK_COPIES_UNCLEAR,
            c,
            (c.materialized_seq,),
            f"{s.source}/{s.epoch} reports which blocks come and go, and the materialization at "
            f"{s.seq(c.materialized_seq)} does not say which blocks are the claim's.",
        )
    elif c.unseen:
        s.find(
            offload.BLOCK_COPIES_UNCLEAR,
            c,
            (c.materialized_seq,),
            f"{len(c.unseen)} blocks that {c.predicate_text} needs were never stored in {c.primary_tier} by a "
            f"block_stored event, for example {min(c.unseen)}.",
            missing="block_stored",
        )
    elif c.lost_blurred and c.lost_seq < 0:
        s.find(
            offload.BLOCK_COPIES_UNCLEAR,
            c,
            (c.materialized_seq,),
            "Copies of a needed block were removed, and without block ids it is unknown whether one was left.",
        )
