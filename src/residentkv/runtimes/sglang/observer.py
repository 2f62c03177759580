"""Joins claims to what SGLang tells: the KV events of its cache, and the cached tokens of each answer.

It decides nothing and keeps nothing: it records what a claim's owner was told, and what was seen. Where the two
sources do not agree in a way that explains itself, or an event is missing, nothing is said about the claim, and the
audit calls the trace inconclusive.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import msgspec

from residentkv.claims.model import CacheIdentity, ResidentClaim, token_map_digest
from residentkv.claims.modes import Mode
from residentkv.claims.predicates import Predicate, ranges_of
from residentkv.errors import UsageError
from residentkv.runtimes.blocklog import BlockLog
from residentkv.runtimes.kvevents import Arrival, KvEventFeed, Order
from residentkv.runtimes.sglang.launch import Usage
from residentkv.runtimes.sglang.priority import Refusal
from residentkv.trace import events as ev
from residentkv.trace.writer import TraceWriter

TIERS = {"GPU": "device", "CPU_PINNED": "host", "DISK": "storage", "EXTERNAL": "external"}
"""SGLang's words for media (`StorageMedium`) and our names of tiers."""
PATIENCE_S = 10.0
"""How long events may take that have to come; an event that is later counts as missing."""


class Watched(msgspec.Struct, kw_only=True):
    """A claim that is followed: its content, and how far it has come; `hashes` are its blocks once it materialized."""

    claim: ResidentClaim
    token_ids: tuple[int, ...]
    cache_salt: str | None
    blocks: int
    hashes: tuple[str, ...] = ()
    open: bool = True


