"""Blocks for the study: token ids, the key that KVCR knows a block by, and bytes that stand in for its KV."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from residentkv.claims.model import CacheIdentity, token_map_digest

BLOCK_TOKENS = 16
BLOCK_BYTES = 1 << 16

IDENTITY = CacheIdentity(
    model="residentkv-study",
    model_revision="1",
    weights_epoch=0,
    tokenizer="none",
    kv_dtype="uint8",
    kv_layout="bytes-of-token-ids",
    block_size_tokens=BLOCK_TOKENS,
)
"""What all blocks of the study have in common; no model computed them."""


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """The blocks of one prefix: keys chained over all tokens before, and the bytes that each block stands for."""

    tokens: tuple[int, ...]
    keys: tuple[bytes, ...]

    @property
    def blocks(self) -> int:
        """How many blocks the prefix has."""
        return len(self.keys)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the blocks in a trace."""
        return tuple(name_key(key) for key in self.keys)

    @property
    def token_map_id(self) -> str:
        """Digest of the exact tokens."""
        return token_map_digest(self.tokens)

    def bytes_of(self, position: int) -> bytes:
        """Return the bytes of one block; they differ in every block and depend on every token before it."""
        return block_bytes(self.keys[position])


def make_prompt(seed: str, blocks: int) -> Prompt:
    """Return a prefix of `blocks` blocks that only `seed` decides."""
    stream = hashlib.shake_256(seed.encode()).digest(2 * blocks * BLOCK_TOKENS)
    tokens = tuple(int.from_bytes(stream[i : i + 2], "little") for i in range(0, len(stream), 2))
    return Prompt(tokens=tokens, keys=chain_keys(tokens))


def chain_keys(tokens: Sequence[int]) -> tuple[bytes, ...]:
    """Return the keys of whole blocks: 8 bytes of a hash over the identity and all tokens up to the block's end."""
    running = hashlib.sha256(IDENTITY.digest().encode())
    keys = []
    for start in range(0, len(tokens) // BLOCK_TOKENS * BLOCK_TOKENS, BLOCK_TOKENS):
        for token in tokens[start : start + BLOCK_TOKENS]:
            running.update(token.to_bytes(4, "little"))
        keys.append(running.digest()[:8])
    return tuple(keys)


def name_key(key: bytes) -> str:
    """Return the name of a block in a trace."""
    return f"block:{key.hex()}"


def block_bytes(key: bytes) -> bytes:
    """Return the bytes that stand in for the KV of the block with this key."""
    return hashlib.shake_256(key).digest(BLOCK_BYTES)
