"""Requests whose KV is not kept for reuse."""

from __future__ import annotations


def admit(request, pool):
    """Give a request its blocks; with `no_reuse` they are dropped when it ends."""
    if pool.protected + pool.active + request.blocks_needed > pool.usable:
        return Refused(pool.claims_in_the_way(request.blocks_needed))
    return pool.take(request.blocks_needed, drop_at_end=request.no_reuse)
