"""Block hashes, and a model whose KV and output are functions of the KV bytes that it really read.

The model is no language model. It has the one property that the tests need: the KV of a block depends on all bytes
of the blocks before it, and an output token on all bytes of the context, so wrong bytes give wrong output.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from residentkv.claims.model import CacheIdentity

VOCABULARY = 50_000


def chain_hashes(identity: CacheIdentity, tokens: Sequence[int]) -> tuple[str, ...]:
    """Return one name for each full block: it covers the block's tokens, all before them, and the cache identity."""
    size = identity.block_size_tokens
    parent = hashlib.sha256(identity.digest().encode()).digest()
    names: list[str] = []
    for end in range(size, len(tokens) + 1, size):
        parent = hashlib.sha256(parent + _pack(tokens[end - size : end])).digest()
        names.append("kv:" + parent.hex()[:32])
    return tuple(names)


class Context:
    """The KV that a request has read so far, in order."""

    def __init__(self, model: str, weights_epoch: int) -> None:
        self._read = hashlib.sha256(f"{model}\0{weights_epoch}".encode())

    def read(self, block: bytes) -> None:
        """Attend to one more block."""
        self._read.update(block)

    def compute_block(self, tokens: Sequence[int], block_bytes: int) -> bytes:
        """Return the KV of the next block and attend to it."""
        block = hashlib.shake_128(self._read.digest() + _pack(tokens)).digest(block_bytes)
        self._read.update(block)
        return block

    def next_token(self, tail: Sequence[int]) -> int:
        """Return the token that follows the read blocks and these tokens after them."""
        digest = hashlib.sha256(self._read.digest() + b"\0" + _pack(tail)).digest()
        return int.from_bytes(digest[:8], "little") % VOCABULARY


def compute_alone(
    prompt: Sequence[int], max_tokens: int, *, model: str, weights_epoch: int, block_size: int, block_bytes: int
) -> tuple[int, ...]:
    """Return the output for a prompt with no cache at all; what every cached run must reproduce."""
    context = Context(model, weights_epoch)
    full = len(prompt) // block_size * block_size
    for start in range(0, full, block_size):
        context.compute_block(prompt[start : start + block_size], block_bytes)
    tail = list(prompt[full:])
    output: list[int] = []
    for _ in range(max_tokens):
        output.append(context.next_token(tail))
        tail.append(output[-1])
    return tuple(output)


def _pack(tokens: Sequence[int]) -> bytes:
    return b"".join(t.to_bytes(4, "little") for t in tokens)
