"""Everything that happens to claims: decision, materialization, offload, and the one outcome of each."""

from __future__ import annotations

from collections.abc import Iterable

from residentkv.claims.arbiter import Answer, ClaimDecision
from residentkv.claims.ledger import Key
from residentkv.claims.lifecycle import OPEN, TERMINAL, State, Step
from residentkv.claims.model import ClaimRequest, bind_claim, decode_claim_request, token_map_digest
from residentkv.claims.modes import Mode
from residentkv.claims.predicates import parse_predicate, ranges_of
from residentkv.errors import InputError
from residentkv.runtimes.reference.config import Mechanism
from residentkv.runtimes.reference.faults import TransferFailed
from residentkv.runtimes.reference.journal import names_of
from residentkv.runtimes.reference.pool import Evicted
from residentkv.runtimes.reference.state import Kept, Live, Parts, Request
from residentkv.runtimes.reference.tiers import TierFull
from residentkv.trace.events import (
    ClaimAccepted,
    ClaimDeferred,
    ClaimDemoted,
    ClaimEvent,
    ClaimExpired,
    ClaimHarmed,
    ClaimMaterialized,
    ClaimOffloaded,
    ClaimRejected,
    ClaimReleased,
    ClaimRenewed,
)


class ClaimDesk:
    """The claims of one engine. Events come before the losses that they excuse.

    With `release_before_loss` off the blocks are dropped first and the outcome is told afterwards; with `acceptance`
    off claims are kept without an answer; with `predicate` off a claim counts as materialized when as many blocks as
    it needs lie anywhere; with `loss_reporting` off losses are not told.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.kept: dict[Key, Kept] = {}

    def find(self, owner_scope: str, claim_id: str) -> Kept | None:
        """Return an open claim of this owner, or None."""
        kept = self.kept.get((owner_scope, claim_id))
        return kept if kept is not None and kept.record.state in OPEN else None

    def decode(self, request: Request) -> ClaimRequest:
        """Check the wire form of the claim that a request brings.

        Raises:
            InputError: the claim is malformed, or its owner is not the owner of the request.
        """
        wire = decode_claim_request(request.claim)
        if wire.owner_scope != request.owner_scope:
            raise InputError(
                f"resident_claim.owner_scope: found {wire.owner_scope!r}, the request is from "
                f"{request.owner_scope!r}; an owner claims only for itself",
                code="RKV002",
            )
        return wire

    def submit(self, wire: ClaimRequest, live: Live) -> ClaimDecision:
        """Answer a claim before anything else happens to its request.

        Raises:
            InputError: the claim states another object than the prompt.
            ClaimKeyInUse: the owner has an open claim of this name.
        """
        parts, request, names = self._parts, live.request, live.names
        size = parts.config.block_size_tokens
        claim = bind_claim(
            wire,
            cache_identity=parts.config.identity(cache_salt=request.cache_salt).digest(),
            object_id="object:" + (names[-1] if names else "empty"),
            token_map_id=token_map_digest(request.prompt[: len(names) * size]),
            footprint_blocks=max(parse_predicate(wire.predicate).needed(len(names))[1], 1),
        )
        record = parts.ledger.submit(claim)
        kept = Kept(record=record, names=names, request_id=request.request_id)
        self.kept[claim.key] = kept
        live.kept = kept
        parts.journal.request_initialized(request.request_id, claim.claim_id, claim.owner_scope, len(request.prompt))
        decision = self._decide(kept, claim_only=request.max_tokens == 0)
        self._answer(kept, decision)
        if record.state is State.REJECTED:
            live.kept = None
        return decision

    def retry_deferred(self) -> None:
        """Decide again about deferred claims, oldest first; reject those whose time is over or whose object went."""
        now_ns = self._parts.clock.next_ns
        for kept in [k for k in self.kept.values() if k.record.state is State.DEFERRED]:
            decision = self._decide(kept, claim_only=True)
            if decision.verdict is Answer.DEFERRED and now_ns < (kept.deferred_until_ns or 0):
                continue
            if decision.verdict is Answer.DEFERRED:
                self._reject(kept, "deferral_deadline", "the room that it needs did not become free in time")
                continue
            self._answer(kept, decision)
            if kept.record.state in OPEN:
                self.materialize(kept)

    def _decide(self, kept: Kept, *, claim_only: bool) -> ClaimDecision:
        parts, claim = self._parts, kept.record.claim
        decision = parts.arbiter.decide_claim(
            claim, object_blocks=kept.object_blocks, active_blocks=parts.pool.count_active()
        )
        reason = detail = ""
        tier_room = parts.tier.capacity_blocks - parts.tier.reserved_blocks
        if decision.verdict in (Answer.ACCEPTED, Answer.CLIPPED):
            if claim.predicate.sidecars:
                reason, detail = "sidecars_unsupported", "this engine keeps no state beside KV blocks for a claim"
            elif decision.mode is Mode.OFFLOADABLE and claim.footprint_blocks > tier_room:
                reason, detail = (
                    "offload_tier_full",
                    f"footprint {claim.footprint_blocks} blocks, {tier_room} unreserved",
                )
            elif claim_only and not self._materializes(kept):
                reason, detail = "object_not_resident", f"{claim.predicate} does not hold over what can be retrieved"
        if not reason:
            return decision
        return ClaimDecision(
            verdict=Answer.REJECTED,
            mode=claim.mode,
            reason=reason,
            detail=detail,
            protected_blocks=decision.protected_blocks,
            usable_blocks=decision.usable_blocks,
        )

    def _answer(self, kept: Kept, decision: ClaimDecision) -> None:
        parts, record = self._parts, kept.record
        if decision.verdict is Answer.REJECTED:
            self._reject(kept, decision.reason, decision.detail)
            return
        if decision.verdict is Answer.DEFERRED:
            if record.state is State.SUBMITTED:
                parts.ledger.step(record, Step.DEFER)
                kept.deferred_until_ns = parts.clock.next_ns + round(parts.config.defer_s * 1e9)
                parts.journal.emit_claim(
                    ClaimDeferred,
                    record,
                    kept.request_id,
                    mode=record.claim.mode.value,
                    reason=decision.reason,
                    detail=decision.detail,
                )
            return
        clipped = decision.verdict is Answer.CLIPPED
        if clipped:
            parts.ledger.clip(record, decision.mode)
        parts.ledger.step(record, Step.CLIP if clipped else Step.ACCEPT, now_ns=parts.clock.next_ns)
        if record.mode is Mode.OFFLOADABLE:
            parts.tier.reserve(record.claim.key, record.claim.footprint_blocks)
        if not parts.keeps(Mechanism.ACCEPTANCE):
            return
        parts.journal.emit_claim(
            ClaimAccepted,
            record,
            kept.request_id,
            decision="clipped" if clipped else "accepted",
            clipped_from=(record.claim.mode.value,) if clipped else (),
            mode=record.mode.value,
            on_restore_failure=record.claim.on_restore_failure.value,
            footprint_blocks=record.claim.footprint_blocks,
            priority=record.claim.priority,
            revision=record.revision,
            ttl_s=record.claim.ttl_s,
            deadline_ns=record.deadline_ns,
            protected_blocks=decision.protected_blocks,
            usable_blocks=decision.usable_blocks,
        )

    def _reject(self, kept: Kept, reason: str, detail: str) -> None:
        record = kept.record
        self._parts.ledger.step(record, Step.REJECT)
        self._parts.journal.emit_claim(
            ClaimRejected, record, kept.request_id, mode=record.claim.mode.value, reason=reason, detail=detail
        )
        self._forget(kept)

    def _materializes(self, kept: Kept) -> bool:
        resident = self._parts.primary_pos(kept.names)
        if not self._parts.keeps(Mechanism.PREDICATE):
            return sum(hi - lo for lo, hi in resident) >= len(kept.needed_pos)
        return kept.record.claim.predicate.holds(resident, kept.object_blocks)

    def materialize(self, kept: Kept) -> None:
        """Say that the predicate holds, if it does, and protect what the mode protects."""
        parts, record = self._parts, kept.record
        if record.state is not State.ACCEPTED or not self._materializes(kept):
            return
        if record.protected_blocks():
            parts.pool.hold([n for n in kept.needed_names if parts.pool.find(n)], record.claim.key)
        parts.ledger.step(record, Step.MATERIALIZE)
        parts.journal.emit_claim(
            ClaimMaterialized,
            record,
            kept.request_id,
            tier=parts.config.primary_tier,
            retrievable_pos=parts.primary_pos(kept.names),
            object_blocks=kept.object_blocks,
            footprint_blocks=record.claim.footprint_blocks,
            block_hashes=kept.names,
        )
        if record.mode is Mode.OFFLOADABLE and parts.config.eager_offload:
            self.offload(kept)

    def offload(self, kept: Kept) -> bool:
        """Copy a materialized claim into the tier; only then its primary blocks may go.

        Returns:
            False when the transfer failed or the tier is full: the claim stays protected where it is.
        """
        parts, record = self._parts, kept.record
        pos = ranges_of(kept.needed_pos)
        job_id = parts.journal.begin_job("store", record, kept.request_id, pos)
        started_ns = parts.clock.now_ns
        blocks = [(n, b.data) for n in kept.needed_names if (b := parts.pool.find(n)) is not None]
        stored: list[tuple[str, int]] = []
        evicted: list[tuple[str, int]] = []
        failure = ""
        try:
            stored, evicted = parts.tier.store(blocks, record.claim.key)
        except (TierFull, TransferFailed) as e:
            failure = type(e).__name__
        parts.journal.finish_job(
            job_id,
            "store",
            record,
            kept.request_id,
            ok_pos=() if failure else pos,
            failed_pos=pos if failure else (),
            moved_bytes=0 if failure else sum(len(data) for _, data in blocks),
            reason=failure,
            started_ns=started_ns,
            ended_ns=parts.clock.now_ns,
        )
        if failure:
            return False
        self.tell_removed(parts.config.offload_tier, evicted, None)
        parts.journal.blocks_stored(parts.config.offload_tier, stored, kept.request_id)
        kept.store_jobs = (*kept.store_jobs, job_id)
        self.say_offloaded(kept)
        parts.pool.unhold(kept.needed_names, record.claim.key)
        return True

    def say_offloaded(self, kept: Kept) -> None:
        """Begin a restore cycle by saying what the tier can give back.

        With `offload_identity` off the transfers are not named.
        """
        parts = self._parts
        parts.ledger.step(kept.record, Step.OFFLOAD)
        parts.journal.emit_claim(
            ClaimOffloaded,
            kept.record,
            kept.request_id,
            tier_from=parts.config.primary_tier,
            tier_to=parts.config.offload_tier,
            retrievable_pos=ranges_of(p for p in kept.needed_pos if parts.tier.holds(kept.names[p])),
            job_ids=kept.store_jobs if parts.keeps(Mechanism.OFFLOAD_IDENTITY) else (),
        )

    def renew(self, kept: Kept, *, revision: int, ttl_s: float | None) -> None:
        """Give a claim a new term under a higher revision.

        Raises:
            StaleRevision: the revision is not higher.
        """
        parts = self._parts
        parts.ledger.renew(kept.record, revision=revision, ttl_s=ttl_s, now_ns=parts.clock.next_ns)
        parts.journal.emit_claim(
            ClaimRenewed, kept.record, None, revision=revision, ttl_s=ttl_s, deadline_ns=kept.record.deadline_ns
        )

    def expire_due(self) -> None:
        """End every claim whose term is over. With `expiry_enforcement` off nothing is done."""
        if self._parts.keeps(Mechanism.EXPIRY_ENFORCEMENT):
            for record in self._parts.ledger.due(self._parts.clock.next_ns):
                self.expire(self.kept[record.claim.key])

    def expire(self, kept: Kept) -> None:
        """End a claim at the end of its term."""
        self._end(kept, Step.EXPIRE, ClaimExpired, {"deadline_ns": kept.record.deadline_ns or 0})

    def demote(self, kept: Kept, reason: str, request_id: str | None = None) -> None:
        """Withdraw the promise with notice."""
        self._end(kept, Step.DEMOTE, ClaimDemoted, {"reason": reason}, request_id)

    def release(self, kept: Kept, released_by: str, reason: str) -> None:
        """Let a claim go on behalf of its owner or of the engine."""
        self._end(kept, Step.RELEASE, ClaimReleased, {"released_by": released_by, "reason": reason})

    def harm(self, kept: Kept, reason: str, lost: Iterable[int], request_id: str | None = None) -> None:
        """Say that the promise is broken."""
        if self._parts.keeps(Mechanism.LOSS_REPORTING):
            self._end(kept, Step.HARM, ClaimHarmed, {"reason": reason, "lost_pos": ranges_of(lost)}, request_id)

    def close(self) -> None:
        """Give every claim that is open its outcome at an orderly end.

        With `ordered_lifecycle` off claims that have their outcome are released once more.
        """
        for kept in list(self.kept.values()):
            if kept.record.state in OPEN:
                self.release(kept, "engine:shutdown", "engine_shutdown")
            elif kept.record.state not in TERMINAL:
                self._reject(kept, "engine_shutdown", "the decision was still open")
            elif not self._parts.keeps(Mechanism.ORDERED_LIFECYCLE):
                self._tell_end(
                    kept, ClaimReleased, {"released_by": "engine:shutdown", "reason": "engine_shutdown"}, None
                )

    def tell_removed(
        self, tier: str, gone: list[tuple[str, int]], request_id: str | None, reason: str = "evicted"
    ) -> None:
        """Say which copies left a tier, and harm the claims that this leaves without what they need."""
        if not gone:
            return
        self._parts.journal.blocks_removed(tier, gone, request_id)
        lost = {name for name, _ in gone}
        for kept in list(self.kept.values()):
            record = kept.record
            if record.state not in OPEN - {State.ACCEPTED} or record.mode is Mode.BEST_EFFORT:
                continue
            if lost.isdisjoint(kept.needed_names):
                continue
            left = self._parts.retrievable_pos(kept.names)
            if not record.claim.predicate.holds(left, kept.object_blocks):
                missing = [p for p in kept.needed_pos if not any(lo <= p < hi for lo, hi in left)]
                self.harm(kept, reason, missing, request_id)

    def tell_evicted(self, evicted: list[Evicted], request_id: str | None, reason: str = "evicted") -> None:
        """Say which primary copies had to go."""
        gone = [(e.name, e.block_idx) for e in evicted]
        self.tell_removed(self._parts.config.primary_tier, gone, request_id, reason)

    def rank(self, name: str) -> tuple[int, ...]:
        """Return what a cached content is worth: unclaimed ones go first, then soft claims by priority.

        With `eviction_preference` off all are worth the same, and only recency counts.
        """
        if not self._parts.keeps(Mechanism.EVICTION_PREFERENCE):
            return ()
        priorities = [
            k.record.claim.priority
            for k in self.kept.values()
            if k.record.mode is Mode.SOFT_PRIORITY and k.record.state in OPEN and name in k.needed_names
        ]
        return (1, max(priorities)) if priorities else (0, 0)

    def blocking_names(self, keys: Iterable[Kept]) -> tuple[str, ...]:
        """Return the names of claims for an outcome; none with `conflict_outcome` off."""
        if not self._parts.keeps(Mechanism.CONFLICT_OUTCOME):
            return ()
        return names_of(k.record for k in keys)

    def _end(
        self,
        kept: Kept,
        step: Step,
        kind: type[ClaimEvent],
        fields: dict[str, object],
        request_id: str | None = None,
    ) -> None:
        parts, record = self._parts, kept.record
        early = step in (Step.EXPIRE, Step.DEMOTE) and not parts.keeps(Mechanism.RELEASE_BEFORE_LOSS)
        if early:
            self._drop_now(kept, request_id)
        parts.ledger.step(record, step)
        self._tell_end(kept, kind, fields, request_id)
        parts.pool.unhold(kept.needed_names, record.claim.key)
        self._forget(kept)

    def _tell_end(self, kept: Kept, kind: type[ClaimEvent], fields: dict[str, object], request_id: str | None) -> None:
        journal = self._parts.journal
        journal.emit_claim(kind, kept.record, request_id, outcome_claim_id=journal.outcome_name(kept.record), **fields)

    def _drop_now(self, kept: Kept, request_id: str | None) -> None:
        blocks = [b for n in kept.needed_names if (b := self._parts.pool.find(n)) is not None and not b.ref_count]
        gone = [(e.name, e.block_idx) for e in map(self._parts.pool.drop, blocks)]
        self._parts.journal.blocks_removed(self._parts.config.primary_tier, gone, request_id)

    def _forget(self, kept: Kept) -> None:
        key = kept.record.claim.key
        self._parts.tier.unreserve(key)
        if self._parts.keeps(Mechanism.ORDERED_LIFECYCLE):
            self._parts.ledger.forget(key)
            del self.kept[key]
