"""The door: a request gets blocks only beside what claims protect, or it is refused by name, or waits a bounded time.

No vLLM here. A request stands before the door from its arrival until it is let in; the engine's own queue holds only
requests that were let in, so one that waits for claims is in nobody's way. While no claim protects anything, the door
asks for what vLLM itself asks: room for the prompt. Otherwise it asks for all that the request can need until it ends.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol

import msgspec

from residentkv.claims.arbiter import Action, Relief, RequestDecision
from residentkv.claims.ledger import ClaimRecord, Key
from residentkv.claims.lifecycle import State
from residentkv.claims.modes import Mode
from residentkv.runtimes.vllm.active import Refusal, RequestTrack
from residentkv.runtimes.vllm.claimbook import ClaimBook
from residentkv.runtimes.vllm.claimtrack import ClaimTrack
from residentkv.trace import events as ev

LOOK_AGAIN_NS = 250_000_000
"""How long a request that waits for claims is passed over while there is no more room than when it was looked at."""


class PrimaryView(Protocol):
    """The primary tier as far as admission looks at it; see `primary.PrimaryTier`."""

    usable_blocks: int

    def find(self, block_hash: bytes) -> int | None:
        """Return the block that would be found."""

    def used_blocks(self) -> int:
        """Return how many blocks requests and pins reference."""

    def pinned_blocks(self) -> int:
        """Return how many blocks are pinned."""

    def is_pinned(self, block_id: int) -> bool:
        """Tell whether a claim pins the block."""

    def users(self, block_id: int) -> int:
        """Return how many requests use the block."""

    def allocated(self, request_id: str) -> Sequence[int]:
        """Return the blocks of a request."""

    def count_allocated(self, request_id: str) -> int:
        """Return how many blocks a request has."""

    def settle(self) -> None:
        """Give back what was unpinned."""


class Standing(msgspec.Struct, kw_only=True, eq=False):
    """A request before the door; `rank` orders them.

    `looked` tells whether it was decided about at all; `seen` and `seen_ns` how things stood when it was last deferred,
    and when that was.
    """

    r: RequestTrack
    rank: tuple[Any, ...]
    looked: bool = False
    deferred_until_ns: int | None = None
    seen: tuple[int, int, int] | None = None
    seen_ns: int = 0
    actions: list[str] = msgspec.field(default_factory=list)


class Door:
    """Decides who comes in; every decision is told with the numbers that it used.

    Args:
        checks: False turns the mechanism off, for negative proofs: everybody is let in.
    """

    def __init__(self, book: ClaimBook, primary: PrimaryView, *, checks: bool = True) -> None:
        self.book = book
        self.primary = primary
        self._checks = checks
        self.stands_open = False
        """Nobody is weighed: no claim is ever accepted here, and what a request needs in this layout is not known."""
        self._before: dict[str, Standing] = {}
        self._inside: dict[str, RequestTrack] = {}
        self._storing: dict[str, RequestTrack] = {}
        self._arrivals = 0
        self._active: int | None = None
        self._promised: int | None = None

    # --- who is where ---

    def arrive(self, r: RequestTrack, rank: tuple[Any, ...] = ()) -> None:
        """A request stands before the door; lower ranks come first, then those who came first."""
        if self.stands_open:
            return
        self._arrivals += 1
        self._before[r.request_id] = Standing(r=r, rank=(*rank, self._arrivals))

    def leave(self, request_id: str) -> None:
        """The request is over; what it computed may still be on its way to the second tier."""
        self._before.pop(request_id, None)
        r = self._inside.pop(request_id, None)
        if r is not None:
            self._storing[request_id] = r

    def forget(self, request_id: str) -> None:
        """Nothing of the request is under way any more."""
        self._storing.pop(request_id, None)

    def holds(self, request_id: str) -> bool:
        """Tell whether the request stands before the door."""
        return request_id in self._before

    def next_deadline_ns(self) -> int | None:
        """Return when the next request that waits for claims has to be refused, or None."""
        return min(
            (s.deferred_until_ns for s in self._before.values() if s.deferred_until_ns is not None), default=None
        )

    # --- numbers ---

    def active_blocks(self) -> int:
        """Return what requests that were let in hold or may still need, beyond what claims protect."""
        primary = self.primary
        active = primary.used_blocks() - primary.pinned_blocks()
        for r in self._inside.values():
            active += max(r.total_blocks - primary.count_allocated(r.request_id), 0)
        return max(active - self._counted_as_protected(), 0)

    def _active_now(self) -> int:
        """Return `active_blocks`, counted once until somebody comes in or a claim gives up its room."""
        if self._active is None:
            self._active = self.active_blocks()
        return self._active

    def _promised_now(self) -> int:
        """Return what the prompts of those need who were let in and have no block yet, counted once a step."""
        if self._promised is None:
            have = self.primary.count_allocated
            self._promised = sum(r.start_blocks for r in self._inside.values() if not have(r.request_id))
        return self._promised

    def _counted_as_protected(self) -> int:
        """Blocks of requests inside whose claim has reserved them and not yet pinned them."""
        total = 0
        seen: set[Key] = set()
        for r in self._inside.values():
            track = r.claim
            if track is None or not _reserves_ahead(track) or track.claim.key in seen:
                continue
            seen.add(track.claim.key)
            have = self.primary.allocated(r.request_id)
            start, end = track.needed()
            total += sum(1 for p in range(start, end) if p >= len(have) or not self.primary.is_pinned(have[p]))
        return total

    def may_take_blocks(self, step_blocks: int) -> int:
        """Return how many blocks a step can hand out at most, when it computes no more than `step_blocks` of them."""
        ever = step = 0
        for r in self._inside.values():
            have = self.primary.count_allocated(r.request_id)
            ever += max(r.total_blocks - have, 0)
            step += 1 if have else r.start_blocks + 1
        return min(ever, step_blocks + step)

    def active_beside(self, hashes: Collection[bytes]) -> int:
        """Return the active blocks without those that a new claim on these contents would cover."""
        primary = self.primary
        shared = 0
        for block_hash in hashes:
            block_id = primary.find(block_hash)
            if block_id is not None and primary.users(block_id) > 0 and not primary.is_pinned(block_id):
                shared += 1
        return max(self.active_blocks() - shared, 0)

    def _hits(self, r: RequestTrack) -> list[int]:
        out = []
        for block_hash in r.hashes:
            block_id = self.primary.find(block_hash)
            if block_id is None:
                break
            out.append(block_id)
        return out

    def _need(self, r: RequestTrack, hits: Sequence[int], total_blocks: int) -> int:
        """Count the blocks that the request adds: not those in use or protected, nor those its own claim reserved."""
        primary = self.primary
        counted = {p for p, i in enumerate(hits) if primary.is_pinned(i) or primary.users(i) > 0}
        if r.claim is not None and _reserves_ahead(r.claim):
            counted.update(range(*r.claim.needed()))
        return total_blocks - len(counted)

    # --- decisions ---

    def step(self) -> tuple[list[str], list[str]]:
        """Decide about everybody before the door; return who was let in and who was refused, in order."""
        log = self.book.log
        with log.at(log.now_ns()):  # No term ends between a decision and the event that tells it.
            self.book.expire_due()
            self.primary.settle()
            return self._step()

    def _step(self) -> tuple[list[str], list[str]]:
        admitted: list[str] = []
        refused: list[str] = []
        self._active = self._promised = None
        behind = False  # Somebody waits for active work: nobody overtakes, but whom claims turn away is told so.
        for s in sorted(self._before.values(), key=lambda s: s.rank):
            if behind and s.looked and s.deferred_until_ns is None:
                continue
            if s.deferred_until_ns is not None and self._as_before(s):
                continue
            action = self._decide(s, behind)
            s.looked = True
            if action is Action.ADMIT:
                admitted.append(s.r.request_id)
                del self._before[s.r.request_id]
                self._inside[s.r.request_id] = s.r
                self._active = None
                if self._promised is not None:
                    self._promised += s.r.start_blocks
            elif action is Action.PRESERVE_AND_REFUSE:
                refused.append(s.r.request_id)
                del self._before[s.r.request_id]
            elif action is Action.WAIT:
                behind = True
        return admitted, refused

    def _as_before(self, s: Standing) -> bool:
        """Tell whether a request that waits for claims has no better prospects than when it was last looked at.

        To find what it shares with others costs a look at each of its blocks, in every step, at everybody's expense.
        """
        now_ns = self.book.log.now_ns()
        protected = self.book.ledger.protected_blocks
        now = (self.primary.usable_blocks - protected - self._active_now(), -protected, -len(self._inside))
        patient = now_ns < min(s.deferred_until_ns or 0, s.seen_ns + LOOK_AGAIN_NS)
        if patient and s.seen is not None and all(a <= b for a, b in zip(now, s.seen, strict=True)):
            return True
        s.seen, s.seen_ns = now, now_ns
        return False

    def _decide(self, s: Standing, behind: bool) -> Action:
        if not self._checks:
            self._tell_admitted(s, s.r.total_blocks - len(self._hits(s.r)), self.active_blocks())
            return Action.ADMIT
        overdue = s.deferred_until_ns is not None and self.book.log.now_ns() >= s.deferred_until_ns
        behind = behind and not overdue
        if not self.book.ledger.protected_blocks:
            action = Action.WAIT if behind else self._decide_unprotected(s)
            return self._turn_away(s, self._ask(s.r)[0]) if overdue and action is Action.WAIT else action
        while True:
            decision, busy = self._ask(s.r)
            if decision.action is Action.WAIT or self._room_is_coming(decision, busy):
                return self._turn_away(s, decision) if overdue else Action.WAIT
            if decision.action is not Action.ADMIT:
                return self._turn_away(s, decision)
            if behind:
                return Action.WAIT
            if not decision.relief:
                self._tell_admitted(s, decision.need_blocks, decision.active_blocks)
                return Action.ADMIT
            self._relieve(s, decision)

    def _decide_unprotected(self, s: Standing) -> Action:
        """As vLLM would: room for the prompt beside what is in use now and what was promised to others."""
        primary, r = self.primary, s.r
        active = primary.used_blocks() - primary.pinned_blocks() + self._promised_now()
        need = r.start_blocks
        if active + need > primary.usable_blocks:
            need = self._need(r, self._hits(r), r.start_blocks)
            if active + need > primary.usable_blocks:
                return Action.WAIT
        self._tell_admitted(s, need, active)
        return Action.ADMIT

    def _ask(self, r: RequestTrack) -> tuple[RequestDecision, frozenset[Key]]:
        """Return the arbiter's decision, and the claims that cannot give up their room now."""
        book, primary = self.book, self.primary
        hits = self._hits(r)
        need = self._need(r, hits, r.total_blocks)
        active = self._active_now()
        own: frozenset[Key] = frozenset()
        busy: frozenset[Key] = frozenset()
        if book.ledger.protected_blocks + active + need > primary.usable_blocks:
            own = book.holders_of(hits) | (frozenset() if r.claim is None else {r.claim.claim.key})
            busy = self._in_use() | self._stuck()
        decision = book.arbiter.decide_request(
            need,
            active_blocks=active,
            now_ns=book.log.now_ns(),
            own=own,
            busy=busy,
            reused_blocks=sum(1 for i in hits if primary.is_pinned(i)),
        )
        return decision, busy - own

    def _in_use(self) -> frozenset[Key]:
        """Return the claims whose blocks requests inside use, or are going to fill."""
        pinned = self.book.holders_of([i for r in self._inside for i in self.primary.allocated(r)])
        return pinned | {r.claim.claim.key for r in self._inside.values() if r.claim and _reserves_ahead(r.claim)}

    def _served(self) -> set[Key]:
        """Return the claims whose requests are inside or whose copies they made may still be under way."""
        return {r.claim.claim.key for group in (self._inside, self._storing) for r in group.values() if r.claim}

    def _stuck(self) -> frozenset[Key]:
        """Return the claims that wait for a copy in the second tier which nobody makes now."""
        served = self._served()
        return frozenset(
            record.claim.key
            for record in self.book.ledger.holders_of(Mode.OFFLOADABLE)
            if record.state is State.MATERIALIZED and record.claim.key not in served
        )

    def _room_is_coming(self, decision: RequestDecision, busy: frozenset[Key]) -> bool:
        """Tell whether what is under way will make the room: copies to the second tier, which end well or by name, and
        requests inside that use demotable claims."""
        reliefs, ledger = self.book.arbiter.policy.reliefs, self.book.ledger
        if decision.action is Action.ADMIT:
            return any(what is Relief.OFFLOAD for what, _ in decision.relief)
        if not decision.blocking:  # Larger than the whole tier.
            return False
        coming = 0
        if Relief.OFFLOAD in reliefs and ledger.protected_blocks_of(Mode.OFFLOADABLE):
            served = self._served()
            coming += sum(
                record.protected_blocks()
                for record in ledger.holders_of(Mode.OFFLOADABLE)
                if record.claim.key in served
            )
        if Relief.DEMOTE in reliefs and ledger.protected_blocks_of(Mode.DEMOTABLE):
            coming += sum(
                record.protected_blocks() for record in ledger.holders_of(Mode.DEMOTABLE) if record.claim.key in busy
            )
        return coming >= decision.shortfall_blocks

    def _relieve(self, s: Standing, decision: RequestDecision) -> None:
        """Have claims give up their room, each told before it loses anything."""
        book = self.book
        for what, record in decision.relief:
            track = book.track_of(record)
            if what is Relief.EXPIRE:
                book.expire(track, book.log.now_ns())
            else:
                book.demote(track, "capacity", s.r.request_id)
            s.actions.append(f"{what.value}:{record.claim.claim_id}")
        self._active = None
        self.primary.settle()

    def _turn_away(self, s: Standing, decision: RequestDecision) -> Action:
        """Refuse, or defer until a deadline that holds whatever stands in the way by then."""
        book, r = self.book, s.r
        now_ns = book.log.now_ns()
        blocking = decision.blocking or book.ledger.holders_except(frozenset())
        if decision.reason == "exceeds_capacity":
            blocking = ()
        shortfall = decision.protected_blocks + decision.active_blocks + decision.need_blocks - decision.usable_blocks
        names = tuple(dict.fromkeys(record.claim.claim_id for record in blocking))
        reason = decision.reason
        numbers = {
            "need_blocks": decision.need_blocks,
            "protected_blocks": decision.protected_blocks,
            "active_blocks": decision.active_blocks,
            "usable_blocks": decision.usable_blocks,
            "shortfall_blocks": shortfall,
            "blocking_claim_ids": names,
        }
        if s.deferred_until_ns is not None and now_ns >= s.deferred_until_ns:
            reason = "deferral_deadline"
        elif decision.action is Action.PRESERVE_AND_DEFER:
            if s.deferred_until_ns is None:
                s.deferred_until_ns = now_ns + round(decision.defer_s * 1e9)
                book.log.emit(ev.RequestDeferred, request_id=r.request_id, deadline_ns=s.deferred_until_ns, **numbers)
            return Action.PRESERVE_AND_DEFER
        r.refusal = Refusal(
            reason=reason,
            blockers=tuple(record.claim.key for record in blocking),
            need_blocks=decision.need_blocks,
            shortfall_blocks=shortfall,
            retry_after_s=_retry_after_s(blocking, shortfall, now_ns),
        )
        book.log.emit(ev.RequestRefused, request_id=r.request_id, reason=reason, outcome_claim_id=None, **numbers)
        return Action.PRESERVE_AND_REFUSE

    def _tell_admitted(self, s: Standing, need_blocks: int, active_blocks: int) -> None:
        self.book.log.emit(
            ev.RequestAdmitted,
            request_id=s.r.request_id,
            need_blocks=need_blocks,
            protected_blocks=self.book.ledger.protected_blocks,
            active_blocks=active_blocks,
            usable_blocks=self.primary.usable_blocks,
            actions=tuple(s.actions),
        )


def _reserves_ahead(track: ClaimTrack) -> bool:
    """Tell whether the claim has blocks reserved that are not materialized, and so not pinned."""
    return track.record.state is State.ACCEPTED and track.record.protected_blocks() > 0


def _retry_after_s(blocking: Sequence[ClaimRecord], shortfall_blocks: int, now_ns: int) -> float | None:
    """Return when the terms of enough blocking claims will have ended; None when some have no term."""
    freed = 0
    for deadline_ns, blocks in sorted(
        (r.deadline_ns, r.protected_blocks()) for r in blocking if r.deadline_ns is not None
    ):
        freed += blocks
        if freed >= shortfall_blocks:
            return max(deadline_ns - now_ns, 0) / 1e9
    return None
