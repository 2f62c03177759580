"""Block events: copies that appear and go, and the claims that lose something when one goes."""

from __future__ import annotations

from residentkv.audit.rules import offload
from residentkv.audit.state import ClaimState, SourceState
from residentkv.audit.steps.preference import note_trials
from residentkv.audit.table import RESTORATION_FAILED
from residentkv.trace.events import BlockRemoved, BlockStored


def on_stored(s: SourceState, e: BlockStored) -> None:
    """New copies."""
    s.block_events += 1
    blocks = s.blocks
    tier, hashes, ids = e.tier, e.block_hashes, e.block_ids
    watchers = blocks.watchers
    if len(ids) != len(hashes):
        _stored_somewhere(s, e)
        return
    place, since = blocks.tier(tier)
    where, seq = blocks.where, e.seq
    for block_hash, block_id in zip(hashes, ids, strict=True):
        if block_id in place:
            _overwritten(s, e, place[block_id], block_id, block_hash)
            if place[block_id] == block_hash:
                continue
        place[block_id] = block_hash
        since[block_id] = seq
        if block_hash in where:
            blocks.add(block_hash, tier)
        else:
            where[block_hash] = tier
        if block_hash in watchers:
            _seen(watchers[block_hash], block_hash, tier)


def _stored_somewhere(s: SourceState, e: BlockStored) -> None:
    """Copies without block ids, which can only be counted."""
    blocks = s.blocks
    if e.block_ids:
        _unpaired(s, e)
    for block_hash in e.block_hashes:
        key = (e.tier, block_hash)
        count = blocks.anonymous.get(key, 0)
        blocks.anonymous[key] = count + 1
        blocks.anonymous_since[key] = e.seq
        if not count:
            blocks.add(block_hash, e.tier)
        if block_hash in blocks.watchers:
            _seen(blocks.watchers[block_hash], block_hash, e.tier)


def _unpaired(s: SourceState, e: BlockStored | BlockRemoved) -> None:
    s.find(
        offload.BLOCK_COPIES_UNCLEAR,
        None,
        (e.seq,),
        f"{s.at(e)} names {len(e.block_hashes)} blocks and {len(e.block_ids)} places.",
    )


def _overwritten(s: SourceState, e: BlockStored, old: str, block_id: int, new: str) -> None:
    s.find(
        offload.BLOCK_COPIES_UNCLEAR,
        None,
        (e.seq,),
        f"{s.at(e)} stores block {new} in {e.tier} {block_id}, where {old} lies and was never removed.",
        missing="block_removed",
    )
    if old == new:
        return
    since = s.blocks.since[e.tier][block_id]
    left = s.blocks.drop(old, e.tier)
    _doubt_or_settle(s, old, e.tier, (e.tier, old) in s.blocks.anonymous)
    _gone(s, old, e.tier, e.seq, since, left, blurred=False)
    note_trials(s)


def _seen(claims: list[ClaimState], block_hash: str, tier: str) -> None:
    for c in claims:
        if c.unseen is not None and tier == c.primary_tier:
            c.unseen.discard(block_hash)


def on_removed(s: SourceState, e: BlockRemoved) -> None:
    """Copies that left a tier."""
    s.block_events += 1
    blocks = s.blocks
    tier, hashes, ids = e.tier, e.block_hashes, e.block_ids
    if len(ids) != len(hashes):
        _removed_somewhere(s, e)
        return
    place, since = blocks.tier(tier)
    where, watchers, past = blocks.where, blocks.watchers, blocks.past
    newest = -1
    for block_hash, block_id in zip(hashes, ids, strict=True):
        if place.get(block_id) != block_hash:
            _unknown_copy(s, e, block_hash)
            continue
        del place[block_id]
        stored = since.pop(block_id)
        left = type(where[block_hash]) is list
        if left:
            blocks.drop(block_hash, tier)
        else:
            del where[block_hash]
        if blocks.anonymous or blocks.doubtful:
            _doubt_or_settle(s, block_hash, tier, (tier, block_hash) in blocks.anonymous)
        if block_hash in watchers or (block_hash in past and not left):
            _gone(s, block_hash, tier, e.seq, stored, left, blurred=False)
        elif stored > newest:
            newest = stored
    if newest >= 0:
        _evicted(s, tier, newest, e.seq)
    if s.fresh_losses:
        note_trials(s)


