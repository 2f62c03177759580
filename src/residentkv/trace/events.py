"""The event vocabulary: one struct an event name, flat, every field required (spec section 6).

A field that has nothing to say is `null`, never left out: so a missing identity is a decoding error and not a guess.
Claims are named by `(owner_scope, claim_id)` within one `(source, epoch)`. Times are nanoseconds of the clock of
`source`; only the order of `seq` within one `(source, epoch)` is causal. Positions are half-open ranges of logical
block positions of the claimed object; `*_block_ids` are physical. No ranges means that the event states no position,
which never proves that a predicate holds.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

SCHEMA = 1

Count = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Priority = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
Name = Annotated[str, Meta(min_length=1, max_length=1024)]
Pair = tuple[Count, Count]
Ranges = tuple[Pair, ...]
Names = tuple[Name, ...]
Direction = Literal["store", "load"]
Tier = Annotated[str, Meta(min_length=1, max_length=64)]


class Event(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    gc=False,
    tag_field="event",
):
    """The envelope; `seq` counts from 0 without gaps for each (source, epoch)."""

    schema: Literal[1]
    run_id: Name
    source: Name
    epoch: Count
    seq: Count
    mono_ns: Count
    wall_ns: Count


class TraceOpened(Event, frozen=True, kw_only=True, gc=False, tag="trace_opened"):
    """First event of every (source, epoch): who writes, on which runtime, at which depth.

    `stands_in` names what stands in for something else in this run (a kernel, an engine) and so limits the evidence.
    """

    runtime: Name
    runtime_version: Name
    primitive: Name
    adapter: Name | None
    adapter_version: str | None
    depth: Literal["native", "observe", "policy", "plugin", "patch"]
    stands_in: Names


class TraceClosed(Event, frozen=True, kw_only=True, gc=False, tag="trace_closed"):
    """Last event of a (source, epoch) that ended in order; `seq` of it equals the number of events before it."""

    reason: str


class ClaimEvent(Event, frozen=True, kw_only=True, gc=False):
    """What every event about a claim carries: the whole identity, so that it can be checked on each.

    `request_id` is the request on whose behalf it happened; `generation` counts the offloaded events of the claim
    and is null when the writer does not say it (an imported trace): such an event joins no restore cycle.
    """

    claim_id: Name
    owner_scope: Name
    object_id: Name
    token_map_id: Name
    cache_identity: Name
    predicate: Name
    request_id: Name | None
    generation: Count | None


class ClaimAccepted(ClaimEvent, frozen=True, kw_only=True, gc=False, tag="resident_claim_accepted"):
    """The runtime took responsibility; `clipped_from` names the terms asked for when they were stronger."""

    decision: Literal["accepted", "clipped"]
    clipped_from: Names
    mode: Name
    on_restore_failure: Literal["refuse", "recompute"]
    footprint_blocks: Count
    priority: Priority
    revision: Count
    ttl_s: float | None
    deadline_ns: Count | None
    protected_blocks: Count | None
    usable_blocks: Count | None


class ClaimRejected(ClaimEvent, frozen=True, kw_only=True, gc=False, tag="resident_claim_rejected"):
    """The runtime declined; nothing is promised."""

    mode: Name
    reason: Name
    detail: str


class ClaimDeferred(ClaimEvent, frozen=True, kw_only=True, gc=False, tag="resident_claim_deferred"):
    """The decision is still open; nothing is promised yet."""

    mode: Name
    reason: Name
    detail: str


class ClaimRenewed(ClaimEvent, frozen=True, kw_only=True, gc=False, tag="resident_claim_renewed"):
    """The term was extended; `revision` grew."""

    revision: Count
    ttl_s: float | None
    deadline_ns: Count | None


class ClaimMaterialized(ClaimEvent, frozen=True, kw_only=True, gc=False, tag="resident_claim_materialized"):
    """The predicate holds over what can be retrieved now.

    `block_hashes` names the content of positions 0..object_blocks-1, or is empty when the runtime names no blocks.
    """

    tier: Tier
    retrievable_pos: Ranges
    object_blocks: Count
    footprint_blocks: Count
    block_hashes: Names


class ClaimOffloaded(ClaimEvent, frozen=True, kw_only=True, gc=False, tag="resident_claim_offloaded"):
    """The tier says that it can give these positions back; `job_ids` are the store transfers that put them there."""

    tier_from: Tier
    tier_to: Tier
    retrievable_pos: Ranges
    job_ids: tuple[Count, ...]


class ClaimRestoreRequired(ClaimEvent, frozen=True, kw_only=True, gc=False, tag="resident_claim_restore_required"):
    """A request wants to reuse the claim and the primary tier cannot serve the predicate."""

    tier_from: Tier
    tier_to: Tier
    required_pos: Ranges


class ClaimRestored(ClaimEvent, frozen=True, kw_only=True, gc=False, tag="resident_claim_restored"):
    """The bytes of the required positions came back from the tier through load transfer `job_id`.

    `job_id` is null when the writer names no transfer (an imported trace of a model): nothing shows that bytes moved.
    """

    job_id: Count | None
    tier_from: Tier
    tier_to: Tier
    retrievable_pos: Ranges


class ClaimReusedAfterRestore(
    ClaimEvent, frozen=True, kw_only=True, gc=False, tag="resident_claim_reuse_after_restore"
):
    """The request that required the restoration was computed on the restored positions."""

    reused_pos: Ranges


class ClaimReused(ClaimEvent, frozen=True, kw_only=True, gc=False, tag="resident_claim_reused"):
    """A request read the claim's blocks where they lay; no restoration was needed."""

    tier: Tier
    reused_pos: Ranges


