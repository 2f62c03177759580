"""The primary tier: vLLM's block pool with pins by reference count, and a watch on what is handed out and evicted.

Relies on `KVConnectorBase_V1.bind_kv_cache_manager` (whose documentation names reference counts), on `BlockPool.touch`,
`free_blocks`, `evict_blocks`, `get_cached_block`, `get_num_free_blocks`, `blocks` and `metrics_collector` (which is
told of an eviction before it happens), and on `KVCacheManager.get_blocks`. Safe only in the scheduler's thread, but for
`unpin`, which only notes what `settle` carries out.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

GROUP_ID_BYTES = 4
"""A cached block's key is its hash and the number of its KV cache group."""


def block_name(block_hash: bytes) -> str:
    """Return how events name the content of a block."""
    return block_hash.hex()


class BlockWatch:
    """Stands where vLLM expects its optional metrics collector, and passes everything on to that."""

    def __init__(self, behind: Any) -> None:
        self._behind = behind
        self.taken_blocks = 0
        self.on_evicted: Callable[[int, bytes], None] = lambda block_id, block_hash: None
        self.on_reset: Callable[[], None] = lambda: None

    def on_block_allocated(self, block: Any) -> None:
        """A block was handed out."""
        self.taken_blocks += 1
        if self._behind is not None:
            self._behind.on_block_allocated(block)

    def on_block_accessed(self, block: Any) -> None:
        """A cached block is used once more; it may have been free."""
        self.taken_blocks += 1
        if self._behind is not None:
            self._behind.on_block_accessed(block)

    def on_block_evicted(self, block: Any) -> None:
        """A block is about to lose its content, if it has any that can be found."""
        key = block.block_hash
        if key is not None:
            self.on_evicted(int(block.block_id), bytes(key[:-GROUP_ID_BYTES]))
        if self._behind is not None:
            self._behind.on_block_evicted(block)

    def reset(self) -> None:
        """The prefix cache was emptied."""
        self.on_reset()
        if self._behind is not None:
            self._behind.reset()


class PrimaryTier:
    """The engine's block pool as claims see it; empty until `bind`."""

    def __init__(self, group_id: int, usable_blocks: int) -> None:
        self.usable_blocks = usable_blocks
        self.excludes_victims = True
        self.watch = BlockWatch(None)
        self._group_ids = [group_id]
        self._manager: Any = None
        self._pool: Any = None
        self._pins: Counter[int] = Counter()
        self._unpinned: deque[int] = deque()

    def bind(self, kv_cache_manager: Any) -> None:
        """Learn where the blocks are, and watch them."""
        self._manager = kv_cache_manager
        self._pool = kv_cache_manager.block_pool
        self.watch = BlockWatch(self._pool.metrics_collector)
        self._pool.metrics_collector = self.watch

    # --- what lies where ---

    def find(self, block_hash: bytes) -> int | None:
        """Return the block that the prefix cache would find, or None."""
        if self._pool is None:
            return None
        found = self._pool.get_cached_block(block_hash, self._group_ids)
        return int(found[0].block_id) if found is not None else None

    def copies(self) -> Iterator[tuple[int, str]]:
        """Iterate over all (block, name) that can be found."""
        for block in self._pool.blocks if self._pool is not None else ():
            if block.block_hash is not None:
                yield int(block.block_id), block_name(bytes(block.block_hash[:-GROUP_ID_BYTES]))

    def table(self, request_id: str) -> Sequence[Any]:
        """Return the blocks allocated to a request, in logical order."""
        blocks: Sequence[Any] = self._manager.get_blocks(request_id).blocks[0]
        return blocks

    def allocated(self, request_id: str) -> list[int]:
        """Return the numbers of the blocks allocated to a request, in logical order."""
        return [int(block.block_id) for block in self.table(request_id)]

    def count_allocated(self, request_id: str) -> int:
        """Return how many blocks are allocated to a request."""
        return len(self.table(request_id))

    def named_from(self, request_id: str, first: int) -> list[tuple[int, str]]:
        """Return (block, name) of a request's blocks from position `first` on, up to the first that is not cached."""
        out = []
        for block in self.table(request_id)[first:]:
            if block.block_hash is None:
                break
            out.append((int(block.block_id), block_name(bytes(block.block_hash[:-GROUP_ID_BYTES]))))
        return out

    # --- numbers of admission ---

    def used_blocks(self) -> int:
        """Return how many blocks are referenced, by requests or by pins."""
        return self.usable_blocks - int(self._pool.get_num_free_blocks())

    def pinned_blocks(self) -> int:
        """Return how many blocks are pinned, each counted once."""
        return len(self._pins)

    def is_pinned(self, block_id: int) -> bool:
        """Tell whether a claim pins the block."""
        return block_id in self._pins

    def users(self, block_id: int) -> int:
        """Return how many requests use a block."""
        return int(self._pool.blocks[block_id].ref_cnt) - self._pins[block_id]

    def in_use(self, but_for: Collection[str] = ()) -> bool:
        """Tell whether requests use any block, these left out; what only claims pin does not count."""
        self.settle()
        theirs = Counter(block_id for request_id in but_for for block_id in self.allocated(request_id))
        known = self._pins.keys() | theirs.keys()
        return self.used_blocks() > len(known) or any(self.users(block_id) > theirs[block_id] for block_id in known)

    # --- pins ---

    def pin(self, block_hashes: Sequence[bytes]) -> tuple[int, ...]:
        """Take cached blocks out of the reach of eviction; return them, those that are not found left out."""
        self.settle()
        if not self.excludes_victims:
            return ()
        ids = [block_id for block_id in map(self.find, block_hashes) if block_id is not None]
        self._pool.touch([self._pool.blocks[i] for i in ids])
        self._pins.update(ids)
        return tuple(ids)

    def unpin(self, block_ids: Sequence[int]) -> None:
        """Undo one `pin` at the next `settle`; the last block becomes the first victim."""
        self._unpinned.extend(reversed(block_ids))

    def settle(self) -> None:
        """Give back what was unpinned."""
        if not self._unpinned:
            return
        ids = [self._unpinned.popleft() for _ in range(len(self._unpinned))]
        for i in ids:
            self._pins[i] -= 1
            if self._pins[i] <= 0:
                del self._pins[i]
        self._pool.free_blocks([self._pool.blocks[i] for i in ids])

    # --- order of eviction ---

    def free_blocks(self) -> int:
        """Return how many blocks are in the free queue."""
        return int(self._pool.get_num_free_blocks())

    def taken_blocks(self) -> int:
        """Return how many blocks left the free queue since the start, at least."""
        return self.watch.taken_blocks

    def make_last(self, block_hashes: Sequence[bytes]) -> int:
        """Put cached blocks that nobody uses at the end of the free queue, in this order; return how many."""
        ids = [block_id for block_id in map(self.find, block_hashes) if block_id is not None]
        idle = [self._pool.blocks[i] for i in ids if not self._pool.blocks[i].ref_cnt]
        self._pool.touch(idle)
        self._pool.free_blocks(idle)
        return len(idle)

    def forget(self, block_ids: Collection[int], spared: Callable[[bytes], bool] = lambda block_hash: False) -> None:
        """Make blocks unfindable that are used by one request and not pinned, those with spared contents left out."""
        ids = {i for i in block_ids if i not in self._pins and self._pool.blocks[i].ref_cnt <= 1}
        ids = {i for i in ids if (key := self._pool.blocks[i].block_hash) is None or not spared(key[:-GROUP_ID_BYTES])}
        if ids:
            self._pool.evict_blocks(ids)
