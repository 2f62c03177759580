"""Who goes first under pressure: trials of eviction preference, and claims that were spared.

A soft claim lost blocks while others of another priority kept theirs; a claim kept its blocks while newer ones went.
"""

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


def use(s: SourceState, c: ClaimState, seq: int) -> None:
    """The claim is read now; note whether it was spared since it was used last."""
    if c.open_requests <= 1:  # Any other request of the claim holds its blocks while it runs.
        note_spared(s, c)
    c.used_seq = seq


def note_spared(s: SourceState, c: ClaimState) -> None:
    """Note when something went from the claim's tier that was stored after the claim had been used last.

    A cache that only looks at recency, or at age, would have chosen the claim; that older blocks went shows nothing.
    """
    stored, evicted = s.evicted.get(c.primary_tier, (-1, -1))
    if stored > c.used_seq:
        c.spared_seq = evicted


def note_trials(s: SourceState) -> None:
    """Count what the losses of one block event say about preference, by what was left at that moment.

    Only soft claims of the same (source, epoch) and tier are compared, and only while all that their predicates need
    is left; what went in the same event was not left, and what a request holds could not have gone instead. Cost: one
    look at every open claim for each loss.
    """
    losses, s.fresh_losses = s.fresh_losses, []
    for c in losses:
        if c.traits is not None and c.traits.name == _SOFT and not c.lost_blurred:
            _note_trial(s, c)


def _note_trial(s: SourceState, c: ClaimState) -> None:
    kept = [
        d
        for d in s.claims.values()
        if d is not c
        and d.traits is c.traits
        and IS_OPEN[d.state]
        and not d.open_requests
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
