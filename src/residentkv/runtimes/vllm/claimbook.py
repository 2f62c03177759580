"""The claims of one engine incarnation: decisions, every step of the lifecycle, and the event that tells it.

No vLLM here: what lies where is asked through `CopyView`. All of it runs in the scheduler's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

from residentkv.claims.arbiter import Answer, Arbiter, ArbiterPolicy, ClaimDecision
from residentkv.claims.ledger import ClaimLedger, ClaimRecord, Key
from residentkv.claims.lifecycle import State, Step
from residentkv.claims.model import ClaimRequest, ResidentClaim
from residentkv.claims.modes import Mode
from residentkv.claims.predicates import Ranges, normalize_ranges, ranges_of
from residentkv.errors import UsageError
from residentkv.runtimes.vllm.claimtrack import PRIMARY, TIER, ClaimIndex, ClaimTrack, CopyView, TierKey
from residentkv.runtimes.vllm.eventlog import EventLog
from residentkv.trace import events as ev


class ClaimBook:
    """Decides about claims, steps them and writes the events; every claim event of the plugin is written here."""

    def __init__(self, log: EventLog, view: CopyView, *, usable_blocks: int, policy: ArbiterPolicy) -> None:
        self.log = log
        self.view = view
        self.ledger = ClaimLedger()
        self.arbiter = Arbiter(self.ledger, usable_blocks=usable_blocks, policy=policy)
        self.refuses_all: tuple[str, str] | None = None
        """(reason, detail) when no claim can be accepted at all."""
        self.quota: Callable[[ResidentClaim], tuple[str, str] | None] = lambda claim: None
        """(reason, detail) when the owner of a new claim may not have it."""
        self.active_beside: Callable[[Collection[bytes]], int] = lambda hashes: 0
        """How many blocks requests being served hold or may need, without those of these contents."""
        self.enforces_expiry = True
        self.excuses_first = True
        """Both are turned off for negative proofs only: see `options.Mechanism`."""
        self.soft: dict[Key, ClaimTrack] = {}
        """Materialized claims of mode `soft_priority`; `soft_changes` counts how often that set changed."""
        self.soft_changes = 0
        self._tracks: dict[Key, ClaimTrack] = {}
        self._pinned_by: ClaimIndex[int] = ClaimIndex()
        self._needed_by: ClaimIndex[bytes] = ClaimIndex()

    def __iter__(self) -> Iterator[ClaimTrack]:
        return iter(list(self._tracks.values()))

    def find(self, owner_scope: str, claim_id: str) -> ClaimTrack | None:
        """Return the open claim of this name, its term checked now."""
        track = self._tracks.get((owner_scope, claim_id))
        return track if track is not None and self.alive(track) else None

    def track_of(self, record: ClaimRecord) -> ClaimTrack:
        """Return the open claim of a record of the ledger."""
        return self._tracks[record.claim.key]

    def holders_of(self, block_ids: Iterable[int]) -> frozenset[Key]:
        """Return the claims that pin any of these blocks."""
        return self._pinned_by.of(block_ids)

    def decide(
        self,
        claim: ResidentClaim,
        hashes: Sequence[bytes],
        keys: Sequence[TierKey],
        request_id: str,
        refused: tuple[str, str] | None = None,
    ) -> tuple[ClaimDecision, ClaimTrack | None]:
        """Answer a new claim, write the decision and, when it is accepted, keep it.

        `refused` is (reason, detail) when the request that carries the claim rules it out.
        """
        decision = self._decide(claim, hashes, keys, refused)
        record = self.ledger.submit(claim)
        track = ClaimTrack(record, hashes, keys)
        now_ns = self.log.now_ns()
        protected_blocks = self.ledger.protected_blocks
        if decision.verdict not in (Answer.ACCEPTED, Answer.CLIPPED):
            self.ledger.step(record, Step.REJECT)
            self.ledger.forget(claim.key)
            self._emit(
                ev.ClaimRejected,
                track,
                request_id,
                mode=claim.mode.value,
                reason=decision.reason,
                detail=decision.detail,
            )
            return decision, None
        clipped = decision.verdict is Answer.CLIPPED
        if clipped:
            self.ledger.clip(record, decision.mode)
        self.ledger.step(record, Step.CLIP if clipped else Step.ACCEPT, now_ns=now_ns)
        self._tracks[claim.key] = track
        if track.restores:
            self.view.hold(track.keys)
        with self.log.at(now_ns):
            self._emit(
                ev.ClaimAccepted,
                track,
                request_id,
                decision=decision.verdict.value,
                clipped_from=(f"mode:{claim.mode.value}",) if clipped else (),
                mode=record.mode.value,
                on_restore_failure=claim.on_restore_failure.value,
                footprint_blocks=claim.footprint_blocks,
                priority=claim.priority,
                revision=claim.revision,
                ttl_s=claim.ttl_s,
                deadline_ns=record.deadline_ns,
                protected_blocks=protected_blocks,
                usable_blocks=self.arbiter.usable_blocks,
            )
        return decision, track

    def _decide(
        self,
        claim: ResidentClaim,
        hashes: Sequence[bytes],
        keys: Sequence[TierKey],
        refused: tuple[str, str] | None,
    ) -> ClaimDecision:
        arbiter = self.arbiter
        if self.log.failure is not None:
            return self._no(claim, "event_log_failed", "the event log is broken, so no outcome could be told")
        if self.refuses_all is not None or refused is not None:
            return self._no(claim, *(self.refuses_all or refused or ()))
        over = self.quota(claim)
        if over is not None:
            return self._no(claim, *over)
        if claim.predicate.sidecars:
            return self._no(claim, "sidecars_unsupported", "this engine keeps no state beside KV blocks for a claim")
        start, count = claim.predicate.needed(len(hashes))
        active_blocks = self.active_beside(hashes[start : start + count])
        decision = arbiter.decide_claim(claim, object_blocks=len(keys), active_blocks=active_blocks)
        if decision.verdict is Answer.ACCEPTED and claim.mode is Mode.OFFLOADABLE:
            held, rows = self.view.held_with(keys), self.view.tier_rows()
            if held > rows:
                reason, detail = "tier_capacity", f"{held} blocks would be held, the second tier has {rows}"
                if arbiter.policy.clip_to is not None:
                    return self._no(claim, reason, detail, Answer.CLIPPED, arbiter.policy.clip_to)
                return self._no(claim, reason, detail)
        return decision

    def _no(
        self,
        claim: ResidentClaim,
        reason: str,
        detail: str,
        verdict: Answer = Answer.REJECTED,
        mode: Mode | None = None,
    ) -> ClaimDecision:
        return ClaimDecision(
            verdict=verdict,
            mode=mode or claim.mode,
            reason=reason,
            detail=detail,
            protected_blocks=self.ledger.protected_blocks,
            usable_blocks=self.arbiter.usable_blocks,
        )

    def reject_unbound(self, request: ClaimRequest, computed: dict[str, str], request_id: str, why: str) -> None:
        """Write the rejection of a claim whose stated identity differs from what the runtime computed."""
        self.log.emit(
            ev.ClaimRejected,
            claim_id=request.claim_id,
            owner_scope=request.owner_scope,
            **computed,
            predicate=request.predicate,
            request_id=request_id,
            generation=0,
            mode=request.mode,
            reason="identity_differs",
            detail=why,
        )

    # --- where the copies are ---

    def primary_pos(self, track: ClaimTrack, limit_blocks: int) -> Ranges:
        """Return the positions below `limit_blocks` that the primary tier would find."""
        limit = min(limit_blocks, track.object_blocks)
        return ranges_of(p for p in range(limit) if self.view.in_primary(track.hashes[p]))

    def tier_pos(self, track: ClaimTrack) -> Ranges:
        """Return the positions that the second tier would give back, stored by this claim's own jobs."""
        return ranges_of(p for p, key in enumerate(track.keys) if key in track.store_jobs and self.view.in_tier(key))

    def retrievable_pos(self, track: ClaimTrack) -> Ranges:
        """Return the positions that can be read again: of an offloadable claim, those that were stored in its name."""
        if track.restores:
            tier = ranges_of(p for p, k in enumerate(track.keys) if k in track.store_jobs and self.view.kept(k))
        else:
            tier = ranges_of(p for p, k in enumerate(track.keys) if self.view.in_tier(k))
        return normalize_ranges((*tier, *self.primary_pos(track, track.object_blocks)))

    def needing(self, hashes: Iterable[bytes]) -> list[ClaimTrack]:
        """Return the materialized claims that need any of these contents, oldest first."""
        return sorted((self._tracks[key] for key in self._needed_by.of(hashes)), key=lambda t: t.record.order)

    def needs(self, block_hash: bytes) -> bool:
        """Tell whether a materialized claim needs this content."""
        return block_hash in self._needed_by

    # --- steps ---

    def alive(self, track: ClaimTrack) -> bool:
        """Tell whether the promise stands now; a claim whose term has ended expires here, before any read."""
        deadline_ns = track.record.deadline_ns
        if track.open and deadline_ns is not None and self.enforces_expiry:
            now_ns = self.log.now_ns()
            if now_ns >= deadline_ns:
                self.expire(track, now_ns)
        return track.open

    def of(self, track: ClaimTrack | None) -> ClaimTrack | None:
        """Return the claim if it is one and its promise stands now."""
        return track if track is not None and self.alive(track) else None

    def expire_due(self) -> None:
        """End every claim whose term is over."""
        now_ns = self.log.now_ns()
        for record in self.ledger.due(now_ns) if self.enforces_expiry else ():
            track = self._tracks.get(record.claim.key)
            if track is not None and track.open:
                self.expire(track, now_ns)

    def materialize(self, track: ClaimTrack, limit_blocks: int, request_id: str) -> bool:
        """Materialize the claim if its predicate holds over what the primary tier would find; tell whether it did."""
        if track.record.state is not State.ACCEPTED or not self.alive(track):
            return False
        have = self.primary_pos(track, limit_blocks)
        if not track.claim.predicate.holds(have, track.object_blocks):
            return False
        if track.record.protected_blocks():
            self._pin(track)
        if track.reports_loss:
            self._needed_by.enter(track.needed_hashes(), track.claim.key)
        if track.record.mode is Mode.SOFT_PRIORITY:
            self.soft[track.claim.key] = track
            self.soft_changes += 1
        self.ledger.step(track.record, Step.MATERIALIZE)
        self._emit(
            ev.ClaimMaterialized,
            track,
            request_id,
            tier=PRIMARY,
            retrievable_pos=have,
            object_blocks=track.object_blocks,
            footprint_blocks=track.claim.footprint_blocks,
            block_hashes=tuple(block_hash.hex() for block_hash in track.hashes),
        )
        return True

    def _pin(self, track: ClaimTrack) -> None:
        track.pins = self.view.pin(track.needed_hashes())
        self._pinned_by.enter(track.pins, track.claim.key)

    def _unpin(self, track: ClaimTrack) -> None:
        pins, track.pins = track.pins, ()
        self._pinned_by.leave(pins, track.claim.key)
        self.view.unpin(pins)

    def offload(self, track: ClaimTrack, request_id: str) -> bool:
        """Say what the second tier can give back if that is enough and is news; tell whether it was said."""
        state = track.record.state
        if not track.restores or state in (State.ACCEPTED, State.RESTORE_REQUIRED) or not self.alive(track):
            return False
        have = self.tier_pos(track)
        if not track.claim.predicate.holds(have, track.object_blocks):
            return False
        if state is State.OFFLOADED and have == track.offload_pos:
            return False
        self.ledger.step(track.record, Step.OFFLOAD)
        track.offload_pos = have
        self._emit(
            ev.ClaimOffloaded,
            track,
            request_id,
            tier_from=PRIMARY,
            tier_to=TIER,
            retrievable_pos=have,
            job_ids=tuple(sorted(set(track.store_jobs.values()))),
        )
        self._unpin(track)
        return True

    def require_restore(self, track: ClaimTrack, required: Ranges, request_id: str) -> None:
        """Begin a restore cycle."""
        self.ledger.step(track.record, Step.REQUIRE_RESTORE)
        self._emit(ev.ClaimRestoreRequired, track, request_id, tier_from=TIER, tier_to=PRIMARY, required_pos=required)

    def restored(self, track: ClaimTrack, pos: Ranges, job_id: int, request_id: str) -> None:
        """End a restore cycle well."""
        self.ledger.step(track.record, Step.RESTORE)
        track.restored_for = request_id
        self._emit(
            ev.ClaimRestored,
            track,
            request_id,
            job_id=job_id,
            tier_from=TIER,
            tier_to=PRIMARY,
            retrievable_pos=self.clip(track, pos),
        )

    def fail_restore(self, track: ClaimTrack, failed: Ranges, job_id: int | None, reason: str, request_id: str) -> None:
        """End a restore cycle badly, in the connector's word; the scheduler's word follows."""
        self.ledger.step(track.record, Step.FAIL_RESTORE)
        self._emit(
            ev.ClaimRestorationFailed,
            track,
            request_id,
            job_id=job_id,
            reason=reason,
            failed_pos=failed,
            outcome_claim_id=track.claim.claim_id,
            blocking_claim_ids=(track.claim.claim_id,),
        )

    def renew(self, track: ClaimTrack, *, revision: int, ttl_s: float | None, request_id: str | None = None) -> None:
        """Give a claim a new term from now on; none: no term any more. A term is never shortened.

        Raises:
            StaleRevision: `revision` is not above the last one.
            UsageError: the term would be shorter, or an expiring claim would have none.
        """
        record, now_ns = track.record, self.log.now_ns()
        if self.log.failure is not None:
            raise UsageError("the event log is broken, so no new term can be told")
        if record.deadline_ns is not None and now_ns >= record.deadline_ns:
            self.expire(track, now_ns)
            raise UsageError("the term has just ended; claim again")
        if ttl_s is None and record.mode is Mode.EXPIRING:
            raise UsageError("found no ttl_s, expected one: an expiring claim keeps a term")
        if ttl_s is not None and record.deadline_ns is not None and now_ns + round(ttl_s * 1e9) < record.deadline_ns:
            left_s = (record.deadline_ns - now_ns) / 1e9
            raise UsageError(f"found {ttl_s}, expected at least the {left_s:.3f} s that are left; release it to end it")
        self.ledger.renew(record, revision=revision, ttl_s=ttl_s, now_ns=now_ns)
        with self.log.at(now_ns):
            self._emit(
                ev.ClaimRenewed, track, request_id, revision=revision, ttl_s=ttl_s, deadline_ns=record.deadline_ns
            )

    def tell(self, kind: type[ev.ClaimEvent], track: ClaimTrack, request_id: str, **fields: Any) -> None:
        """Write an event of an open claim that steps nothing."""
        self._emit(kind, track, request_id, **fields)

    def demote(self, track: ClaimTrack, reason: str, request_id: str | None = None) -> None:
        """Withdraw the promise with notice."""
        self._end(track, Step.DEMOTE, ev.ClaimDemoted, request_id, reason=reason)

    def harm(self, track: ClaimTrack, lost: Ranges, reason: str, request_id: str | None = None) -> None:
        """Say that the promise is broken."""
        self._end(track, Step.HARM, ev.ClaimHarmed, request_id, reason=reason, lost_pos=self.clip(track, lost))

    def release(self, track: ClaimTrack, released_by: str, reason: str, request_id: str | None = None) -> None:
        """Let the claim go."""
        self._end(track, Step.RELEASE, ev.ClaimReleased, request_id, released_by=released_by, reason=reason)

    def expire(self, track: ClaimTrack, now_ns: int) -> None:
        """End the claim because its term is over at `now_ns`."""
        with self.log.at(now_ns):
            self._end(track, Step.EXPIRE, ev.ClaimExpired, None, deadline_ns=track.record.deadline_ns)

    def clip(self, track: ClaimTrack, pos: Ranges) -> Ranges:
        """Cut positions to those of the claimed object."""
        return normalize_ranges((lo, min(hi, track.object_blocks)) for lo, hi in pos)

    def _end(
        self, track: ClaimTrack, step: Step, kind: type[ev.ClaimEvent], request_id: str | None, **fields: Any
    ) -> None:
        if not self.excuses_first and step in (Step.EXPIRE, Step.DEMOTE):
            pins, track.pins = track.pins, ()
            self._pinned_by.leave(pins, track.claim.key)
            self.view.lose(pins)
        self.ledger.step(track.record, step)
        self._emit(kind, track, request_id, outcome_claim_id=track.claim.claim_id, **fields)
        if track.restores:
            self.view.let_go(track.keys)
        self._unpin(track)
        self._needed_by.leave(track.needed_hashes(), track.claim.key)
        if self.soft.pop(track.claim.key, None) is not None:
            self.soft_changes += 1
        self.ledger.forget(track.claim.key)
        del self._tracks[track.claim.key]

    def _emit(self, kind: type[ev.ClaimEvent], track: ClaimTrack, request_id: str | None, **fields: Any) -> None:
        claim = track.claim
        self.log.emit(
            kind,
            claim_id=claim.claim_id,
            owner_scope=claim.owner_scope,
            object_id=claim.object_id,
            token_map_id=claim.token_map_id,
            cache_identity=claim.cache_identity,
            predicate=str(claim.predicate),
            request_id=request_id,
            generation=track.record.generation,
            **fields,
        )
