"""Who goes first under pressure: trials of eviction preference, and claims that were spared.

A soft claim lost blocks while others of another priority kept theirs; a claim kept its blocks while newer ones went.

When a claim was used last is known between two events: `used_seq`, where it certainly was (all of it was read, or a
request of it ended served), and `held_seq`, until where it may have been (a request of it was open). A request that is
withdrawn may never have touched the blocks, so it moves only the second.
"""

from __future__ import annotations

from residentkv.audit.ranges import clean
from residentkv.audit.state import ClaimState, SourceState
from residentkv.audit.table import IS_OPEN
from residentkv.trace.events import ClaimReused, ClaimReusedAfterRestore

LOST_WHILE_OLDER = "lost_first_while_older"
"""The less important claim went first, and it was also the one used less recently: recency would choose the same."""

LOST_WHILE_NEWER = "lost_first_while_newer"
"""The less important claim went first although it was used more recently: the swapped assignment."""

LOST_BEFORE_LESS_IMPORTANT = "lost_before_less_important"
"""A claim went while a less important one in the same tier kept everything."""

_SOFT = "soft_priority"


def use(s: SourceState, c: ClaimState, e: ClaimReused | ClaimReusedAfterRestore) -> None:
    """The claim is read now; note whether it was spared since it was used last."""
    if c.open_requests <= 1:  # Any other request of the claim holds its blocks while it runs.
        note_spared(s, c)
    c.held_seq = e.seq
    if c.predicate is not None and c.predicate.holds(clean(e.reused_pos), c.object_blocks):
        c.used_seq = e.seq


def note_spared(s: SourceState, c: ClaimState) -> None:
    """Note when something went from the claim's tier that was stored after the claim had been used last.

    A cache that only looks at recency, or at age, would have chosen the claim; that older blocks went shows nothing.
    """
    stored, evicted = s.evicted.get(c.primary_tier, (-1, -1))
    if stored > c.held_seq:
        c.spared_seq = evicted


def note_trials(s: SourceState) -> None:
    """Count what the losses of one block event say about preference, by what was left at that moment.

    Only soft claims of the same (source, epoch) and tier are compared, and only while all that their predicates need
    is left; what went in the same event was not left, and what a request holds could not have gone instead. One event
    is one trial at most, and so is one content, however many claims need it: a loss in the wrong order comes first, and
    otherwise a claim is passed over that shared a block with the loser of an earlier trial. Cost: one look at every
    open claim for each loss, and at those that share its blocks for a trial.
    """
    losses, s.fresh_losses = s.fresh_losses, []
    words: dict[str, ClaimState] = {}
    for c in losses:
        if c.traits is not None and c.traits.name == _SOFT and not c.lost_blurred:
            word = _word_of(s, c)
            if word == LOST_BEFORE_LESS_IMPORTANT or (word is not None and not c.tried):
                words.setdefault(word, c)
    if not words:
        return
    word = LOST_BEFORE_LESS_IMPORTANT if LOST_BEFORE_LESS_IMPORTANT in words else next(iter(words))
    words[word].count(word)
    for block_hash in words[word].needed_hashes:
        for d in s.blocks.watchers.get(block_hash, ()):
            d.tried = True


def _word_of(s: SourceState, c: ClaimState) -> str | None:
    """Return what the loss of a claim shows, or None when there was no other victim or recency is not told.

    A claim that needs nothing but blocks of the lost one is no other victim: of one object the end goes first.
    """
    blocks = frozenset(c.needed_hashes)
    kept = [
        d
        for d in s.claims.values()
        if d is not c
        and d.traits is c.traits
        and d.priority != c.priority
        and IS_OPEN[d.state]
        and not d.open_requests
        and d.primary_tier == c.primary_tier
        and _is_left(s, d)
        and not blocks.issuperset(d.needed_hashes)
    ]
    if any(d.priority < c.priority for d in kept):
        return LOST_BEFORE_LESS_IMPORTANT
    if kept and c.held_seq < min(d.used_seq for d in kept):
        return LOST_WHILE_OLDER
    if kept and c.used_seq > max(d.held_seq for d in kept):
        return LOST_WHILE_NEWER
    return None


def _is_left(s: SourceState, c: ClaimState) -> bool:
    """Tell whether all that the claim needs is certainly left in its tier, where it could go."""
    if c.materialized_seq < 0 or c.lost_seq >= 0 or c.lost_blurred:
        return False
    return c.primary_loss_seq < 0 or all(s.blocks.in_tier(h, c.primary_tier) for h in c.needed_hashes)
