"""Dynamo's KV events: decoding, order, and an index of which worker holds which blocks. No I/O.

A worker numbers its events from 1 without gaps; nothing in an event names a request, a claim or a reason. A gap and a
restart are told apart, because after a gap nobody knows what the worker holds.
Source: Dynamo 1.6.1, event plane `kv-events`, RouterEvent as MessagePack.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import msgspec

from residentkv.errors import InputError

TOPIC = b"kv-events"
HEADER_VERSION = 1
HEADER_BYTES = 5
"""Before the MessagePack of a message: one byte of version, four of length."""

FIRST_EVENT_ID = 1
DEVICE = "device"


class Kind(StrEnum):
    """What happened to blocks of a worker."""

    STORED = "stored"
    REMOVED = "removed"
    CLEARED = "cleared"


class Continuity(StrEnum):
    """How an event follows the ones before it, for one worker and rank."""

    NEXT = "next"
    REPEATED = "repeated"
    GAP = "gap"
    RESTART = "restart"


class KvEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event; `blocks` are sequence hashes, `local` the hash of each block's own tokens (stored events only)."""

    worker_id: int
    dp_rank: int
    event_id: int
    tier: str
    kind: Kind
    parent: int | None
    blocks: tuple[int, ...]
    local: tuple[int, ...]


class _StoredBlock(msgspec.Struct, frozen=True):
    block_hash: int
    tokens_hash: int


class _Stored(msgspec.Struct, frozen=True):
    blocks: list[_StoredBlock]
    parent_hash: int | None = None


class _Removed(msgspec.Struct, frozen=True):
    block_hashes: list[int]


class _Body(msgspec.Struct, frozen=True):
    event_id: int
    data: Any
    dp_rank: int = 0


class _Routed(msgspec.Struct, frozen=True):
    worker_id: int
    event: _Body
    storage_tier: str | None = None


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """One message of one publisher; `sequence` counts its messages from 0."""

    publisher_id: int
    sequence: int
    events: tuple[KvEvent, ...]


class _Envelope(msgspec.Struct, frozen=True):
    publisher_id: int
    sequence: int
    topic: str
    payload: bytes


def decode_message(frames: Sequence[bytes]) -> Batch:
    """Decode one ZMQ message of the event plane: topic, publisher, sequence, and a header before MessagePack.

    Raises:
        InputError: it is not of this form, names its publisher or number twice and differently, or holds an event that
            is not known.
    """
    try:
        topic, publisher, sequence, body = frames
        lengths = [len(frame) for frame in frames]
        header = bytes([HEADER_VERSION]) + (len(body) - HEADER_BYTES).to_bytes(4, "big", signed=True)
        if topic != TOPIC or lengths[1:3] != [8, 8] or body[:HEADER_BYTES] != header:
            raise ValueError(
                f"topic {bytes(topic[:20])!r}, frames of {lengths} bytes, header {body[:HEADER_BYTES].hex()}"
            )
        envelope = msgspec.msgpack.decode(body[HEADER_BYTES:], type=_Envelope, strict=True)
        stated = (int.from_bytes(publisher, "big"), int.from_bytes(sequence, "big"), TOPIC.decode())
        if stated != (envelope.publisher_id, envelope.sequence, envelope.topic):
            raise ValueError(f"frames that say {stated} and an envelope that says otherwise")
        routed = msgspec.msgpack.decode(envelope.payload, type=list[Any])
    except (ValueError, msgspec.MsgspecError) as e:
        raise InputError(f"event plane: found {e}; this reader knows the messages of Dynamo 1.6.1") from None
    return Batch(
        publisher_id=envelope.publisher_id,
        sequence=envelope.sequence,
        events=tuple(read_routed(raw) for raw in routed),
    )


def read_routed(raw: object) -> KvEvent:
    """Return the event in one RouterEvent, as MessagePack or JSON decoders give it.

    Raises:
        InputError: it is not a stored, removed or cleared event in the form of this version.
    """
    try:
        routed = msgspec.convert(raw, _Routed, strict=True)
        data = routed.event.data
        parent: int | None = None
        blocks: tuple[int, ...] = ()
        local: tuple[int, ...] = ()
        if data == "cleared":
            kind = Kind.CLEARED
        elif isinstance(data, dict) and list(data) == ["stored"]:
            stored = msgspec.convert(data["stored"], _Stored, strict=True)
            kind, parent = Kind.STORED, stored.parent_hash
            blocks = tuple(b.block_hash for b in stored.blocks)
            local = tuple(b.tokens_hash for b in stored.blocks)
        elif isinstance(data, dict) and list(data) == ["removed"]:
            kind = Kind.REMOVED
            blocks = tuple(msgspec.convert(data["removed"], _Removed, strict=True).block_hashes)
        else:
            raise msgspec.ValidationError(f"Expected stored, removed or cleared, got {str(data)[:60]!r}")
    except msgspec.ValidationError as e:
        raise InputError(f"KV event: {e}; this reader knows the events of Dynamo 1.6.1") from None
    return KvEvent(
        worker_id=routed.worker_id,
        dp_rank=routed.event.dp_rank,
        event_id=routed.event.event_id,
        tier=(routed.storage_tier or DEVICE).lower(),
        kind=kind,
        parent=parent,
        blocks=blocks,
        local=local,
    )


