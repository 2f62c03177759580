"""What the parts of an engine share, and what is known about one claim and one request."""

from __future__ import annotations

from typing import Any

import msgspec

from residentkv.claims.arbiter import Arbiter, ClaimDecision
from residentkv.claims.ledger import ClaimLedger, ClaimRecord
from residentkv.claims.predicates import Ranges, leading_blocks, ranges_of
from residentkv.errors import ResidentKVError
from residentkv.runtimes.reference.clock import ManualClock
from residentkv.runtimes.reference.config import EngineConfig, Mechanism
from residentkv.runtimes.reference.content import Context
from residentkv.runtimes.reference.journal import Journal
from residentkv.runtimes.reference.pool import Block, PrimaryPool
from residentkv.runtimes.reference.tiers import OffloadTier


class ClaimNotFound(ResidentKVError):
    """The caller has no claim of this name; claims of others do not exist for it."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One active request.

    `claim` is the wire form of a claim on the full blocks of the prompt; `reuse` names a claim of the same owner that
    the request comes for, which counts only when the prompt contains what that claim's predicate needs. `max_tokens` 0
    only claims what is resident already. `keep_kv` False serves without admitting the request's KV for reuse.
    """

    request_id: str
    prompt: tuple[int, ...]
    max_tokens: int = 1
    owner_scope: str = "anyone"
    claim: dict[str, Any] | None = None
    reuse: str | None = None
    cache_salt: str | None = None
    keep_kv: bool = True


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """How a request ended; block counts are of the prompt's full blocks.

    `status` is `finished`, `refused`, `failed` or `aborted`; `decision` answers the claim that it brought.
    """

    request_id: str
    status: str
    output: tuple[int, ...] = ()
    hit_blocks: int = 0
    loaded_blocks: int = 0
    computed_blocks: int = 0
    reason: str = ""
    shortfall_blocks: int = 0
    blocking_claim_ids: tuple[str, ...] = ()
    outcome_claim_id: str | None = None
    decision: ClaimDecision | None = None


class Kept(msgspec.Struct, kw_only=True, eq=False):
    """A claim with the object that it is about.

    `names` are the contents of positions 0..object_blocks-1; `store_jobs` the transfers that put them into the tier.
    """

    record: ClaimRecord
    names: tuple[str, ...]
    request_id: str
    store_jobs: tuple[int, ...] = ()
    deferred_until_ns: int | None = None

    @property
    def object_blocks(self) -> int:
        """Blocks of the claimed object."""
        return len(self.names)

    @property
    def needed_pos(self) -> range:
        """The positions that the predicate is about."""
        start, count = self.record.claim.predicate.needed(len(self.names))
        return range(start, start + count)

    def is_about(self, names: tuple[str, ...]) -> bool:
        """Tell whether a prompt with these full blocks contains what the predicate needs, at the same positions."""
        end = self.needed_pos.stop
        return names[:end] == self.names[:end]

    @property
    def needed_names(self) -> tuple[str, ...]:
        """The contents that the predicate is about."""
        return tuple(self.names[p] for p in self.needed_pos)


class Live(msgspec.Struct, kw_only=True, eq=False):
    """A request that waits or is being served; `blocks` are in logical order."""

    request: Request
    names: tuple[str, ...]
    total_blocks: int
    context: Context
    kept: Kept | None = None
    reuse: Kept | None = None
    decision: ClaimDecision | None = None
    blocks: list[Block] = msgspec.field(default_factory=list)
    tail: list[int] = msgspec.field(default_factory=list)
    output: list[int] = msgspec.field(default_factory=list)
    hit_blocks: int = 0
    loaded_pos: Ranges = ()
    restored: bool = False
    computed_blocks: int = 0
    deferred_until_ns: int | None = None


class Parts(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The parts of one engine, built once."""

    config: EngineConfig
    clock: ManualClock
    pool: PrimaryPool
    tier: OffloadTier
    ledger: ClaimLedger
    arbiter: Arbiter
    journal: Journal

    def keeps(self, mechanism: Mechanism) -> bool:
        """Tell whether a mechanism is on."""
        return mechanism not in self.config.off

    def primary_pos(self, names: tuple[str, ...]) -> Ranges:
        """Return the positions of an object that lie in the primary tier."""
        return ranges_of(p for p, name in enumerate(names) if self.pool.find(name) is not None)

    def retrievable_pos(self, names: tuple[str, ...]) -> Ranges:
        """Return the positions of an object that either tier says it has."""
        return ranges_of(p for p, name in enumerate(names) if self.pool.find(name) is not None or self.tier.holds(name))

    def leading_hits(self, names: tuple[str, ...]) -> list[Block]:
        """Return the cached blocks from position 0 up to the first that is missing."""
        count = leading_blocks(self.primary_pos(names))
        return [block for name in names[:count] if (block := self.pool.find(name)) is not None]
