"""Claims routed by Dynamo: an adapter before the frontend that binds, verifies and tells (mode `routed_reuse`).

It turns public knobs only: the worker named in a request, or its session. An answer says which worker it came from;
that is not believed. Every request of a claim ends in a tail of tokens that nobody has sent before, so that the worker
that really computed it must publish a store of that tail. After each answer a fence goes to every worker: a request of
its own, whose store shows that all earlier events of that worker were seen. A worker to which nobody can connect is
lost; one that is alive and serves no fence leaves the matter open.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from residentkv.claims.arbiter import Answer, Arbiter, ArbiterPolicy, ClaimDecision
from residentkv.claims.ledger import ClaimRecord, Key
from residentkv.claims.lifecycle import OPEN
from residentkv.claims.model import CacheIdentity, bind_claim, decode_claim_request, token_map_digest
from residentkv.claims.modes import Mode
from residentkv.claims.predicates import Ranges, ranges_of
from residentkv.errors import UsageError
from residentkv.runtimes.claimlog import ClaimLog
from residentkv.runtimes.dynamo.client import Frontend, Response
from residentkv.runtimes.dynamo.fleet import BLOCK_TOKENS
from residentkv.runtimes.dynamo.kvevents import DEVICE, BlockIndex, Change, Continuity
from residentkv.runtimes.dynamo.listener import Listener
from residentkv.trace.events import BlockRemoved, BlockStored, ClaimRouteBound, ClaimRouteOutcome, RuntimeEvent

HashBlocks = Callable[[Sequence[int]], tuple[int, ...]]
PATIENCE_S = 10.0
RETRY_S = 0.2
FENCE_VOCABULARY = 40_000
"""Token ids of fences begin here, so that no prompt is like one; no two fences of a router are alike."""


class Knob(StrEnum):
    """How a request of a claim is sent to its worker."""

    WORKER = "worker"
    SESSION = "session"


class ClaimOver(UsageError):
    """This owner has no open claim of this name; the message says how it ended if it had one."""


class Kept(msgspec.Struct, kw_only=True):
    """A claim, its tokens, the hash of each of its blocks' own tokens, and the worker incarnation it is bound to."""

    record: ClaimRecord
    tokens: tuple[int, ...]
    local: tuple[int, ...]
    worker_id: int | None = None
    epoch: int = 0
    blocks: tuple[int, ...] = ()


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a request of a claim.

    `outcome` is null when nothing could be verified; `computed_by` are the workers whose events show the request, and
    `told` is the worker that the answer named.
    """

    answer: Response
    outcome: str | None
    computed_by: tuple[int, ...]
    told: int | None
    reused_blocks: int

    @property
    def stale(self) -> bool:
        """Whether the answer names a worker although another one computed the request."""
        return self.told is not None and bool(self.computed_by) and self.computed_by != (self.told,)


class Fence(msgspec.Struct, frozen=True, kw_only=True):
    """Workers that are gone, and workers that are alive and served no fence, so that their events may be late."""

    lost: tuple[int, ...]
    missed: tuple[int, ...]


class ClaimRouter:
    """Claims of one model behind one frontend; one thread.

    Args:
        worker_blocks: device blocks of each worker; a claim larger than that is rejected.
        workers: the workers that discovery lists now.
        is_alive: whether a worker can be connected to; what it answers under load is no measure of that.
    """

    def __init__(
        self,
        log: ClaimLog,
        frontend: Frontend,
        listener: Listener,
        *,
        knob: Knob,
        identity: CacheIdentity,
        hash_blocks: HashBlocks,
        worker_blocks: int,
        workers: Callable[[], list[int]],
        is_alive: Callable[[int], bool],
    ) -> None:
        self.log = log
        self.index = BlockIndex()
        self._frontend = frontend
        self._listener = listener
        self._knob = knob
        self._identity = identity.digest()
        self._hash = hash_blocks
        self._workers = workers
        self._is_alive = is_alive
        self._lost: set[int] = set()
        self._kept: dict[Key, Kept] = {}
        self._requests = 0
        self._fences = 0
        policy = ArbiterPolicy(supported_modes=frozenset({Mode.ROUTED_REUSE, Mode.BEST_EFFORT}), min_active_blocks=0)
        self._arbiter = Arbiter(log.ledger, usable_blocks=worker_blocks, policy=policy)

    def bind(self, wire: dict[str, Any], tokens: Sequence[int], tail: Sequence[int]) -> ClaimDecision:
        """Answer a claim on a prefix of whole blocks, let Dynamo place it, and bind it to who holds it afterwards.

        Raises:
            UsageError: the tail is shorter than a block, or not fresh.
        """
        self._check_tail(tokens, tail)
        log, local = self.log, self._hash(tokens)
        claim = bind_claim(
            decode_claim_request(wire),
            cache_identity=self._identity,
            object_id=f"prefix:{token_map_digest(tokens)[7:39]}",
            token_map_id=token_map_digest(tokens),
            footprint_blocks=len(local),
        )
        request_id = self._begin(claim.key, len(tokens) + len(tail))
        record = log.ledger.submit(claim)
        decision = self._arbiter.decide_claim(claim, object_blocks=len(local))
        usable = self._arbiter.usable_blocks
        if decision.verdict is Answer.ACCEPTED and len(local) > usable:
            detail = f"footprint {len(local)} blocks, a worker has {usable}"
            decision = msgspec.structs.replace(decision, verdict=Answer.REJECTED, reason="never_fits", detail=detail)
        if decision.verdict is not Answer.ACCEPTED:
            log.reject(record, request_id, decision.reason, decision.detail)
            log.end_request(request_id, "aborted")
            return decision
        log.accept(record, request_id, decision, now_ns=time.monotonic_ns())
        kept = self._kept[claim.key] = Kept(record=record, tokens=tuple(tokens), local=local)
        answer = self._send(kept, tail, {})
        self.fence()
        holders = self._computed_by(kept, tail)
        worker_id = holders[0] if len(holders) == 1 and answer.worker_id == holders[0] else None
        if answer.served and worker_id is not None and self._is_whole(worker_id):
            kept.worker_id = worker_id
            kept.epoch = self.index.holdings[worker_id, 0].epoch
            kept.blocks = tuple(self.index.find(worker_id, local))
            names = tuple(name_block(worker_id, block) for block in kept.blocks)
            log.materialize(record, request_id, tier=DEVICE, held_pos=((0, len(names)),), block_hashes=names)
            log.emit_claim(ClaimRouteBound, record, request_id, worker_id=str(worker_id), worker_epoch=kept.epoch)
        else:
            log.demote(record, request_id, "not_witnessed")
        log.end_request(request_id, _status(answer), answer.output_tokens)
        return decision

    def serve(self, owner_scope: str, claim_id: str, tail: Sequence[int], **more: Any) -> Served:
        """Send a request that begins with the claim's tokens to its worker, and tell where it was really computed.

        Raises:
            ClaimOver: the claim is not open (any more); the owner has to claim again.
            UsageError: the tail is shorter than a block, or not fresh.
        """
        self.poll()
        kept = self._find(owner_scope, claim_id)
        self._check_tail(kept.tokens, tail)
        request_id = self._begin(kept.record.claim.key, len(kept.tokens) + len(tail))
        answer = self._send(kept, tail, more)
        fence = self.fence()
        computed = self._computed_by(kept, tail)
        served = self._judge(kept, request_id, answer, computed, fence)
        self._harm_if_lost(kept, request_id)
        self.log.end_request(request_id, _status(answer), answer.output_tokens)
        return served

    def release(self, owner_scope: str, claim_id: str) -> None:
        """Let a claim go.

        Raises:
            ClaimOver: this owner has no open claim of this name.
        """
        self.log.release(self._find(owner_scope, claim_id).record, owner_scope, "owner")

    def bound_to(self, owner_scope: str, claim_id: str) -> int | None:
        """Return the worker that a claim of this owner was bound to."""
        kept = self._kept.get((owner_scope, claim_id))
        return None if kept is None else kept.worker_id

    def kept_blocks(self, owner_scope: str, claim_id: str) -> frozenset[int]:
        """Return the blocks of a claim of this owner at its worker, by sequence hash."""
        kept = self._kept.get((owner_scope, claim_id))
        return frozenset() if kept is None else frozenset(kept.blocks)

    def state(self, owner_scope: str, claim_id: str) -> str:
        """Return where a claim of this owner stands, in a word."""
        kept = self._kept.get((owner_scope, claim_id))
        return "unknown" if kept is None else kept.record.state.value

    def poll(self, wait_s: float = 0.0) -> None:
        """Take the events that came, tell what came and went, and harm by name the claims that lost a block."""
        self._take(wait_s)
        for kept in self._open():
            self._harm_if_lost(kept, None)

    def fence(self) -> Fence:
        """See every event that was published before now, worker by worker."""
        lost: list[int] = []
        missed: list[int] = []
        bound = {k.worker_id for k in self._open() if k.worker_id is not None}
        for worker_id in sorted(bound | set(self._workers())):
            if worker_id in self._lost:
                continue
            tokens = self._pass_fence(worker_id)
            if tokens is None:
                (missed if self._is_alive(worker_id) else lost).append(worker_id)
                continue
            local = self._hash(tokens)
            until = time.monotonic() + PATIENCE_S
            self._take(0.0)
            while worker_id not in self.index.holders(local):
                if time.monotonic() > until:
                    self.index.doubt(worker_id)
                    break
                self._take(0.1)
        self._lost.update(lost)
        self._take(0.0)
        return Fence(lost=tuple(lost), missed=tuple(missed))

    def _pass_fence(self, worker_id: int) -> list[int] | None:
        """Let a worker serve tokens of its own; None when it is gone, or when it turns them away for too long."""
        tokens = self._fence_tokens()
        until = time.monotonic() + PATIENCE_S
        while not self._frontend.complete(tokens, worker_id=worker_id, max_tokens=1).served:
            if not self._is_alive(worker_id) or time.monotonic() > until:
                return None
            time.sleep(RETRY_S)
        return tokens

    def close(self) -> None:
        """End every claim and the trace."""
        self.poll()
        for kept in self._open():
            if kept.worker_id is None or self._is_whole(kept.worker_id):
                self.log.release(kept.record, "engine:shutdown", "shutdown")
        self.log.close("shutdown")

    def _take(self, wait_s: float) -> None:
        """Take events without a word about claims, which the caller owes."""
        for batch in self._listener.read(wait_s):
            for event in batch.events:
                continuity, changes = self.index.apply(event)
                if continuity in (Continuity.GAP, Continuity.RESTART):
                    name = f"dynamo:kv_event_{continuity.value}:{event.worker_id}"
                    self.log.emit(RuntimeEvent, name=name, request_id=None, job_id=None)
                if self._is_whole(event.worker_id):
                    self._tell(changes)  # After a gap what still comes is only a part, and would mislead.

    def _judge(self, kept: Kept, request_id: str, answer: Response, computed: tuple[int, ...], fence: Fence) -> Served:
        bound, needed = kept.worker_id, kept.record.claim.predicate.needed(len(kept.local))[1]
        cached = None if answer.cached_tokens is None else answer.cached_tokens // BLOCK_TOKENS
        outcome: str | None = None
        at, reused = bound, 0
        others = tuple(w for w in computed if w != bound)
        if bound is None or not (self._is_whole(bound) or bound in self._lost):
            outcome = None  # Nobody knows what the worker holds; saying nothing leaves the audit inconclusive.
        elif not answer.served:
            outcome = "refused"
        elif fence.missed:
            outcome = None  # Somebody's events may be late, so nobody knows who else computed it.
        elif others:
            outcome, at = "moved", others[-1]
        elif computed and self._has_restarted(kept):
            outcome = "lost"  # What a restarted worker has, it did not have when the claim was bound to it.
        elif cached is None:
            outcome = None  # An answer that does not tell what was cached does not tell that nothing was.
        elif computed and cached < needed:
            outcome = "lost"
        elif computed and answer.worker_id == bound:
            outcome, reused = "served_by_binding", min(cached, len(kept.local))
        if outcome is not None and at is not None:
            holding = self.index.holdings.get((at, 0))
            epoch = holding.epoch if holding is not None else 0
            self.log.emit_claim(
                ClaimRouteOutcome,
                kept.record,
                request_id,
                worker_id=str(at),
                worker_epoch=kept.epoch if outcome == "refused" else epoch,
                outcome=outcome,
                reused_blocks=None if outcome == "lost" and cached != 0 else reused,
                outcome_claim_id=kept.record.claim.claim_id,
            )
        return Served(answer=answer, outcome=outcome, computed_by=computed, told=answer.worker_id, reused_blocks=reused)

    def _harm_if_lost(self, kept: Kept, request_id: str | None) -> None:
        """Say that a claim is harmed when its worker is lost, or when needed blocks left it."""
        bound = kept.worker_id
        if bound is None or kept.record.state not in OPEN:
            return
        if bound in self._lost:
            self._tell(self.index.forget(bound))
            self.log.harm(kept.record, request_id, "worker_lost", self._needed(kept))
            return
        if not self._is_whole(bound):
            return  # As above: the claim stays without an outcome.
        holding = self.index.holdings[bound, 0]
        if self._has_restarted(kept):
            self.log.harm(kept.record, request_id, "worker_restarted", self._needed(kept))
            return
        (start, end), *_ = self._needed(kept)
        gone = ranges_of(p for p in range(start, end) if not holding.holds(kept.blocks[p]))
        if gone:
            self.log.harm(kept.record, request_id, "evicted_at_worker", gone)

    def _needed(self, kept: Kept) -> Ranges:
        start, count = kept.record.claim.predicate.needed(len(kept.local))
        return ((start, start + count),)

    def _has_restarted(self, kept: Kept) -> bool:
        holding = self.index.holdings.get((kept.worker_id or 0, 0))
        return holding is not None and holding.epoch != kept.epoch

    def _is_whole(self, worker_id: int) -> bool:
        holding = self.index.holdings.get((worker_id, 0))
        return holding is not None and holding.whole

    def _computed_by(self, kept: Kept, tail: Sequence[int]) -> tuple[int, ...]:
        """Return the workers whose events show this very request, to its fresh tail."""
        return tuple(self.index.holders(self._hash([*kept.tokens, *tail])))

    def _check_tail(self, tokens: Sequence[int], tail: Sequence[int]) -> None:
        check_tail(tail, self.index.holders(self._hash([*tokens, *tail])))

    def _send(self, kept: Kept, tail: Sequence[int], more: dict[str, Any]) -> Response:
        claim = kept.record.claim
        if self._knob is Knob.SESSION:
            more = {"session": f"{claim.owner_scope}/{claim.claim_id}", **more}
        elif kept.worker_id is not None:
            more = {"worker_id": kept.worker_id, **more}
        return self._frontend.complete([*kept.tokens, *tail], **more)

    def _tell(self, changes: Sequence[Change]) -> None:
        for change in changes:
            for kind, blocks in ((BlockStored, change.stored), (BlockRemoved, change.removed)):
                if blocks:
                    self.log.emit(
                        kind,
                        tier=change.tier,
                        block_hashes=tuple(name_block(change.worker_id, b) for b in blocks),
                        block_ids=(),
                        request_id=None,
                    )

    def _open(self) -> list[Kept]:
        return [k for k in self._kept.values() if k.record.state in OPEN]

    def _find(self, owner_scope: str, claim_id: str) -> Kept:
        kept = self._kept.get((owner_scope, claim_id))
        if kept is None or kept.record.state not in OPEN:
            how = "" if kept is None else f"; it ended as {kept.record.state.value}"
            raise ClaimOver(f"{owner_scope!r} has no open claim {claim_id!r}{how}; claim it again")
        return kept

    def _begin(self, key: Key, prompt_tokens: int) -> str:
        self._requests += 1
        request_id = f"request-{self._requests}"
        self.log.begin_request(request_id, key[0], key[1], prompt_tokens)
        return request_id

    def _fence_tokens(self) -> list[int]:
        self._fences += 1
        high, low = divmod(self._fences, 1000)
        return [FENCE_VOCABULARY + high % 1000, FENCE_VOCABULARY + 1000 + low, *([FENCE_VOCABULARY] * BLOCK_TOKENS)]


def check_tail(tail: Sequence[int], holders: Sequence[int]) -> None:
    """Refuse a tail that would not show who computes it: a worker that has it already stores nothing for it.

    Args:
        holders: the workers whose events show a prompt that ends in this tail.

    Raises:
        UsageError: the tail is shorter than a block, or not fresh.
    """
    expected = f"expected at least one block of {BLOCK_TOKENS} fresh ones"
    if len(tail) < BLOCK_TOKENS:
        raise UsageError(f"tail: found {len(tail)} tokens, {expected}")
    if holders:
        raise UsageError(f"tail: found tokens that a worker holds already, {expected}")


def name_block(worker_id: int, block: int) -> str:
    """Return the name of a block at a worker; for a routed claim a copy elsewhere is another block."""
    return f"{worker_id}:{block:016x}"


def _status(answer: Response) -> str:
    if answer.served:
        return answer.finish_reason or "stop"
    return "error"
