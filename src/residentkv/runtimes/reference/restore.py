"""Bringing bytes back from the tier: for a claim in its full order of events, for others as runtimes always do."""

from __future__ import annotations

from residentkv.claims.lifecycle import OPEN, State, Step
from residentkv.claims.modes import Mode, OnRestoreFailure
from residentkv.claims.predicates import Ranges, ranges_of
from residentkv.runtimes.reference.config import Mechanism
from residentkv.runtimes.reference.desk import ClaimDesk
from residentkv.runtimes.reference.state import Kept, Live, Parts
from residentkv.trace.events import (
    ClaimRestored,
    ClaimRestoreRequired,
    LookupResult,
    RequestRecomputed,
    SchedulerRequestRefused,
    SchedulerRestorationFailed,
)


class Restorer:
    """Loads for one engine.

    With `restoration_failure_outcome` off a failed restoration is computed again without a word.
    """

    def __init__(self, parts: Parts, desk: ClaimDesk) -> None:
        self._parts = parts
        self._desk = desk

    def look_up(self, live: Live) -> list[int]:
        """Ask the tier what it has beyond the request's hits in the primary tier, and tell the answer."""
        parts = self._parts
        if not parts.config.offload_blocks:
            return []
        found: list[int] = []
        joined = live.reuse or live.kept
        for pos in range(live.hit_blocks, len(live.names)):
            if not parts.tier.holds(live.names[pos]):
                break
            found.append(pos)
        parts.journal.emit(
            LookupResult,
            request_id=live.request.request_id,
            tier=parts.config.offload_tier,
            hit_pos=ranges_of(found),
            **parts.journal.claim_fields(joined.record if joined is not None else None),
        )
        return found

    def wants_restore(self, live: Live) -> list[int]:
        """Return the positions of the named claim that only the tier can give back, empty when there are none."""
        kept = live.reuse
        if kept is None or kept.record.mode is not Mode.OFFLOADABLE:
            return []
        if kept.record.state not in (State.OFFLOADED, State.RESTORED, State.RESTORATION_FAILED):
            return []
        return [p for p in kept.needed_pos if self._parts.pool.find(kept.names[p]) is None]

    def begin(self, live: Live, required: list[int]) -> bool:
        """Open a restore cycle and say what has to come back.

        Returns:
            False when the tier has lost what an earlier cycle had left in doubt: the claim is harmed instead.
        """
        kept = live.reuse
        if kept is None:
            return False
        if kept.record.state is not State.OFFLOADED and not self._say_again(kept, required, live):
            return False
        self._parts.ledger.step(kept.record, Step.REQUIRE_RESTORE)
        self._parts.journal.emit_claim(
            ClaimRestoreRequired,
            kept.record,
            live.request.request_id,
            tier_from=self._parts.config.offload_tier,
            tier_to=self._parts.config.primary_tier,
            required_pos=ranges_of(required),
        )
        return True

    def restore(self, live: Live, required: list[int]) -> bool:
        """Load the required positions, trying again as often as configured.

        Returns:
            True when the request may go on: the bytes came back, or the claim got its own outcome first and the
            positions are to be computed again. False when the request was refused in the name of the claim.
        """
        parts, kept = self._parts, live.reuse
        if kept is None:
            return True
        for attempt in range(parts.config.load_retries + 1):
            job_id, failed = self._load(live, kept, required)
            if not failed:
                parts.ledger.step(kept.record, Step.RESTORE)
                parts.journal.emit_claim(
                    ClaimRestored,
                    kept.record,
                    live.request.request_id,
                    job_id=job_id,
                    tier_from=parts.config.offload_tier,
                    tier_to=parts.config.primary_tier,
                    retrievable_pos=parts.primary_pos(kept.names),
                )
                live.restored = True
                return True
            lasting = [p for p in required if not parts.tier.intact(kept.names[p])]
            if attempt < parts.config.load_retries and not lasting:
                self._say_failed(live, kept, job_id, failed, "retry", "waiting")
                self._desk.say_offloaded(kept)
                self.begin(live, required)
                continue
            return self._give_up(live, kept, job_id, failed, lasting)
        return False

    def settle_doubt(self, live: Live) -> None:
        """Before a claim whose restoration failed is reused in place, say what the tier has, or that it is lost."""
        kept = live.reuse
        if kept is not None and kept.record.state is State.RESTORATION_FAILED:
            self._say_again(kept, list(kept.needed_pos), live)

    def load_unclaimed(self, live: Live, found: list[int]) -> None:
        """Load what the tier has for a request without a claim; what fails is computed again, as ever."""
        if not found:
            return
        _, failed = self._load(live, None, found)
        if failed:
            kept = live.reuse
            if kept is not None and kept.record.state in OPEN and not failed.keys().isdisjoint(kept.needed_pos):
                self._desk.harm(kept, "load_failed", failed, live.request.request_id)
            self._discard(live, [live.names[p] for p in failed if not self._parts.tier.intact(live.names[p])])
            self._say_recomputed(live, failed)

    def _load(self, live: Live, kept: Kept | None, wanted: list[int]) -> tuple[int, dict[int, str]]:
        """Make one load transfer and enter what came into the request's blocks: for a claim all of it or nothing."""
        parts, request_id = self._parts, live.request.request_id
        record = kept.record if kept is not None else None
        job_id = parts.journal.begin_job("load", record, request_id, ranges_of(wanted))
        started_ns = parts.clock.now_ns
        result = parts.tier.load(live.names[p] for p in wanted)
        failed = {p: result.failed[live.names[p]] for p in wanted if live.names[p] in result.failed}
        loaded = [p for p in wanted if p not in failed]
        parts.journal.finish_job(
            job_id,
            "load",
            record,
            request_id,
            ok_pos=ranges_of(loaded),
            failed_pos=ranges_of(failed),
            moved_bytes=sum(len(data) for data in result.data.values()),
            reason=", ".join(sorted(set(failed.values()))),
            started_ns=started_ns,
            ended_ns=parts.clock.now_ns,
        )
        if failed and kept is not None:
            return job_id, failed
        if failed:
            loaded = [p for p in loaded if p < min(failed)]
        stored = []
        for pos in loaded:
            block, name = live.blocks[pos], live.names[pos]
            if parts.pool.cache(block, name, result.data[name]):
                stored.append((name, block.block_idx))
        parts.journal.blocks_stored(parts.config.primary_tier, stored, request_id)
        live.loaded_pos = ranges_of(loaded)
        return job_id, failed

    def _give_up(self, live: Live, kept: Kept, job_id: int, failed: dict[int, str], lasting: list[int]) -> bool:
        parts, record, request_id = self._parts, kept.record, live.request.request_id
        if not parts.keeps(Mechanism.RESTORATION_FAILURE_OUTCOME):
            parts.ledger.step(record, Step.FAIL_RESTORE)
            return True
        if record.claim.on_restore_failure is OnRestoreFailure.RECOMPUTE:
            self._say_failed(live, kept, job_id, failed, "recompute", "recomputed")
            if lasting:
                self._lose(kept, lasting, request_id)
            else:
                self._desk.demote(kept, "restoration_failed", request_id)
            self._say_recomputed(live, failed)
            return True
        self._say_failed(live, kept, job_id, failed, "fail", "error")
        parts.journal.emit(
            SchedulerRequestRefused,
            request_id=request_id,
            reason="restoration_failed",
            finish_status="error",
            outcome_claim_id=parts.journal.outcome_name(record),
            owner_scope=record.claim.owner_scope,
            blocking_claim_ids=self._desk.blocking_names([kept]),
        )
        return False

    def settle(self, kept: Kept, request_id: str) -> None:
        """After a refused request has ended: when the tier has lost the claim's bytes for good, say so."""
        if kept.record.state is State.RESTORATION_FAILED:
            lasting = [p for p in kept.needed_pos if not self._parts.tier.intact(kept.names[p])]
            if lasting:
                self._lose(kept, lasting, request_id)

    def _lose(self, kept: Kept, lasting: list[int], request_id: str) -> None:
        names = [kept.names[p] for p in lasting]
        gone = self._parts.tier.discard(names)
        self._parts.journal.blocks_removed(self._parts.config.offload_tier, gone, request_id)
        self._desk.harm(kept, "tier_copy_lost", lasting, request_id)

    def _say_again(self, kept: Kept, required: list[int], live: Live) -> bool:
        lasting = [p for p in required if not self._parts.tier.intact(kept.names[p])]
        if lasting:
            self._lose(kept, lasting, live.request.request_id)
            return False
        self._desk.say_offloaded(kept)
        return True

    def _say_failed(
        self, live: Live, kept: Kept, job_id: int, failed: dict[int, str], policy: str, finish_status: str
    ) -> None:
        parts = self._parts
        parts.ledger.step(kept.record, Step.FAIL_RESTORE)
        parts.journal.emit_claim(
            SchedulerRestorationFailed,
            kept.record,
            live.request.request_id,
            job_id=job_id,
            reason=", ".join(sorted(set(failed.values()))),
            failed_pos=ranges_of(failed),
            invalid_block_ids=tuple(live.blocks[p].block_idx for p in sorted(failed)),
            failure_policy=policy,
            finish_status=finish_status,
            outcome_claim_id=parts.journal.outcome_name(kept.record),
            blocking_claim_ids=self._desk.blocking_names([kept]),
        )

    def _say_recomputed(self, live: Live, failed: dict[int, str]) -> None:
        joined = live.reuse or live.kept
        pos: Ranges = ranges_of(failed)
        self._parts.journal.emit(
            RequestRecomputed,
            request_id=live.request.request_id,
            recomputed_pos=pos,
            reason="load_failed",
            **self._parts.journal.claim_fields(joined.record if joined is not None else None),
        )

    def _discard(self, live: Live, names: list[str]) -> None:
        unpinned = [n for n in names if (e := self._parts.tier.entries.get(n)) is not None and not e.pinned_by]
        gone = self._parts.tier.discard(unpinned)
        self._desk.tell_removed(self._parts.config.offload_tier, gone, live.request.request_id)
