"""Which copies of which block are left, as block events tell it.

A copy is (tier, block id) and can be told apart from any other copy of the same content. Events without block ids
only allow counting; a loss or a survival that rests on counting is marked as blurred and never proves a violation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from residentkv.audit.state import ClaimState


class BlockCopies:
    """Live copies by content hash; memory follows the live blocks of the caches, not the events.

    Attributes:
        places: for each tier, which content lies under which block id.
        since: for each tier and block id, the event that stored what lies there.
        where: for each content, the tier of its one copy, or the list of the tiers of its copies.
        anonymous: (tier, content) of copies without block ids, counted.
        anonymous_since: for each of them, the event that stored the last one.
        doubtful: for each content the tiers where a copy without block id went while more were left, by number or by
            count: some may be left, or none; until every copy there is gone.
        watchers: open claims by the content that their predicate needs.
        past: the last claim that ended with an excuse, by the content that it had needed.
    """

    __slots__ = ("anonymous", "anonymous_since", "doubtful", "past", "places", "since", "watchers", "where")

    def __init__(self) -> None:
        self.places: dict[str, dict[int, str]] = {}
        self.since: dict[str, dict[int, int]] = {}
        self.where: dict[str, str | list[str]] = {}
        self.anonymous: dict[tuple[str, str], int] = {}
        self.anonymous_since: dict[tuple[str, str], int] = {}
        self.doubtful: dict[str, set[str]] = {}
        self.watchers: dict[str, list[ClaimState]] = {}
        self.past: dict[str, ClaimState] = {}

    def tier(self, tier: str) -> tuple[dict[int, str], dict[int, int]]:
        """Return the places of a tier, and since when they are filled."""
        if tier not in self.places:
            self.places[tier], self.since[tier] = {}, {}
        return self.places[tier], self.since[tier]

    def in_tier(self, block_hash: str, tier: str) -> bool:
        """Tell whether a copy of the block lies in the tier."""
        tiers = self.where.get(block_hash)
        return tiers is not None and (tiers == tier or (type(tiers) is list and tier in tiers))

    def tiers_of(self, block_hash: str) -> list[str]:
        """Return the tiers in which copies of the block lie."""
        tiers = self.where.get(block_hash, [])
        return tiers if isinstance(tiers, list) else [tiers]

    def add(self, block_hash: str, tier: str) -> None:
        """Enter one more copy."""
        tiers = self.where.get(block_hash)
        if tiers is None:
            self.where[block_hash] = tier
        elif isinstance(tiers, list):
            tiers.append(tier)
        else:
            self.where[block_hash] = [tiers, tier]

    def drop(self, block_hash: str, tier: str) -> bool:
        """Take one copy out of a tier that has one; tell whether another copy is left anywhere."""
        tiers = self.where.pop(block_hash, None)
        if isinstance(tiers, list):
            tiers.remove(tier)
            self.where[block_hash] = tiers[0] if len(tiers) == 1 else tiers
            return True
        return False

    def doubt(self, block_hash: str, tier: str) -> None:
        """Say that it is unknown whether a copy is left in the tier."""
        self.doubtful.setdefault(block_hash, set()).add(tier)

    def settle(self, block_hash: str, tier: str) -> None:
        """Doubt ends where no copy is left by any count."""
        tiers = self.doubtful.get(block_hash)
        if tiers is not None and not self.in_tier(block_hash, tier):
            tiers.discard(tier)
            if not tiers:
                del self.doubtful[block_hash]

    def watcher_of(self, hashes: tuple[str, ...]) -> ClaimState | None:
        """Return an open claim that needs the first of these blocks, if there is one."""
        watching = self.watchers.get(hashes[0]) if hashes else None
        return watching[0] if watching else None

    def watch(self, c: ClaimState) -> None:
        """Follow the blocks that the claim's predicate needs; those that do not lie in its tier are yet to be seen."""
        watchers, tier = self.watchers, c.primary_tier
        for block_hash in c.needed_hashes:
            if block_hash in watchers:
                watchers[block_hash].append(c)
            else:
                watchers[block_hash] = [c]
            if not self.in_tier(block_hash, tier):
                if c.unseen is None:
                    c.unseen = set()
                c.unseen.add(block_hash)
            if block_hash in self.doubtful:
                c.lost_blurred = True

    def unwatch(self, c: ClaimState, excused: bool) -> None:
        """Stop following; an excused claim is kept in mind until one of its blocks is really lost."""
        watchers, where, past = self.watchers, self.where, self.past
        for block_hash in c.needed_hashes:
            watching = watchers.get(block_hash)
            if watching is not None and c in watching:
                if len(watching) == 1:
                    del watchers[block_hash]
                else:
                    watching.remove(c)
            if excused and block_hash in where:
                past[block_hash] = c
