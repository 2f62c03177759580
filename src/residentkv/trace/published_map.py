"""How each event of the published trace format becomes exactly one of ours (data, also rendered into the docs).

Three rules stand behind the table. What a field of an event says is taken from that event alone. What the format has
no notion of at all becomes a fixed word (`FIXED_*`), so that nobody takes it for a statement. An event that is not
what its name says (`means` does not hold), or that has no counterpart, becomes `runtime_event`: it keeps its place in
the sequence and is evidence of nothing.

Source: the trace files, the telemetry schema and the reference hook of the public artifact of arXiv 2606.01387.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from residentkv.trace.events import (
    ClaimAccepted,
    ClaimDemoted,
    ClaimHarmed,
    ClaimMaterialized,
    ClaimOffloaded,
    ClaimRestorationFailed,
    ClaimRestored,
    ClaimRestoreRequired,
    ClaimReusedAfterRestore,
    Event,
    GenericCounter,
    JobCreated,
    LookupResult,
    RequestInitialized,
    RequestRefused,
    RuntimeEvent,
    SchedulerRequestRefused,
    SchedulerRestorationFailed,
    TransferFinished,
)

FIXED_OWNER: Final = "published:no-owner"
FIXED_SOURCE: Final = "published"
NOT_STATED: Final = "published:not-stated"
OFFLOAD_TIER: Final = "host_offload_tier"


class Take(NamedTuple):
    """The value of the first of these fields that the event has; without any of them the import stops (RKV104)."""

    names: tuple[str, ...]


class Maybe(NamedTuple):
    """The value of the first of these fields that the event has and that is not null, else `otherwise`."""

    names: tuple[str, ...]
    otherwise: Any


class Fixed(NamedTuple):
    """A constant, because the format has no such notion or because the event's name says it."""

    value: Any
    why: str


class Derived(NamedTuple):
    """A value that `published.Importer` works out by the method called `rule`; `says` is for the docs."""

    rule: str
    says: str


Origin = Take | Maybe | Fixed | Derived


class Meaning(NamedTuple):
    """A flag that must have this value for the event to be what its name says; `stated` when it must be there."""

    value: Any
    stated: bool = False


class EventMapping(NamedTuple):
    """What one published event becomes, from which fields, and which fields it may have besides the common ones."""

    kind: type[Event]
    origins: dict[str, Origin]
    may_have: frozenset[str]
    means: dict[str, Meaning]


