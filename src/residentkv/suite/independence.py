"""Which two events of one source could as well have come in the other order."""

from __future__ import annotations

from residentkv.suite.context import Context, Key
from residentkv.trace import events as ev
from residentkv.trace.events import Event

SWAPPABLE: frozenset[frozenset[str]] = frozenset(
    frozenset(pair)
    for pair in (
        ("resident_claim_materialized", "active_request_terminated"),
        ("resident_claim_offloaded", "active_request_terminated"),
        ("resident_claim_released", "active_request_terminated"),
        ("resident_claim_expired", "active_request_terminated"),
        ("resident_claim_harmed", "active_request_terminated"),
        ("resident_claim_harmed", "scheduler_active_request_refused"),
        ("resident_claim_accepted", "active_request_admitted"),
        ("resident_claim_rejected", "active_request_admitted"),
        ("resident_claim_renewed", "active_request_terminated"),
        ("resident_claim_materialized", "active_request_admitted"),
        ("resident_claim_route_bound", "active_request_admitted"),
        ("resident_claim_route_outcome", "active_request_admitted"),
        ("resident_claim_harmed", "active_request_admitted"),
        ("offload_lookup_result", "active_request_admitted"),
        ("offload_lookup_result", "resident_claim_reused"),
        ("offload_lookup_result", "resident_claim_offloaded"),
        ("offload_lookup_result", "resident_claim_accepted"),
        ("offload_lookup_result", "offload_job_created"),
        ("offload_lookup_result", "scheduler_resident_claim_restoration_failed"),
        ("offload_job_created", "resident_claim_materialized"),
        ("offload_job_created", "active_request_recomputed"),
        ("offload_worker_transfer_finished", "active_request_recomputed"),
        ("offload_worker_transfer_finished", "resident_claim_materialized"),
        ("resident_claim_route_bound", "resident_claim_materialized"),
        ("resident_claim_route_bound", "request_initialized"),
        ("resident_claim_route_bound", "active_request_terminated"),
    )
)
"""Pairs of events of one request or claim whose order the contract leaves open."""

_READS_CLAIM = (ev.RequestEvent,)
_CAPACITY = (ev.RequestAdmitted, ev.RequestRefused, ev.RequestDeferred)
_RESERVING = (
    ev.ClaimAccepted,
    ev.ClaimOffloaded,
    ev.ClaimReleased,
    ev.ClaimExpired,
    ev.ClaimDemoted,
    ev.ClaimHarmed,
)


def is_block_event(e: Event) -> bool:
    """Tell whether an event is about copies of blocks."""
    return isinstance(e, ev.BlockStored | ev.BlockRemoved)


def are_independent(a: Event, b: Event, c: Context) -> bool:
    """Tell whether two events share nothing that one of them changes."""
    if isinstance(a, ev.TraceOpened | ev.TraceClosed) or isinstance(b, ev.TraceOpened | ev.TraceClosed):
        return False
    if is_block_event(a) or is_block_event(b):
        return _blocks_apart(a, b, c)
    request_a, request_b = getattr(a, "request_id", None), getattr(b, "request_id", None)
    if request_a is not None and request_a == request_b and not _is_only_occasion(a, b, c):
        return False
    job_a, job_b = getattr(a, "job_id", None), getattr(b, "job_id", None)
    if job_a is not None and job_a == job_b:
        return False
    key_a, key_b = _claim(a, c), _claim(b, c)
    if key_a is not None and key_a == key_b and not (_reads(a) and _reads(b)):
        return False
    return not (_weighs(a, b, c) or _weighs(b, a, c))


def _blocks_apart(a: Event, b: Event, c: Context) -> bool:
    """Two block events of other contents and places, or a block event and a claim that needs none of its blocks."""
    if isinstance(a, ev.BlockStored | ev.BlockRemoved) and isinstance(b, ev.BlockStored | ev.BlockRemoved):
        places = {(a.tier, i) for i in a.block_ids} & {(b.tier, i) for i in b.block_ids}
        contents = set(a.block_hashes) & set(b.block_hashes)
        return not places and (type(a) is type(b) or not any(c.is_needed(h) for h in contents))
    block, other = (a, b) if is_block_event(a) else (b, a)
    key = _claim(other, c)
    hashes: tuple[str, ...] = getattr(block, "block_hashes", ())
    return key is None or not any(c.needs(key, h) for h in hashes)


def _is_only_occasion(a: Event, b: Event, c: Context) -> bool:
    """Tell whether one of two events of a request is about a claim that the request does not act for."""
    if not isinstance(a, ev.ClaimEvent) and not isinstance(b, ev.ClaimEvent):
        return False
    return _claim(a, c) != _claim(b, c)


def _claim(e: Event, c: Context) -> Key | None:
    if isinstance(e, ev.ClaimEvent):
        return (e.owner_scope, e.claim_id)
    if isinstance(e, ev.RequestEvent):
        return c.claim_of(e.request_id)
    return None


def _reads(e: Event) -> bool:
    return isinstance(e, _READS_CLAIM)


def _weighs(a: Event, b: Event, c: Context) -> bool:
    """Tell whether `a` states a sum of protected blocks that `b` changes."""
    if not isinstance(b, _RESERVING) or not c.reserves((b.owner_scope, b.claim_id), b.seq):
        return False
    return isinstance(a, (*_CAPACITY, ev.ClaimAccepted))