class Holding(msgspec.Struct, kw_only=True):
    """What one incarnation of a worker holds, tier by tier, as far as its events tell.

    `whole` is false once an event was missed: then nothing may be concluded from what is here or is not. `first` is the
    event with the first number, when that was heard.
    """

    worker_id: int
    epoch: int = 0
    first: KvEvent | None = None
    last: KvEvent | None = None
    whole: bool = True
    tiers: dict[str, set[int]] = msgspec.field(default_factory=dict)
    children: dict[tuple[int, int], int] = msgspec.field(default_factory=dict)

    @property
    def last_event_id(self) -> int:
        """The number of the last event, or the one before the first."""
        return FIRST_EVENT_ID - 1 if self.last is None else self.last.event_id

    def holds(self, block: int, tier: str | None = None) -> bool:
        """Tell whether a block is there, in one tier or in any."""
        if tier is not None:
            return block in self.tiers.get(tier, ())
        return any(block in blocks for blocks in self.tiers.values())


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What an event changed: blocks that came to or left a tier of one incarnation of a worker."""

    worker_id: int
    epoch: int
    tier: str
    stored: tuple[int, ...] = ()
    removed: tuple[int, ...] = ()


ROOT = 0
"""Stands for the parent of a first block."""


class BlockIndex:
    """Which worker holds which blocks, from events in the order in which each worker numbered them."""

    def __init__(self) -> None:
        self.holdings: dict[tuple[int, int], Holding] = {}

    def apply(self, event: KvEvent) -> tuple[Continuity, tuple[Change, ...]]:
        """Take one event; a repeated one changes nothing.

        An event id below the last one, or the last one with another event, is a restart: what the worker held before is
        gone, and a new epoch begins. It is not whole when it begins in the middle, or with the first event of the last
        one, which may as well be sent again. A jump is a gap: the event is taken, and the holding is no longer whole.
        Who listens late sees a gap at once. Limit: a worker that restarts under its old id and is next heard with
        exactly the number that was expected is not noticed; Dynamo gives a worker that restarts another id.
        """
        key = (event.worker_id, event.dp_rank)
        holding = self.holdings.get(key)
        if holding is None:
            holding = self.holdings[key] = Holding(worker_id=event.worker_id)
        expected = holding.last_event_id + 1
        changes: list[Change] = []
        continuity = Continuity.NEXT
        if event == holding.last:
            return Continuity.REPEATED, ()
        if event.event_id < expected:
            continuity = Continuity.RESTART
            changes.extend(self.forget(event.worker_id, event.dp_rank))
            whole = event.event_id == FIRST_EVENT_ID and event != holding.first
            holding = self.holdings[key] = Holding(worker_id=event.worker_id, epoch=holding.epoch + 1, whole=whole)
        elif event.event_id > expected:
            continuity = Continuity.GAP
            holding.whole = False
        if event.event_id == FIRST_EVENT_ID:
            holding.first = event
        holding.last = event
        changes.extend(self._take(holding, event))
        return continuity, tuple(changes)

    def forget(self, worker_id: int, dp_rank: int = 0) -> tuple[Change, ...]:
        """Drop what a worker held, because it is gone; return what left."""
        holding = self.holdings.get((worker_id, dp_rank))
        if holding is None:
            return ()
        changes = tuple(
            Change(worker_id=worker_id, epoch=holding.epoch, tier=tier, removed=tuple(sorted(blocks)))
            for tier, blocks in sorted(holding.tiers.items())
            if blocks
        )
        holding.tiers.clear()
        holding.children.clear()
        holding.whole = False
        return changes

    def doubt(self, worker_id: int, dp_rank: int = 0) -> None:
        """Say that events of a worker are missing, so that nothing may be concluded about it any more."""
        self.holdings.setdefault((worker_id, dp_rank), Holding(worker_id=worker_id)).whole = False

    def find(self, worker_id: int, local: Sequence[int], tier: str | None = DEVICE) -> list[int]:
        """Return the sequence hashes of the leading blocks of a prompt that a worker holds in a tier.

        Args:
            local: the hash of each block's own tokens, in order.
            tier: null for any.
        """
        holding = self.holdings.get((worker_id, 0))
        found: list[int] = []
        parent = ROOT
        for tokens_hash in local:
            block = holding.children.get((parent, tokens_hash)) if holding is not None else None
            if holding is None or block is None or not holding.holds(block, tier):
                break
            found.append(block)
            parent = block
        return found

    def holders(self, local: Sequence[int]) -> list[int]:
        """Return the workers whose events show all of these blocks on their device."""
        return sorted(w for w, rank in self.holdings if rank == 0 and len(self.find(w, local)) == len(local))

    @staticmethod
    def _take(holding: Holding, event: KvEvent) -> list[Change]:
        here = holding.tiers.setdefault(event.tier, set())
        if event.kind is Kind.CLEARED:
            gone = [(tier, tuple(sorted(blocks))) for tier, blocks in sorted(holding.tiers.items()) if blocks]
            holding.tiers.clear()
            return [
                Change(worker_id=holding.worker_id, epoch=holding.epoch, tier=tier, removed=blocks)
                for tier, blocks in gone
            ]
        if event.kind is Kind.REMOVED:
            gone_here = tuple(b for b in event.blocks if b in here)
            here.difference_update(gone_here)
            change = Change(worker_id=holding.worker_id, epoch=holding.epoch, tier=event.tier, removed=gone_here)
            return [change] if gone_here else []
        parent = event.parent if event.parent is not None else ROOT
        fresh = []
        for block, tokens_hash in zip(event.blocks, event.local, strict=True):
            holding.children[parent, tokens_hash] = block
            if block not in here:
                here.add(block)
                fresh.append(block)
            parent = block
        change = Change(worker_id=holding.worker_id, epoch=holding.epoch, tier=event.tier, stored=tuple(fresh))
        return [change] if fresh else []
