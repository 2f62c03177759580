"""Where copies of blocks lie: the engine's block pool, the manager of the second tier, and what is told of both."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from residentkv.runtimes.vllm.claimtrack import PRIMARY, TIER
from residentkv.runtimes.vllm.copylog import CopyLog
from residentkv.runtimes.vllm.eventlog import EventLog
from residentkv.runtimes.vllm.primary import GROUP_ID_BYTES, PrimaryTier, block_name
from residentkv.runtimes.vllm.private import TierManager


class Copies:
    """Implements `CopyView` over both tiers, and tells which copies come and go.

    Safe only in the scheduler's thread.
    """

    def __init__(self, log: EventLog, manager: TierManager, primary: PrimaryTier) -> None:
        self.primary = primary
        self._manager = manager
        self._primary_log = CopyLog(log, PRIMARY)
        self._tier_log = CopyLog(log, TIER)
        self._rows: dict[bytes, int] = {}
        self._told: dict[str, tuple[int, int]] = {}
        self._lost: list[bytes] = []
        self.in_tier = manager.in_tier
        self.kept = manager.kept
        self.tier_rows = manager.tier_rows
        self.hold = manager.hold
        self.let_go = manager.let_go
        self.held_with = manager.held_with
        self.pin = primary.pin
        self.unpin = primary.unpin
        manager.on_stored = self._stored_in_tier
        manager.on_gone = self._gone_from_tier
        log.on_open = self._begin

    def bind(self, kv_cache_manager: object) -> None:
        """Learn where the primary tier keeps its blocks."""
        self.primary.bind(kv_cache_manager)
        self.primary.watch.on_evicted = self._evicted
        self.primary.watch.on_reset = self._reset

    def in_primary(self, block_hash: bytes) -> bool:
        """Tell whether the engine's prefix cache would find this block."""
        return self.primary.find(block_hash) is not None

    def condemn(self, keys: Collection[bytes]) -> None:
        """Say that copies in the second tier are none any more."""
        self._tier_log.removed([self._rows[key] for key in keys if key in self._rows])

    def lose(self, block_ids: Sequence[int]) -> None:
        """Unpin blocks and make them unfindable at once, whoever is told of it when (mechanism off)."""
        self.primary.unpin(block_ids)
        self.primary.settle()
        self.primary.forget(block_ids)
        self._primary_log.flush()

    # --- what happens in a step ---

    def scheduled(self, requests: Iterable[tuple[str, int, int]]) -> list[bytes]:
        """Blocks were handed out to these (request, times preempted, blocks that have a name by now, at most).

        Say what went and came; return what went. A request whose names were all told costs no look at its blocks.
        """
        self._primary_log.flush()
        lost, self._lost = self._lost, []
        for request_id, preempted, named in requests:
            times, told = self._told.get(request_id, (preempted, 0))
            if times != preempted:
                told = 0
            if told >= named:
                continue
            new = self.primary.named_from(request_id, told)
            if new:
                self._primary_log.stored(new, request_id)
                self._told[request_id] = (preempted, told + len(new))
        return lost

    def request_over(self, request_id: str) -> None:
        """Forget what was told of a request's blocks."""
        self._told.pop(request_id, None)

    def _evicted(self, block_id: int, block_hash: bytes) -> None:
        self._primary_log.leaving(block_id, block_name(block_hash))
        self._lost.append(block_hash)

    def _reset(self) -> None:
        self._primary_log.clear()

    def _stored_in_tier(self, copies: Sequence[tuple[int, bytes]]) -> None:
        self._rows.update((key, row) for row, key in copies)
        self._tier_log.stored([(row, _name(key)) for row, key in copies], None)

    def _gone_from_tier(self, keys: Collection[bytes]) -> None:
        self._tier_log.removed([self._rows.pop(key) for key in keys if key in self._rows])

    def _begin(self) -> None:
        self._primary_log.begin(self.primary.copies())
        self._tier_log.begin([(row, _name(key)) for key, row in self._rows.items()])


def _name(key: bytes) -> str:
    return block_name(key[:-GROUP_ID_BYTES])
