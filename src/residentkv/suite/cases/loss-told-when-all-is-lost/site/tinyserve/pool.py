"""The block pool."""

from __future__ import annotations


class Pool:
    """Blocks, and the claims that hold them."""

    def take(self, count):
        """Take free blocks, or make some free."""
        return [self.free.pop() if self.free else self.evict() for _ in range(count)]
