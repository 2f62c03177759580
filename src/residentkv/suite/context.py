"""What has to be known of a trace to say why a change of it matters or not."""

from __future__ import annotations

from residentkv.audit.evidence import MIN_TRIALS
from residentkv.claims.modes import RESERVES, Mode
from residentkv.claims.predicates import parse_predicate
from residentkv.suite.mutate import Trace
from residentkv.trace import events as ev

Key = tuple[str, str]

ENDINGS = (ev.ClaimReleased, ev.ClaimExpired, ev.ClaimDemoted, ev.ClaimHarmed, ev.ClaimRejected)


class Context:
    """Joins of one conforming trace: requests to claims, claims to blocks, and where each ends (indices)."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self._claim_of: dict[str, Key | None] = {}
        self._init_at: dict[str, int] = {}
        self._end_at: dict[Key, int] = {}
        self._blocks_of: dict[Key, frozenset[str]] = {}
        self._modes: dict[Key, list[tuple[int, Mode]]] = {}
        self._hashes_of: dict[Key, tuple[str, ...]] = {}
        self._freed_seq: dict[Key, int] = {}
        for at, e in enumerate(trace):
            if isinstance(e, ev.RequestInitialized):
                self._claim_of[e.request_id] = (e.owner_scope or "", e.claim_id) if e.claim_id else None
                self._init_at[e.request_id] = at
            elif isinstance(e, ENDINGS):
                self._end_at[e.owner_scope, e.claim_id] = at
            elif isinstance(e, ev.ClaimMaterialized) and e.block_hashes:
                self._hashes_of[e.owner_scope, e.claim_id] = e.block_hashes
                self._blocks_of[e.owner_scope, e.claim_id] = frozenset(e.block_hashes[p] for p in self.needed_pos(e))
            elif isinstance(e, ev.ClaimAccepted):
                self._modes.setdefault((e.owner_scope, e.claim_id), []).append((at, Mode(e.mode)))
            elif isinstance(e, ev.ClaimOffloaded):
                self._freed_seq.setdefault((e.owner_scope, e.claim_id), e.seq)

    def claim_of(self, request_id: str) -> Key | None:
        """Return the claim that a request named when it came in."""
        return self._claim_of.get(request_id)

    def mode_of(self, key: Key | None, at: int) -> Mode | None:
        """Return the mode in which a claim of this name was accepted last at this index, or else first after it."""
        found: Mode | None = None
        for index, mode in self._modes.get(key, ()) if key is not None else ():
            if found is None or index <= at:
                found = mode
        return found

    def is_open(self, request_id: str, at: int) -> bool:
        """Tell whether a request had come in and not ended at this index."""
        init_at = self._init_at.get(request_id)
        if init_at is None or init_at > at:
            return False
        return not any(
            isinstance(e, ev.RequestTerminated) and e.request_id == request_id for e in self.trace[init_at:at]
        )

    def is_unclaimed(self, e: ev.RequestEvent) -> bool:
        """Tell whether no promise was open for the request when it came in."""
        key = self.claim_of(e.request_id)
        if key is None:
            return True
        ended = self._end_at.get(key)
        if ended is None:
            return False
        return ended < self._init_at[e.request_id] or isinstance(self.trace[ended], ev.ClaimRejected)

    def has_open_claim(self, request_id: str, at: int) -> bool:
        """Tell whether the request named a claim that has not ended at this index."""
        key = self.claim_of(request_id)
        return key is not None and self._end_at.get(key, at) >= at

    def acts_for_claim(self, request_id: str) -> bool:
        """Tell whether anything happened to a claim, or moved in its name, for a request."""
        return any(
            not isinstance(e, ev.RequestInitialized)
            and getattr(e, "request_id", None) == request_id
            and getattr(e, "claim_id", None) is not None
            for e in self.trace
        )

    def goes_on(self, at: int) -> bool:
        """Tell whether an engine works on after this index: it takes a request or a claim, moves blocks, or answers."""
        e = self.trace[at]
        kinds = ev.RequestInitialized | ev.RequestAdmitted | ev.ClaimAccepted | ev.JobCreated
        return any(
            (isinstance(f, kinds) or (isinstance(f, ev.RequestTerminated) and f.finish_status in ("stopped", "length")))
            and (f.source, f.epoch) == (e.source, e.epoch)
            for f in self.trace[at + 1 :]
        )

    def was_turned_away(self, request_id: str) -> bool:
        """Tell whether a request was refused for capacity and never admitted."""
        mine = [f for f in self.trace if getattr(f, "request_id", None) == request_id]
        refused = any(isinstance(f, ev.RequestRefused) and f.outcome_claim_id is None for f in mine)
        return refused and not any(isinstance(f, ev.RequestAdmitted) for f in mine)

    def is_read_after(self, e: ev.ClaimEvent) -> bool:
        """Tell whether the claim is reused, offloaded, or required from its tier, after an event of it."""
        kinds = ev.ClaimReused | ev.ClaimOffloaded | ev.ClaimRestoreRequired
        later = (f for f in self.trace if f.seq > e.seq and (f.source, f.epoch) == (e.source, e.epoch))
        return any(isinstance(f, kinds) and same_claim(e, f) for f in later)

    def reports_blocks(self, e: ev.Event) -> bool:
        """Tell whether the source of an event tells which blocks come and go."""
        return any(isinstance(f, ev.BlockStored | ev.BlockRemoved) and f.source == e.source for f in self.trace)

    def is_compared(self, e: ev.ClaimAccepted, priority: int) -> bool:
        """Tell whether the claim, with this priority, would stand otherwise to one in whose experiment it had a part.

        That is a soft claim that was open together with it, when one of the two was lost, and losses are enough.
        """
        if e.mode != Mode.SOFT_PRIORITY:
            return False
        soft = [
            (f, self._end_of(f))
            for f in self.trace
            if isinstance(f, ev.ClaimAccepted) and f.mode == e.mode and (f.source, f.epoch) == (e.source, e.epoch)
        ]
        if sum(isinstance(end, ev.ClaimHarmed) for _, end in soft) < 2 * MIN_TRIALS:
            return False
        mine = self._end_of(e)
        return any(
            _order(e.priority, f.priority) != _order(priority, f.priority)
            and (end is None or e.seq < end.seq)
            and (mine is None or f.seq < mine.seq)
            and (isinstance(end, ev.ClaimHarmed) or isinstance(mine, ev.ClaimHarmed))
            for f, end in soft
            if f is not e
        )

    def _end_of(self, e: ev.ClaimAccepted) -> ev.Event | None:
        """Return the end of the claim that is accepted here."""
        later = (f for f in self.trace if f.seq > e.seq and (f.source, f.epoch) == (e.source, e.epoch))
        return next((f for f in later if isinstance(f, ENDINGS) and same_claim(e, f)), None)

    def failed_restoration(self, claim: ev.ClaimEvent) -> bool:
        """Tell whether a restoration of the claim failed for good."""
        return any(
            isinstance(e, ev.SchedulerRestorationFailed) and same_claim(e, claim) and e.failure_policy != "retry"
            for e in self.trace
        )

    def renewed_after(self, e: ev.ClaimEvent) -> bool:
        """Tell whether a renewal of the claim follows an event."""
        return any(isinstance(f, ev.ClaimRenewed) and same_claim(e, f) and f.seq > e.seq for f in self.trace)

    def is_used_after(self, e: ev.ClaimRouteBound) -> bool:
        """Tell whether the claim was read, or a request of it routed, after it was bound."""
        kinds = ev.ClaimRouteOutcome | ev.ClaimReused
        return any(isinstance(f, kinds) and same_claim(e, f) and f.seq > e.seq for f in self.trace)

    def failed_by_scheduler(self, e: ev.ClaimRestorationFailed) -> bool:
        """Tell whether the scheduler says of the same claim and job that the restoration failed."""
        return any(
            isinstance(f, ev.SchedulerRestorationFailed) and same_claim(e, f) and f.job_id == e.job_id
            for f in self.trace
        )

    def needs_lookup(self, e: ev.LookupResult) -> bool:
        """Tell whether a restoration that is required later rests on this answer of the tier alone."""
        later = self.trace[self.trace.index(e) :]
        required = any(isinstance(f, ev.ClaimRestoreRequired) and f.request_id == e.request_id for f in later)
        same = [f for f in self.trace if isinstance(f, ev.LookupResult) and f.request_id == e.request_id]
        return required and not any(f is not e and f.hit_pos == e.hit_pos and f.tier == e.tier for f in same)

    def needed_pos(self, e: ev.ClaimMaterialized) -> range:
        """Return the positions that the predicate of a claim needs."""
        start, count = parse_predicate(e.predicate).needed(e.object_blocks)
        return range(start, start + count)

    def needs(self, key: Key, block_hash: str) -> bool:
        """Tell whether a claim needs a block."""
        return block_hash in self._blocks_of.get(key, frozenset())

    def is_needed(self, block_hash: str) -> bool:
        """Tell whether any claim needs the block."""
        return any(block_hash in blocks for blocks in self._blocks_of.values())

    def is_needed_after(self, block_hash: str, tier: str, at: int) -> bool:
        """Tell whether a claim that has not ended yet at this index needs the block.

        A claim that promises nothing about its blocks needs one in a tier where it is read later.
        """
        return any(
            block_hash in blocks
            and self._end_at.get(key, at) > at
            and (self.mode_of(key, at) != Mode.BEST_EFFORT or self._is_read_in(key, block_hash, tier, at))
            for key, blocks in self._blocks_of.items()
        )

    def _is_read_in(self, key: Key, block_hash: str, tier: str, at: int) -> bool:
        places = [p for p, content in enumerate(self._hashes_of[key]) if content == block_hash]
        return any(
            isinstance(e, ev.ClaimReused)
            and e.tier == tier
            and (e.owner_scope, e.claim_id) == key
            and any(lo <= p < hi for lo, hi in e.reused_pos for p in places)
            for e in self.trace[at + 1 :]
        )

    def is_named_after(self, tier: str, at: int) -> bool:
        """Tell whether a claim that has not ended yet at this index is said to be in a tier, or read there."""
        return any(
            isinstance(e, ev.ClaimEvent)
            and tier in (getattr(e, "tier", None), getattr(e, "tier_to", None))
            and self._end_at.get((e.owner_scope, e.claim_id), at) > at
            for e in self.trace
        )

    def rests_on(self, block_hash: str, tier: str, block_id: int, at: int) -> bool:
        """Tell whether an open claim needs the block, and no other copy of it lives from before until the end."""
        if not self.is_needed_after(block_hash, tier, at):
            return False
        others = (
            (n, e.tier, place)
            for n, e in enumerate(self.trace[:at])
            if isinstance(e, ev.BlockStored)
            for content, place in copies_of(e)
            if content == block_hash and (e.tier, place) != (tier, block_id)
        )
        return all(self.is_removed_after(block_hash, where, place, n) for n, where, place in others)

    def is_removed_after(self, block_hash: str, tier: str, block_id: int, at: int) -> bool:
        """Tell whether this copy is removed later."""
        return any(
            isinstance(e, ev.BlockRemoved) and e.tier == tier and (block_hash, block_id) in copies_of(e)
            for e in self.trace[at + 1 :]
        )

    def is_stored_after(self, tier: str, block_id: int, at: int) -> bool:
        """Tell whether the place of a copy is filled again later."""
        return any(
            isinstance(e, ev.BlockStored) and e.tier == tier and block_id in e.block_ids for e in self.trace[at + 1 :]
        )

    def reserves(self, key: Key, seq: int) -> bool:
        """Tell whether a claim counts in the protected blocks until this event: not once its copies are offloaded."""
        return self.mode_of(key, len(self.trace)) in RESERVES and self._freed_seq.get(key, seq) >= seq


def _order(a: int, b: int) -> int:
    return (a > b) - (a < b)


def copies_of(e: ev.BlockStored | ev.BlockRemoved) -> tuple[tuple[str, int], ...]:
    """Return (content, place) of the copies of a block event; the place is -1 where the event does not tell them."""
    if len(e.block_ids) != len(e.block_hashes):
        return tuple((block_hash, -1) for block_hash in e.block_hashes)
    return tuple(zip(e.block_hashes, e.block_ids, strict=True))


def same_claim(a: ev.ClaimEvent, b: ev.ClaimEvent) -> bool:
    """Tell whether two events are about one claim."""
    return (a.owner_scope, a.claim_id) == (b.owner_scope, b.claim_id)