ENVELOPE: Final[dict[str, Origin]] = {
    "schema": Fixed(1, "our schema"),
    "run_id": Take(("run_id", "hook_scope")),
    "source": Fixed(FIXED_SOURCE, "the format names no process"),
    "epoch": Fixed(0, "the format knows no restart"),
    "seq": Derived("seq", "`event_sequence`, less 1 where it counts from 1 (events with `timestamp_ns`)"),
    "mono_ns": Maybe(("monotonic_ns",), 0),
    "wall_ns": Take(("wall_time_ns", "timestamp_ns")),
}
"""Origins of the envelope, the same for every event."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


COMMON: Final = _names(
    "event event_sequence monotonic_ns wall_time_ns timestamp_ns run_id hook_scope schema_version "
    "instrumentation_scope policy usable_blocks claim_id resident_claim_id resident_claim resident_claim_role "
    "resident_claim_metadata_join_source request_id job_id cache_identity request_token_map_id reusable_object_id "
    "materialization_predicate predicate_id prefix_id lifecycle_generation offload_generation "
    "restoration_generation"
)
"""Fields that any event may have: envelope and identity."""

_JOB = (
    "key_count num_offloadable_tokens num_external_tokens src_block_count dst_block_count transfer_type "
    "transfer_size transfer_time "
)
_INJECTED = (
    "failure_reason failure_mode failure_injection_flag failure_target_claim_id failure_matched_claim_id "
    "injected_restoration_failure controlled_restoration_unavailable "
)
_TIERS = "cache_tier cache_tier_from cache_tier_to source_tier destination_tier transfer_type key_count "
_OUTCOME = (
    "outcome_claim_id outcome_type claim_scoped_outcome claim_scoped_outcome_type blocking_claim_ids "
    "fallback_recompute_counted_as_satisfying_claim native_scheduler_refusal native_scheduler_admission_refusal "
)
_SCHEDULER = _OUTCOME + (
    "invalid_block_ids invalid_block_count total_scheduler_failed_tokens scheduler_failure_branch "
    "scheduler_failure_policy scheduler_event_before_finish_requests scheduler_side_failure_outcome "
    "scheduler_side_refusal finish_status finish_reason controlled_restoration_unavailable restoration_required "
    "restored_from_offload_tier "
)
_ENDED = _OUTCOME + "arbiter_action restoration_failure_event_sequence cache_tier block_count_footprint "

_CLAIM: Final[dict[str, Origin]] = {
    "claim_id": Derived("claim_id", "`claim_id`, or `resident_claim_id` when it stands alone"),
    "owner_scope": Fixed(FIXED_OWNER, "the format knows no owners"),
    "object_id": Take(("reusable_object_id",)),
    "token_map_id": Take(("request_token_map_id",)),
    "cache_identity": Take(("cache_identity",)),
    "predicate": Take(("materialization_predicate",)),
    "request_id": Take(("request_id",)),
    "generation": Derived(
        "generation",
        "`restoration_generation`, else `offload_generation` (plus 1 on the offloaded event of the live format, which "
        "counts stores from 0), else null",
    ),
}
_JOINED: Final[dict[str, Origin]] = {
    "request_id": Take(("request_id",)),
    "claim_id": Derived("claim_id_or_none", "`claim_id` or `resident_claim_id`, else null"),
    "owner_scope": Derived("owner_or_none", f"`{FIXED_OWNER}` when the event names a claim, else null"),
}
_NO_POSITION: Final = Fixed((), "the event gives a count, from which no position follows")
_NO_NUMBERS: Final = Fixed(None, "the event states no numbers")
_OUTCOME_CLAIM: Final = Take(("outcome_claim_id",))
_NOT_RECOMPUTED: Final = {"fallback_recompute_counted_as_satisfying_claim": Meaning(False)}


def _claim(
    kind: type[Event], may_have: str, means: dict[str, Meaning] | None = None, /, **origins: Origin
) -> EventMapping:
    return EventMapping(kind, _CLAIM | origins, _names(may_have), means or {})


def _request(
    kind: type[Event], may_have: str, means: dict[str, Meaning] | None = None, /, **origins: Origin
) -> EventMapping:
    return EventMapping(kind, origins, _names(may_have), means or {})


def _runtime(may_have: str) -> EventMapping:
    origins: dict[str, Origin] = {
        "name": Derived("event_name", "the published name"),
        "request_id": Maybe(("request_id",), None),
        "job_id": Maybe(("job_id",), None),
    }
    return EventMapping(RuntimeEvent, origins, _names(may_have), {})


def _counter(may_have: str, value: str) -> EventMapping:
    origins: dict[str, Origin] = {"name": Derived("event_name", "the published name"), "value": Take((value,))}
    return EventMapping(GenericCounter, origins, _names(may_have), {})


def _job(direction: str, generation: str, may_have: str) -> EventMapping:
    return _request(
        JobCreated,
        may_have,
        **_JOINED,
        job_id=Take(("job_id",)),
        direction=Fixed(direction, "the event's name"),
        generation=Take((generation,)),
        pos=_NO_POSITION,
    )


EVENTS: Final[dict[str, EventMapping]] = {
    "request_initialized": _request(
        RequestInitialized,
        "cache_salt has_kv_transfer_params num_block_hashes num_prompt_tokens",
        **_JOINED,
        prompt_tokens=Take(("num_prompt_tokens",)),
    ),
    "offload_lookup_result": _request(
        LookupResult,
        "num_computed_tokens num_hit_tokens will_load_async",
        **_JOINED,
        tier=Fixed(OFFLOAD_TIER, "the format knows one offload tier"),
        hit_pos=Derived(
            "hit_pos",
            "the blocks of the `num_hit_tokens` after `num_computed_tokens`, when `num_prompt_tokens` and "
            "`num_block_hashes` of the same request allow exactly one block size; else none",
        ),
    ),
    "offload_store_job_created": _job("store", "offload_generation", _JOB),
    "offload_load_job_created": _job("load", "restoration_generation", _JOB),
    "offload_worker_transfer_submitted": _runtime(_JOB + "submitted"),
    "offload_worker_transfer_finished": _request(
        TransferFinished,
        _JOB + _INJECTED + "success",
        {"request_id": Meaning(..., stated=True)},
        **_JOINED,
        job_id=Take(("job_id",)),
        direction=Derived("direction", "`transfer_type`: GPU to CPU is a store, CPU to GPU a load"),
        worker=Fixed(0, "the format names no workers"),
        workers_total=Fixed(1, "the format names no workers"),
        success=Take(("success",)),
        ok_pos=_NO_POSITION,
        failed_pos=_NO_POSITION,
        bytes=Take(("transfer_size",)),
        reason=Maybe(("failure_reason",), ""),
        worker_start_ns=Fixed(0, "the format gives a duration only"),
        worker_end_ns=Fixed(0, "the format gives a duration only"),
    ),
    "offload_worker_load_failed": _runtime(_JOB + _INJECTED + "invalid_block_ids"),
    "offload_job_completed": _runtime(_JOB + "is_store"),
    "offload_load_job_failed": _runtime(_JOB + _INJECTED + "is_store"),
    "offload_request_finished_no_pending_jobs": _runtime(""),
    "offload_request_finished_pending_jobs": _runtime("pending_job_ids"),
    "resident_claim_accepted": _claim(
        ClaimAccepted,
        "claim_registration protection_mode resident_blocks_required resident_blocks_materialized predicted_value "
        "confidence",
        {"claim_registration": Meaning("pre_registered", stated=True)},
        decision=Fixed("accepted", "the event's name"),
        clipped_from=Fixed((), "the format knows no clipping"),
        mode=Derived(
            "mode", "`protection_mode`: `offloadable_reference` is offloadable, `hard_exclude` hard_protected"
        ),
        on_restore_failure=Fixed("refuse", "the format knows no choice, and refuses"),
        footprint_blocks=Take(("resident_blocks_required",)),
        priority=Fixed(0, "the format knows no priority"),
        revision=Take(("lifecycle_generation",)),
        ttl_s=Fixed(None, "the format knows no term"),
        deadline_ns=Fixed(None, "the format knows no term"),
        protected_blocks=Fixed(None, "the event does not state it"),
        usable_blocks=Maybe(("usable_blocks",), None),
    ),
    "resident_claim_materialized": _claim(
        ClaimMaterialized,
        "predicate predicate_materialized resident_blocks_required resident_blocks_materialized "
        "leading_blocks_survived useful_threshold_blocks block_ids block_count_footprint " + _TIERS,
        {"predicate_materialized": Meaning(True, stated=True)},
        tier=Take(("cache_tier",)),
        retrievable_pos=Derived(
            "leading_pos", "the first `leading_blocks_survived` blocks under a leading-prefix predicate, else none"
        ),
        object_blocks=Take(("block_count_footprint",)),
        footprint_blocks=Take(("block_count_footprint",)),
        block_hashes=Fixed((), "the format names no block content"),
    ),
    "resident_claim_offloaded": _claim(
        ClaimOffloaded,
        "arbiter_action restoration_required block_ids block_count_footprint " + _TIERS,
        tier_from=Take(("cache_tier_from",)),
        tier_to=Take(("cache_tier_to",)),
        retrievable_pos=_NO_POSITION,
        job_ids=Derived("job_ids", "`job_id`, or no job when the event names none"),
    ),
    "resident_claim_restore_required": _claim(
        ClaimRestoreRequired,
        _JOB + _TIERS + "restoration_required reuse_requires_restoration predicate_satisfied_from_primary "
        "block_count_footprint",
        {"reuse_requires_restoration": Meaning(True), "predicate_satisfied_from_primary": Meaning(False)},
        tier_from=Take(("cache_tier_from", "cache_tier")),
        tier_to=Maybe(("cache_tier_to",), NOT_STATED),
        required_pos=_NO_POSITION,
    ),
    "resident_claim_restored": _claim(
        ClaimRestored,
        "restoration_completed restoration_source restored_from_offload_tier block_ids block_count_footprint " + _TIERS,
        {
            "restored_from_offload_tier": Meaning(True, stated=True),
            "restoration_source": Meaning("offload_tier", stated=True),
            "restoration_completed": Meaning(True, stated=True),
        },
        job_id=Maybe(("job_id",), None),
        tier_from=Take(("cache_tier_from",)),
        tier_to=Take(("cache_tier_to",)),
        retrievable_pos=_NO_POSITION,
    ),
    "resident_claim_reuse_after_restore": _claim(
        ClaimReusedAfterRestore,
        "predicate_satisfied predicate_satisfied_from_primary reuse_requires_restoration block_count_footprint "
        + _TIERS,
        {"predicate_satisfied": Meaning(True, stated=True)},
        reused_pos=_NO_POSITION,
    ),
    "resident_claim_restoration_failed": _claim(
        ClaimRestorationFailed,
        _OUTCOME + _INJECTED + _TIERS + "restoration_failure_reason restoration_required restored_from_offload_tier "
        "block_count_footprint",
        {"restored_from_offload_tier": Meaning(False)} | _NOT_RECOMPUTED,
        job_id=Maybe(("job_id",), None),
        reason=Take(("restoration_failure_reason", "failure_reason")),
        failed_pos=_NO_POSITION,
        outcome_claim_id=_OUTCOME_CLAIM,
        blocking_claim_ids=Maybe(("blocking_claim_ids",), ()),
    ),
    "scheduler_resident_claim_restoration_failed": _claim(
        SchedulerRestorationFailed,
        _SCHEDULER,
        {"scheduler_side_failure_outcome": Meaning(True, stated=True), "restored_from_offload_tier": Meaning(False)}
        | _NOT_RECOMPUTED,
        job_id=Maybe(("job_id",), None),
        reason=Take(("scheduler_failure_branch",)),
        failed_pos=_NO_POSITION,
        invalid_block_ids=Take(("invalid_block_ids",)),
        failure_policy=Take(("scheduler_failure_policy",)),
        finish_status=Maybe(("finish_reason",), NOT_STATED),
        outcome_claim_id=_OUTCOME_CLAIM,
        blocking_claim_ids=Take(("blocking_claim_ids",)),
    ),
    "scheduler_active_request_refused": _request(
        SchedulerRequestRefused,
        _SCHEDULER + "arbiter_action feasibility",
        {"scheduler_side_refusal": Meaning(True, stated=True), "native_scheduler_admission_refusal": Meaning(False)}
        | _NOT_RECOMPUTED,
        request_id=Take(("request_id",)),
        reason=Take(("arbiter_action",)),
        finish_status=Maybe(("finish_reason",), NOT_STATED),
        outcome_claim_id=_OUTCOME_CLAIM,
        owner_scope=Fixed(FIXED_OWNER, "the format knows no owners"),
        blocking_claim_ids=Take(("blocking_claim_ids",)),
    ),
    "active_request_refused": _request(
        RequestRefused,
        _OUTCOME + _INJECTED + "arbiter_action feasibility restoration_failure_event_sequence "
        "scheduler_finish_status controlled_patched_connector_outcome",
        dict(_NOT_RECOMPUTED),
        request_id=Take(("request_id",)),
        reason=Take(("arbiter_action",)),
        need_blocks=_NO_NUMBERS,
        protected_blocks=_NO_NUMBERS,
        active_blocks=_NO_NUMBERS,
        usable_blocks=Maybe(("usable_blocks",), None),
        shortfall_blocks=_NO_NUMBERS,
        outcome_claim_id=Maybe(("outcome_claim_id",), None),
        blocking_claim_ids=Take(("blocking_claim_ids",)),
    ),
    "resident_claim_demoted": _claim(
        ClaimDemoted, _ENDED, reason=Take(("arbiter_action",)), outcome_claim_id=_OUTCOME_CLAIM
    ),
    "resident_claim_expired": _runtime(_ENDED),
    "resident_claim_harmed": _claim(
        ClaimHarmed, _ENDED, reason=Take(("arbiter_action",)), lost_pos=_NO_POSITION, outcome_claim_id=_OUTCOME_CLAIM
    ),
    "generic_kv_blocks_offloaded": _counter("generic_offload_blocks cache_tier_to", "generic_offload_blocks"),
    "generic_kv_blocks_onboarded": _counter("generic_onboard_blocks cache_tier_to", "generic_onboard_blocks"),
    "generic_kv_transfer_failed_counter": _counter("failure_count transfer_type", "failure_count"),
    "generic_request_error_counter": _counter("request_failures", "request_failures"),
}
"""Every event of the format by its name."""
