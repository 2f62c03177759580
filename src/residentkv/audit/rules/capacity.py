"""The numbers of admission, deferral and refusal, checked against the claims that are open (spec section 2)."""

from __future__ import annotations

from residentkv.audit.model import Rule, Verdict

_UNKNOWN = Verdict.INCONCLUSIVE
_AFTER_GAP = "after a gap in the same (source, epoch)"

ADMISSION_INFEASIBLE = Rule(
    code="RKV280",
    slug="admission-infeasible",
    title="A request was admitted that does not fit beside the claims",
    checks="protected + active + need <= usable, with the protected blocks of the claims that are open by their events",
    why="one of the protected claims must lose its blocks for it",
    contradicts=("feasibility_check", "victim_exclusion"),
    inconclusive_when=_AFTER_GAP,
    source="spec sections 2 and 8 (capacity litmus)",
)
REFUSAL_THOUGH_FITS = Rule(
    code="RKV281",
    slug="refusal-though-fits",
    title="A request was refused or deferred although it fits",
    checks="that protected + active + need > usable when capacity is the reason, with the blocks that claims hold",
    why="claims are blamed for a refusal that they did not cause",
    contradicts=("feasibility_check", "conflict_outcome"),
    inconclusive_when=_AFTER_GAP,
    source="spec section 2",
)
SHORTFALL_WRONG = Rule(
    code="RKV282",
    slug="shortfall-wrong",
    title="The shortfall is not the difference of the numbers beside it",
    checks="shortfall = protected + active + need - usable, with all numbers given",
    why="the caller sizes the next request by it",
    contradicts=("feasibility_check",),
    inconclusive_when=_AFTER_GAP,
    source="spec section 2",
)
BLOCKING_CLAIMS_MISSING = Rule(
    code="RKV283",
    slug="blocking-claims-missing",
    title="A refusal or deferral does not name the claims that block it",
    checks="that the footprints of the named claims (and of the request's own) explain the shortfall",
    why="nobody can decide what to release",
    contradicts=("conflict_outcome", "scoped_outcome"),
    inconclusive_when=_AFTER_GAP,
    source="spec sections 2 and 7 (refusal that names no claim)",
)
BLOCKING_CLAIM_NOT_OPEN = Rule(
    code="RKV284",
    slug="blocking-claim-not-open",
    title="A refusal or deferral names a claim that holds no blocks",
    checks="that every named claim is open and protects blocks at that moment",
    why="the caller is sent to an owner who has nothing to release",
    contradicts=("conflict_outcome", "scoped_outcome"),
    inconclusive_when=_AFTER_GAP,
    source="spec section 2",
)
PROTECTED_SUM_DIFFERS = Rule(
    code="RKV285",
    slug="protected-sum-differs",
    title="The numbers of a decision are not those of the claims, or of the decisions before",
    checks="protected_blocks of a decision against the footprints of the claims that hold blocks by their events, and "
    "each footprint against what the predicate needs; usable_blocks against those of the source's first decision",
    why="either a claim or a decision is missing from the trace, or a number was made to fit",
    inconclusive_when="always when it is found",
    source="spec section 2",
    verdict=_UNKNOWN,
)
RELIEF_WITHOUT_EVENT = Rule(
    code="RKV286",
    slug="relief-without-event",
    title="An admission made room by an action that the claim was never told of",
    checks="that every action of an admission (`demote:`, `expire:` or `offload:` and a claim) has its claim event "
    "before it",
    why="the claim lost its blocks without its own outcome",
    required_order=("resident_claim_demoted, _expired or _offloaded", "active_request_admitted"),
    contradicts=("release_before_loss", "victim_exclusion", "scoped_outcome"),
    inconclusive_when=_AFTER_GAP,
    source="spec section 2",
)
ADMISSION_MISSING = Rule(
    code="RKV287",
    slug="admission-missing",
    title="A request was served without being admitted, or failed without being refused",
    checks="that, in a source that decides on requests by capacity, every request that was served or loaded blocks "
    "was admitted, and every other one that its client did not take back was refused",
    why="a request that went round the feasibility check may have taken protected blocks",
    required_order=("request_initialized", "active_request_admitted", "active_request_terminated"),
    inconclusive_when="always when it is found",
    source="spec section 2",
    verdict=_UNKNOWN,
)

RULES = (
    ADMISSION_INFEASIBLE,
    REFUSAL_THOUGH_FITS,
    SHORTFALL_WRONG,
    BLOCKING_CLAIMS_MISSING,
    BLOCKING_CLAIM_NOT_OPEN,
    PROTECTED_SUM_DIFFERS,
    RELIEF_WITHOUT_EVENT,
    ADMISSION_MISSING,
)
