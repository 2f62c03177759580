"""Block events."""

from __future__ import annotations


class EventStream:
    """Says what happened to blocks, after it happened."""

    def on_stored(self, block):
        """Publish that a block was stored."""
        self.publish({"event": "block_stored", "hash": block.hash})
