"""Which blocks of a long sequence get a place in the prefix cache."""

from __future__ import annotations


def cacheable(position_tokens, interval_tokens):
    """Return whether a block that ends here is worth a hash."""
    return position_tokens % interval_tokens == 0


class Pool:
    """Blocks in the order of their last use."""

    def pick_victim(self):
        """The block that goes next."""
        return self.by_last_use[0]