class Pending(msgspec.Struct, kw_only=True):
    """A request under way: what the events said was there for it when it came."""

    request_id: str
    token_ids: tuple[int, ...]
    cache_salt: str | None
    watched: Watched | None
    any_blocks: int


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What the observer makes of one answered request, in blocks.

    `seen` are leading blocks that some tier had when it came, or that came from storage meanwhile; `told` those that
    the answer says were not computed.
    `word` is `reused`, `recomputed` (told less than was seen), `unexplained` (told more than was seen), or `none`.
    """

    seen_blocks: int
    told_blocks: int
    word: str


class Observer:
    """Writes the trace of one server; one request at a time.

    Args:
        trace: gets every event; `close` ends it in order only when nothing is in doubt.
        feed: the server's KV events.
        identity: cache identity without salt.
        page_tokens: tokens of a block.
        patience_s: how long to wait for events that have to come.
    """

    def __init__(
        self,
        trace: TraceWriter,
        feed: KvEventFeed,
        identity: CacheIdentity,
        page_tokens: int,
        *,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.trace = trace
        self.blocks = BlockLog(TIERS)
        self.doubts: list[str] = []
        self.events_seen = 0
        self._feed = feed
        self._identity = identity
        self._page_tokens = page_tokens
        self._patience_s = patience_s
        self._watched: dict[tuple[str, str], Watched] = {}
        self._under_way: set[str] = set()
        self._rank: int | None = None

    def accept(
        self,
        request_id: str,
        claim_id: str,
        owner_scope: str,
        token_ids: tuple[int, ...],
        *,
        mode: Mode,
        priority: int = 0,
        cache_salt: str | None = None,
        refusal: Refusal | None = None,
    ) -> Watched | None:
        """Record a claim on the full blocks of a prompt, brought by a request that then has to be begun with `begin`.

        Returns None when it is refused; then the refusal is recorded and nothing is promised.
        """
        blocks = len(token_ids) // self._page_tokens
        identity = msgspec.structs.replace(self._identity, cache_salt=cache_salt)
        claimed = token_ids[: blocks * self._page_tokens]
        tokens = token_map_digest(claimed)
        claim = ResidentClaim(
            claim_id=claim_id,
            owner_scope=owner_scope,
            cache_identity=identity.digest(),
            object_id=f"prefix:{tokens.partition(':')[2][:32]}",
            token_map_id=tokens,
            predicate=Predicate(kind="leading_prefix_at_least", count=blocks),
            footprint_blocks=blocks,
            mode=mode,
            priority=priority,
        )
        self._begun(request_id, len(token_ids), claim)
        if refusal is not None:
            self.trace.emit(
                ev.ClaimRejected,
                **self._named(claim, request_id),
                mode=mode.value,
                reason=refusal.reason,
                detail=refusal.detail,
            )
            return None
        self.trace.emit(
            ev.ClaimAccepted,
            **self._named(claim, request_id),
            decision="accepted",
            clipped_from=(),
            mode=mode.value,
            on_restore_failure=claim.on_restore_failure.value,
            footprint_blocks=blocks,
            priority=priority,
            revision=0,
            ttl_s=None,
            deadline_ns=None,
            protected_blocks=0,
            usable_blocks=None,
        )
        watched = Watched(claim=claim, token_ids=claimed, cache_salt=cache_salt, blocks=blocks)
        self._watched[claim.key] = watched
        return watched

    def begin(
        self,
        request_id: str,
        token_ids: tuple[int, ...],
        *,
        watched: Watched | None = None,
        cache_salt: str | None = None,
        first: bool = False,
    ) -> Pending:
        """Record a request before it is sent; `first` when `accept` has recorded it already.

        Raises:
            UsageError: it names a claim and does not begin with its tokens, or has another salt.
        """
        if watched is not None and (
            token_ids[: len(watched.token_ids)] != watched.token_ids or watched.cache_salt != cache_salt
        ):
            raise UsageError(f"request {request_id} is not about the tokens and salt of {watched.claim.claim_id}")
        if not first:
            self._begun(request_id, len(token_ids), watched.claim if watched else None)
        if self._under_way:
            self.doubts.append(f"request {request_id} began while another one was under way")
        self._under_way.add(request_id)
        self.watch(0.0)
        chain = self.blocks.chain_of(token_ids[:-1], self._page_tokens, cache_salt)
        return Pending(
            request_id=request_id,
            token_ids=token_ids,
            cache_salt=cache_salt,
            watched=watched,
            any_blocks=_leading(chain, lambda h: bool(self.blocks.tiers_of(h))),
        )

    def end(self, pending: Pending, usage: Usage) -> Reading:
        """Record how an answered request was served, by its answer and the events until its own blocks are stored."""
        self._wait_for_blocks(pending)
        self._under_way.discard(pending.request_id)
        told = usage.cached_tokens // self._page_tokens
        seen = max(pending.any_blocks, self._from_storage(pending, told, usage))
        reading = Reading(seen_blocks=seen, told_blocks=told, word=word_of(told, seen))
        w = pending.watched
        if w is not None and w.open:
            self._word_on(w, pending.request_id, min(told, w.blocks), min(seen, w.blocks))
        self._ended(pending.request_id, usage.finish_status, len(usage.output_ids))
        return reading

    def fail(self, pending: Pending) -> None:
        """Record a request that was answered with an error."""
        self.watch(0.5)
        self._under_way.discard(pending.request_id)
        self._ended(pending.request_id, "error", 0)

    def release(self, watched: Watched) -> None:
        """Record that the owner lets the claim go."""
        if not watched.open:
            return
        watched.open = False
        claim = watched.claim
        self.trace.emit(
            ev.ClaimReleased,
            **self._named(claim, None),
            released_by=claim.owner_scope,
            reason="owner_release",
            outcome_claim_id=claim.claim_id,
        )

    def watch(self, wait_s: float) -> int:
        """Enter the events that have come, waiting for the first at most `wait_s`; return their batches' count."""
        arrivals = self._feed.read(wait_s)
        for arrival in arrivals:
            self._enter(arrival)
        return len(arrivals)

    def wait_until(self, is_so: Callable[[], bool], wait_s: float | None = None) -> bool:
        """Enter events until `is_so()` is true; False when they did not come in time."""
        deadline = time.monotonic() + (self._patience_s if wait_s is None else wait_s)
        self.watch(0.0)
        while not is_so():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self.watch(min(left, 0.2))
        return True

    def settle(self, quiet_s: float = 2.0) -> None:
        """Enter events until none has come for a while, as copies under way tell of themselves later."""
        for _ in range(30):
            if not self.watch(quiet_s):
                return

    def close(self) -> None:
        """End the trace; it stays open, and so is inconclusive, when something about a claim is in doubt."""
        named = {h for w in self._watched.values() for h in w.hashes}
        if named & self.blocks.doubtful:
            self.doubts.append("what a claimed block stands for, or how many copies of it there are, is not known")
        if self.doubts:
            self.trace.abandon()
        else:
            self.trace.close()

    def _enter(self, arrival: Arrival) -> None:
        if arrival.order is not Order.NEXT:
            missing = "" if arrival.missing is None else f", batches {arrival.missing[0]} to {arrival.missing[1] - 1}"
            self.doubts.append(f"KV events: {arrival.order.value}{missing}")
        if not self.events_seen:
            self._rank = arrival.batch.rank
        if arrival.batch.rank != self._rank:
            self.doubts.append(f"KV events: of rank {arrival.batch.rank} beside rank {self._rank}")
            return  # Each rank has a cache of its own, and no answer tells which one served it.
        for event in arrival.batch.events:
            self.events_seen += 1
            self.blocks.write(event, self.trace)
            self._tell_losses()

    def _tell_losses(self) -> None:
        for w in self._watched.values():
            if not (w.open and w.hashes) or w.claim.mode is not Mode.SOFT_PRIORITY:
                continue
            lost = [i for i, h in enumerate(w.hashes) if not self.blocks.tiers_of(h)]
            if lost:
                w.open = False
                self.trace.emit(
                    ev.ClaimHarmed,
                    **self._named(w.claim, None),
                    reason="evicted",
                    lost_pos=ranges_of(lost),
                    outcome_claim_id=w.claim.claim_id,
                )

    def _wait_for_blocks(self, pending: Pending) -> None:
        """Enter events until all full blocks of the prompt were stored; all that happened before is then known."""
        full = len(pending.token_ids) // self._page_tokens

        def stored() -> bool:
            chain = self.blocks.chain_of(pending.token_ids, self._page_tokens, pending.cache_salt)
            return len(chain) == full and all(self.blocks.holds(h, "device") for h in chain)

        if not self.wait_until(stored) and pending.watched is not None:
            self.doubts.append(f"the blocks of request {pending.request_id} were never told of")

    def _from_storage(self, pending: Pending, told: int, usage: Usage) -> int:
        """Return how many leading blocks came from storage by both sources, of which no event had told before.

        The answer counts storage tokens, and each block was stored in the host pool before it was on the device.
        """
        if not usage.storage_tokens:
            return 0
        chain = self.blocks.chain_of(pending.token_ids, self._page_tokens, pending.cache_salt)[:told]
        return _leading(chain, lambda h: self.blocks.came_from(h, "host", "device"))

    def _word_on(self, w: Watched, request_id: str, told: int, seen: int) -> None:
        named = self._named(w.claim, request_id)
        if not w.hashes:
            chain = self.blocks.chain_of(w.token_ids, self._page_tokens, w.cache_salt)
            if len(chain) == w.blocks:
                w.hashes = chain
                self.trace.emit(
                    ev.ClaimMaterialized,
                    **named,
                    tier="device",
                    retrievable_pos=((0, w.blocks),),
                    object_blocks=w.blocks,
                    footprint_blocks=w.blocks,
                    block_hashes=w.hashes,
                )
            return
        word = word_of(told, seen)
        if told and word != "unexplained":
            self.trace.emit(ev.ClaimReused, **named, tier="device", reused_pos=((0, told),))
        if word != "unexplained" and told < w.blocks:
            self.trace.emit(
                ev.RequestRecomputed,
                request_id=request_id,
                claim_id=w.claim.claim_id,
                owner_scope=w.claim.owner_scope,
                recomputed_pos=((told, w.blocks),),
                reason="fewer tokens were told as cached than blocks were seen" if seen else "no tier had the blocks",
            )

    def _begun(self, request_id: str, prompt_tokens: int, claim: ResidentClaim | None) -> None:
        self.trace.emit(
            ev.RequestInitialized,
            request_id=request_id,
            claim_id=claim.claim_id if claim else None,
            owner_scope=claim.owner_scope if claim else None,
            prompt_tokens=prompt_tokens,
        )

    def _ended(self, request_id: str, finish_status: str, output_tokens: int) -> None:
        self.trace.emit(
            ev.RequestTerminated, request_id=request_id, finish_status=finish_status, output_tokens=output_tokens
        )

    def _named(self, claim: ResidentClaim, request_id: str | None) -> dict[str, object]:
        return {
            "claim_id": claim.claim_id,
            "owner_scope": claim.owner_scope,
            "object_id": claim.object_id,
            "token_map_id": claim.token_map_id,
            "cache_identity": claim.cache_identity,
            "predicate": str(claim.predicate),
            "request_id": request_id,
            "generation": 0,
        }


def word_of(told_blocks: int, seen_blocks: int) -> str:
    """Return what follows from the blocks that an answer tells and the events showed; see `Reading`."""
    if told_blocks > seen_blocks:
        return "unexplained"
    if told_blocks < seen_blocks:
        return "recomputed"
    return "reused" if told_blocks else "none"


def _leading(chain: Iterable[str], is_there: Callable[[str], bool]) -> int:
    count = 0
    for block_hash in chain:
        if not is_there(block_hash):
            break
        count += 1
    return count
