"""Bringing a request's prompt in: hits are read, the tier is asked, claims are restored, the rest is computed."""

from __future__ import annotations

from collections.abc import Callable

from residentkv.claims.lifecycle import OPEN, State
from residentkv.claims.modes import Mode
from residentkv.claims.predicates import ranges_of
from residentkv.runtimes.reference.config import Mechanism
from residentkv.runtimes.reference.desk import ClaimDesk
from residentkv.runtimes.reference.restore import Restorer
from residentkv.runtimes.reference.state import Live, Parts, Result
from residentkv.trace.events import ClaimReused, ClaimReusedAfterRestore, ClaimRouteOutcome


class Prefill:
    """The prompt of every admitted request of one engine.

    Args:
        finish: how a request that is refused here is ended.
    """

    def __init__(self, parts: Parts, desk: ClaimDesk, finish: Callable[[Live, Result], None]) -> None:
        self._parts = parts
        self._desk = desk
        self._finish = finish
        self._restorer = Restorer(parts, desk)

    def serve(self, live: Live) -> bool:
        """Bring in or compute the prompt; False when the request was refused for a failed restoration."""
        parts, restorer = self._parts, self._restorer
        own = live.kept
        if own is not None and own.record.state in OPEN - {State.ACCEPTED}:
            live.reuse = own  # It was deferred, and materialized while its request waited.
        found = restorer.look_up(live)
        required = restorer.wants_restore(live)
        early = bool(required) and not parts.keeps(Mechanism.RESTORE_BEFORE_REUSE)
        if required and restorer.begin(live, required):
            if early:
                self._compute(live, skipped=required)
                self._tell_reuse(live, restored=True)
            if not restorer.restore(live, required):
                kept = live.reuse
                self._finish(
                    live,
                    Result(
                        request_id=live.request.request_id,
                        status="failed",
                        hit_blocks=live.hit_blocks,
                        reason="restoration_failed",
                        outcome_claim_id=kept.record.claim.claim_id if kept else None,
                        blocking_claim_ids=(kept.record.claim.claim_id,) if kept else (),
                    ),
                )
                if kept is not None:
                    restorer.settle(kept, live.request.request_id)
                return False
        elif not required:
            restorer.settle_doubt(live)
            restorer.load_unclaimed(live, found)
        if not early:
            self._compute(live, skipped=[])
            self._tell_reuse(live, restored=live.restored)
        if live.kept is not None:
            self._desk.materialize(live.kept)
        return True

    def _compute(self, live: Live, *, skipped: list[int]) -> None:
        """Read or compute the prompt's blocks in order.

        With `restore_before_reuse` off the `skipped` positions are read before their bytes are there.
        """
        parts, size = self._parts, self._parts.config.block_size_tokens
        prompt = live.request.prompt
        ready = {*range(live.hit_blocks), *(p for lo, hi in live.loaded_pos for p in range(lo, hi))}
        stored: list[tuple[str, int]] = []
        for pos, name in enumerate(live.names):
            block = live.blocks[pos]
            if pos in ready:
                live.context.read(block.data)
            elif pos in skipped:
                live.context.read(bytes(parts.config.block_bytes))
            else:
                data = live.context.compute_block(prompt[pos * size : (pos + 1) * size], parts.config.block_bytes)
                live.computed_blocks += 1
                shared = parts.pool.find(name)
                if shared is not None:
                    parts.pool.acquire(shared)
                    parts.pool.release([block])
                    live.blocks[pos] = shared
                elif not live.request.keep_kv:
                    block.data = data
                elif parts.pool.cache(block, name, data):
                    stored.append((name, block.block_idx))
        parts.journal.blocks_stored(parts.config.primary_tier, stored, live.request.request_id)
        live.tail = list(prompt[len(live.names) * size :])

    def _tell_reuse(self, live: Live, *, restored: bool) -> None:
        """Say that the request was computed on the claim's blocks, if it was, and where.

        With `route_outcome` off it is not said where a request of a routed claim was served.
        """
        parts, kept = self._parts, live.reuse
        self._desk.expire_due()
        if kept is None or kept.record.state not in OPEN:
            return
        used = [p for p in kept.needed_pos if p < live.hit_blocks or any(lo <= p < hi for lo, hi in live.loaded_pos)]
        request_id, needed = live.request.request_id, ranges_of(kept.needed_pos)
        whole = len(used) == len(kept.needed_pos) and kept.record.state is not State.ACCEPTED
        if restored:
            parts.journal.emit_claim(ClaimReusedAfterRestore, kept.record, request_id, reused_pos=needed)
        elif whole and kept.record.mode is not Mode.ROUTED_REUSE:
            parts.journal.emit_claim(
                ClaimReused, kept.record, request_id, tier=parts.config.primary_tier, reused_pos=needed
            )
        if kept.record.mode is Mode.ROUTED_REUSE and whole and parts.keeps(Mechanism.ROUTE_OUTCOME):
            parts.journal.emit_claim(
                ClaimRouteOutcome,
                kept.record,
                request_id,
                worker_id=parts.config.worker_id,
                worker_epoch=parts.config.worker_epoch,
                outcome="served_by_binding",
                reused_blocks=len(used),
                outcome_claim_id=parts.journal.outcome_name(kept.record),
            )
