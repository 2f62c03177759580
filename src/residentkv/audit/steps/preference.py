"""Trials of eviction preference: a soft claim lost blocks to pressure while others of another priority kept theirs."""

from __future__ import annotations

from residentkv.audit.state import ClaimState, SourceState
from residentkv.audit.table import IS_OPEN

LOST_WHILE_OLDER = "lost_first_while_older"
"""The less important claim went first, and it was also the one used less recently: recency would choose the same."""

LOST_WHILE_NEWER = "lost_first_while_newer"
"""The less important claim went first although it was used more recently: the swapped assignment."""

LOST_BEFORE_LESS_IMPORTANT = "lost_before_less_important"
"""A claim went while a less important one in the same tier kept everything."""

_SOFT = "soft_priority"


def note_trial(s: SourceState, c: ClaimState) -> None:
    """Count what the loss of a claim says about preference; nothing when there was nobody to compare it with.

    Only soft claims of the same (source, epoch) and tier are compared, and only while all that their predicates need
    is left. Cost: one look at every open claim.
    """
    if c.traits is None or c.traits.name != _SOFT or c.lost_blurred:
        return
    kept = [
        d
        for d in s.claims.values()
        if d is not c
        and d.traits is c.traits
        and IS_OPEN[d.state]
        and d.used_seq >= 0
        and d.lost_seq < 0
        and d.primary_tier == c.primary_tier
    ]
    if any(d.priority < c.priority for d in kept):
        c.count(LOST_BEFORE_LESS_IMPORTANT)
        return
    more = [d.used_seq for d in kept if d.priority > c.priority]
    if more and c.used_seq < min(more):
        c.count(LOST_WHILE_OLDER)
    elif more and c.used_seq > max(more):
        c.count(LOST_WHILE_NEWER)
