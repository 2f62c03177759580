"""Pins on blocks."""

from __future__ import annotations


class Pins:
    """Pinned blocks are passed over when room is made."""

    def pin(self, block):
        """Keep a block."""
        self.pinned.add(block)
