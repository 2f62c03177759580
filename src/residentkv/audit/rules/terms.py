"""Terms, renewals, expiry and release (spec section 2)."""

from __future__ import annotations

from residentkv.audit.model import Rule

_AFTER_GAP = "after a gap in the same (source, epoch), because a renewal may lie in the gap"

TERM_MISSING = Rule(
    code="RKV237",
    slug="term-missing",
    title="A claim with a term has no deadline, or another one than its term gives",
    checks="that an expiring claim, and every claim with ttl_s, is accepted with a deadline after its acceptance, and "
    "that the deadline is ttl_s after the decision",
    why="nobody can tell when the promise ends",
    contradicts=("acceptance", "expiry_enforcement"),
    inconclusive_when="there is a deadline that is not ttl_s after the decision, or after a gap in the same "
    "(source, epoch)",
    source="spec sections 2 and 7 (TTL as acceptance)",
)
READ_AFTER_TERM = Rule(
    code="RKV238",
    slug="read-after-term",
    title="A claim was read after its deadline",
    checks="that no reuse, no required restoration and no service by a binding is later than the deadline of the "
    "claim, by the source's clock",
    why="after the term the blocks may be anybody's; the request may have read freed KV and still returned 200",
    required_order=("resident_claim_reused", "the deadline", "resident_claim_expired"),
    contradicts=("expiry_enforcement", "release_before_loss", "ordered_lifecycle"),
    inconclusive_when=_AFTER_GAP,
    source="spec section 6; aws-samples/aws-do-eks PR 84",
)
EXPIRED_EARLY = Rule(
    code="RKV239",
    slug="expired-early",
    title="A claim expired before its deadline, or without having one",
    checks="that resident_claim_expired is not earlier than the deadline and names the deadline that was promised",
    why="an expiry that comes early is a loss with another name",
    required_order=("the deadline", "resident_claim_expired"),
    contradicts=("expiry_enforcement", "release_before_loss", "ordered_lifecycle"),
    inconclusive_when=_AFTER_GAP,
    source="spec section 2",
)
RENEWAL_NOT_NEWER = Rule(
    code="RKV240",
    slug="renewal-not-newer",
    title="A renewal does not extend what it renews",
    checks="that the revision grows and the deadline does not move closer",
    why="an old renewal that arrives late would undo a newer one",
    contradicts=("ordered_lifecycle",),
    inconclusive_when=_AFTER_GAP,
    source="spec section 2",
)
RENEWAL_AFTER_TERM = Rule(
    code="RKV241",
    slug="renewal-after-term",
    title="A claim was renewed after its deadline",
    checks="that a renewal is not later than the deadline that it extends",
    why="between the deadline and the renewal nobody was keeping anything; only a new acceptance promises again",
    required_order=("resident_claim_renewed", "the deadline"),
    contradicts=("expiry_enforcement", "ordered_lifecycle"),
    inconclusive_when=_AFTER_GAP,
    source="spec section 2",
)
RELEASED_BY_STRANGER = Rule(
    code="RKV242",
    slug="released-by-stranger",
    title="A claim was released by somebody who does not own it",
    checks="that released_by is the owner_scope of the claim, or names the engine (`engine:...`) at its end: no "
    "request comes in, is let in or gets its answer, no claim is accepted and no transfer begins afterwards, unless "
    "the claim had never been materialized",
    why="a tenant, or an engine that needs the room, could end the protection of another one",
    contradicts=("release_before_loss", "claim_identity"),
    inconclusive_when="after a gap in the same (source, epoch)",
    source="spec section 2",
)
EXPIRY_OVERDUE = Rule(
    code="RKV243",
    slug="expiry-overdue",
    title="A claim past its deadline was still held against others",
    checks="that no refusal or deferral names a claim whose deadline has passed, and none is materialized then",
    why="a term that nobody enforces is a pin: others are refused for the sake of a promise that has ended",
    required_order=("the deadline", "resident_claim_expired", "decisions about other requests"),
    contradicts=("expiry_enforcement", "ordered_lifecycle"),
    inconclusive_when="it is materialized, or after a gap in the same (source, epoch), because a renewal may lie in it",
    source="spec section 2; sgl-project/sglang#27024",
)

RULES = (
    TERM_MISSING,
    READ_AFTER_TERM,
    EXPIRED_EARLY,
    RENEWAL_NOT_NEWER,
    RENEWAL_AFTER_TERM,
    RELEASED_BY_STRANGER,
    EXPIRY_OVERDUE,
)
