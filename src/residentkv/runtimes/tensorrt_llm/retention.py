"""Soft priority by TensorRT-LLM's retention configuration, as a policy outside the engine.

The adapter turns a claim into the arguments of `KvCacheRetentionConfig` and joins the engine's events to the claim: it
tells when the claimed blocks can be found and when one of them is gone from every level, naming the claim. It promises
nothing, and says nothing after a gap. Source: `docs/source/examples/kvcacheretentionconfig.md` at 485c5e10 (arguments,
token ranges, latest claim sets the priority of a shared block).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

import msgspec

from residentkv import __version__
from residentkv.claims.model import ResidentClaim, token_map_digest
from residentkv.claims.modes import Mode
from residentkv.claims.predicates import Ranges, ranges_of
from residentkv.errors import InputError
from residentkv.runtimes.tensorrt_llm.events import BlocksRemoved, ChainStored, EngineEvent, PoolCreated
from residentkv.runtimes.tensorrt_llm.journal import Arrival, EventJournal, Order, tier_of
from residentkv.trace.events import (
    ClaimAccepted,
    ClaimEvent,
    ClaimHarmed,
    ClaimMaterialized,
    ClaimReleased,
    ClaimReused,
    RequestInitialized,
    RequestTerminated,
)

PRIMITIVE: Final = "retention_priority"
ADAPTER: Final = "residentkv_retention"
DEFAULT_PRIORITY: Final = 35
MAX_PRIORITY: Final = 100
LEVELS: Final = MAX_PRIORITY - DEFAULT_PRIORITY
"""Claims may have priorities from 0 to this less one; each is above the default of unclaimed blocks."""

Content = tuple[str | None, str | None, tuple[int, ...]]
"""Salt, namespace and tokens of a block, apart from those before it."""


class RetentionPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The retention configuration of one request: tokens [0, end_tokens) at `priority`, without a duration."""

    end_tokens: int
    priority: int
    decode_priority: int = DEFAULT_PRIORITY


class RetentionApi(Protocol):
    """The class `KvCacheRetentionConfig` of `tensorrt_llm.llmapi`, as far as it is used."""

    TokenRangeRetentionConfig: Any

    def __call__(self, **arguments: Any) -> Any:
        """Make a configuration."""


def plan_retention(claim: ResidentClaim, block_size_tokens: int) -> RetentionPlan:
    """Return the configuration that asks for what the claim asks for.

    Raises:
        InputError: the configuration cannot say it: another mode, a term (a duration begins at release and ends
            without a word), or a priority out of range. Nothing is clipped silently.
    """
    if claim.mode is not Mode.SOFT_PRIORITY:
        raise _cannot(claim, f"mode {claim.mode}", f"{Mode.SOFT_PRIORITY}; a priority protects nothing")
    if claim.ttl_s is not None:
        raise _cannot(claim, f"ttl_s {claim.ttl_s}", "none; a duration begins when a block is released")
    if not 0 <= claim.priority < LEVELS:
        raise _cannot(claim, f"priority {claim.priority}", f"0 to {LEVELS - 1}")
    return RetentionPlan(
        end_tokens=blocks_needed(claim) * block_size_tokens, priority=DEFAULT_PRIORITY + 1 + claim.priority
    )


def blocks_needed(claim: ResidentClaim) -> int:
    """Return how many leading blocks the predicate needs: a block is found only through all those before it."""
    predicate = claim.predicate
    return predicate.start_pos + predicate.count if predicate.count else claim.footprint_blocks


def build_config(plan: RetentionPlan, api: RetentionApi) -> Any:
    """Return the engine's configuration object; `api` is `tensorrt_llm.llmapi.KvCacheRetentionConfig`."""
    whole = api.TokenRangeRetentionConfig(0, plan.end_tokens, plan.priority, None)
    return api(
        token_range_retention_configs=[whole], decode_retention_priority=plan.decode_priority, decode_duration_ms=None
    )


