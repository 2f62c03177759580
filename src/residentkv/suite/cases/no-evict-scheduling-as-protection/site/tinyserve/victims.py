"""Running requests and what may be taken from whom."""

from __future__ import annotations


def victims(blocks):
    """Yield what may go: nothing that a running request uses."""
    for block in blocks:
        if block.users == 0:
            yield block