class ClaimRestorationFailed(ClaimEvent, frozen=True, kw_only=True, gc=False, tag="resident_claim_restoration_failed"):
    """The connector's word that a restoration failed; `job_id` is null when no transfer was ever made."""

    job_id: Count | None
    reason: Name
    failed_pos: Ranges
    outcome_claim_id: Name
    blocking_claim_ids: Names


class SchedulerRestorationFailed(
    ClaimEvent, frozen=True, kw_only=True, gc=False, tag="scheduler_resident_claim_restoration_failed"
):
    """The scheduler's word, at its boundary, before the request is finished; this is the claim-scoped outcome."""

    job_id: Count | None
    reason: Name
    failed_pos: Ranges
    invalid_block_ids: tuple[Count, ...]
    failure_policy: Literal["fail", "recompute", "retry"]
    finish_status: Name
    outcome_claim_id: Name
    blocking_claim_ids: Names


class ClaimDemoted(ClaimEvent, frozen=True, kw_only=True, gc=False, tag="resident_claim_demoted"):
    """The promise was withdrawn with notice, before any loss."""

    reason: Name
    outcome_claim_id: Name


class ClaimExpired(ClaimEvent, frozen=True, kw_only=True, gc=False, tag="resident_claim_expired"):
    """The term ended; said before any loss."""

    deadline_ns: Count
    outcome_claim_id: Name


class ClaimReleased(ClaimEvent, frozen=True, kw_only=True, gc=False, tag="resident_claim_released"):
    """The owner, or the end of the engine, let the claim go; said before any loss."""

    released_by: Name
    reason: Name
    outcome_claim_id: Name


class ClaimHarmed(ClaimEvent, frozen=True, kw_only=True, gc=False, tag="resident_claim_harmed"):
    """The promise was broken and the runtime says so."""

    reason: Name
    lost_pos: Ranges
    outcome_claim_id: Name


class ClaimRouteBound(ClaimEvent, frozen=True, kw_only=True, gc=False, tag="resident_claim_route_bound"):
    """The router bound the claim to one worker incarnation."""

    worker_id: Name
    worker_epoch: Count


class ClaimRouteOutcome(ClaimEvent, frozen=True, kw_only=True, gc=False, tag="resident_claim_route_outcome"):
    """Where a request of the claim was really served."""

    worker_id: Name
    worker_epoch: Count
    outcome: Literal["served_by_binding", "moved", "lost", "refused"]
    reused_blocks: Count | None
    outcome_claim_id: Name


class RequestEvent(Event, frozen=True, kw_only=True, gc=False):
    """What every event about an active request carries."""

    request_id: Name


class RequestInitialized(RequestEvent, frozen=True, kw_only=True, gc=False, tag="request_initialized"):
    """The runtime saw the request; this joins it to a claim before any pressure. `claim_id` is null for others."""

    claim_id: Name | None
    owner_scope: Name | None
    prompt_tokens: Count


class RequestAdmitted(RequestEvent, frozen=True, kw_only=True, gc=False, tag="active_request_admitted"):
    """The feasibility check passed with these numbers (blocks); `actions` made room, such as `demote:<claim>`."""

    need_blocks: Count
    protected_blocks: Count
    active_blocks: Count
    usable_blocks: Count
    actions: Names


class RequestDeferred(RequestEvent, frozen=True, kw_only=True, gc=False, tag="active_request_deferred"):
    """The request waits, for a bounded time, because of the named claims."""

    need_blocks: Count
    protected_blocks: Count
    active_blocks: Count
    usable_blocks: Count
    shortfall_blocks: Count
    blocking_claim_ids: Names
    deadline_ns: Count


