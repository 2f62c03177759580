"""What a reference engine is built from, and the switches that turn off one mechanism each."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from residentkv.claims.arbiter import ArbiterPolicy
from residentkv.claims.model import CacheIdentity
from residentkv.claims.modes import Mode
from residentkv.errors import UsageError

RUNTIME = "reference"
PRIMITIVE = "resident_claims"

BASE_MODES = frozenset(
    {Mode.BEST_EFFORT, Mode.SOFT_PRIORITY, Mode.EXPIRING, Mode.DEMOTABLE, Mode.HARD_PROTECTED},
)
"""Modes that every engine of its own keeps; `offloadable` needs a second tier besides.

Behind a router an engine keeps `routed_reuse` and `best_effort`: what it protects would be counted against others.
"""


class Mechanism(StrEnum):
    """What can be turned off, each named like the obligation that then fails; only for negative proofs.

    The docstring of the code that honours a switch says what the engine does instead.
    """

    CLAIM_IDENTITY = "claim_identity"
    CACHE_IDENTITY = "cache_identity"
    OBJECT_IDENTITY = "object_identity"
    JOINABILITY = "joinability"
    ACCEPTANCE = "acceptance"
    PREDICATE = "predicate"
    ORDERED_LIFECYCLE = "ordered_lifecycle"
    EVICTION_PREFERENCE = "eviction_preference"
    LOSS_REPORTING = "loss_reporting"
    EXPIRY_ENFORCEMENT = "expiry_enforcement"
    RELEASE_BEFORE_LOSS = "release_before_loss"
    OFFLOAD_IDENTITY = "offload_identity"
    RESTORE_BEFORE_REUSE = "restore_before_reuse"
    RESTORATION_FAILURE_OUTCOME = "restoration_failure_outcome"
    SCOPED_OUTCOME = "scoped_outcome"
    FEASIBILITY_CHECK = "feasibility_check"
    VICTIM_EXCLUSION = "victim_exclusion"
    CONFLICT_OUTCOME = "conflict_outcome"
    ROUTE_BINDING = "route_binding"
    ROUTE_OUTCOME = "route_outcome"


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes and policies of one engine.

    `usable_blocks` is the primary tier, `offload_blocks` the second tier (0: none); `eager_offload` copies an
    offloadable claim as soon as it is materialized, otherwise only when its room is needed; `load_retries` is how
    often a failed restoration is tried again before its claim has to answer for it. `worker_id` and `worker_epoch`
    name the engine behind a router.

    Raises:
        UsageError: a size makes no sense.
    """

    usable_blocks: int
    block_size_tokens: int = 16
    block_bytes: int = 256
    offload_blocks: int = 0
    eager_offload: bool = True
    load_retries: int = 0
    min_active_blocks: int = 1
    clip_to: Mode | None = None
    defer_claims: bool = False
    defer_s: float = 0.0
    max_claims: int = 1_000_000
    off: frozenset[Mechanism] = frozenset()
    model: str = "residentkv/reference-model"
    weights_epoch: int = 0
    worker_id: str | None = None
    worker_epoch: int = 0

    def __post_init__(self) -> None:
        for name, least in (("usable_blocks", 1), ("block_size_tokens", 1), ("block_bytes", 32), ("offload_blocks", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"{name}: found {getattr(self, name)}, expected at least {least}")

    @property
    def primary_tier(self) -> str:
        """The name of the primary tier in events."""
        return "primary" if self.worker_id is None else f"{self.worker_id}/primary"

    @property
    def offload_tier(self) -> str:
        """The name of the second tier in events."""
        return "offload" if self.worker_id is None else f"{self.worker_id}/offload"

    def policy(self) -> ArbiterPolicy:
        """Return what the arbiter may do in this engine."""
        modes = set(BASE_MODES)
        if self.worker_id is not None:
            modes = {Mode.BEST_EFFORT, Mode.ROUTED_REUSE}
        elif self.offload_blocks:
            modes.add(Mode.OFFLOADABLE)
        return ArbiterPolicy(
            supported_modes=frozenset(modes),
            min_active_blocks=self.min_active_blocks,
            clip_to=self.clip_to,
            defer_claims=self.defer_claims,
            defer_s=self.defer_s,
            max_claims=self.max_claims,
        )

    def identity(self, *, cache_salt: str | None = None, weights_epoch: int | None = None) -> CacheIdentity:
        """Return the identity under which blocks of a request with this salt are cached."""
        return CacheIdentity(
            model=self.model,
            model_revision="1",
            weights_epoch=self.weights_epoch if weights_epoch is None else weights_epoch,
            tokenizer="ids",
            kv_dtype="u8",
            kv_layout=f"flat{self.block_bytes}",
            block_size_tokens=self.block_size_tokens,
            cache_salt=cache_salt,
        )
