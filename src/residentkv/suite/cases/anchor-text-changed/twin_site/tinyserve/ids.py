"""What a cached block is called."""

from __future__ import annotations


def block_key(tokens, model, salt):
    """Name the content of a block."""
    return hash((model, salt, tuple(tokens)))


def tag(request, block):
    """Tell which claim a block belongs to."""
    return (request.owner, request.claim, block)
