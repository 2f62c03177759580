"""The refusal of an active request: after its cause, naming it, and followed by the end (spec section 6)."""

from __future__ import annotations

from residentkv.audit.model import Rule
from residentkv.audit.rules.failure import FAILURE_ORDER

_AFTER_GAP = "after a gap in the same (source, epoch), because the missing event may lie in the gap"

REFUSAL_MISSING = Rule(
    code="RKV273",
    slug="refusal-missing",
    title="A restoration failed and the request was not refused",
    checks="that scheduler_active_request_refused follows a failure with policy fail, before the request ends",
    why="the request ended without its owner being told that the claim was the reason",
    required_order=FAILURE_ORDER,
    contradicts=("restoration_failure_outcome", "scoped_outcome"),
    inconclusive_when="the trace ends, or has a gap, before the refusal could come",
    source="spec section 6",
)
REFUSAL_BEFORE_FAILURE = Rule(
    code="RKV274",
    slug="refusal-before-failure",
    title="A request was refused for a failure that had not been said",
    checks="that scheduler_active_request_refused comes after scheduler_resident_claim_restoration_failed of the same "
    "request",
    why="a refusal whose cause comes later was decided on something else",
    required_order=FAILURE_ORDER,
    contradicts=("restoration_failure_outcome",),
    inconclusive_when=_AFTER_GAP,
    source="spec section 6",
)
REFUSAL_UNNAMED = Rule(
    code="RKV275",
    slug="refusal-unnamed",
    title="A refusal does not name the claim that failed",
    checks="that outcome_claim_id and owner_scope are those of the failed claim and blocking_claim_ids has it",
    why="the caller cannot tell which promise was broken",
    required_order=FAILURE_ORDER,
    contradicts=("scoped_outcome", "conflict_outcome"),
    inconclusive_when="after a gap in the same (source, epoch)",
    source="spec sections 6 and 7",
)
TERMINATION_MISSING = Rule(
    code="RKV276",
    slug="termination-missing",
    title="A refused request never ended",
    checks="that active_request_terminated follows every refusal before trace_closed",
    why="the client waits for an answer that was already decided",
    required_order=FAILURE_ORDER,
    contradicts=("restoration_failure_outcome", "conflict_outcome"),
    inconclusive_when="the trace ends without trace_closed, or has a gap",
    source="spec section 6; vllm-project/vllm#45138",
)
TERMINATION_BEFORE_OUTCOME = Rule(
    code="RKV277",
    slug="termination-before-outcome",
    title="A request ended before the outcome that explains its end",
    checks="that failure and refusal come before active_request_terminated of the same request",
    why="the client got its error before anybody had decided why",
    required_order=FAILURE_ORDER,
    contradicts=("restoration_failure_outcome",),
    inconclusive_when=_AFTER_GAP,
    source="spec section 6",
)
REFUSED_BUT_SERVED = Rule(
    code="RKV278",
    slug="refused-but-served",
    title="A refused request was served",
    checks="that a refused request is not admitted, is neither served from the claim nor computed again afterwards, "
    "ends as an error or aborted, and without output tokens when it was refused for capacity",
    why="a refusal that is not carried out protects nothing",
    required_order=FAILURE_ORDER,
    contradicts=("restoration_failure_outcome", "conflict_outcome"),
    inconclusive_when="after a gap in the same (source, epoch)",
    source="spec section 2",
)
FINISH_STATUS_DIFFERS = Rule(
    code="RKV279",
    slug="finish-status-differs",
    title="The announced finish status is not the one that the request ended with",
    checks="that finish_status agrees between failure, refusal and termination, and that a request is refused once",
    why="the outcome that was announced is not the one that the client got",
    required_order=FAILURE_ORDER,
    contradicts=("restoration_failure_outcome",),
    inconclusive_when="after a gap in the same (source, epoch)",
    source="spec section 6",
)

RULES = (
    REFUSAL_MISSING,
    REFUSAL_BEFORE_FAILURE,
    REFUSAL_UNNAMED,
    TERMINATION_MISSING,
    TERMINATION_BEFORE_OUTCOME,
    REFUSED_BUT_SERVED,
    FINISH_STATUS_DIFFERS,
)
