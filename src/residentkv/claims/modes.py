"""The seven protection modes and what each of them protects (spec section 4)."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Self

from residentkv.errors import UsageError, near

_WORD_START = re.compile(r"(?<!^)(?=[A-Z])")
"""Where a class name begins a new word, so that messages speak of `on_restore_failure`."""


class NamedChoice(StrEnum):
    """A closed set of words; `parse` names the nearest one when a word is unknown."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the member called `text`.

        Raises:
            UsageError: no such member; the message lists them and the nearest.
        """
        for member in cls:
            if member.value == text:
                return member
        words = [m.value for m in cls]
        kind = _WORD_START.sub("_", cls.__name__).lower()
        raise UsageError(f"unknown {kind} {text[:60]!r}, expected one of {', '.join(words)}{near(text, words)}")


class Mode(NamedChoice):
    """How strongly a claim is kept."""

    BEST_EFFORT = "best_effort"
    SOFT_PRIORITY = "soft_priority"
    EXPIRING = "expiring"
    DEMOTABLE = "demotable"
    OFFLOADABLE = "offloadable"
    HARD_PROTECTED = "hard_protected"
    ROUTED_REUSE = "routed_reuse"


class OnRestoreFailure(NamedChoice):
    """What happens to the active request when its claim cannot be restored."""

    REFUSE = "refuse"
    RECOMPUTE = "recompute"


HOLDS_PRIMARY = frozenset({Mode.HARD_PROTECTED, Mode.EXPIRING, Mode.DEMOTABLE})
"""Modes whose materialized blocks count as protected until released, expired or demoted.

An `offloadable` claim is protected in the primary tier only until its copy in the offload tier is complete.
"""

RESERVES = HOLDS_PRIMARY | {Mode.OFFLOADABLE}
"""Modes whose footprint is reserved from acceptance on, so that what was accepted can also be materialized."""

LOSS_IS_VIOLATION = frozenset({Mode.HARD_PROTECTED, Mode.EXPIRING, Mode.DEMOTABLE, Mode.OFFLOADABLE})
"""Modes in which a loss without an earlier excuse breaks the promise even when it is reported as harm."""

NEVER_GIVEN_UP = frozenset({Mode.HARD_PROTECTED, Mode.EXPIRING})
"""Modes that end by release or by their term, and are not withdrawn for the sake of a request."""
