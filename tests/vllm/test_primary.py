"""The primary tier over a pool that behaves as vLLM's: what a request may take out of it when it ends."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from residentkv.runtimes.vllm.primary import PrimaryTier

GROUP = b"\0\0\0\0"


class Pool:
    """Blocks by number, each with a content and its users; what was made unfindable is in `evicted`."""

    metrics_collector: Any = None

    def __init__(self, *blocks: tuple[bytes | None, int]) -> None:
        self.blocks = [
            SimpleNamespace(block_id=i, block_hash=None if content is None else content + GROUP, ref_cnt=users)
            for i, (content, users) in enumerate(blocks)
        ]
        self.evicted: set[int] = set()

    def get_num_free_blocks(self) -> int:
        return sum(not block.ref_cnt for block in self.blocks)

    def get_cached_block(self, content: bytes, group_ids: list[int]) -> list[SimpleNamespace] | None:
        return [b for b in self.blocks if b.block_hash == content + GROUP][:1] or None

    def touch(self, blocks: list[SimpleNamespace]) -> None:
        for block in blocks:
            block.ref_cnt += 1

    def free_blocks(self, blocks: list[SimpleNamespace]) -> None:
        for block in blocks:
            block.ref_cnt -= 1

    def evict_blocks(self, block_ids: set[int]) -> None:
        self.evicted |= block_ids


def test_what_a_request_keeps_from_others_is_never_what_a_claim_needs() -> None:
    """`resident_keep_kv: false` forgets a request's own blocks, not those that it shares or that a soft claim needs."""
    pool = Pool((b"own", 1), (b"shared", 2), (b"claimed", 1), (None, 1))
    tier = PrimaryTier(0, 4)
    tier.bind(SimpleNamespace(block_pool=pool))
    tier.forget(range(4), spared=lambda content: content == b"claimed")
    assert pool.evicted == {0, 3}


def test_the_tier_is_in_use_by_requests_and_not_by_pins() -> None:
    """vLLM refuses to empty a cache whose blocks are in use, so no claim may be demoted for it; pins are given back."""
    pool = Pool((b"claimed", 0), (None, 0))
    tier = PrimaryTier(0, 2)
    tier.bind(SimpleNamespace(block_pool=pool))
    pins = tier.pin([b"claimed"])
    assert not tier.in_use()
    for block in pool.blocks:
        pool.touch([block])
        assert tier.in_use()
        pool.free_blocks([block])
    tier.unpin(pins)
    assert not tier.in_use() and not tier.used_blocks()


def test_what_running_requests_use_is_left_out_and_what_others_use_is_not() -> None:
    """A reset that preempts is refused all the same for blocks of a load, and for those that both use."""
    pool = Pool((b"claimed", 0), (b"running", 1), (b"both", 2), (b"loading", 1))
    tables = {"running": (1, 2), "loading": (2, 3)}
    manager = SimpleNamespace(
        block_pool=pool, get_blocks=lambda r: SimpleNamespace(blocks=([pool.blocks[i] for i in tables[r]],))
    )
    tier = PrimaryTier(0, 4)
    tier.bind(manager)
    tier.pin([b"claimed"])
    assert tier.in_use(but_for=["running"])
    assert not tier.in_use(but_for=["running", "loading"])
    pool.free_blocks(pool.blocks[3:])
    assert tier.in_use(but_for=["running"])
    pool.free_blocks(pool.blocks[2:3])
    assert not tier.in_use(but_for=["running"])
