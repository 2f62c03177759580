"""Who promised what to whom, before anything else happened (spec sections 2 and 4)."""

from __future__ import annotations

from residentkv.audit.model import Rule, Verdict

_UNKNOWN = Verdict.INCONCLUSIVE
_AFTER_GAP = "after a gap in the same (source, epoch), because the missing event may lie in the gap"

CLAIM_NEVER_ACCEPTED = Rule(
    code="RKV220",
    slug="claim-never-accepted",
    title="Something happened in the name of a claim that nobody had accepted",
    checks="that resident_claim_accepted comes before any other event or transfer that names the claim",
    why="a claim that is named first after the pressure or the failure promises nothing and explains nothing",
    required_order=("resident_claim_accepted", "every other event of the claim"),
    contradicts=("acceptance", "joinability", "ordered_lifecycle"),
    inconclusive_when=_AFTER_GAP,
    source="spec sections 2 and 7 (post-hoc claim naming, events as acceptance)",
)
CLAIM_VOIDED_BY_RESTART = Rule(
    code="RKV221",
    slug="claim-voided-by-restart",
    title="A claim of an earlier epoch was used without being accepted again",
    checks="that a new epoch accepts a claim again before it says anything about it",
    why="the process that promised is gone, and so are its blocks",
    required_order=("trace_opened of the new epoch", "resident_claim_accepted", "every other event of the claim"),
    contradicts=("acceptance", "joinability", "ordered_lifecycle"),
    inconclusive_when=_AFTER_GAP,
    source="spec section 6; llm-d/llm-d-router#2853",
)
CLAIM_OF_ANOTHER_OWNER = Rule(
    code="RKV222",
    slug="claim-of-another-owner",
    title="A claim was used under another owner",
    checks="that the owner on every event is the owner that the claim was accepted for",
    why="nobody else may release the claim, reuse under its name or read its state",
    contradicts=("claim_identity", "acceptance"),
    inconclusive_when=_AFTER_GAP,
    source="spec sections 2 and 7; sgl-project/sglang#37160, LMCache#4825",
)
IDENTITY_CHANGED = Rule(
    code="RKV223",
    slug="identity-changed",
    title="The identity of a claim changed between events",
    checks="that object, token map, cache identity and predicate are on every event what they were at acceptance",
    why="KV of other tokens, of another salt or of other weights is not what was promised; reading it gives a wrong "
    "answer",
    contradicts=("claim_identity", "cache_identity", "object_identity", "predicate"),
    inconclusive_when="after a gap in the same (source, epoch)",
    source="spec section 2; vllm-project/vllm#42695, LMCache/LMCache#4991, sgl-project/sglang#37160",
)
REQUEST_NOT_JOINED = Rule(
    code="RKV224",
    slug="request-not-joined",
    title="A request acts for a claim that it did not name when it came in",
    checks="that request_initialized of the request named this claim and this owner",
    why="a claim that is attached to a request afterwards could be any claim",
    required_order=("request_initialized (naming the claim)", "claim events of the request"),
    contradicts=("joinability",),
    inconclusive_when=_AFTER_GAP,
    source="spec sections 4 (joinability) and 7 (post-hoc claim naming)",
)
CLIP_UNNAMED = Rule(
    code="RKV225",
    slug="clip-unnamed",
    title="A claim was clipped and the terms asked for are not named, or named and not clipped",
    checks="that clipped_from names what was asked for exactly when the decision is `clipped`",
    why="the owner would rely on terms that were never granted",
    contradicts=("acceptance",),
    inconclusive_when="after a gap in the same (source, epoch)",
    source="spec section 2",
)
ACCEPTANCE_INFEASIBLE = Rule(
    code="RKV226",
    slug="acceptance-infeasible",
    title="A claim was accepted that could not be held",
    checks="that protected blocks plus the footprint do not exceed the usable blocks, for modes that reserve blocks",
    why="one of the accepted claims must be broken, and everybody was told yes",
    contradicts=("acceptance", "feasibility_check"),
    inconclusive_when="after a gap in the same (source, epoch)",
    source="spec section 2 (feasibility)",
)
PREDICATE_UNREADABLE = Rule(
    code="RKV227",
    slug="predicate-unreadable",
    title="The predicate of a claim cannot be evaluated",
    checks="that the predicate is one of the three forms, and that it asks for nothing the trace does not carry "
    "(sidecar state)",
    why="whether the claim is worth anything is unknown",
    inconclusive_when="always when it is found",
    source="spec section 2",
    verdict=_UNKNOWN,
)
MODE_UNKNOWN = Rule(
    code="RKV228",
    slug="mode-unknown",
    title="A claim was accepted in a mode that is not known",
    checks="that the mode is one of the seven",
    why="what was promised is unknown",
    inconclusive_when="always when it is found",
    source="spec section 4",
    verdict=_UNKNOWN,
)

RULES = (
    CLAIM_NEVER_ACCEPTED,
    CLAIM_VOIDED_BY_RESTART,
    CLAIM_OF_ANOTHER_OWNER,
    IDENTITY_CHANGED,
    REQUEST_NOT_JOINED,
    CLIP_UNNAMED,
    ACCEPTANCE_INFEASIBLE,
    PREDICATE_UNREADABLE,
    MODE_UNKNOWN,
)
