"""The fields of the published trace format: the type of each, and where it goes (data, also rendered into the docs).

Source: the trace files and the telemetry schema of the public artifact of arXiv 2606.01387.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, NamedTuple

from msgspec import Meta

from residentkv.trace.events import Count, Name

Seconds = Annotated[float, Meta(ge=0)]
Transfer = tuple[Name, Name]


class PublishedField(NamedTuple):
    """One field: its type, and what becomes of it.

    `note` is empty for a field that an event mapping takes. For the others it says why nothing is lost: what the field
    says is said elsewhere, is about the harness and not about a claim, or may not change (`fixed_per_claim`).
    """

    type: Any
    note: str = ""
    fixed_per_claim: bool = False


_HARNESS: Final = "not carried: about the harness, not about the claim"
_TIER: Final = "not carried: the device name of a tier that cache_tier_* names"
_UNIT: Final = "not carried: a count, from which no position follows"
_SAME: Final = "not carried, but must stay the same for one claim, or the import stops"
_FLAG: Final = "not carried: has to have the value that the event's name implies, see the events"

FIELDS: Final[dict[str, PublishedField]] = {
    # envelope
    "event": PublishedField(Name),
    "event_sequence": PublishedField(Count),
    "monotonic_ns": PublishedField(Count),
    "wall_time_ns": PublishedField(Count),
    "timestamp_ns": PublishedField(Count),
    "run_id": PublishedField(Name),
    "hook_scope": PublishedField(Name),
    "schema_version": PublishedField(Count, "not carried: has to be 1"),
    "instrumentation_scope": PublishedField(Name, _HARNESS),
    "policy": PublishedField(Name, _HARNESS),
    "usable_blocks": PublishedField(Count, "carried where the event has a place for it: acceptance and refusal"),
    # identity
    "claim_id": PublishedField(Name | None),
    "resident_claim_id": PublishedField(Name, "the other name of claim_id; has to agree with it"),
    "resident_claim": PublishedField(bool, "not carried: has to agree with whether claim_id is there"),
    "resident_claim_role": PublishedField(Name, "not carried: request_id tells the requests apart"),
    "resident_claim_metadata_join_source": PublishedField(Name, _HARNESS),
    "request_id": PublishedField(Name),
    "job_id": PublishedField(Count),
    "cache_identity": PublishedField(Name),
    "request_token_map_id": PublishedField(Name),
    "reusable_object_id": PublishedField(Name),
    "materialization_predicate": PublishedField(Name),
    "predicate_id": PublishedField(Name, _SAME, fixed_per_claim=True),
    "prefix_id": PublishedField(Name | None, _SAME, fixed_per_claim=True),
    "lifecycle_generation": PublishedField(
        Count, "the revision of the acceptance; on other events it must stay the same", fixed_per_claim=True
    ),
    "offload_generation": PublishedField(Count | None),
    "restoration_generation": PublishedField(Count | None),
    # acceptance and materialization
    "claim_registration": PublishedField(Name, _FLAG),
    "protection_mode": PublishedField(Name),
    "resident_blocks_required": PublishedField(Count),
    "resident_blocks_materialized": PublishedField(Count, _UNIT),
    "predicted_value": PublishedField(float, _HARNESS),
    "confidence": PublishedField(float, _HARNESS),
    "predicate": PublishedField(Name, "not carried: the kind of materialization_predicate"),
    "predicate_materialized": PublishedField(bool, _FLAG),
    "leading_blocks_survived": PublishedField(Count),
    "useful_threshold_blocks": PublishedField(Count, "not carried: the number in materialization_predicate"),
    "block_count_footprint": PublishedField(Count),
    "block_ids": PublishedField(tuple[Count, ...], "not carried: physical blocks, from which no position follows"),
    # tiers
    "cache_tier": PublishedField(Name),
    "cache_tier_from": PublishedField(Name),
    "cache_tier_to": PublishedField(Name),
    "source_tier": PublishedField(Name, _TIER),
    "destination_tier": PublishedField(Name, _TIER),
    # restoration and reuse
    "restoration_required": PublishedField(bool, "not carried: said by resident_claim_restore_required"),
    "reuse_requires_restoration": PublishedField(bool, _FLAG),
    "predicate_satisfied": PublishedField(bool, _FLAG),
    "predicate_satisfied_from_primary": PublishedField(bool, _FLAG),
    "restoration_completed": PublishedField(bool, _FLAG),
    "restoration_source": PublishedField(Name, _FLAG),
    "restored_from_offload_tier": PublishedField(bool, _FLAG),
    # requests and lookups
    "cache_salt": PublishedField(Name | None, "not carried: part of what cache_identity names"),
    "has_kv_transfer_params": PublishedField(bool, _HARNESS),
    "num_prompt_tokens": PublishedField(Count),
    "num_block_hashes": PublishedField(Count),
    "num_computed_tokens": PublishedField(Count),
    "num_hit_tokens": PublishedField(Count),
    "will_load_async": PublishedField(bool, "not carried: a hit that is loaded makes a load job"),
    "pending_job_ids": PublishedField(tuple[Count, ...], "not carried: each job has an event of its own"),
    # jobs and transfers
    "is_store": PublishedField(bool, "not carried: the direction is that of the job's creation"),
    "transfer_type": PublishedField(Transfer),
    "transfer_size": PublishedField(Count),
    "transfer_time": PublishedField(Seconds, "not carried: a duration without start or end"),
    "submitted": PublishedField(bool, "not carried: a transfer that was not submitted does not finish"),
    "success": PublishedField(bool),
    "key_count": PublishedField(Count, _UNIT),
    "num_offloadable_tokens": PublishedField(Count, _UNIT),
    "num_external_tokens": PublishedField(Count, _UNIT),
    "src_block_count": PublishedField(Count, _UNIT),
    "dst_block_count": PublishedField(Count, _UNIT),
    # failures and outcomes
    "failure_reason": PublishedField(Name),
    "failure_mode": PublishedField(Name, _HARNESS),
    "failure_injection_flag": PublishedField(bool, _HARNESS),
    "failure_target_claim_id": PublishedField(Name | None, _HARNESS),
    "failure_matched_claim_id": PublishedField(Name | None, _HARNESS),
    "injected_restoration_failure": PublishedField(bool, _HARNESS),
    "controlled_restoration_unavailable": PublishedField(bool, _HARNESS),
    "controlled_patched_connector_outcome": PublishedField(bool, _HARNESS),
    "restoration_failure_reason": PublishedField(Name),
    "restoration_failure_event_sequence": PublishedField(Count, "not carried: the order of seq says it"),
    "invalid_block_ids": PublishedField(tuple[Count, ...]),
    "invalid_block_count": PublishedField(Count, "not carried: the length of invalid_block_ids"),
    "total_scheduler_failed_tokens": PublishedField(Count, _UNIT),
    "scheduler_failure_branch": PublishedField(Name),
    "scheduler_failure_policy": PublishedField(Name),
    "scheduler_finish_status": PublishedField(Name, "not carried: finish_status of the scheduler's own event"),
    "finish_status": PublishedField(Name | None, "not carried: finish_reason says it in lower case"),
    "finish_reason": PublishedField(Name | None),
    "scheduler_event_before_finish_requests": PublishedField(bool, "not carried: the order of seq says it"),
    "scheduler_side_failure_outcome": PublishedField(bool, _FLAG),
    "scheduler_side_refusal": PublishedField(bool, _FLAG),
    "native_scheduler_admission_refusal": PublishedField(bool, _FLAG),
    "native_scheduler_refusal": PublishedField(bool, _FLAG),
    "outcome_claim_id": PublishedField(Name),
    "outcome_type": PublishedField(Name, "not carried: the event's name is the outcome"),
    "claim_scoped_outcome": PublishedField(bool, "not carried: said by outcome_claim_id"),
    "claim_scoped_outcome_type": PublishedField(Name, "not carried: the event's name is the outcome"),
    "blocking_claim_ids": PublishedField(tuple[Name, ...]),
    "fallback_recompute_counted_as_satisfying_claim": PublishedField(bool, _FLAG),
    "arbiter_action": PublishedField(Name),
    "feasibility": PublishedField(Name, "not carried: states no numbers that could be checked"),
    # counters
    "failure_count": PublishedField(Count),
    "request_failures": PublishedField(Count),
    "generic_offload_blocks": PublishedField(Count),
    "generic_onboard_blocks": PublishedField(Count),
}
"""Every field of the format by its name."""
