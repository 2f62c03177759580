"""The way back: lookup, requirement, load, restoration, reuse, in this order and for one request (spec section 6)."""

from __future__ import annotations

from residentkv.audit.model import Rule, Verdict

_UNKNOWN = Verdict.INCONCLUSIVE
_AFTER_GAP = "after a gap in the same (source, epoch), because the missing event may lie in the gap"

RESTORE_ORDER = (
    "resident_claim_offloaded",
    "offload_lookup_result",
    "resident_claim_restore_required",
    "offload_job_created (load)",
    "offload_worker_transfer_finished (success)",
    "resident_claim_restored",
    "resident_claim_reuse_after_restore",
    "active_request_terminated",
)

RESTORE_WITHOUT_HIT = Rule(
    code="RKV254",
    slug="restore-without-hit",
    title="A restoration was required that the tier was not asked for, or did not have",
    checks="that an earlier offload_lookup_result of the same request hit all required positions, that the tier had "
    "promised them, and that no needed position that only the tier has was left out",
    why="a restoration without a hit has nothing to restore",
    required_order=RESTORE_ORDER,
    contradicts=("restore_before_reuse",),
    inconclusive_when="the (source, epoch) shows no lookup at all, or after a gap in it",
    source="spec section 6",
)
RESTORED_WITHOUT_LOAD = Rule(
    code="RKV255",
    slug="restored-without-load",
    title="A claim was called restored without a load that succeeded",
    checks="that the job named by resident_claim_restored is a load of the same claim, request and generation that "
    "finished well on all workers before it and moved all required positions",
    why="the request would be computed on blocks that hold something else",
    required_order=RESTORE_ORDER,
    contradicts=("restore_before_reuse", "predicate"),
    inconclusive_when="the (source, epoch) shows no transfer at all, or after a gap in it",
    source="spec sections 6 and 7",
)
RESTORE_AFTER_REUSE = Rule(
    code="RKV256",
    slug="restore-after-reuse",
    title="A restoration came after the reuse that needed it",
    checks="that resident_claim_restored comes before resident_claim_reuse_after_restore of the same request",
    why="the reuse read blocks whose bytes were not there yet",
    required_order=RESTORE_ORDER,
    contradicts=("restore_before_reuse", "ordered_lifecycle"),
    inconclusive_when="after a gap in the same (source, epoch)",
    source="spec section 7",
)
REUSE_WITHOUT_RESTORATION = Rule(
    code="RKV257",
    slug="reuse-without-restoration",
    title="A claim was reused although the primary tier could not serve it",
    checks="that reuse follows the restoration that the request required and stays within what came back, that by the "
    "block events copies of it lie in the primary tier when the request has its answer, and that reuse in place has "
    "copies where it says to read",
    why="the request read blocks that were not the claim's",
    required_order=RESTORE_ORDER,
    contradicts=("restore_before_reuse", "ordered_lifecycle"),
    inconclusive_when="only the block events after a restoration are missing; without block events, in a tier that no "
    "event about the claim names; or after a gap in the same (source, epoch)",
    source="spec sections 6 and 7",
)
RECOMPUTE_COUNTED_AS_RESTORE = Rule(
    code="RKV258",
    slug="recompute-counted-as-restore",
    title="Positions that were computed again are called restored",
    checks="that no restored or reused position was recomputed by the same request",
    why="computing again costs what the claim was meant to save, and hides that the copy was lost",
    required_order=RESTORE_ORDER,
    contradicts=("restore_before_reuse", "restoration_failure_outcome", "predicate"),
    inconclusive_when="the reuse was told first, because the request may have lost its blocks later; or after a gap in "
    "the same (source, epoch)",
    source="spec sections 6 and 7",
)
RESTORED_BELOW_PREDICATE = Rule(
    code="RKV259",
    slug="restored-below-predicate",
    title="What came back, with what was still there, does not satisfy the predicate",
    checks="the predicate over the restored positions and those materialized positions that needed no restoration and, "
    "by the block events, have not left the primary tier",
    why="a partial load is not the promised object",
    required_order=RESTORE_ORDER,
    contradicts=("predicate", "restore_before_reuse"),
    inconclusive_when="the predicate cannot be evaluated, or after a gap in the same (source, epoch)",
    source="spec section 2",
)
LOAD_WITHOUT_REQUIREMENT = Rule(
    code="RKV260",
    slug="load-without-requirement",
    title="A claim was loaded that nobody required, or by a request that did not join it",
    checks="that a load of a claim is created while its restoration is required, for the request that required it",
    why="a load that is not joined to its requirement cannot be judged as the promised restoration",
    required_order=RESTORE_ORDER,
    contradicts=("ordered_lifecycle", "joinability"),
    inconclusive_when=_AFTER_GAP,
    source="spec section 6",
)
RESTORED_NOT_REUSED = Rule(
    code="RKV261",
    slug="restored-not-reused",
    title="A claim was restored for a request that ended well without reusing it",
    checks="that a request that required a restoration and ended well reused what came back, all of it",
    why="what the request was computed on is unknown",
    required_order=RESTORE_ORDER,
    inconclusive_when="always when it is found",
    source="spec section 6",
    verdict=_UNKNOWN,
)
SERVED_WITHOUT_RESTORATION = Rule(
    code="RKV262",
    slug="served-without-restoration",
    title="A request was served although the restoration that it required never ended well",
    checks="that a request which required a restoration, or whose lookup missed what the tier had promised, does not "
    "end well without restored bytes or a named outcome of the claim",
    why="it was served from tokens computed again, or from wrong bytes, and the owner of the claim was not told",
    required_order=RESTORE_ORDER,
    contradicts=("restore_before_reuse", "restoration_failure_outcome", "release_before_loss", "loss_reporting"),
    inconclusive_when=_AFTER_GAP,
    source="spec sections 2 and 6; vllm-project/vllm#49250, vllm-project/vllm#53498",
)
TIER_DIFFERS = Rule(
    code="RKV263",
    slug="tier-differs",
    title="The tiers of a restore cycle do not fit each other",
    checks="that lookup, requirement and restoration name the tier that the claim was offloaded to",
    why="a copy in one tier does not prove a copy in another",
    contradicts=("offload_identity",),
    inconclusive_when="after a gap in the same (source, epoch)",
    source="spec section 6",
)

RULES = (
    RESTORE_WITHOUT_HIT,
    RESTORED_WITHOUT_LOAD,
    RESTORE_AFTER_REUSE,
    REUSE_WITHOUT_RESTORATION,
    RECOMPUTE_COUNTED_AS_RESTORE,
    RESTORED_BELOW_PREDICATE,
    LOAD_WITHOUT_REQUIREMENT,
    RESTORED_NOT_REUSED,
    SERVED_WITHOUT_RESTORATION,
    TIER_DIFFERS,
)
