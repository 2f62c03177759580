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

    def evict_blocks(self, block_ids: set[int]) -> None:
        self.evicted |= block_ids


def test_what_a_request_keeps_from_others_is_never_what_a_claim_needs() -> None:
    """`resident_keep_kv: false` forgets a request's own blocks, not those that it shares or that a soft claim needs."""
    pool = Pool((b"own", 1), (b"shared", 2), (b"claimed", 1), (None, 1))
    tier = PrimaryTier(0, 4)
    tier.bind(SimpleNamespace(block_pool=pool))
    tier.forget(range(4), spared=lambda content: content == b"claimed")
    assert pool.evicted == {0, 3}
