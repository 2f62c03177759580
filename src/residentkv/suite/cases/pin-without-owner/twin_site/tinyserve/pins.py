"""Pins on blocks."""

from __future__ import annotations


class Pins:
    """Pinned blocks are passed over when room is made."""

    def pin(self, block, owner):
        """Keep a block."""
        self.pinned[block] = owner

    def unpin(self, block, owner):
        """Let a block go; only its owner may."""
        if self.pinned[block] == owner:
            del self.pinned[block]
