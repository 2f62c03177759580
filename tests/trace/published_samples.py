"""Small traces in the published format, written for these tests: the live variant and the reference variant."""

from __future__ import annotations

import json
from typing import Any

Record = dict[str, Any]

CLAIM = {
    "claim_id": "claim:a",
    "cache_identity": "cache:1",
    "materialization_predicate": "leading_prefix_at_least(2)",
    "predicate_id": "predicate:a",
    "prefix_id": "prefix:a",
    "request_token_map_id": "tokens:a",
    "reusable_object_id": "object:a",
}
LIVE_CLAIM = CLAIM | {"resident_claim": True, "resident_claim_id": "claim:a", "resident_claim_role": "resident"}
TO_HOST = {"cache_tier_from": "gpu_kv_cache", "cache_tier_to": "host_offload_tier", "source_tier": "GPU"}
TO_GPU = {"cache_tier_from": "host_offload_tier", "cache_tier_to": "gpu_kv_cache", "source_tier": "CPU"}
STORE = {"job_id": 5, "transfer_type": ["GPU", "CPU"], "key_count": 1}
LOAD = {"job_id": 6, "transfer_type": ["CPU", "GPU"], "key_count": 1}
NAMED = {"outcome_claim_id": "claim:a", "outcome_type": "refusal", "blocking_claim_ids": ["claim:a"]}
SCHEDULER = NAMED | {
    "scheduler_side_failure_outcome": True,
    "scheduler_side_refusal": True,
    "native_scheduler_admission_refusal": False,
    "scheduler_failure_branch": "invalid_blocks",
    "scheduler_failure_policy": "fail",
    "finish_status": "FINISHED_ERROR",
    "finish_reason": "error",
    "invalid_block_ids": [8, 9],
    "invalid_block_count": 2,
}


def live(*events: tuple[str, Record]) -> list[Record]:
    """Number events as the live variant does: from 0, with two clocks and no run id."""
    return [
        {"event": name, "event_sequence": i, "monotonic_ns": 100 + i, "wall_time_ns": 1000 + i, "hook_scope": "hook:x"}
        | fields
        for i, (name, fields) in enumerate(events)
    ]


def reference(*events: tuple[str, Record]) -> list[Record]:
    """Number events as the reference variant does: from 1, with one clock."""
    return [
        {
            "event": name,
            "event_sequence": i,
            "timestamp_ns": 1000 + i,
            "run_id": "run:x",
            "schema_version": 1,
            "policy": "p",
            "usable_blocks": 16,
            "lifecycle_generation": 1,
        }
        | CLAIM
        | fields
        for i, (name, fields) in enumerate(events, 1)
    ]


def encode(records: list[Record]) -> bytes:
    """Return the file."""
    return b"".join(json.dumps(r).encode() + b"\n" for r in records)


FAILED_LOAD = live(
    ("request_initialized", LIVE_CLAIM | {"request_id": "q0", "num_prompt_tokens": 33, "num_block_hashes": 2}),
    ("offload_lookup_result", LIVE_CLAIM | {"request_id": "q0", "num_computed_tokens": 0, "num_hit_tokens": 0}),
    ("offload_store_job_created", LIVE_CLAIM | STORE | {"request_id": "q0", "offload_generation": 0}),
    ("offload_worker_transfer_submitted", LIVE_CLAIM | STORE | {"request_id": "q0", "submitted": True}),
    (
        "offload_worker_transfer_finished",
        LIVE_CLAIM | STORE | {"request_id": "q0", "success": True, "transfer_size": 4096, "transfer_time": 0.5},
    ),
    (
        "resident_claim_offloaded",
        LIVE_CLAIM | STORE | TO_HOST | {"request_id": "q0", "offload_generation": 0, "block_count_footprint": 2},
    ),
    ("offload_job_completed", LIVE_CLAIM | {"job_id": 5, "request_id": "q0", "is_store": True, "key_count": 1}),
    ("offload_request_finished_no_pending_jobs", LIVE_CLAIM | {"request_id": "q0"}),
    ("request_initialized", LIVE_CLAIM | {"request_id": "q1", "num_prompt_tokens": 34, "num_block_hashes": 2}),
    (
        "offload_lookup_result",
        LIVE_CLAIM | {"request_id": "q1", "num_computed_tokens": 0, "num_hit_tokens": 32, "will_load_async": True},
    ),
    (
        "resident_claim_restore_required",
        LIVE_CLAIM
        | LOAD
        | TO_GPU
        | {"request_id": "q1", "restoration_generation": 1, "predicate_satisfied_from_primary": False},
    ),
    ("offload_load_job_created", LIVE_CLAIM | LOAD | {"request_id": "q1", "restoration_generation": 1}),
    (
        "offload_worker_transfer_finished",
        LIVE_CLAIM
        | LOAD
        | {"request_id": "q1", "success": False, "transfer_size": 4096, "failure_reason": "broken", "transfer_time": 1},
    ),
    ("offload_worker_load_failed", LIVE_CLAIM | LOAD | {"request_id": "q1", "invalid_block_ids": [8, 9]}),
    ("scheduler_resident_claim_restoration_failed", LIVE_CLAIM | SCHEDULER | {"request_id": "q1"}),
    ("scheduler_active_request_refused", LIVE_CLAIM | SCHEDULER | {"request_id": "q1", "arbiter_action": "close"}),
    ("offload_request_finished_pending_jobs", LIVE_CLAIM | {"request_id": "q1", "pending_job_ids": [6]}),
    ("offload_load_job_failed", LIVE_CLAIM | LOAD | {"request_id": "q1", "is_store": False}),
    (
        "resident_claim_restoration_failed",
        LIVE_CLAIM
        | LOAD
        | NAMED
        | {"request_id": "q1", "restoration_generation": 1, "restoration_failure_reason": "broken"},
    ),
    ("active_request_refused", LIVE_CLAIM | NAMED | {"request_id": "q1", "arbiter_action": "refuse", "job_id": 6}),
)

MODEL = reference(
    (
        "resident_claim_accepted",
        {
            "request_id": "a",
            "claim_registration": "pre_registered",
            "offload_generation": 0,
            "protection_mode": "offloadable_reference",
            "resident_blocks_required": 2,
            "resident_blocks_materialized": 0,
        },
    ),
    (
        "resident_claim_materialized",
        {
            "request_id": "a",
            "offload_generation": 0,
            "predicate_materialized": True,
            "leading_blocks_survived": 2,
            "block_count_footprint": 3,
            "block_ids": [70, 71, 72],
            "cache_tier": "gpu_kv_cache",
        },
    ),
    ("resident_claim_offloaded", TO_HOST | {"request_id": "a", "offload_generation": 1, "block_ids": [70, 71, 72]}),
    (
        "resident_claim_restore_required",
        {"request_id": "b", "offload_generation": 1, "cache_tier": "host_offload_tier", "restoration_required": True},
    ),
    (
        "resident_claim_restored",
        TO_GPU
        | {
            "request_id": "b",
            "offload_generation": 1,
            "restoration_completed": True,
            "restoration_source": "offload_tier",
            "restored_from_offload_tier": True,
        },
    ),
    ("resident_claim_reuse_after_restore", {"request_id": "b", "offload_generation": 1, "predicate_satisfied": True}),
    ("resident_claim_demoted", {"request_id": "b", "arbiter_action": "demote", "outcome_claim_id": "claim:a"}),
)
