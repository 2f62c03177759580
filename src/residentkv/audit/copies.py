"""Which copies of which block are left, as block events tell it.

A copy is (tier, block id) and can be told apart from any other copy of the same content. Events without block ids
only allow counting; a loss or a survival that rests on counting is marked as blurred and never proves a violation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from residentkv.audit.state import ClaimState

Slot = tuple[str, int]
ANONYMOUS = -1


class BlockCopies:
    """Live copies by content hash; memory follows the live blocks of the caches, not the events."""

    __slots__ = ("anonymous", "copies", "past", "slots", "watchers")

    def __init__(self) -> None:
        self.copies: dict[str, set[Slot]] = {}
        self.slots: dict[Slot, str] = {}
        self.anonymous: dict[tuple[str, str], int] = {}
        self.watchers: dict[str, list[ClaimState]] = {}
        self.past: dict[str, ClaimState] = {}

    def in_tier(self, block_hash: str, tier: str) -> bool:
        """Tell whether a copy of the block lies in the tier."""
        return any(slot[0] == tier for slot in self.copies.get(block_hash, ()))

    def watch(self, c: ClaimState) -> None:
        """Follow the blocks that the claim's predicate needs."""
        for block_hash in c.needed_hashes:
            self.watchers.setdefault(block_hash, []).append(c)
            if block_hash not in self.copies:
                if c.unseen is None:
                    c.unseen = set()
                c.unseen.add(block_hash)

    def unwatch(self, c: ClaimState, excused: bool) -> None:
        """Stop following; an excused claim is kept in mind until one of its blocks is really lost."""
        for block_hash in c.needed_hashes:
            watching = self.watchers.get(block_hash)
            if watching is not None and c in watching:
                watching.remove(c)
                if not watching:
                    del self.watchers[block_hash]
            if excused and block_hash in self.copies:
                self.past[block_hash] = c

    def all_held(self, c: ClaimState) -> bool:
        """Tell whether a copy of every needed block is left in some tier."""
        return all(block_hash in self.copies for block_hash in c.needed_hashes)