class RequestRefused(RequestEvent, frozen=True, kw_only=True, gc=False, tag="active_request_refused"):
    """The request was refused; `shortfall_blocks` is null when capacity was not the reason.

    `outcome_claim_id` is set when one claim is the reason (not restored, or its copy lost), null when capacity is.
    """

    reason: Name
    need_blocks: Count | None
    protected_blocks: Count | None
    active_blocks: Count | None
    usable_blocks: Count | None
    shortfall_blocks: Count | None
    outcome_claim_id: Name | None
    blocking_claim_ids: Names


class SchedulerRequestRefused(
    RequestEvent, frozen=True, kw_only=True, gc=False, tag="scheduler_active_request_refused"
):
    """The scheduler refused the active request because its claim could not be restored."""

    reason: Name
    finish_status: Name
    outcome_claim_id: Name
    owner_scope: Name
    blocking_claim_ids: Names


class RequestRecomputed(RequestEvent, frozen=True, kw_only=True, gc=False, tag="active_request_recomputed"):
    """Tokens of these positions were computed again; this is never a restoration."""

    claim_id: Name | None
    owner_scope: Name | None
    recomputed_pos: Ranges
    reason: Name


class RequestTerminated(RequestEvent, frozen=True, kw_only=True, gc=False, tag="active_request_terminated"):
    """The request ended; `finish_status` in lower case words of the runtime (stopped, length, error, aborted)."""

    finish_status: Name
    output_tokens: Count


class LookupResult(RequestEvent, frozen=True, kw_only=True, gc=False, tag="offload_lookup_result"):
    """The tier was asked what it holds for the request; `hit_pos` beyond what the primary tier already has."""

    claim_id: Name | None
    owner_scope: Name | None
    tier: Tier
    hit_pos: Ranges


class JobCreated(RequestEvent, frozen=True, kw_only=True, gc=False, tag="offload_job_created"):
    """A transfer job was made for the request; `generation` joins a load to its restore cycle."""

    job_id: Count
    direction: Direction
    claim_id: Name | None
    owner_scope: Name | None
    generation: Count
    pos: Ranges


class TransferFinished(RequestEvent, frozen=True, kw_only=True, gc=False, tag="offload_worker_transfer_finished"):
    """One worker finished its part of a job, as the scheduler learned it; a job is done when all workers are.

    `worker_start_ns` and `worker_end_ns` are of the clock of the worker; `bytes` counts what was really moved.
    """

    job_id: Count
    direction: Direction
    claim_id: Name | None
    owner_scope: Name | None
    worker: Count
    workers_total: Annotated[int, Meta(ge=1)]
    success: bool
    ok_pos: Ranges
    failed_pos: Ranges
    bytes: Count
    reason: str
    worker_start_ns: Count
    worker_end_ns: Count


class BlockStored(Event, frozen=True, kw_only=True, gc=False, tag="block_stored"):
    """Copies of these blocks now lie in `tier`; this alone says nothing about retrievability."""

    tier: Tier
    block_hashes: Names
    block_ids: tuple[Count, ...]
    request_id: Name | None


class BlockRemoved(Event, frozen=True, kw_only=True, gc=False, tag="block_removed"):
    """These copies left `tier`; other copies may live."""

    tier: Tier
    block_hashes: Names
    block_ids: tuple[Count, ...]
    request_id: Name | None


class GenericCounter(Event, frozen=True, kw_only=True, gc=False, tag="generic_counter"):
    """A process-wide number that names no claim; never evidence."""

    name: Name
    value: Count


class RuntimeEvent(Event, frozen=True, kw_only=True, gc=False, tag="runtime_event"):
    """An event of the runtime's own, kept for order and gaps; never evidence."""

    name: Name
    request_id: Name | None
    job_id: Count | None


AnyEvent = (
    TraceOpened
    | TraceClosed
    | ClaimAccepted
    | ClaimRejected
    | ClaimDeferred
    | ClaimRenewed
    | ClaimMaterialized
    | ClaimOffloaded
    | ClaimRestoreRequired
    | ClaimRestored
    | ClaimReusedAfterRestore
    | ClaimReused
    | ClaimRestorationFailed
    | SchedulerRestorationFailed
    | ClaimDemoted
    | ClaimExpired
    | ClaimReleased
    | ClaimHarmed
    | ClaimRouteBound
    | ClaimRouteOutcome
    | RequestInitialized
    | RequestAdmitted
    | RequestDeferred
    | RequestRefused
    | SchedulerRequestRefused
    | RequestRecomputed
    | RequestTerminated
    | LookupResult
    | JobCreated
    | TransferFinished
    | BlockStored
    | BlockRemoved
    | GenericCounter
    | RuntimeEvent
)
