"""From engine events to a trace: order, gaps and restarts first, then copies in tiers."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from enum import StrEnum
from typing import Final

import msgspec

from residentkv.runtimes.tensorrt_llm.events import (
    BlocksRemoved,
    BlockUpdated,
    ChainStored,
    EngineEvent,
    PoolCreated,
)
from residentkv.trace.events import BlockRemoved, BlockStored, RuntimeEvent, TraceOpened
from residentkv.trace.writer import TraceWriter

RUNTIME: Final = "tensorrt_llm"
TIERS: Final = ("gpu", "host")
MAX_REMEMBERED: Final = 10_000
"""Events of a rank whose digests are kept, to tell one that is repeated from one of a new incarnation."""


class Order(StrEnum):
    """How an event follows those before it."""

    NEXT = "next"
    REPEATED = "repeated"
    GAP = "gap"
    RESTART = "restart"


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """An event and how it follows; `missing` is the half-open range of ids that were never seen before it."""

    order: Order
    event: EngineEvent
    missing: tuple[int, int] | None = None


class EventWatch:
    """Follows the ids of each rank; pure.

    The engine counts from 0, without gaps, and discards the oldest events when its buffer is full. An id that was seen
    before is repeated when the event is the same, and the sign of a new incarnation when it is not, or when it creates
    a pool, since a new incarnation creates the same pool. Limit: an engine that restarts and is next heard with exactly
    the id that was expected is not noticed.
    """

    def __init__(self) -> None:
        self._expected: dict[int, int] = {}
        self._digests: dict[int, OrderedDict[int, bytes]] = {}

    def note(self, event: EngineEvent) -> Arrival:
        """Enter an event as it came."""
        expected = self._expected.get(event.rank, 0)
        digests = self._digests.setdefault(event.rank, OrderedDict())
        digest = hashlib.blake2b(msgspec.msgpack.encode(event), digest_size=16).digest()
        is_again = event.event_id < expected
        if is_again and digests.get(event.event_id) == digest and not isinstance(event.data, PoolCreated):
            return Arrival(order=Order.REPEATED, event=event)
        first = 0 if is_again else expected
        missing = (first, event.event_id) if event.event_id > first else None
        if is_again:
            digests.clear()
        digests[event.event_id] = digest
        while len(digests) > MAX_REMEMBERED:
            digests.popitem(last=False)
        self._expected[event.rank] = event.event_id + 1
        if is_again:
            return Arrival(order=Order.RESTART, event=event, missing=missing)
        return Arrival(order=Order.GAP if missing else Order.NEXT, event=event, missing=missing)


class EventJournal:
    """Writes a trace of what the engine tells, one epoch an incarnation.

    After a gap nothing is known of any copy: what is removed later is written without a place, and the trace of that
    epoch is left open, so that an audit calls it inconclusive. A restart leaves the old epoch open and begins another.
    The engine names no physical block; copies are numbered here, one for a block at a rank.
    """

    def __init__(
        self,
        open_writer: Callable[[int], TraceWriter],
        *,
        runtime_version: str,
        primitive: str,
        adapter: str | None = None,
        adapter_version: str | None = None,
        stands_in: tuple[str, ...] = (),
    ) -> None:
        self._open_writer = open_writer
        self._opened = {
            "runtime": RUNTIME,
            "runtime_version": runtime_version,
            "primitive": primitive,
            "adapter": adapter,
            "adapter_version": adapter_version,
            "depth": "observe" if adapter is None else "policy",
            "stands_in": stands_in,
        }
        self._watch = EventWatch()
        self._numbers = 0
        self._begin(0)

    def _begin(self, epoch: int) -> None:
        self.epoch = epoch
        self.is_complete = True
        self.copies: dict[tuple[int, str], tuple[int, int]] = {}
        """(rank, block) to (level, number) of every copy that the events so far tell of."""
        self.writer = self._open_writer(epoch)
        self.writer.emit(TraceOpened, **self._opened)

    def note(self, event: EngineEvent) -> Arrival:
        """Enter an event and write what it says; a repeated one says nothing new."""
        arrival = self._watch.note(event)
        if arrival.order is Order.REPEATED:
            return arrival
        if arrival.order is Order.RESTART:
            self.writer.abandon()
            self._begin(self.epoch + 1)
        if arrival.missing is not None:
            self.is_complete = False
            self.copies.clear()
            self.writer.emit(RuntimeEvent, name="kv_cache_events_missing", request_id=None, job_id=None)
        data = event.data
        if isinstance(data, PoolCreated):
            self._forget(event.rank)
        elif isinstance(data, ChainStored):
            self._store(event.rank, [(b.name, b.level) for b in data.blocks])
        elif isinstance(data, BlocksRemoved):
            self._remove(event.rank, data.names)
        elif isinstance(data, BlockUpdated) and data.level is not None:
            self._move(event.rank, data.name, *data.level)
        return arrival

    def close(self, reason: str = "end") -> None:
        """End the trace in order, or leave it open when events were missed."""
        if self.is_complete:
            self.writer.close(reason)
        else:
            self.writer.abandon()

    def has_copy(self, name: str) -> bool:
        """Tell whether some rank has the block, at any level."""
        return any(block == name for _, block in self.copies)

    def _forget(self, rank: int) -> None:
        """A pool that is created again while the rank has copies lost them without telling."""
        gone = [key for key in self.copies if key[0] == rank]
        if gone:
            self.is_complete = False
        for key in gone:
            del self.copies[key]

    def _store(self, rank: int, blocks: list[tuple[str, int]]) -> None:
        """Write new copies by tier; one that is told again without a removal may be a second copy or the same."""
        told: dict[str, tuple[list[str], list[int]]] = {}
        for name, level in blocks:
            if (rank, name) in self.copies:
                self.is_complete = False
                continue
            self.copies[rank, name] = (level, self._numbers)
            names, numbers = told.setdefault(tier_of(rank, level), ([], []))
            names.append(name)
            numbers.append(self._numbers)
            self._numbers += 1
        for tier, (names, numbers) in told.items():
            self.writer.emit(
                BlockStored, tier=tier, block_hashes=tuple(names), block_ids=tuple(numbers), request_id=None
            )

    def _remove(self, rank: int, names: tuple[str, ...]) -> None:
        told: dict[tuple[str, bool], tuple[list[str], list[int]]] = {}
        for name in names:
            copy = self.copies.pop((rank, name), None)
            level, number = copy if copy is not None else (0, -1)
            hashes, numbers = told.setdefault((tier_of(rank, level), copy is not None), ([], []))
            hashes.append(name)
            numbers.extend([number] if copy is not None else [])
        for (tier, _), (hashes, numbers) in told.items():
            self.writer.emit(
                BlockRemoved, tier=tier, block_hashes=tuple(hashes), block_ids=tuple(numbers), request_id=None
            )

    def _move(self, rank: int, name: str, before: int, after: int) -> None:
        """The copy at the new level is there before the old one is gone, so that a move is no loss."""
        if (rank, name) in self.copies and self.copies[rank, name][0] != before:
            self.is_complete = False
        old = self.copies.pop((rank, name), None)
        self._store(rank, [(name, after)])
        gone = () if old is None else (old[1],)
        self.writer.emit(
            BlockRemoved, tier=tier_of(rank, before), block_hashes=(name,), block_ids=gone, request_id=None
        )


def tier_of(rank: int, level: int) -> str:
    """Return the name of a tier: gpu, host, or the number of the level; of ranks above 0 with the rank."""
    word = TIERS[level] if level < len(TIERS) else f"level{level}"
    return word if rank == 0 else f"{word}.{rank}"
