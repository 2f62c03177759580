"""Claims that are only watched: they are joined to the events of workers and to the cached tokens of answers.

Nothing is steered, so nothing is promised but that hits and misses can be told by claim (mode `best_effort`). Every
request ends in a tail of tokens that nobody has sent before, so that whoever computes it publishes a store of it. Where
an event is missing, an answer names another worker than the events show, tells no cached tokens, or more of them than
that worker had blocks, nothing is said.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from residentkv.claims.ledger import ClaimRecord
from residentkv.claims.model import CacheIdentity, bind_claim, decode_claim_request, token_map_digest
from residentkv.claims.modes import Mode
from residentkv.errors import UsageError
from residentkv.runtimes.claimlog import ClaimLog
from residentkv.runtimes.dynamo.client import Frontend, Response
from residentkv.runtimes.dynamo.fleet import BLOCK_TOKENS
from residentkv.runtimes.dynamo.kvevents import DEVICE, BlockIndex, Change, Continuity
from residentkv.runtimes.dynamo.listener import Listener
from residentkv.runtimes.dynamo.router import HashBlocks, check_tail
from residentkv.trace.events import BlockRemoved, BlockStored, ClaimReused, RequestRecomputed

PATIENCE_S = 5.0


class Observer:
    """One claim after another, watched through one frontend.

    `doubts` are what keeps the trace from a conclusion: `close` then leaves it open.
    """

    mode = Mode.BEST_EFFORT

    def __init__(
        self,
        log: ClaimLog,
        frontend: Frontend,
        listener: Listener,
        *,
        identity: CacheIdentity,
        hash_blocks: HashBlocks,
    ) -> None:
        self.log = log
        self.index = BlockIndex()
        self.doubts: list[str] = []
        self._frontend = frontend
        self._listener = listener
        self._identity = identity.digest()
        self._hash = hash_blocks
        self._requests = 0
        self._watched: dict[str, tuple[ClaimRecord, tuple[int, ...], tuple[int, ...]]] = {}

    def watch(self, wire: dict[str, Any], tokens: Sequence[int], tail: Sequence[int]) -> Response:
        """Name a prefix of whole blocks, send it once, and see where its blocks came to lie.

        Raises:
            UsageError: the claim asks for more than an observer can give, one of its name is watched already, or the
                tail is shorter than a block or not fresh.
        """
        log, local = self.log, self._hash(tokens)
        claim = bind_claim(
            decode_claim_request(wire),
            cache_identity=self._identity,
            object_id=f"prefix:{token_map_digest(tokens)[7:39]}",
            token_map_id=token_map_digest(tokens),
            footprint_blocks=len(local),
        )
        if claim.mode is not self.mode:
            raise UsageError(
                f"mode: found {claim.mode.value}; this observer names {self.mode.value} claims and accepts no other"
            )
        if claim.claim_id in self._watched:
            raise UsageError(f"claim_id: found {claim.claim_id!r} again; an observer watches a name once")
        self._check_tail(tokens, tail)
        request_id = self._begin(claim.owner_scope, claim.claim_id, len(tokens) + len(tail))
        record = log.ledger.submit(claim)
        log.accept(record, request_id, None, now_ns=time.monotonic_ns())
        self._watched[claim.claim_id] = (record, tuple(tokens), local)
        answer = self._frontend.complete([*tokens, *tail])
        holder = self._find_holder([*tokens, *tail])
        agreed = answer.worker_id in (None, holder)
        if answer.served and holder is not None and agreed and self.index.holdings[holder, 0].whole:
            names = tuple(f"{block:016x}" for block in self.index.find(holder, local))
            log.materialize(
                record, request_id, tier=place(DEVICE, holder), held_pos=((0, len(names)),), block_hashes=names
            )
        else:
            log.demote(record, request_id, "not_witnessed")
        self._end(request_id, answer)
        return answer

    def request(self, claim_id: str, tail: Sequence[int]) -> tuple[Response, int | None]:
        """Send the claim's tokens again; tell whether they were reused, and return who computed them.

        Nothing is said when the events of nobody, of several workers or with a gap show who that was, or when the
        answer does not agree with them.

        Raises:
            UsageError: the tail is shorter than a block, or not fresh.
        """
        record, tokens, local = self._watched[claim_id]
        self._check_tail(tokens, tail)
        request_id = self._begin(record.claim.owner_scope, claim_id, len(tokens) + len(tail))
        seen = {worker_id: len(self.index.find(worker_id, local, None)) for worker_id, _ in self.index.holdings}
        answer = self._frontend.complete([*tokens, *tail])
        holder = self._find_holder([*tokens, *tail])
        if answer.served:
            holder = self._conclude(record, request_id, answer, holder, len(local), seen)
        self._end(request_id, answer)
        return answer, holder

    def _conclude(
        self,
        record: ClaimRecord,
        request_id: str,
        answer: Response,
        holder: int | None,
        blocks: int,
        seen: dict[int, int],
    ) -> int | None:
        """Tell what an answer and the events show, and return who computed it.

        Args:
            record: the claim.
            request_id: of the request that was served.
            answer: to it.
            holder: the worker whose events show the request, when that is one.
            blocks: of the claim.
            seen: blocks of the claim that each worker held before, by its events.
        """
        if holder is None or not self.index.holdings[holder, 0].whole:
            return holder
        if answer.worker_id not in (None, holder):
            self.doubts.append(f"{request_id}: told to be of worker {answer.worker_id}, seen at worker {holder}")
            return None
        if answer.cached_tokens is None:
            self.doubts.append(f"{request_id}: not told how many tokens were cached")
            return holder
        cached = min(answer.cached_tokens // BLOCK_TOKENS, blocks)
        if cached > seen.get(holder, 0):
            self.doubts.append(f"{request_id}: {cached} blocks told as cached, {seen.get(holder, 0)} seen there")
            return None
        if cached:
            self.log.emit_claim(ClaimReused, record, request_id, tier=place(DEVICE, holder), reused_pos=((0, cached),))
        if cached < blocks:
            self.log.emit(
                RequestRecomputed,
                request_id=request_id,
                claim_id=record.claim.claim_id,
                owner_scope=record.claim.owner_scope,
                recomputed_pos=((cached, blocks),),
                reason="not_cached",
            )
        return holder

    def probe(self, tokens: Sequence[int], **more: Any) -> Response:
        """Send a prompt that belongs to no claim."""
        request_id = self._begin(None, None, len(tokens))
        answer = self._frontend.complete(tokens, **more)
        self._find_holder(tokens)
        self._end(request_id, answer)
        return answer

    def release(self, claim_id: str) -> None:
        """Stop watching a claim."""
        record = self._watched[claim_id][0]
        self.log.release(record, record.claim.owner_scope, "owner")

    def close(self) -> None:
        """End the trace; with doubts it stays open, and so is inconclusive."""
        self._take(0.0)
        if self.doubts:
            self.log.abandon()
        else:
            self.log.close("shutdown")

    def _check_tail(self, tokens: Sequence[int], tail: Sequence[int]) -> None:
        self._take(0.0)
        check_tail(tail, self.index.holders(self._hash([*tokens, *tail])))

    def _find_holder(self, tokens: Sequence[int]) -> int | None:
        """Wait until the events of exactly one worker show these tokens; None when none or several do."""
        local = self._hash(tokens)
        until = time.monotonic() + PATIENCE_S
        while not self.index.holders(local) and time.monotonic() < until:
            self._take(0.1)
        holders = self.index.holders(local)
        return holders[0] if len(holders) == 1 else None

    def _take(self, wait_s: float) -> None:
        for batch in self._listener.read(wait_s):
            for event in batch.events:
                continuity, changes = self.index.apply(event)
                if continuity in (Continuity.GAP, Continuity.RESTART):
                    self.doubts.append(f"worker {event.worker_id}: {continuity.value} at event {event.event_id}")
                self._tell(changes)

    def _tell(self, changes: Sequence[Change]) -> None:
        for change in changes:
            for kind, blocks in ((BlockStored, change.stored), (BlockRemoved, change.removed)):
                if blocks:
                    self.log.emit(
                        kind,
                        tier=place(change.tier, change.worker_id),
                        block_hashes=tuple(f"{block:016x}" for block in blocks),
                        block_ids=(),
                        request_id=None,
                    )

    def _begin(self, owner_scope: str | None, claim_id: str | None, prompt_tokens: int) -> str:
        self._requests += 1
        request_id = f"request-{self._requests}"
        self.log.begin_request(request_id, owner_scope, claim_id, prompt_tokens)
        return request_id

    def _end(self, request_id: str, answer: Response) -> None:
        status = answer.finish_reason if answer.served else None
        self.log.end_request(request_id, status or "error", answer.output_tokens)


def place(tier: str, worker_id: int) -> str:
    """Return the name of a tier of one worker; a copy at any worker counts."""
    return f"{tier}.{worker_id}"
