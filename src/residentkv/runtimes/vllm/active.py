"""Active requests as the scheduler process follows them."""

from __future__ import annotations

from enum import Enum
from typing import Any

import msgspec

from residentkv.runtimes.vllm.claimbook import ClaimTrack


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
    """Why a request is refused, for the client; it names only the claim that the request itself named."""

    reason: str
    claim_id: str
    owner_scope: str
    restoration: bool


class RequestTrack(msgspec.Struct, kw_only=True):
    """An active request."""

    request_id: str
    block_tokens: int
    claim: ClaimTrack | None = None
    reply: dict[str, Any] = msgspec.field(default_factory=dict)
    looked: tuple[int, int] | None = None
    local_blocks: int = 0
    serve: Serve = Serve.UNDECIDED
    failures: int = 0
    recompute_why: str = ""
    lost_claim: ClaimTrack | None = None
    refusal: Refusal | None = None
    loading: int | None = None
    finished: tuple[str, int] | None = None
    stores: set[int] = msgspec.field(default_factory=set)
    stores_over: bool = False
    terminated: bool = False
