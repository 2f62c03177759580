"""Writing the engine's events: claim events carry the whole identity, taken from one place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeVar

from residentkv import __version__
from residentkv.claims.ledger import ClaimRecord
from residentkv.claims.predicates import Ranges
from residentkv.runtimes.reference.config import PRIMITIVE, RUNTIME, Mechanism
from residentkv.trace.events import (
    BlockRemoved,
    BlockStored,
    ClaimEvent,
    Event,
    JobCreated,
    RequestInitialized,
    RequestTerminated,
    TraceOpened,
    TransferFinished,
)

E = TypeVar("E", bound=Event)


class EventSink(Protocol):
    """Where events go; `residentkv.trace.writer.TraceWriter` is one."""

    def emit(self, kind: type[E], **fields: Any) -> E:
        """Append one event."""

    def close(self, reason: str = ...) -> None:
        """End in order."""

    def abandon(self) -> None:
        """End as a crash would."""


class Journal:
    """The events of one engine.

    With `claim_identity` off, what follows acceptance is written in the name of the engine instead of the owner; with
    `cache_identity` off it carries the identity of other weights; with `object_identity` off it names no
    object of its own; with `scoped_outcome` off an outcome names the engine instead of the claim; with `joinability`
    off requests and jobs are written without their claim.
    """

    def __init__(self, sink: EventSink | None, *, off: frozenset[Mechanism], other_identity: str) -> None:
        self._sink = sink
        self.off = off
        self._other = other_identity
        self._jobs = 0

    def open(self) -> None:
        """Write who writes."""
        self.emit(
            TraceOpened,
            runtime=RUNTIME,
            runtime_version=__version__,
            primitive=PRIMITIVE,
            adapter=None,
            adapter_version=None,
            depth="native",
            stands_in=(),
        )

    def close(self, reason: str) -> None:
        """End the trace in order."""
        if self._sink is not None:
            self._sink.close(reason)

    def abandon(self) -> None:
        """End the trace as a crash would."""
        if self._sink is not None:
            self._sink.abandon()

    def emit(self, kind: type[Event], **fields: Any) -> None:
        """Write an event that is about no claim."""
        if self._sink is not None:
            self._sink.emit(kind, **fields)

    def emit_claim(self, kind: type[ClaimEvent], record: ClaimRecord, request_id: str | None, **fields: Any) -> None:
        """Write an event about a claim."""
        claim = record.claim
        later = kind.__name__ not in ("ClaimAccepted", "ClaimRejected", "ClaimDeferred")
        identity = claim.cache_identity
        if later and Mechanism.CACHE_IDENTITY in self.off:
            identity = self._other
        self.emit(
            kind,
            claim_id=claim.claim_id,
            owner_scope="engine" if later and Mechanism.CLAIM_IDENTITY in self.off else claim.owner_scope,
            object_id="object" if later and Mechanism.OBJECT_IDENTITY in self.off else claim.object_id,
            token_map_id=claim.token_map_id,
            cache_identity=identity,
            predicate=str(claim.predicate),
            request_id=request_id,
            generation=record.generation,
            **fields,
        )

    def outcome_name(self, record: ClaimRecord) -> str:
        """Return the claim that an outcome is about."""
        return "engine" if Mechanism.SCOPED_OUTCOME in self.off else record.claim.claim_id

    def claim_fields(self, record: ClaimRecord | None) -> dict[str, Any]:
        """Return the fields that join a request or a job to its claim."""
        if record is None or Mechanism.JOINABILITY in self.off:
            return {"claim_id": None, "owner_scope": None}
        return {"claim_id": record.claim.claim_id, "owner_scope": record.claim.owner_scope}

    def request_initialized(self, request_id: str, claim_id: str | None, owner: str | None, tokens: int) -> None:
        """Join a request to the claim that it brings or names, before anything is decided."""
        if claim_id is None or Mechanism.JOINABILITY in self.off:
            claim_id = owner = None
        self.emit(RequestInitialized, request_id=request_id, claim_id=claim_id, owner_scope=owner, prompt_tokens=tokens)

    def request_terminated(self, request_id: str, finish_status: str, output_tokens: int) -> None:
        """Write the end of a request."""
        self.emit(RequestTerminated, request_id=request_id, finish_status=finish_status, output_tokens=output_tokens)

    def blocks_stored(self, tier: str, blocks: Sequence[tuple[str, int]], request_id: str | None) -> None:
        """Write which copies (content name, physical index) came into a tier."""
        if blocks:
            names, ids = zip(*blocks, strict=True)
            self.emit(BlockStored, tier=tier, block_hashes=names, block_ids=ids, request_id=request_id)

    def blocks_removed(self, tier: str, blocks: Sequence[tuple[str, int]], request_id: str | None) -> None:
        """Write which copies left a tier."""
        if blocks:
            names, ids = zip(*blocks, strict=True)
            self.emit(BlockRemoved, tier=tier, block_hashes=names, block_ids=ids, request_id=request_id)

    def begin_job(self, direction: str, record: ClaimRecord | None, request_id: str, pos: Ranges) -> int:
        """Write that a transfer was made and return its number."""
        self._jobs += 1
        self.emit(
            JobCreated,
            request_id=request_id,
            job_id=self._jobs,
            direction=direction,
            generation=record.generation if record is not None else 0,
            pos=pos,
            **self.claim_fields(record),
        )
        return self._jobs

    def finish_job(
        self,
        job_id: int,
        direction: str,
        record: ClaimRecord | None,
        request_id: str,
        *,
        ok_pos: Ranges,
        failed_pos: Ranges,
        moved_bytes: int,
        reason: str,
        started_ns: int,
        ended_ns: int,
    ) -> None:
        """Write how a transfer ended."""
        self.emit(
            TransferFinished,
            request_id=request_id,
            job_id=job_id,
            direction=direction,
            worker=0,
            workers_total=1,
            success=not failed_pos,
            ok_pos=ok_pos,
            failed_pos=failed_pos,
            bytes=moved_bytes,
            reason=reason,
            worker_start_ns=started_ns,
            worker_end_ns=ended_ns,
            **self.claim_fields(record),
        )


def names_of(records: Iterable[ClaimRecord]) -> tuple[str, ...]:
    """Return the names of claims in the order given, each once."""
    return tuple(dict.fromkeys(r.claim.claim_id for r in records))
