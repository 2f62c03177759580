"""Block events: copies that appear and go, and the claims that lose something when one goes."""

from __future__ import annotations

from residentkv.audit.copies import ANONYMOUS, Slot
from residentkv.audit.rules import offload
from residentkv.audit.state import ClaimState, SourceState
from residentkv.audit.table import RESTORATION_FAILED
from residentkv.trace.events import BlockRemoved, BlockStored


def on_stored(s: SourceState, e: BlockStored) -> None:
    """New copies."""
    s.block_events += 1
    blocks = s.blocks
    copies, slots, watchers = blocks.copies, blocks.slots, blocks.watchers
    tier = e.tier
    if len(e.block_ids) != len(e.block_hashes):
        if e.block_ids:
            s.find(
                offload.BLOCK_COPIES_UNCLEAR,
                None,
                (e.seq,),
                f"{s.at(e)} names {len(e.block_hashes)} blocks and {len(e.block_ids)} places.",
            )
        for block_hash in e.block_hashes:
            key = (tier, block_hash)
            blocks.anonymous[key] = blocks.anonymous.get(key, 0) + 1
            copies.setdefault(block_hash, set()).add((tier, ANONYMOUS))
            if block_hash in watchers:
                _seen(watchers[block_hash], block_hash)
        return
    for block_hash, block_id in zip(e.block_hashes, e.block_ids, strict=True):
        slot = (tier, block_id)
        if slot in slots:
            old = slots[slot]
            s.find(
                offload.BLOCK_COPIES_UNCLEAR,
                None,
                (e.seq,),
                f"{s.at(e)} stores block {block_hash} in {tier} {block_id}, where {old} lies and was never removed.",
                missing="block_removed",
            )
            if old != block_hash:
                _drop(s, old, slot, e.seq)
        slots[slot] = block_hash
        have = copies.get(block_hash)
        if have is None:
            copies[block_hash] = {slot}
        else:
            have.add(slot)
        if block_hash in watchers:
            _seen(watchers[block_hash], block_hash)


def _seen(claims: list[ClaimState], block_hash: str) -> None:
    for c in claims:
        if c.unseen is not None:
            c.unseen.discard(block_hash)


def on_removed(s: SourceState, e: BlockRemoved) -> None:
    """Copies that left a tier."""
    s.block_events += 1
    blocks = s.blocks
    tier = e.tier
    if len(e.block_ids) != len(e.block_hashes):
        for block_hash in e.block_hashes:
            key = (tier, block_hash)
            left = blocks.anonymous.get(key, 0) - 1
            if left < 0:
                _unknown_copy(s, e, block_hash)
                continue
            if left:
                blocks.anonymous[key] = left
                for c in blocks.watchers.get(block_hash, ()):
                    c.lost_blurred = True
                continue
            blocks.anonymous.pop(key, None)
            _drop(s, block_hash, (tier, ANONYMOUS), e.seq)
        return
    for block_hash, block_id in zip(e.block_hashes, e.block_ids, strict=True):
        slot = (tier, block_id)
        if blocks.slots.get(slot) != block_hash:
            _unknown_copy(s, e, block_hash)
            continue
        del blocks.slots[slot]
        _drop(s, block_hash, slot, e.seq)


def _unknown_copy(s: SourceState, e: BlockRemoved, block_hash: str) -> None:
    s.find(
        offload.BLOCK_COPIES_UNCLEAR,
        None,
        (e.seq,),
        f"{s.at(e)} removes a copy of block {block_hash} from {e.tier} that was never stored there.",
        missing="block_stored",
    )


def _drop(s: SourceState, block_hash: str, slot: Slot, seq: int) -> None:
    blocks = s.blocks
    have = blocks.copies.get(block_hash)
    if have is not None:
        have.discard(slot)
        if not have:
            del blocks.copies[block_hash]
    watching = blocks.watchers.get(block_hash)
    if watching is None:
        s.evicted_seq[slot[0]] = seq
    else:
        for c in watching:
            if slot[0] == c.primary_tier:
                c.primary_loss_seq = seq
                c.primary_blurred = c.primary_blurred or slot[1] == ANONYMOUS
            if not have:
                _lose(c, slot, seq)
    if not have:
        past = blocks.past.pop(block_hash, None)
        if past is not None:
            _excused_loss(s, past, seq)


def _lose(c: ClaimState, slot: Slot, seq: int) -> None:
    if c.state == RESTORATION_FAILED or (c.cycle is not None and c.cycle.untold is not None):
        return  # A failed restoration owes an outcome of its own; the copy was in doubt already.
    if c.lost_seq < 0:
        c.lost_seq = seq
    if slot[1] == ANONYMOUS:
        c.lost_blurred = True


def _excused_loss(s: SourceState, c: ClaimState, seq: int) -> None:
    """A block went after release, expiry or demotion had excused it: that is the order which the contract asks for."""
    if c.result_index < 0:
        if c.observed is None or "release_before_loss" not in c.observed:
            c.note("release_before_loss", c.end_seq, seq)
        return
    observed = s.results[c.result_index].observed
    if s.results[c.result_index].verdict == "conforming" and "release_before_loss" not in observed:
        observed["release_before_loss"] = (c.end_seq, seq)
