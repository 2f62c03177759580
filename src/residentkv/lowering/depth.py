"""Depth: who does the keeping (spec section 3)."""

from __future__ import annotations

from residentkv.claims.modes import NamedChoice


class Depth(NamedChoice):
    """How deep into the runtime a mechanism reaches; members are declared from shallow to deep.

    Compare with `within`, never with `<`: the members are words, and words compare alphabetically.
    """

    NATIVE = "native"
    OBSERVE = "observe"
    POLICY = "policy"
    PLUGIN = "plugin"
    PATCH = "patch"

    @property
    def rank(self) -> int:
        """0 for native up to 4 for patch."""
        return _RANK[self]

    def within(self, limit: Depth) -> bool:
        """Return whether this depth is not deeper than `limit`."""
        return self.rank <= limit.rank


_RANK = {depth: rank for rank, depth in enumerate(Depth)}

ANY_DEPTH = frozenset(Depth)
"""Every depth."""

NOT_OBSERVE = ANY_DEPTH - {Depth.OBSERVE}
"""The runtime itself, or something that can act on it."""

ENFORCING = frozenset({Depth.NATIVE, Depth.PLUGIN, Depth.PATCH})
"""The runtime itself, or code that runs inside it."""
