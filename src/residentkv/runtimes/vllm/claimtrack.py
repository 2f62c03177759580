"""What the runtime knows about one claim, and where it looks for copies of its blocks. No vLLM here."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from residentkv.claims.ledger import ClaimRecord, Key
from residentkv.claims.lifecycle import OPEN
from residentkv.claims.model import ResidentClaim
from residentkv.claims.modes import Mode
from residentkv.claims.predicates import Ranges

PRIMARY = "primary"
TIER = "cpu"

TierKey = bytes


class CopyView(Protocol):
    """Where copies of blocks lie at this moment."""

    def in_primary(self, block_hash: bytes) -> bool:
        """Tell whether the primary tier would find this block."""

    def in_tier(self, key: TierKey) -> bool:
        """Tell whether the second tier would give this block back now."""

    def kept(self, key: TierKey) -> bool:
        """Tell whether the second tier has a copy of this block, ready or on its way."""

    def tier_rows(self) -> int:
        """Return how many blocks the second tier can hold."""

    def hold(self, keys: Collection[TierKey]) -> None:
        """Keep these blocks in the second tier from eviction, once stored."""

    def let_go(self, keys: Collection[TierKey]) -> None:
        """Undo one `hold`."""

    def held_with(self, keys: Collection[TierKey]) -> int:
        """Return how many blocks would be held if these were held as well."""

    def condemn(self, keys: Collection[TierKey]) -> None:
        """Say that these copies in the second tier are none any more; they go when nobody reads them."""

    def pin(self, block_hashes: Sequence[bytes]) -> tuple[int, ...]:
        """Take cached blocks of the primary tier out of the reach of eviction; return them."""

    def unpin(self, block_ids: Sequence[int]) -> None:
        """Undo one `pin`."""

    def lose(self, block_ids: Sequence[int]) -> None:
        """Undo one `pin` and drop the blocks at once."""


class ClaimTrack:
    """One submission of a claim and what the runtime knows about its object."""

    __slots__ = ("hashes", "keys", "object_blocks", "offload_pos", "pins", "record", "restored_for", "store_jobs")

    def __init__(self, record: ClaimRecord, hashes: Sequence[bytes], keys: Sequence[TierKey]) -> None:
        self.record = record
        self.hashes = tuple(hashes)
        self.keys = tuple(keys)
        self.object_blocks = len(self.keys)
        self.store_jobs: dict[TierKey, int] = {}
        """Finished store jobs of this claim by key; a key leaves when its copy does."""
        self.offload_pos: Ranges = ()
        self.pins: tuple[int, ...] = ()
        """Blocks of the primary tier that are kept for the claim."""
        self.restored_for: str | None = None
        """Request of the last restoration."""

    @property
    def claim(self) -> ResidentClaim:
        """The claim as bound at acceptance."""
        return self.record.claim

    @property
    def open(self) -> bool:
        """Whether the promise stands."""
        return self.record.state in OPEN

    @property
    def restores(self) -> bool:
        """Whether the claim promises restoration from the second tier."""
        return self.record.mode is Mode.OFFLOADABLE

    @property
    def reports_loss(self) -> bool:
        """Whether the owner is told when the predicate holds no more."""
        return self.record.mode is not Mode.BEST_EFFORT

    def needed_hashes(self) -> tuple[bytes, ...]:
        """Return the contents that the predicate needs."""
        start, end = self.needed()
        return self.hashes[start:end]

    def needed_keys(self) -> tuple[TierKey, ...]:
        """Return the names in the second tier of what the predicate needs."""
        start, end = self.needed()
        return self.keys[start:end]

    def needed(self) -> tuple[int, int]:
        """Return (start, end) of the positions without which the engine does not read what the predicate needs.

        It reads leading blocks only, so those before the ones that the predicate names are needed as well.
        """
        start, count = self.claim.predicate.needed(self.object_blocks)
        return 0, start + count


Name = TypeVar("Name", int, bytes)


class ClaimIndex(Generic[Name]):
    """Which claims have to do with a block or a content; memory follows the claims."""

    def __init__(self) -> None:
        self._keys: dict[Name, set[Key]] = {}

    def __contains__(self, name: Name) -> bool:
        return name in self._keys

    def enter(self, names: Iterable[Name], key: Key) -> None:
        """Enter a claim under these names."""
        for name in names:
            self._keys.setdefault(name, set()).add(key)

    def leave(self, names: Iterable[Name], key: Key) -> None:
        """Take a claim out from under these names, where it is entered."""
        for name in names:
            keys = self._keys.get(name)
            if keys is not None:
                keys.discard(key)
                if not keys:
                    del self._keys[name]

    def of(self, names: Iterable[Name]) -> frozenset[Key]:
        """Return the claims entered under any of these names."""
        known = self._keys
        return frozenset(key for name in names if name in known for key in known[name])
