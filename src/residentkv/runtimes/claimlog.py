"""The trace of an adapter that stands beside a runtime: one authority, one (source, epoch), claims from one ledger."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from residentkv import __version__
from residentkv.claims.arbiter import ClaimDecision, RequestDecision
from residentkv.claims.ledger import ClaimLedger, ClaimRecord
from residentkv.claims.lifecycle import Step
from residentkv.claims.predicates import Ranges
from residentkv.trace.events import (
    ClaimAccepted,
    ClaimDemoted,
    ClaimEvent,
    ClaimExpired,
    ClaimHarmed,
    ClaimMaterialized,
    ClaimRejected,
    ClaimReleased,
    Event,
    RequestAdmitted,
    RequestInitialized,
    RequestRefused,
    RequestTerminated,
    TraceOpened,
)

E = TypeVar("E", bound=Event)


class EventSink(Protocol):
    """Where events go; `residentkv.trace.writer.TraceWriter` is one."""

    def emit(self, kind: type[E], **fields: Any) -> E:
        """Append one event."""

    def close(self, reason: str = ...) -> None:
        """End in order."""

    def abandon(self) -> None:
        """End without saying so, so that an audit comes to no conclusion."""


class ClaimLog:
    """Steps of claims and the events that tell them, so that neither is taken without the other.

    `now_ns` of a decision is the time that its term is counted from; a step that the lifecycle forbids writes nothing.
    """

    def __init__(self, sink: EventSink) -> None:
        self.ledger = ClaimLedger()
        self._sink = sink

    def open(
        self, *, runtime: str, version: str, primitive: str, adapter: str, depth: str, stands_in: tuple[str, ...]
    ) -> None:
        """Write who writes; `stands_in` names what stands in for an engine or a kernel in this run."""
        self.emit(
            TraceOpened,
            runtime=runtime,
            runtime_version=version,
            primitive=primitive,
            adapter=adapter,
            adapter_version=__version__,
            depth=depth,
            stands_in=stands_in,
        )

    def close(self, reason: str) -> None:
        """End the trace in order."""
        self._sink.close(reason)

    def abandon(self) -> None:
        """Leave the trace open, because something about its claims is in doubt."""
        self._sink.abandon()

    def emit(self, kind: type[Event], **fields: Any) -> None:
        """Write an event that is about no claim."""
        self._sink.emit(kind, **fields)

    def emit_claim(self, kind: type[ClaimEvent], record: ClaimRecord, request_id: str | None, **fields: Any) -> None:
        """Write an event about a claim; its identity always comes from the ledger."""
        claim = record.claim
        self._sink.emit(
            kind,
            claim_id=claim.claim_id,
            owner_scope=claim.owner_scope,
            object_id=claim.object_id,
            token_map_id=claim.token_map_id,
            cache_identity=claim.cache_identity,
            predicate=str(claim.predicate),
            request_id=request_id,
            generation=record.generation,
            **fields,
        )

    def begin_request(self, request_id: str, owner_scope: str | None, claim_id: str | None, prompt_tokens: int) -> None:
        """Join a request to the claim that it brings or names, before anything is decided."""
        self.emit(
            RequestInitialized,
            request_id=request_id,
            claim_id=claim_id,
            owner_scope=owner_scope if claim_id is not None else None,
            prompt_tokens=prompt_tokens,
        )

    def end_request(self, request_id: str, finish_status: str, output_tokens: int = 0) -> None:
        """Write the end of a request."""
        self.emit(RequestTerminated, request_id=request_id, finish_status=finish_status, output_tokens=output_tokens)

    def accept(self, record: ClaimRecord, request_id: str, decision: ClaimDecision | None, *, now_ns: int) -> None:
        """Take responsibility on the terms asked for; the numbers are those of the decision, if it used any."""
        claim = record.claim
        self.ledger.step(record, Step.ACCEPT, now_ns=now_ns)
        self.emit_claim(
            ClaimAccepted,
            record,
            request_id,
            decision="accepted",
            clipped_from=(),
            mode=record.mode.value,
            on_restore_failure=claim.on_restore_failure.value,
            footprint_blocks=claim.footprint_blocks,
            priority=claim.priority,
            revision=record.revision,
            ttl_s=claim.ttl_s,
            deadline_ns=record.deadline_ns,
            protected_blocks=None if decision is None else decision.protected_blocks,
            usable_blocks=None if decision is None else decision.usable_blocks,
        )

    def reject(self, record: ClaimRecord, request_id: str, reason: str, detail: str) -> None:
        """Decline; nothing is promised."""
        self.ledger.step(record, Step.REJECT)
        self.emit_claim(ClaimRejected, record, request_id, mode=record.mode.value, reason=reason, detail=detail)

    def materialize(
        self, record: ClaimRecord, request_id: str, *, tier: str, held_pos: Ranges, block_hashes: tuple[str, ...]
    ) -> None:
        """Say that the predicate holds over `held_pos` of the blocks named."""
        self.ledger.step(record, Step.MATERIALIZE)
        self.emit_claim(
            ClaimMaterialized,
            record,
            request_id,
            tier=tier,
            retrievable_pos=held_pos,
            object_blocks=len(block_hashes),
            footprint_blocks=record.claim.footprint_blocks,
            block_hashes=block_hashes,
        )

    def release(self, record: ClaimRecord, released_by: str, reason: str) -> None:
        """Write that the claim is let go; the blocks may go after it."""
        self.ledger.step(record, Step.RELEASE)
        self.emit_claim(
            ClaimReleased,
            record,
            None,
            released_by=released_by,
            reason=reason,
            outcome_claim_id=record.claim.claim_id,
        )

    def expire(self, record: ClaimRecord) -> None:
        """Write that the term of the claim is over; the blocks may go after it."""
        deadline_ns = record.deadline_ns
        self.ledger.step(record, Step.EXPIRE)
        self.emit_claim(ClaimExpired, record, None, deadline_ns=deadline_ns, outcome_claim_id=record.claim.claim_id)

    def demote(self, record: ClaimRecord, request_id: str | None, reason: str) -> None:
        """Withdraw the promise with notice; the blocks may go after it."""
        self.ledger.step(record, Step.DEMOTE)
        self.emit_claim(ClaimDemoted, record, request_id, reason=reason, outcome_claim_id=record.claim.claim_id)

    def harm(self, record: ClaimRecord, request_id: str | None, reason: str, lost_pos: Ranges) -> None:
        """Say that what was promised is lost."""
        self.ledger.step(record, Step.HARM)
        self.emit_claim(
            ClaimHarmed,
            record,
            request_id,
            reason=reason,
            lost_pos=lost_pos,
            outcome_claim_id=record.claim.claim_id,
        )

    def admit(self, request_id: str, decision: RequestDecision, actions: tuple[str, ...]) -> None:
        """Write that a request fits, with the numbers that hold after `actions`."""
        self.emit(
            RequestAdmitted,
            request_id=request_id,
            need_blocks=decision.need_blocks,
            protected_blocks=self.ledger.protected_blocks,
            active_blocks=decision.active_blocks,
            usable_blocks=decision.usable_blocks,
            actions=actions,
        )

    def refuse(self, request_id: str, decision: RequestDecision) -> tuple[str, ...]:
        """Write that a request does not fit beside the claims; return the names of those in the way."""
        blocking = tuple(dict.fromkeys(r.claim.claim_id for r in decision.blocking))
        self.emit(
            RequestRefused,
            request_id=request_id,
            reason=decision.reason,
            need_blocks=decision.need_blocks,
            protected_blocks=decision.protected_blocks,
            active_blocks=decision.active_blocks,
            usable_blocks=decision.usable_blocks,
            shortfall_blocks=decision.shortfall_blocks,
            outcome_claim_id=None,
            blocking_claim_ids=blocking,
        )
        return blocking
