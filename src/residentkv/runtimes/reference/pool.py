"""The primary tier: a fixed number of blocks with reference counts, holds of claims, and LRU eviction."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from residentkv.claims.ledger import Key
from residentkv.errors import ResidentKVError


class PoolExhausted(ResidentKVError):
    """Not enough blocks are free or may be evicted; nothing was taken."""


class Block(msgspec.Struct, kw_only=True, eq=False):
    """One physical block.

    `ref_count` counts the requests being served from it, `held_by` the claims that protect it; `name` is the hash of
    its content once that is complete and cached, and `last_use` orders blocks for eviction, lowest first.
    """

    block_idx: int
    ref_count: int = 0
    held_by: set[Key] = msgspec.field(default_factory=set)
    name: str | None = None
    data: bytes = b""
    last_use: int = 0


class Evicted(msgspec.Struct, frozen=True, kw_only=True):
    """A cached copy that had to go; `held_by` is empty unless victim exclusion is off."""

    name: str
    block_idx: int
    held_by: frozenset[Key]


class PrimaryPool:
    """Blocks by content name. Nothing here knows what a claim promises; it only never evicts what is held.

    Args:
        usable_blocks: size of the tier.
        exclude_victims: False turns the mechanism off, and held blocks are evicted like any others.
    """

    def __init__(self, usable_blocks: int, *, exclude_victims: bool = True) -> None:
        self.blocks = [Block(block_idx=i) for i in range(usable_blocks)]
        self._cached: dict[str, Block] = {}
        self._exclude_victims = exclude_victims
        self._uses = 0

    def find(self, name: str) -> Block | None:
        """Return the cached block of this content, or None."""
        return self._cached.get(name)

    def count_active(self) -> int:
        """Count blocks that requests use and no claim protects."""
        return sum(1 for b in self.blocks if b.ref_count and not b.held_by)

    def busy_claims(self) -> frozenset[Key]:
        """Return the claims that hold blocks which requests being served use."""
        return frozenset(key for b in self.blocks if b.ref_count for key in b.held_by)

    def acquire(self, block: Block) -> None:
        """Use a block for a request; it stays until `release`."""
        block.ref_count += 1

    def release(self, blocks: Iterable[Block]) -> None:
        """Let a request's blocks go, given in logical order: the last is evicted first."""
        for block in reversed(list(blocks)):
            block.ref_count -= 1
            self._touch(block)

    def allocate(self, count: int, rank: Callable[[str], tuple[int, ...]]) -> tuple[list[Block], list[Evicted]]:
        """Take `count` blocks for a request: empty ones first, then cached ones by rank and least recent use.

        Args:
            rank: what a content is worth; lower is evicted first.

        Raises:
            PoolExhausted: fewer blocks may be taken; nothing changed.
        """
        idle = [b for b in self.blocks if not b.ref_count]
        empty = [b for b in idle if b.name is None]
        victims = [b for b in idle if b.name is not None and not (self._exclude_victims and b.held_by)]
        if len(empty) + len(victims) < count:
            raise PoolExhausted(f"{count} blocks wanted, {len(empty)} empty, {len(victims)} may be evicted")
        victims.sort(key=lambda b: (rank(b.name or ""), b.last_use))
        taken = (empty + victims)[:count]
        evicted = [self.drop(b) for b in taken if b.name is not None]
        for block in taken:
            block.ref_count = 1
        return taken, evicted

    def cache(self, block: Block, name: str, data: bytes) -> bool:
        """Enter the content of a block; False when the same content is cached in another block already."""
        block.data = data
        if name in self._cached:
            return False
        block.name = name
        self._cached[name] = block
        return True

    def drop(self, block: Block) -> Evicted:
        """Remove a cached copy and its bytes."""
        name = block.name
        if name is None:
            raise ResidentKVError(f"block {block.block_idx} holds no cached content")
        gone = Evicted(name=name, block_idx=block.block_idx, held_by=frozenset(block.held_by))
        del self._cached[name]
        block.name, block.data = None, b""
        block.held_by.clear()
        return gone

    def hold(self, names: Iterable[str], key: Key) -> None:
        """Protect cached blocks for a claim."""
        for name in names:
            self._cached[name].held_by.add(key)

    def unhold(self, names: Iterable[str], key: Key) -> None:
        """End the protection; the blocks stay cached until somebody needs the room."""
        for name in names:
            block = self._cached.get(name)
            if block is not None:
                block.held_by.discard(key)

    def idle_cached(self) -> list[Block]:
        """Return cached blocks that no request uses and no claim holds."""
        return [b for b in self.blocks if b.name is not None and not b.ref_count and not b.held_by]

    def _touch(self, block: Block) -> None:
        self._uses += 1
        block.last_use = self._uses
