"""The claims of one engine incarnation with the sums and orders that an admission decision needs.

Every change costs a binary search and the shift of a sorted list; no decision has to look at all claims.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from operator import attrgetter

import msgspec

from residentkv.claims.lifecycle import (
    OPEN,
    TERMINAL,
    AlreadyEnded,
    IllegalTransition,
    NotAccepted,
    State,
    Step,
    advance,
)
from residentkv.claims.model import ResidentClaim
from residentkv.claims.modes import HOLDS_PRIMARY, Mode
from residentkv.errors import ResidentKVError

Key = tuple[str, str]


class ClaimRecord(msgspec.Struct, kw_only=True):
    """A claim, where it stands and what it holds; changed only through `ClaimLedger`.

    `held` numbers the holders in the order in which they began to protect blocks; 0 protects none.
    """

    claim: ResidentClaim
    mode: Mode
    state: State = State.SUBMITTED
    order: int = 0
    generation: int = 0
    deadline_ns: int | None = None
    revision: int = 0
    held: int = 0

    def protected_blocks(self) -> int:
        """Return the primary-tier blocks that nobody may take now.

        From acceptance on the footprint is reserved, so that what was accepted can also be materialized. An
        `offloadable` claim is protected only until its copy in the offload tier is complete.
        """
        if self.state not in OPEN:
            return 0
        if self.mode in HOLDS_PRIMARY:
            return self.claim.footprint_blocks
        if self.mode is Mode.OFFLOADABLE and self.state in (State.ACCEPTED, State.MATERIALIZED):
            return self.claim.footprint_blocks
        return 0


class ClaimKeyInUse(ResidentKVError, ValueError):
    """The owner has a claim of this name that has not ended yet."""


class ClaimNotEnded(ResidentKVError, ValueError):
    """Only a claim that has its outcome may be forgotten."""


class StaleRevision(ResidentKVError, ValueError):
    """A renewal must carry a higher revision than the last one; this one is old or was sent twice."""


_Ranks = list[tuple[int, int, ClaimRecord]]
"""Sorted by (rank, order of submission); the order is unique, so that records themselves are never compared."""


class ClaimLedger:
    """All claims of one engine incarnation; every change goes through it, and states obey the lifecycle.

    `protected_blocks` is the sum of the footprints of all claims that protect blocks. Claims over the same blocks are
    counted once each: the sum is never below what is held physically, so that an admission errs only to the safe side.
    """

    def __init__(self) -> None:
        self._records: dict[Key, ClaimRecord] = {}
        self._open = 0
        self._protected_blocks = 0
        self._protected_of: dict[Mode, int] = dict.fromkeys(Mode, 0)
        self._holders: list[ClaimRecord] = []
        self._snapshot: tuple[ClaimRecord, ...] | None = ()
        self._holders_of: dict[Mode, _Ranks] = {mode: [] for mode in Mode}
        self._terms: _Ranks = []
        self._order = 0
        self._held = 0

    def __len__(self) -> int:
        """Count the records kept, ended ones that were not forgotten included."""
        return len(self._records)

    def __iter__(self) -> Iterator[ClaimRecord]:
        return iter(list(self._records.values()))

    def get(self, key: Key) -> ClaimRecord | None:
        """Return the record of (owner_scope, claim_id), or None."""
        return self._records.get(key)

    @property
    def open_claims(self) -> int:
        """Claims that were accepted and have no outcome yet."""
        return self._open

    @property
    def protected_blocks(self) -> int:
        """Primary-tier blocks that are protected now, over all claims."""
        return self._protected_blocks

    def protected_blocks_of(self, mode: Mode) -> int:
        """Return the part of `protected_blocks` that claims now kept in `mode` make up."""
        return self._protected_of[mode]

    def holders(self) -> Iterator[ClaimRecord]:
        """Iterate over the claims that protect blocks now, in the order in which they began to."""
        return iter(self.holders_except(frozenset()))

    def holders_except(self, keys: frozenset[Key]) -> tuple[ClaimRecord, ...]:
        """Return the claims that protect blocks now, without these."""
        if not keys:
            if self._snapshot is None:
                self._snapshot = tuple(self._holders)
            return self._snapshot
        rest = list(self._holders)
        for key in keys:
            record = self._records.get(key)
            if record is not None and record.held:
                del rest[bisect_left(rest, record.held, key=_held)]
        return tuple(rest)

    def holders_of(self, mode: Mode) -> Iterator[ClaimRecord]:
        """Iterate over the holders kept in `mode`, lowest priority first and oldest first among equals.

        Safe only while no claim changes.
        """
        return (record for _, _, record in self._holders_of[mode])

    def submit(self, claim: ResidentClaim) -> ClaimRecord:
        """Enter a claim in state `submitted`; a claim of the same key must have ended before.

        Raises:
            ClaimKeyInUse: the key names a claim that has not ended; nothing changed.
        """
        old = self._records.get(claim.key)
        if old is not None and old.state not in TERMINAL:
            raise ClaimKeyInUse(
                f"claim {claim.claim_id!r} of {claim.owner_scope!r} is {old.state.value}; "
                "release it first or choose another name"
            )
        self._order += 1
        record = ClaimRecord(claim=claim, mode=claim.mode, order=self._order, revision=claim.revision)
        self._records[claim.key] = record
        return record

    def step(self, record: ClaimRecord, step: Step, *, now_ns: int = 0) -> State:
        """Advance a record; acceptance starts its term, `offload` begins a new generation.

        Raises:
            IllegalTransition: the lifecycle does not allow it; nothing changed.
        """
        after = advance(record.state, step)
        before = record.state
        self._uncount(record)
        record.state = after
        self._count(record)
        if step is Step.OFFLOAD:
            record.generation += 1
        if before not in OPEN and after in OPEN:
            self._open += 1
            if record.claim.ttl_s is not None:
                self.set_deadline(record, now_ns + max(1, round(record.claim.ttl_s * 1e9)))
        elif before in OPEN and after not in OPEN:
            self._open -= 1
            self._drop_term(record)
        return after

    def clip(self, record: ClaimRecord, mode: Mode) -> None:
        """Weaken the mode of a claim that is not accepted yet.

        Raises:
            IllegalTransition: the claim was decided before; accepted terms are not changed behind its owner's back.
        """
        advance(record.state, Step.CLIP)
        record.mode = mode

    def renew(self, record: ClaimRecord, *, revision: int, ttl_s: float | None, now_ns: int) -> None:
        """Give an open claim a new term from `now_ns` on (none: no term any more) under a higher revision.

        Raises:
            IllegalTransition: the claim is not accepted, or has ended.
            StaleRevision: `revision` is not above the last one; nothing changed.
        """
        if record.state in TERMINAL:
            raise AlreadyEnded(record.state, "renew")
        if record.state not in OPEN:
            raise NotAccepted(record.state, "renew")
        if revision <= record.revision:
            raise StaleRevision(
                f"claim {record.claim.claim_id!r}: found revision {revision}, expected above {record.revision}"
            )
        record.revision = revision
        if ttl_s is None:
            self._drop_term(record)
            record.deadline_ns = None
        else:
            self.set_deadline(record, now_ns + max(1, round(ttl_s * 1e9)))

    def set_deadline(self, record: ClaimRecord, deadline_ns: int) -> None:
        """Set or move the end of the term of an open claim, in the runtime's monotonic nanoseconds."""
        self._drop_term(record)
        record.deadline_ns = deadline_ns
        if record.state in OPEN:
            insort(self._terms, (deadline_ns, record.order, record))

    def due(self, now_ns: int) -> list[ClaimRecord]:
        """Return the open claims whose term has ended, earliest first, until they end or are renewed."""
        out: list[ClaimRecord] = []
        for deadline_ns, _, record in self._terms:
            if deadline_ns > now_ns:
                break
            out.append(record)
        return out

    def next_deadline_ns(self) -> int | None:
        """Return when the next term of an open claim ends, or None."""
        return self._terms[0][0] if self._terms else None

    def forget(self, key: Key) -> None:
        """Drop a claim that has ended, so that memory follows the open claims.

        Raises:
            KeyError: there is no such claim.
            ClaimNotEnded: it has no outcome yet.
        """
        record = self._records[key]
        if record.state not in TERMINAL:
            raise ClaimNotEnded(f"claim {key[1]!r} of {key[0]!r} is {record.state.value}, expected an outcome first")
        del self._records[key]

    def _count(self, record: ClaimRecord) -> None:
        blocks = record.protected_blocks()
        if blocks:
            self._protected_blocks += blocks
            self._protected_of[record.mode] += blocks
            insort(self._holders_of[record.mode], (record.claim.priority, record.order, record))
            if not record.held:
                self._held += 1
                record.held = self._held
                self._holders.append(record)
                self._snapshot = None
        elif record.held:
            del self._holders[bisect_left(self._holders, record.held, key=_held)]
            record.held = 0
            self._snapshot = None

    def _uncount(self, record: ClaimRecord) -> None:
        blocks = record.protected_blocks()
        if blocks:
            self._protected_blocks -= blocks
            self._protected_of[record.mode] -= blocks
            _remove(self._holders_of[record.mode], record.claim.priority, record)

    def _drop_term(self, record: ClaimRecord) -> None:
        if record.deadline_ns is not None:
            _remove(self._terms, record.deadline_ns, record)


_held = attrgetter("held")


def _remove(ranks: _Ranks, rank: int, record: ClaimRecord) -> None:
    at = bisect_left(ranks, (rank, record.order))
    if at < len(ranks) and ranks[at][2] is record:
        del ranks[at]


__all__ = [
    "ClaimKeyInUse",
    "ClaimLedger",
    "ClaimNotEnded",
    "ClaimRecord",
    "IllegalTransition",
    "Key",
    "StaleRevision",
]
