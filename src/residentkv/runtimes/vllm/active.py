"""Active requests as the scheduler process follows them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any

import msgspec

from residentkv.runtimes.vllm.claimtrack import ClaimTrack


class Lookup(Enum):
    """What to do with a request whose blocks were looked up."""

    PROCEED = "proceed"
    REFUSE = "refuse"


class Serve(Enum):
    """From what a request of a claim will be computed, as decided when its blocks were allocated."""

    UNDECIDED = "undecided"
    PRIMARY = "primary"
    RESTORE = "restore"
    RECOMPUTE = "recompute"


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request is refused.

    Attributes:
        reason: `restoration_failed` and `copy_lost` concern the claim that the request named; any other is about room.
        claim_id, owner_scope: that claim, None when room is the reason.
        restoration: whether a load failed.
        blockers: (owner_scope, claim_id) of the claims that hold the room, of all owners; see `seen_by`.
        need_blocks: how many blocks the request would have added.
        shortfall_blocks: how many blocks are missing while they stay.
        retry_after_s: when enough of their terms will have ended, if that is known.
    """

    reason: str
    claim_id: str | None = None
    owner_scope: str | None = None
    restoration: bool = False
    blockers: tuple[tuple[str, str], ...] = ()
    need_blocks: int | None = None
    shortfall_blocks: int | None = None
    retry_after_s: float | None = None

    def seen_by(self, owner_scope: str | None) -> dict[str, Any]:
        """Return what an owner may be told; claims of others are only counted."""
        if self.claim_id is not None:
            return {
                "reason": self.reason,
                "claim_id": self.claim_id,
                "owner_scope": self.owner_scope,
                "restoration": self.restoration,
            }
        own = [claim_id for owner, claim_id in self.blockers if owner == owner_scope]
        return {
            "reason": self.reason,
            "restoration": False,
            "shortfall_blocks": self.shortfall_blocks,
            "blocking_claim_ids": own,
            "claims_of_others": len(self.blockers) - len(own),
            "retry_after_s": self.retry_after_s,
        }


class RequestTrack(msgspec.Struct, kw_only=True, eq=False):
    """An active request.

    `hashes` name the full blocks of its prompt that it may read from the cache; `start_blocks` is what its prompt needs
    and `total_blocks` what it needs at most until it ends. `settled` tells whether the last lookup led to a decision,
    `explained` whether it was told from what the request was computed, and `recomputed_from` is the first block that it
    computed again.
    """

    request_id: str
    block_tokens: int
    claim: ClaimTrack | None = None
    owner_scope: str | None = None
    hashes: Sequence[bytes] = ()
    start_blocks: int = 0
    total_blocks: int = 0
    keeps_kv: bool = True
    reply: dict[str, Any] = msgspec.field(default_factory=dict)
    looked: tuple[int, int] | None = None
    local_blocks: int = 0
    serve: Serve = Serve.UNDECIDED
    settled: bool = False
    explained: bool = False
    recomputed_from: int | None = None
    failures: int = 0
    recompute_why: str = ""
    lost_claim: ClaimTrack | None = None
    refusal: Refusal | None = None
    loading: int | None = None
    finished: tuple[str, int] | None = None
    stores: set[int] = msgspec.field(default_factory=set)
    stores_over: bool = False
    terminated: bool = False
