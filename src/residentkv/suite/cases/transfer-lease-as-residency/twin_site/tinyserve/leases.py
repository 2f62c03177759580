"""Blocks that are held for another worker to read."""

from __future__ import annotations


class Leases:
    """A lease protects a transfer, not what is transferred."""

    def on_read(self, lease):
        """A consumer has read the blocks."""
        lease.readers_left -= 1
        if lease.readers_left == 0 and self.now_s() >= lease.deadline_s:
            self.free(lease.blocks)
