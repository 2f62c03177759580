"""Bringing blocks back from the host."""

from __future__ import annotations


def reuse(request, tier, pool):
    """Serve a request from the blocks of its claim."""
    if not tier.load(request.blocks, into=pool):
        raise RestorationFailed(request.claim)
    return pool.read(request.blocks)
