"""How much each owner has claimed now, kept from the events as they happen."""

from __future__ import annotations

from typing import Any

from residentkv.trace import events as ev

ENDS: frozenset[type[ev.Event]] = frozenset({ev.ClaimReleased, ev.ClaimExpired, ev.ClaimDemoted, ev.ClaimHarmed})
"""The four outcomes; each ends one claim."""


class OwnerUsage:
    """Open claims of each owner and the sum of their footprints, in blocks; safe only under the engine's guard."""

    def __init__(self) -> None:
        self._footprints: dict[tuple[str, str], int] = {}
        self._of: dict[str, tuple[int, int]] = {}

    def observe(self, kind: type[ev.Event], fields: dict[str, Any], now_ns: int) -> None:
        """Take in an event."""
        if kind is ev.ClaimAccepted:
            key = (fields["owner_scope"], fields["claim_id"])
            self._footprints[key] = fields["footprint_blocks"]
            self._add(key[0], 1, fields["footprint_blocks"])
        elif kind in ENDS:
            key = (fields["owner_scope"], fields["claim_id"])
            blocks = self._footprints.pop(key, None)
            if blocks is not None:
                self._add(key[0], -1, -blocks)

    def of(self, owner_scope: str) -> tuple[int, int]:
        """Return (claims, blocks) of an owner."""
        return self._of.get(owner_scope, (0, 0))

    def _add(self, owner_scope: str, claims: int, blocks: int) -> None:
        before = self.of(owner_scope)
        after = (before[0] + claims, before[1] + blocks)
        if after == (0, 0):
            self._of.pop(owner_scope, None)
        else:
            self._of[owner_scope] = after
