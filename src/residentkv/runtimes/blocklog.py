"""KV events of a runtime as block events of our traces, with copies that can be told apart.

The publishers name no physical block. The reader numbers the copies itself: the first copy of a content in a tier gets
a number, which it keeps until that tier removes it. A second store of the same content in the same tier, before a
removal, may be a second copy or the same one again: it is written without a number, and from then on the content is
doubtful; whoever relies on it has to leave the trace open, so that it is inconclusive. So is a name that stands for two
contents, a content that has two names, a copy that is removed and was not there, and what is told of any cache group
but the first: blocks of several groups have one name, and which of them a prefix needs nobody says.
Source: spec section 6 ("`BlockRemoved` of one copy is not loss while another lives").
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from residentkv.runtimes.kvevents import ClearedBlocks, KvEvent, RemovedBlocks, StoredBlocks
from residentkv.trace.events import BlockRemoved, BlockStored
from residentkv.trace.writer import TraceWriter

Copies = dict[str, int]
Content = tuple[str | None, str | None, tuple[object, ...]]
"""Salt, namespace and tokens of a block, apart from those before it."""


class BlockLog:
    """What each tier holds, as its publisher tells it, written to a trace as it comes.

    `tiers` maps the publisher's words for media to names of tiers; a medium that is not in it is named in lower case.
    `doubtful` holds every name of which it is unknown how many copies a tier has, what it stands for, or whose it is.
    """

    def __init__(self, tiers: dict[str, str] | None = None) -> None:
        self._tiers = tiers or {}
        self._copies: dict[str, Copies] = {}
        self.doubtful: set[str] = set()
        self._next = 0
        self._children: dict[tuple[str | None, Content], str] = {}
        self._contents: dict[str, Content] = {}

    def holds(self, block_hash: str, tier: str) -> bool:
        """Tell whether the tier has a copy by the events so far."""
        return block_hash in self._copies.get(tier, {})

    def tiers_of(self, block_hash: str) -> tuple[str, ...]:
        """Return the tiers that have a copy."""
        return tuple(tier for tier, copies in sorted(self._copies.items()) if block_hash in copies)

    def came_from(self, block_hash: str, tier_from: str, tier_to: str) -> bool:
        """Tell whether the copy in `tier_to` is younger than one in `tier_from`, as a copy back is."""
        source, target = self._copies.get(tier_from, {}), self._copies.get(tier_to, {})
        return block_hash in source and block_hash in target and source[block_hash] < target[block_hash]

    def chain_of(self, token_ids: Iterable[int], block_size: int, cache_salt: str | None) -> tuple[str, ...]:
        """Return the names of the leading blocks of these tokens that some stored event has told of, in order.

        Only blocks of no namespace but the salt are found: those of an adapter or of a picture are others.
        """
        tokens = tuple(token_ids)
        parent: str | None = None
        out: list[str] = []
        for start in range(0, len(tokens) - block_size + 1, block_size):
            found = self._children.get((parent, (cache_salt, None, tokens[start : start + block_size])))
            if found is None:
                break
            out.append(found)
            parent = found
        return tuple(out)

    def write(self, event: KvEvent, trace: TraceWriter, request_id: str | None = None) -> None:
        """Append the event to the trace, in parts where only some of its copies can be told apart."""
        if not isinstance(event, ClearedBlocks) and event.group:
            self.doubtful.update(event.block_hashes)
        if isinstance(event, StoredBlocks):
            self._learn(event)
            tier = self._tier(event.medium)
            for hashes, numbers in self._store(tier, event.block_hashes):
                trace.emit(BlockStored, tier=tier, block_hashes=hashes, block_ids=numbers, request_id=request_id)
        elif isinstance(event, RemovedBlocks):
            tier = self._tier(event.medium)
            self._remove(tier, event.block_hashes, trace, request_id)
        elif isinstance(event, ClearedBlocks):
            for tier, copies in sorted(self._copies.items()):
                self._remove(tier, tuple(copies), trace, request_id)

    def _tier(self, medium: str) -> str:
        return self._tiers.get(medium, medium.lower())

    def _learn(self, event: StoredBlocks) -> None:
        parent, size = event.parent_hash, event.block_size
        for i, block_hash in enumerate(event.block_hashes):
            namespace = event.namespaces[i] if event.namespaces else None
            content = (event.cache_salt, namespace, event.token_ids[i * size : (i + 1) * size])
            named = self._children.setdefault((parent, content), block_hash)
            if named != block_hash or self._contents.setdefault(block_hash, content) != content:
                self.doubtful |= {named, block_hash}
            parent = block_hash

    def _store(self, tier: str, hashes: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], tuple[int, ...]]]:
        copies = self._copies.setdefault(tier, {})
        known, numbers, again = [], [], []
        for block_hash in hashes:
            if block_hash in copies:
                again.append(block_hash)
                self.doubtful.add(block_hash)
            else:
                copies[block_hash] = self._next
                known.append(block_hash)
                numbers.append(self._next)
                self._next += 1
        if known:
            yield tuple(known), tuple(numbers)
        if again:
            yield tuple(again), ()

    def _remove(self, tier: str, hashes: tuple[str, ...], trace: TraceWriter, request_id: str | None) -> None:
        copies = self._copies.setdefault(tier, {})
        known: Copies = {}
        unknown: list[str] = []
        for block_hash in hashes:
            if block_hash in copies and block_hash not in self.doubtful:
                known[block_hash] = copies.pop(block_hash)
            else:
                unknown.append(block_hash)
                self.doubtful.add(block_hash)
        if known:
            trace.emit(
                BlockRemoved,
                tier=tier,
                block_hashes=tuple(known),
                block_ids=tuple(known.values()),
                request_id=request_id,
            )
        if unknown:
            trace.emit(BlockRemoved, tier=tier, block_hashes=tuple(unknown), block_ids=(), request_id=request_id)
