"""The second tier: real bytes under a checksum, pinned for claims, and loads that verify what they return."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from residentkv.claims.ledger import Key
from residentkv.errors import ResidentKVError
from residentkv.runtimes.reference.faults import Faults


class TierFull(ResidentKVError):
    """The tier cannot take the blocks beside what is pinned; nothing was stored."""


class TierEntry(msgspec.Struct, kw_only=True, eq=False):
    """One stored block; `slot_idx` is its place, `checksum` is of the bytes as they were stored."""

    slot_idx: int
    data: bytes
    checksum: bytes
    pinned_by: set[Key] = msgspec.field(default_factory=set)
    last_use: int = 0


class LoadResult(msgspec.Struct, frozen=True, kw_only=True):
    """The bytes of one load, by name; `failed` says for the others why there are none."""

    data: dict[str, bytes]
    failed: dict[str, str]


class OffloadTier:
    """Blocks by content name. What a claim pins is not evicted; a load either returns the stored bytes or says why not.

    Args:
        capacity_blocks: size of the tier, 0 for none.
        faults: what is made to go wrong.
    """

    def __init__(self, capacity_blocks: int, faults: Faults) -> None:
        self.capacity_blocks = capacity_blocks
        self.entries: dict[str, TierEntry] = {}
        self._faults = faults
        self._reserved: dict[Key, int] = {}
        self._uses = 0
        self._free_slots = list(range(capacity_blocks))
        faults.attach(self.entries)

    @property
    def reserved_blocks(self) -> int:
        """Blocks promised to open claims."""
        return sum(self._reserved.values())

    def reserve(self, key: Key, blocks: int) -> None:
        """Keep room for a claim, so that what was accepted can also be stored."""
        self._reserved[key] = blocks

    def unreserve(self, key: Key) -> None:
        """Give the room of a claim back, and its pins with it."""
        self._reserved.pop(key, None)
        for entry in self.entries.values():
            entry.pinned_by.discard(key)

    def store(
        self, blocks: Iterable[tuple[str, bytes]], key: Key | None
    ) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
        """Store blocks, pinned for `key` when given.

        Returns:
            (name, slot) of the entries that are new, and of those that were evicted for them.

        Raises:
            TierFull: what is pinned leaves no room; nothing changed.
            TransferFailed: by `Faults`; nothing changed.
        """
        wanted = dict(blocks)
        self._faults.check_store()
        new = [name for name in wanted if name not in self.entries]
        idle = sorted(
            (name for name, e in self.entries.items() if not e.pinned_by and name not in wanted),
            key=lambda name: self.entries[name].last_use,
        )
        self._reclaim()
        excess = len(new) - len(self._free_slots)
        if excess > len(idle):
            raise TierFull(f"{len(new)} blocks to store, {self.capacity_blocks} in all, {len(idle)} may be evicted")
        evicted = self.discard(idle[: max(excess, 0)])
        stored: list[tuple[str, int]] = []
        for name, data in wanted.items():
            self._uses += 1
            entry = self.entries.get(name)
            if entry is None:
                entry = TierEntry(slot_idx=self._free_slots.pop(0), data=data, checksum=_checksum(data))
                self.entries[name] = entry
                stored.append((name, entry.slot_idx))
            elif not _intact(entry):
                entry.data, entry.checksum = data, _checksum(data)
            entry.last_use = self._uses
            if key is not None:
                entry.pinned_by.add(key)
        return stored, evicted

    def holds(self, name: str) -> bool:
        """Tell whether the tier says that it has this content; a load may still find the bytes damaged."""
        return name in self.entries

    def intact(self, name: str) -> bool:
        """Read the content and compare its checksum."""
        entry = self.entries.get(name)
        return entry is not None and _intact(entry)

    def load(self, names: Iterable[str]) -> LoadResult:
        """Read blocks back; damaged, missing or untransferred ones are failures, never bytes."""
        reason = self._faults.next_load_failure()
        data: dict[str, bytes] = {}
        failed: dict[str, str] = {}
        for name in names:
            entry = self.entries.get(name)
            if reason is not None:
                failed[name] = reason
            elif entry is None:
                failed[name] = "missing"
            elif not _intact(entry):
                failed[name] = "checksum_mismatch"
            else:
                self._uses += 1
                entry.last_use = self._uses
                data[name] = entry.data
        return LoadResult(data=data, failed=failed)

    def discard(self, names: Iterable[str]) -> list[tuple[str, int]]:
        """Drop entries, pinned or not; return (name, slot) of those that were there."""
        gone: list[tuple[str, int]] = []
        for name in names:
            entry = self.entries.pop(name, None)
            if entry is not None:
                gone.append((name, entry.slot_idx))
                self._free_slots.append(entry.slot_idx)
        return gone

    def _reclaim(self) -> None:
        """Find the places that a fault emptied without a word."""
        used = {e.slot_idx for e in self.entries.values()} | set(self._free_slots)
        self._free_slots += [i for i in range(self.capacity_blocks) if i not in used]


def _checksum(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _intact(entry: TierEntry) -> bool:
    return _checksum(entry.data) == entry.checksum
