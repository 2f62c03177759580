"""The order of one claim's own events, and its one end (spec section 2)."""

from __future__ import annotations

from residentkv.audit.model import Rule, Verdict

_UNKNOWN = Verdict.INCONCLUSIVE
_AFTER_GAP = "after a gap in the same (source, epoch), because the missing event may lie in the gap"

LIFECYCLE = (
    "resident_claim_accepted",
    "resident_claim_materialized",
    "resident_claim_offloaded",
    "resident_claim_restore_required",
    "resident_claim_restored or scheduler_resident_claim_restoration_failed",
    "resident_claim_released, resident_claim_expired, resident_claim_demoted or resident_claim_harmed",
)

ILLEGAL_TRANSITION = Rule(
    code="RKV230",
    slug="illegal-transition",
    title="A claim made a step that its lifecycle does not allow",
    checks="every step of a claim against residentkv.claims.lifecycle",
    why="the order is the promise: a copy that was never made cannot be restored, and a restoration that nobody needed "
    "explains nothing",
    required_order=LIFECYCLE,
    contradicts=("ordered_lifecycle",),
    inconclusive_when=_AFTER_GAP,
    source="spec section 2 (lifecycle)",
)
CLAIM_ALREADY_ENDED = Rule(
    code="RKV231",
    slug="claim-already-ended",
    title="A claim that had its outcome went on, or got a second outcome",
    checks="that exactly one of released, expired, demoted, harmed or rejected ends a claim, and nothing follows it",
    why="two outcomes are none: the owner cannot tell which one holds, and a read after the end is a read of KV that "
    "nobody keeps",
    required_order=LIFECYCLE,
    contradicts=("ordered_lifecycle",),
    inconclusive_when="after a gap in the same (source, epoch)",
    source="spec sections 2 and 6",
)
CLAIM_UNFINISHED = Rule(
    code="RKV232",
    slug="claim-unfinished",
    title="A claim has no outcome at the end of the trace",
    checks="that every accepted claim has its outcome before trace_closed",
    why="what became of the promise is unknown",
    required_order=LIFECYCLE,
    inconclusive_when="always when it is found",
    source="spec sections 2 and 6",
    verdict=_UNKNOWN,
)
RESTORATION_UNFINISHED = Rule(
    code="RKV233",
    slug="restoration-unfinished",
    title="A restoration is open at the end of the trace",
    checks="that every required restoration is restored or failed before the claim or the trace ends, unless the claim "
    "was ended by name",
    why="whether the bytes came back is unknown",
    required_order=LIFECYCLE,
    inconclusive_when="always when it is found",
    source="spec section 6",
    verdict=_UNKNOWN,
)
GENERATION_DIFFERS = Rule(
    code="RKV234",
    slug="generation-differs",
    title="An event names another generation than the one that is current",
    checks="that generation counts the resident_claim_offloaded events of the claim: 0 before the first, n after the "
    "n-th",
    why="a load of an earlier cycle would count for this one",
    contradicts=("ordered_lifecycle", "offload_identity"),
    inconclusive_when=_AFTER_GAP,
    source="spec section 6",
)
OUTCOME_NAMES_OTHER_CLAIM = Rule(
    code="RKV235",
    slug="outcome-names-other-claim",
    title="The outcome of a claim names another claim",
    checks="that outcome_claim_id of an outcome is the claim of the event",
    why="the owner of one claim is told about another one's end",
    contradicts=("scoped_outcome", "claim_identity"),
    inconclusive_when="after a gap in the same (source, epoch)",
    source="spec section 6",
)

RULES = (
    ILLEGAL_TRANSITION,
    CLAIM_ALREADY_ENDED,
    CLAIM_UNFINISHED,
    RESTORATION_UNFINISHED,
    GENERATION_DIFFERS,
    OUTCOME_NAMES_OTHER_CLAIM,
)