class _Watched(msgspec.Struct, kw_only=True):
    claim: ResidentClaim
    cache_salt: str | None
    tokens: tuple[tuple[int, ...], ...]
    names: list[str]
    is_materialized: bool = False
    is_over: bool = False


class RetentionAdapter:
    """Follows claims of one engine through its events. Not for several threads.

    `is_blind` says that events were missed, or that the layers have several windows, each with blocks of its own, of
    which nobody says which a prefix needs: from then on it tells nothing, and the trace is left open.
    """

    def __init__(self, journal: EventJournal, block_size_tokens: int) -> None:
        self._journal = journal
        self._block_size = block_size_tokens
        self._claims: dict[tuple[str, str], _Watched] = {}
        self._children: dict[tuple[str | None, Content], str] = {}
        self._windows: set[int | None] = set()
        self.is_blind = False

    def admit(self, claim: ResidentClaim, token_ids: Sequence[int], *, cache_salt: str | None = None) -> RetentionPlan:
        """Take a claim on the prefix of a prompt and return what its request has to carry.

        Only blocks of this salt and of no other namespace are the claim's: those of an adapter or of a picture, or with
        further ids of tokens, are others.

        Raises:
            InputError: the configuration cannot say it, the tokens are others than the claim's, the name is
                taken, or a claim of another priority shares the first block: the engine lets the later one win.
        """
        plan = plan_retention(claim, self._block_size)
        if token_map_digest(token_ids) != claim.token_map_id:
            raise _cannot(claim, "other tokens", f"those of {claim.token_map_id[:20]}..")
        if len(token_ids) < plan.end_tokens:
            raise _cannot(claim, f"{len(token_ids)} tokens", f"at least {plan.end_tokens}, which its predicate needs")
        size = self._block_size
        tokens = tuple(tuple(token_ids[i : i + size]) for i in range(0, plan.end_tokens, size))
        for other in self._claims.values():
            if other.claim.key == claim.key:
                raise _cannot(claim, "its name taken", "a name that no live claim has")
            shares = (other.cache_salt, other.tokens[0]) == (cache_salt, tokens[0])
            if not other.is_over and shares and other.claim.priority != claim.priority:
                found = f"priority {claim.priority} beside {other.claim.priority} of {other.claim.claim_id}"
                raise _cannot(claim, found, "one priority for shared blocks")
        watched = _Watched(claim=claim, cache_salt=cache_salt, tokens=tokens, names=[])
        self._claims[claim.key] = watched
        self._emit(
            ClaimAccepted,
            watched,
            decision="accepted",
            clipped_from=(),
            mode=claim.mode.value,
            on_restore_failure=claim.on_restore_failure.value,
            footprint_blocks=claim.footprint_blocks,
            priority=claim.priority,
            revision=claim.revision,
            ttl_s=None,
            deadline_ns=None,
            protected_blocks=None,
            usable_blocks=None,
        )
        return plan

    def note(self, event: EngineEvent) -> Arrival:
        """Enter an engine event and tell what it means for the claims."""
        arrival = self._journal.note(event)
        if arrival.order is Order.REPEATED:
            return arrival
        self._windows.add(event.window)
        if arrival.order is not Order.NEXT or not self._journal.is_complete or len(self._windows) > 1:
            self.is_blind = True
        if self.is_blind:
            return arrival
        if isinstance(event.data, ChainStored):
            self._learn(event.data)
            for watched in self._claims.values():
                self._look(watched, event.rank)
        elif isinstance(event.data, BlocksRemoved | PoolCreated):
            for watched in self._claims.values():
                self._tell_loss(watched)
        return arrival

    def note_response(
        self,
        key: tuple[str, str],
        request_id: str,
        *,
        prompt_tokens: int,
        cached_tokens: int,
        output_tokens: int,
        finish_status: str,
    ) -> None:
        """Enter a finished request of a claim; of its cached tokens whole blocks of the claim count as reused.

        Of a claim that is over nothing is said but the request.
        """
        watched = self._find(key)
        writer = self._journal.writer
        claim = watched.claim
        writer.emit(
            RequestInitialized,
            request_id=request_id,
            claim_id=claim.claim_id,
            owner_scope=claim.owner_scope,
            prompt_tokens=prompt_tokens,
        )
        blocks = min(cached_tokens // self._block_size, len(watched.tokens))
        if blocks and watched.is_materialized and not watched.is_over and not self.is_blind:
            self._emit(ClaimReused, watched, request_id, tier="gpu", reused_pos=((0, blocks),))
        writer.emit(RequestTerminated, request_id=request_id, finish_status=finish_status, output_tokens=output_tokens)

    def release(self, key: tuple[str, str], reason: str) -> None:
        """End a claim in order. The engine keeps the priority until the blocks are taken or claimed again."""
        watched = self._find(key)
        if not watched.is_over:
            watched.is_over = True
            claim = watched.claim
            self._emit(
                ClaimReleased, watched, released_by=claim.owner_scope, reason=reason, outcome_claim_id=claim.claim_id
            )

    def close(self) -> None:
        """End the trace, or leave it open when the adapter is blind."""
        if self.is_blind:
            self._journal.writer.abandon()
        else:
            self._journal.close()

    def _find(self, key: tuple[str, str]) -> _Watched:
        if key not in self._claims:
            raise InputError(f"no claim {key[1]!r} of {key[0]!r} was admitted")
        return self._claims[key]

    def _learn(self, chain: ChainStored) -> None:
        parent = chain.parent
        for block in chain.blocks:
            self._children[parent, (block.cache_salt, block.namespace, block.token_ids)] = block.name
            parent = block.name

    def _look(self, watched: _Watched, rank: int) -> None:
        """Tell once that all needed blocks can be found at one rank, in the tier where the last of them lies."""
        if watched.is_materialized or watched.is_over:
            return
        parent: str | None = None
        names: list[str] = []
        for tokens in watched.tokens:
            found = self._children.get((parent, (watched.cache_salt, None, tokens)))
            if found is None or (rank, found) not in self._journal.copies:
                return
            names.append(found)
            parent = found
        watched.names = names
        watched.is_materialized = True
        size = len(names)
        self._emit(
            ClaimMaterialized,
            watched,
            tier=tier_of(rank, self._journal.copies[rank, names[-1]][0]),
            retrievable_pos=((0, size),),
            object_blocks=size,
            footprint_blocks=watched.claim.footprint_blocks,
            block_hashes=tuple(names),
        )

    def _tell_loss(self, watched: _Watched) -> None:
        """Tell once, naming the claim, that a needed block is gone from every level."""
        if not watched.is_materialized or watched.is_over:
            return
        lost: Ranges = ranges_of(i for i, name in enumerate(watched.names) if not self._journal.has_copy(name))
        if lost:
            watched.is_over = True
            claim_id = watched.claim.claim_id
            self._emit(ClaimHarmed, watched, reason="evicted", lost_pos=lost, outcome_claim_id=claim_id)

    def _emit(self, kind: type[ClaimEvent], watched: _Watched, request_id: str | None = None, **fields: Any) -> None:
        claim = watched.claim
        self._journal.writer.emit(
            kind,
            claim_id=claim.claim_id,
            owner_scope=claim.owner_scope,
            object_id=claim.object_id,
            token_map_id=claim.token_map_id,
            cache_identity=claim.cache_identity,
            predicate=str(claim.predicate),
            request_id=request_id,
            generation=0,  # the copies of a claim are never counted anew here
            **fields,
        )


def version_fields() -> dict[str, str]:
    """Return how a journal names this adapter."""
    return {"primitive": PRIMITIVE, "adapter": ADAPTER, "adapter_version": __version__}


def _cannot(claim: ResidentClaim, found: str, expected: str) -> InputError:
    return InputError(f"claim {claim.claim_id}: found {found}, expected {expected}")
