"""Soft claims: their blocks can be evicted in either tier, but last, the least important first.

vLLM hands out free blocks from the head of one queue, whatever is in them, and appends what is freed. So whoever is put
at the end again before the blocks ahead are used up goes last. The second tier is told the order when it makes room. No
block is held: a request is never refused for it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from residentkv.runtimes.vllm.claimbook import ClaimBook
from residentkv.runtimes.vllm.claimtrack import ClaimTrack, TierKey


class EvictionOrder(Protocol):
    """The free queue of the primary tier; see `primary.PrimaryTier`."""

    def free_blocks(self) -> int:
        """Return how many blocks are in the queue."""

    def taken_blocks(self) -> int:
        """Return how many blocks were taken out of the queue since the start, at least."""

    def make_last(self, block_hashes: Sequence[bytes]) -> int:
        """Put cached blocks that nobody uses at the end, in this order; return how many."""


class Preference:
    """Keeps the order of soft claims.

    Args:
        ranks: False turns the mechanism off, for negative proofs: the order is that of the engine.
    """

    def __init__(self, book: ClaimBook, queue: EvictionOrder, *, ranks: bool = True) -> None:
        self._book = book
        self._queue = queue
        self._ranks = ranks
        self._claims = -1
        self._reached_at = 0
        self._tier_claims = -1
        self._tier_order: dict[TierKey, None] = {}

    def tier_order(self) -> Collection[TierKey]:
        """Return the blocks of the second tier that go last, the first victim first."""
        book = self._book
        if book.soft_changes != self._tier_claims:
            self._tier_claims = book.soft_changes
            self._tier_order = {}
            for track in self._ranked():
                for key in reversed(track.needed_keys()):
                    self._tier_order.pop(key, None)  # Shared blocks go with the most important claim.
                    self._tier_order[key] = None
        return self._tier_order if self._ranks else ()

    def _ranked(self) -> list[ClaimTrack]:
        return sorted(self._book.soft.values(), key=lambda t: (t.claim.priority, t.record.order))

    def before_step(self, may_take_blocks: int) -> None:
        """Restore the order, the first victim first, if the step could reach claimed blocks; it takes at most so many.

        Costs a look at the soft claims only when they changed, or as many blocks were taken as lay ahead of them.
        """
        book, queue = self._book, self._queue
        if not self._ranks or not book.soft:
            return
        near = queue.taken_blocks() + may_take_blocks > self._reached_at
        if book.soft_changes == self._claims and not near:
            return
        self._claims = book.soft_changes
        placed = 0
        for track in self._ranked():
            placed += queue.make_last(tuple(reversed(track.needed_hashes())))
        self._reached_at = queue.taken_blocks() + queue.free_blocks() - placed