def _removed_somewhere(s: SourceState, e: BlockRemoved) -> None:
    """Copies without block ids: whether another one is left is only known when none was counted."""
    blocks = s.blocks
    if e.block_ids:
        _unpaired(s, e)
    for block_hash in e.block_hashes:
        key = (e.tier, block_hash)
        count = blocks.anonymous.get(key, 0)
        if not count:
            _unknown_copy(s, e, block_hash)
        elif count > 1:
            blocks.anonymous[key] = count - 1
            _doubt_or_settle(s, block_hash, e.tier, True)
        else:
            del blocks.anonymous[key]
            since = blocks.anonymous_since.pop(key)
            left = blocks.drop(block_hash, e.tier)
            _doubt_or_settle(s, block_hash, e.tier, True)
            _gone(s, block_hash, e.tier, e.seq, since, left, blurred=True)
    if s.fresh_losses:
        note_trials(s)


def _doubt_or_settle(s: SourceState, block_hash: str, tier: str, counted: bool) -> None:
    """After a removal: copies of which one has no place cannot be told apart, so any that is left is in doubt."""
    blocks = s.blocks
    if counted and blocks.in_tier(block_hash, tier):
        blocks.doubt(block_hash, tier)
        for c in blocks.watchers.get(block_hash, ()):
            c.lost_blurred = True
    else:
        blocks.settle(block_hash, tier)


def _unknown_copy(s: SourceState, e: BlockRemoved, block_hash: str) -> None:
    s.find(
        offload.BLOCK_COPIES_UNCLEAR,
        None,
        (e.seq,),
        f"{s.at(e)} removes a copy of block {block_hash} from {e.tier} that was never stored there.",
        missing="block_stored",
    )


def _evicted(s: SourceState, tier: str, stored: int, seq: int) -> None:
    """A copy that no claim needs went; of all of them the one counts that was stored last."""
    if stored > s.evicted.get(tier, (-1, -1))[0]:
        s.evicted[tier] = (stored, seq)


def _gone(s: SourceState, block_hash: str, tier: str, seq: int, stored: int, left: bool, *, blurred: bool) -> None:
    """One copy went, stored at `stored`; `left` tells whether another one is somewhere."""
    blocks = s.blocks
    watching = blocks.watchers.get(block_hash)
    if watching is None:
        _evicted(s, tier, stored, seq)
    else:
        for c in watching:
            if tier == c.primary_tier:
                c.primary_loss_seq = seq
                c.primary_blurred = c.primary_blurred or blurred
            if not left:
                if c.gone is None:
                    c.gone = set()
                c.gone.add(block_hash)
                _lose(s, c, seq, blurred)
    if not left:
        past = blocks.past.pop(block_hash, None)
        if past is not None:
            _excused_loss(s, past, seq)


def _lose(s: SourceState, c: ClaimState, seq: int, blurred: bool) -> None:
    if c.state == RESTORATION_FAILED or (c.cycle is not None and c.cycle.untold is not None):
        c.suspended_loss_seq = seq
        return  # A failed restoration owes an outcome of its own; the copy was in doubt already.
    if c.lost_seq < 0:
        c.lost_seq = seq
        s.fresh_losses.append(c)
    c.lost_blurred = c.lost_blurred or blurred


def _excused_loss(s: SourceState, c: ClaimState, seq: int) -> None:
    """A block went after release, expiry or demotion had excused it: that is the order which the contract asks for."""
    if c.result_index < 0:
        if c.observed is None or "release_before_loss" not in c.observed:
            c.note("release_before_loss", c.end_seq, seq)
        return
    result = s.results[c.result_index]
    if result.verdict == "conforming" and "release_before_loss" not in result.observed:
        result.observed["release_before_loss"] = (c.end_seq, seq)
