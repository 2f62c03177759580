"""Letting a request in: the feasibility check, the room that claims give up for it, and the blocks that it gets."""

from __future__ import annotations

from enum import StrEnum

from residentkv.claims.arbiter import Action, Relief, RequestDecision
from residentkv.claims.ledger import Key
from residentkv.claims.lifecycle import State
from residentkv.runtimes.reference.config import Mechanism
from residentkv.runtimes.reference.desk import ClaimDesk
from residentkv.runtimes.reference.pool import Block, PoolExhausted
from residentkv.runtimes.reference.state import Live, Parts, Result
from residentkv.trace.events import RequestAdmitted, RequestDeferred, RequestRefused


class Entry(StrEnum):
    """What became of an attempt to let a request in."""

    ADMITTED = "admitted"
    WAITING = "waiting"
    REFUSED = "refused"


class Admission:
    """The door of one engine: `protected + active + need <= usable`, or nobody comes in.

    With `feasibility_check` off requests are let in unchecked, and what happens then is left to the block pool.
    """

    def __init__(self, parts: Parts, desk: ClaimDesk) -> None:
        self._parts = parts
        self._desk = desk

    def try_enter(self, live: Live) -> tuple[Entry, Result | None]:
        """Decide about a request now, tell the decision, and give it its blocks when it is admitted."""
        parts = self._parts
        failed: frozenset[Key] = frozenset()
        actions: list[str] = []
        while parts.keeps(Mechanism.FEASIBILITY_CHECK):
            hits = parts.leading_hits(live.names)
            decision = self._decide(live, hits, failed)
            if decision.action is Action.WAIT:
                return Entry.WAITING, None
            if decision.action is not Action.ADMIT:
                return self._turn_away(live, decision)
            if not decision.relief:
                break
            failed |= self._relieve(decision, live, actions)
        hits = parts.leading_hits(live.names)
        need = self._need(live, hits)
        self.tell_admitted(live, need, tuple(actions))
        return self._allocate(live, hits)

    def tell_admitted(self, live: Live, need_blocks: int, actions: tuple[str, ...]) -> None:
        """Tell an admission with the numbers that hold after the actions."""
        parts = self._parts
        parts.journal.emit(
            RequestAdmitted,
            request_id=live.request.request_id,
            need_blocks=need_blocks,
            protected_blocks=parts.ledger.protected_blocks,
            active_blocks=parts.pool.count_active(),
            usable_blocks=parts.config.usable_blocks,
            actions=actions,
        )

    def _need(self, live: Live, hits: list[Block]) -> int:
        """Count the blocks that the request adds to the active ones.

        Blocks that are protected or in use already are counted there; positions that its own claim reserved since
        acceptance are counted as protected.
        """
        counted = {p for p, block in enumerate(hits) if block.held_by or block.ref_count}
        kept = live.kept
        if kept is not None and kept.record.state is State.ACCEPTED and kept.record.protected_blocks():
            counted |= set(kept.needed_pos)
        return live.total_blocks - len(counted)

    def _decide(self, live: Live, hits: list[Block], failed: frozenset[Key]) -> RequestDecision:
        pool = self._parts.pool
        own = {key for block in hits for key in block.held_by}
        if live.kept is not None:
            own.add(live.kept.record.claim.key)
        return self._parts.arbiter.decide_request(
            self._need(live, hits),
            active_blocks=pool.count_active(),
            now_ns=self._parts.clock.next_ns,
            own=frozenset(own),
            busy=pool.busy_claims() | failed,
            reused_blocks=sum(1 for block in hits if block.held_by),
        )

    def _relieve(self, decision: RequestDecision, live: Live, actions: list[str]) -> frozenset[Key]:
        """Carry out a relief; return the claims that could not give up their room after all."""
        failed: set[Key] = set()
        for what, record in decision.relief:
            kept = self._desk.kept[record.claim.key]
            if what is Relief.EXPIRE:
                self._desk.expire(kept)
            elif what is Relief.DEMOTE:
                self._desk.demote(kept, "capacity", live.request.request_id)
            elif not self._desk.offload(kept):
                failed.add(record.claim.key)
                continue
            actions.append(f"{what.value}:{record.claim.claim_id}")
        return frozenset(failed)

    def _turn_away(self, live: Live, decision: RequestDecision) -> tuple[Entry, Result | None]:
        parts, request = self._parts, live.request
        now_ns = parts.clock.next_ns
        blocking = self._desk.blocking_names(self._desk.kept[r.claim.key] for r in decision.blocking)
        reason = decision.reason
        if decision.action is Action.PRESERVE_AND_DEFER:
            if live.deferred_until_ns is None:
                live.deferred_until_ns = now_ns + round(decision.defer_s * 1e9)
                parts.journal.emit(
                    RequestDeferred,
                    request_id=request.request_id,
                    need_blocks=decision.need_blocks,
                    protected_blocks=decision.protected_blocks,
                    active_blocks=decision.active_blocks,
                    usable_blocks=decision.usable_blocks,
                    shortfall_blocks=decision.shortfall_blocks,
                    blocking_claim_ids=blocking,
                    deadline_ns=live.deferred_until_ns,
                )
                return Entry.WAITING, None
            if now_ns < live.deferred_until_ns:
                return Entry.WAITING, None
            reason = "deferral_deadline"
        parts.journal.emit(
            RequestRefused,
            request_id=request.request_id,
            reason=reason,
            need_blocks=decision.need_blocks,
            protected_blocks=decision.protected_blocks,
            active_blocks=decision.active_blocks,
            usable_blocks=decision.usable_blocks,
            shortfall_blocks=decision.shortfall_blocks,
            outcome_claim_id=None,
            blocking_claim_ids=blocking,
        )
        return Entry.REFUSED, self._refusal(live, reason, decision.shortfall_blocks, blocking)

    def _allocate(self, live: Live, hits: list[Block]) -> tuple[Entry, Result | None]:
        pool = self._parts.pool
        for block in hits:
            pool.acquire(block)
        missing = live.total_blocks - len(hits)
        try:
            fresh, evicted = pool.allocate(missing, self._desk.rank)
        except PoolExhausted:
            pool.release(hits)
            if self._parts.keeps(Mechanism.FEASIBILITY_CHECK):
                raise
            return Entry.REFUSED, Result(
                request_id=live.request.request_id, status="failed", reason="pool_exhausted", decision=live.decision
            )
        live.blocks = [*hits, *fresh]
        live.hit_blocks = len(hits)
        self._desk.tell_evicted(evicted, live.request.request_id)
        return Entry.ADMITTED, None

    def _refusal(self, live: Live, reason: str, shortfall: int, blocking: tuple[str, ...]) -> Result:
        return Result(
            request_id=live.request.request_id,
            status="refused",
            reason=reason,
            shortfall_blocks=shortfall,
            blocking_claim_ids=blocking,
            decision=live.decision,
        )
