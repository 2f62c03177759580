"""Loss of claimed blocks: excused before it happens, or harm that is told (spec sections 2 and 6)."""

from __future__ import annotations

from residentkv.audit.model import Rule, Verdict

_WHEN = "block copies cannot be told apart (no block ids), or after a gap in the same (source, epoch)"
_ORDER = (
    "resident_claim_released, resident_claim_expired or resident_claim_demoted",
    "block_removed (the last copy of a needed block)",
)

SILENT_LOSS = Rule(
    code="RKV288",
    slug="silent-loss",
    title="A claim lost blocks that its predicate needs and nobody said so",
    checks="that, once no tier has a copy of a needed block, the next word about the claim is resident_claim_harmed",
    why="the owner counts on something that is gone",
    required_order=("block_removed (the last copy of a needed block)", "resident_claim_harmed"),
    contradicts=("loss_reporting", "release_before_loss", "victim_exclusion", "scoped_outcome"),
    inconclusive_when=_WHEN,
    source="spec sections 2 and 6",
)
LOSS_BEFORE_EXCUSE = Rule(
    code="RKV289",
    slug="loss-before-excuse",
    title="A claim lost its blocks before the outcome that was to excuse it",
    checks="that released, expired or demoted comes before the last copy of a needed block is removed",
    why="an excuse that comes after the loss is only its report",
    required_order=_ORDER,
    contradicts=("release_before_loss", "expiry_enforcement", "victim_exclusion", "loss_reporting", "scoped_outcome"),
    inconclusive_when=_WHEN,
    source="spec sections 2 and 7 (loss before its expiry event)",
)
PROMISE_BROKEN = Rule(
    code="RKV290",
    slug="promise-broken",
    title="A protected claim was harmed, or withdrawn although its mode is given up for nobody",
    checks="that claims in modes that protect are not harmed, and hard_protected and expiring ones not demoted, except "
    "after a failed restoration that was told",
    why="that it was reported does not make it kept",
    required_order=_ORDER,
    contradicts=("victim_exclusion", "release_before_loss", "expiry_enforcement", "restore_before_reuse"),
    inconclusive_when="after a gap in the same (source, epoch)",
    source="spec section 2",
)

HARM_UNNAMED = Rule(
    code="RKV291",
    slug="harm-unnamed",
    title="A harm does not name what was lost",
    checks="that lost_pos names positions that the predicate needs, and, where block events tell the copies apart or "
    "each was removed as often as it was stored, exactly those of them of which no copy is left",
    why="an owner who is told the wrong positions keeps the wrong ones",
    inconclusive_when="always when it is found",
    source="spec section 2",
    verdict=Verdict.INCONCLUSIVE,
)

RULES = (SILENT_LOSS, LOSS_BEFORE_EXCUSE, PROMISE_BROKEN, HARM_UNNAMED)
