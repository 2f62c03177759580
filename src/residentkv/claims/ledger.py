"""The claims of one engine incarnation with the sums an admission decision needs, each kept in O(log n) a change."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

import msgspec

from residentkv.claims.lifecycle import OPEN, TERMINAL, State, Step, advance
from residentkv.claims.model import ResidentClaim
from residentkv.claims.modes import HOLDS_PRIMARY, Mode

Key = tuple[str, str]


class ClaimRecord(msgspec.Struct, kw_only=True):
    """A claim, where it stands and what it holds; changed only through `ClaimLedger`."""

    claim: ResidentClaim
    mode: Mode
    state: State = State.SUBMITTED
    order: int = 0
    generation: int = 0
    deadline_ns: int | None = None
    revision: int = 0

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


class ClaimLedger:
    """All claims of one engine incarnation; every change goes through `step`, which obeys the lifecycle."""

    def __init__(self) -> None:
        self._records: dict[Key, ClaimRecord] = {}
        self._protected_blocks = 0
        self._holders: dict[Key, ClaimRecord] = {}
        self._deadlines: list[tuple[int, int, Key]] = []
        self._order = 0

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[ClaimRecord]:
        return iter(list(self._records.values()))

    def get(self, key: Key) -> ClaimRecord | None:
        """Return the record of (owner_scope, claim_id), or None."""
        return self._records.get(key)

    @property
    def protected_blocks(self) -> int:
        """Primary-tier blocks that are protected now, over all claims."""
        return self._protected_blocks

    def holders(self) -> Iterator[ClaimRecord]:
        """Iterate over the claims that protect blocks now, oldest first."""
        return iter(list(self._holders.values()))

    def submit(self, claim: ResidentClaim) -> ClaimRecord:
        """Enter a claim in state `submitted`; a claim of the same key must have ended before.

        Raises:
            ValueError: the key is in use.
        """
        old = self._records.get(claim.key)
        if old is not None and old.state not in TERMINAL:
            raise ValueError(f"claim {claim.claim_id!r} of {claim.owner_scope!r} is {old.state.value}")
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
        before_blocks = record.protected_blocks()
        record.state = after
        if step is Step.OFFLOAD:
            record.generation += 1
        if after is State.ACCEPTED and record.claim.ttl_s is not None:
            self.set_deadline(record, now_ns + int(record.claim.ttl_s * 1e9))
        self._recount(record, before_blocks)
        return after

    def clip(self, record: ClaimRecord, mode: Mode) -> None:
        """Weaken the mode of a claim that is not accepted yet."""
        before_blocks = record.protected_blocks()
        record.mode = mode
        self._recount(record, before_blocks)

    def set_deadline(self, record: ClaimRecord, deadline_ns: int) -> None:
        """Set or move the end of the term, in the runtime's monotonic nanoseconds."""
        record.deadline_ns = deadline_ns
        heapq.heappush(self._deadlines, (deadline_ns, record.order, record.claim.key))

    def due(self, now_ns: int) -> list[ClaimRecord]:
        """Return open claims whose term has ended, earliest first; each is returned once."""
        out: list[ClaimRecord] = []
        while self._deadlines and self._deadlines[0][0] <= now_ns:
            deadline_ns, order, key = heapq.heappop(self._deadlines)
            record = self._records.get(key)
            if (
                record is not None
                and record.order == order
                and record.deadline_ns == deadline_ns
                and record.state in OPEN
            ):
                out.append(record)
        return out

    def forget(self, key: Key) -> None:
        """Drop a claim that has ended, so that memory follows the open claims.

        Raises:
            ValueError: the claim has not ended.
        """
        record = self._records[key]
        if record.state not in TERMINAL:
            raise ValueError(f"claim {key[1]!r} of {key[0]!r} is {record.state.value}")
        del self._records[key]

    def _recount(self, record: ClaimRecord, before_blocks: int) -> None:
        after_blocks = record.protected_blocks()
        self._protected_blocks += after_blocks - before_blocks
        if after_blocks:
            self._holders.setdefault(record.claim.key, record)
        else:
            self._holders.pop(record.claim.key, None)
