"""Materialization and the way out: predicate over positions, store jobs, and what workers say (spec section 6)."""

from __future__ import annotations

from residentkv.audit.model import Rule, Verdict

_UNKNOWN = Verdict.INCONCLUSIVE
_AFTER_GAP = "after a gap in the same (source, epoch), because the missing event may lie in the gap"
_STORE_ORDER = ("offload_job_created (store)", "offload_worker_transfer_finished (success)", "resident_claim_offloaded")

MATERIALIZED_BELOW_PREDICATE = Rule(
    code="RKV244",
    slug="materialized-below-predicate",
    title="A claim was called materialized although its predicate does not hold",
    checks="the predicate over retrievable_pos of an object of object_blocks; a number of blocks is never enough",
    why="59 of 60 blocks are worth nothing under a leading prefix when block 0 is the one that is lost",
    contradicts=("predicate",),
    inconclusive_when="the predicate cannot be evaluated, or after a gap in the same (source, epoch)",
    source="spec sections 2, 7 and 8; vllm-project/vllm#57159",
)
OFFLOAD_UNPROVEN = Rule(
    code="RKV245",
    slug="offload-unproven",
    title="A claim was called offloaded without store transfers that succeeded",
    checks="that every job named by resident_claim_offloaded is a store that finished well on all workers before it",
    why="a store that failed leaves nothing, or somebody else's bytes, under the name of the claim",
    required_order=_STORE_ORDER,
    contradicts=("offload_identity",),
    inconclusive_when="the (source, epoch) shows no transfer at all, or after a gap in it",
    source="spec section 6; LMCache/LMCache#4991, vllm-project/vllm#53498",
)
OFFLOAD_FOREIGN = Rule(
    code="RKV246",
    slug="offload-foreign",
    title="A claim was called offloaded by a store that belongs to another claim or to none",
    checks="that every job named by resident_claim_offloaded was created for the same claim and owner",
    why="ordinary offload, or the offload of somebody else, does not keep this promise",
    required_order=_STORE_ORDER,
    contradicts=("offload_identity", "joinability"),
    inconclusive_when=_AFTER_GAP,
    source="spec sections 6 and 7 (ordinary offload without a claim)",
)
OFFLOAD_UNCOVERED = Rule(
    code="RKV247",
    slug="offload-uncovered",
    title="The tier promises positions that were not stored, or too few for the predicate",
    checks="that retrievable_pos lies within what the named stores moved, and that the predicate holds over it",
    why="what was not stored cannot come back",
    required_order=_STORE_ORDER,
    contradicts=("offload_identity", "predicate"),
    inconclusive_when="the (source, epoch) shows no transfer at all, the predicate cannot be evaluated, or after a gap",
    source="spec sections 2 and 6; vllm-project/vllm#53498",
)
TRANSFER_WITHOUT_JOB = Rule(
    code="RKV248",
    slug="transfer-without-job",
    title="A transfer finished that belongs to no open job",
    checks="that offload_worker_transfer_finished names a job that was created and is not finished",
    why="bytes that nobody asked for prove nothing for a claim",
    required_order=("offload_job_created", "offload_worker_transfer_finished"),
    contradicts=("joinability",),
    inconclusive_when=_AFTER_GAP,
    source="spec section 6",
)
TRANSFER_REPEATED = Rule(
    code="RKV249",
    slug="transfer-repeated",
    title="One worker finished the same job twice, or a job was created twice",
    checks="that a job is created once and finished once a worker",
    why="which of the two results holds is unknown to whoever relied on the first",
    contradicts=("joinability",),
    inconclusive_when="after a gap in the same (source, epoch)",
    source="spec section 6",
)
TRANSFER_DIFFERS = Rule(
    code="RKV250",
    slug="transfer-differs",
    title="A transfer differs from its job",
    checks="that direction, request, claim, owner, generation and number of workers agree between a job, the request "
    "that it was made for, and its transfers",
    why="a transfer of another claim would count for this one",
    contradicts=("joinability", "offload_identity"),
    inconclusive_when="the number of workers differs between jobs, or after a gap in the same (source, epoch)",
    source="spec section 6",
)
TRANSFER_CONTRADICTS_ITSELF = Rule(
    code="RKV251",
    slug="transfer-contradicts-itself",
    title="A transfer's result does not fit its positions",
    checks="that a success names all positions of the job as good and none as failed, a failure names what failed, and "
    "bytes moved when positions were good",
    why="a success that moved nothing is not one",
    contradicts=("offload_identity", "restore_before_reuse"),
    inconclusive_when="after a gap in the same (source, epoch)",
    source="spec section 6",
)
WORKER_DISAGREES = Rule(
    code="RKV252",
    slug="worker-disagrees",
    title="The worker's own log says something else than the scheduler's",
    checks="success, direction, bytes, positions, request, claim and number of workers of every transfer in the logs "
    "of worker processes, joined by job and worker",
    why="the scheduler acted on a result that did not happen",
    contradicts=("offload_identity", "restore_before_reuse"),
    inconclusive_when="one side is missing although that worker writes a log, the epochs of both sides differ, a job "
    "number came back after a restart with another result, or only the number of workers differs",
    source="spec section 6",
)
BLOCK_COPIES_UNCLEAR = Rule(
    code="RKV253",
    slug="block-copies-unclear",
    title="Block events do not add up",
    checks="that a copy is stored once before it is removed, that a slot holds one block at a time, that the "
    "blocks of a materialized claim are named and were stored when the source reports blocks, in the second tier too "
    "when it is to give them back, that claims of two cache identities share none, and that no position lies beyond "
    "the object",
    why="whether a copy of the claimed blocks was left is unknown",
    required_order=("block_stored", "block_removed"),
    inconclusive_when="always when it is found",
    source="spec section 6; vllm-project/vllm#55092",
    verdict=_UNKNOWN,
)

RULES = (
    MATERIALIZED_BELOW_PREDICATE,
    OFFLOAD_UNPROVEN,
    OFFLOAD_FOREIGN,
    OFFLOAD_UNCOVERED,
    TRANSFER_WITHOUT_JOB,
    TRANSFER_REPEATED,
    TRANSFER_DIFFERS,
    TRANSFER_CONTRADICTS_ITSELF,
    WORKER_DISAGREES,
    BLOCK_COPIES_UNCLEAR,
)
