"""A failed restoration becomes an outcome of its own claim, never silence (spec sections 2 and 6)."""

from __future__ import annotations

from residentkv.audit.model import Rule, Verdict

_UNKNOWN = Verdict.INCONCLUSIVE
_AFTER_GAP = "after a gap in the same (source, epoch), because the missing event may lie in the gap"

FAILURE_ORDER = (
    "resident_claim_restore_required",
    "offload_job_created (load)",
    "offload_worker_transfer_finished (failure)",
    "scheduler_resident_claim_restoration_failed",
    "scheduler_active_request_refused",
    "active_request_terminated",
)
RECOMPUTE_ORDER = (
    "offload_worker_transfer_finished (failure)",
    "scheduler_resident_claim_restoration_failed (recompute)",
    "resident_claim_demoted or resident_claim_harmed",
    "active_request_recomputed",
    "active_request_terminated",
)

FAILURE_WITHOUT_OUTCOME = Rule(
    code="RKV264",
    slug="failure-without-outcome",
    title="A load of a claim failed and the scheduler never said so",
    checks="that every failed load of an open claim is followed by scheduler_resident_claim_restoration_failed of that "
    "claim and job, before the request ends",
    why="this is the silent failure: the request gets slow or wrong, and nobody is told why",
    required_order=FAILURE_ORDER,
    contradicts=("restoration_failure_outcome", "scoped_outcome", "release_before_loss", "loss_reporting"),
    inconclusive_when="the trace ends, or has a gap, before the outcome could come",
    source="spec section 6; vllm-project/vllm#49250, vllm-project/vllm#45138, vllm-project/vllm#39732",
)
WRONG_CLAIM_FAILURE = Rule(
    code="RKV265",
    slug="wrong-claim-failure",
    title="A failure was told to the wrong claim",
    checks="that the claim, outcome_claim_id and request of a failed restoration are those of the load that failed",
    why="one owner is told about a loss that another one had",
    required_order=FAILURE_ORDER,
    contradicts=("scoped_outcome", "restoration_failure_outcome", "claim_identity"),
    inconclusive_when=_AFTER_GAP,
    source="spec section 7",
)
SMEARED_FAILURE = Rule(
    code="RKV266",
    slug="smeared-failure",
    title="One failure was told to more than one claim",
    checks="that a failed restoration names its claim as the only blocking claim, and that one load has one outcome",
    why="an outcome that names everybody tells nobody anything",
    required_order=FAILURE_ORDER,
    contradicts=("scoped_outcome", "claim_identity"),
    inconclusive_when="after a gap in the same (source, epoch)",
    source="spec section 7",
)
FAILURE_WITHOUT_FAILED_LOAD = Rule(
    code="RKV267",
    slug="failure-without-failed-load",
    title="A restoration was called failed although its load did not fail",
    checks="that the job named by the failure is a load of this cycle that failed on some worker, or null when no load "
    "was made, that the failed positions are some of those that were to be loaded and leave out none of the claimed "
    "object that failed, and that the scheduler names the invalid blocks of a load that failed",
    why="a failure that did not happen hides what really became of the copy",
    required_order=FAILURE_ORDER,
    contradicts=("restoration_failure_outcome",),
    inconclusive_when="the (source, epoch) shows no transfer at all, no invalid block is named, or after a gap in it",
    source="spec section 6",
)
FAILURE_POLICY_BROKEN = Rule(
    code="RKV268",
    slug="failure-policy-broken",
    title="What followed a failed restoration is not what the claim was accepted with",
    checks="that failure_policy is `fail` for on_restore_failure refuse, `recompute` for recompute, or `retry`; that "
    "recompute is followed by demoted or harmed, refuse by no recompute, and retry by another attempt",
    why="whoever asked for a refusal must not get a slow answer, and the other way round",
    required_order=RECOMPUTE_ORDER,
    contradicts=("restoration_failure_outcome",),
    inconclusive_when="a retry was announced and the tokens were computed again, or after a gap in the same "
    "(source, epoch)",
    source="spec section 2 (on_restore_failure)",
)
RECOMPUTE_WITHOUT_OUTCOME = Rule(
    code="RKV269",
    slug="recompute-without-outcome",
    title="Claimed positions were computed again before the claim got its own outcome",
    checks="that resident_claim_demoted or resident_claim_harmed comes before active_request_recomputed of positions "
    "that the predicate needs",
    why="the loss has to be said before it is hidden by computing again",
    required_order=RECOMPUTE_ORDER,
    contradicts=("restoration_failure_outcome", "scoped_outcome", "loss_reporting", "release_before_loss"),
    inconclusive_when=_AFTER_GAP,
    source="spec section 2 (on_restore_failure)",
)
RECOMPUTE_MISSING = Rule(
    code="RKV270",
    slug="recompute-missing",
    title="A request was served under recompute and no recomputed tokens are shown",
    checks="that a request that ends well after a failure with policy recompute has active_request_recomputed",
    why="nothing was restored and nothing was computed: the answer came from the wrong bytes",
    required_order=RECOMPUTE_ORDER,
    contradicts=("restoration_failure_outcome",),
    inconclusive_when=_AFTER_GAP,
    source="vllm-project/vllm#49250",
)
SCHEDULER_WORD_MISSING = Rule(
    code="RKV271",
    slug="scheduler-word-missing",
    title="Only the connector says that a restoration failed",
    checks="that the scheduler's own word follows or precedes resident_claim_restoration_failed",
    why="the connector cannot say what the scheduler did with the request",
    required_order=FAILURE_ORDER,
    inconclusive_when="always when it is found; with a failed transfer in the trace it is failure-without-outcome",
    source="spec section 6",
    verdict=_UNKNOWN,
)
ERROR_UNEXPLAINED = Rule(
    code="RKV272",
    slug="error-unexplained",
    title="A request of a claim ended in an error, or in words that are not known, and nothing says why",
    checks="that a request of a claim which does not end well was refused, or that its restoration failed by name",
    why="the error may be the loss of the claim",
    inconclusive_when="always when it is found",
    source="spec section 2",
    verdict=_UNKNOWN,
)

RULES = (
    FAILURE_WITHOUT_OUTCOME,
    WRONG_CLAIM_FAILURE,
    SMEARED_FAILURE,
    FAILURE_WITHOUT_FAILED_LOAD,
    FAILURE_POLICY_BROKEN,
    RECOMPUTE_WITHOUT_OUTCOME,
    RECOMPUTE_MISSING,
    SCHEDULER_WORD_MISSING,
    ERROR_UNEXPLAINED,
)
