"""Claims on the pool of one KVCR: an adapter at its public extension points, which KVCR itself knows nothing of.

KVCR excludes claimed blocks from eviction and fails what does not fit beside them, without a name, an owner or a term.
The desk adds those: it holds the handles and never hands them out, decides before KVCR is asked, and tells every
outcome before the block may go. What bypasses the desk and talks to the same KVCR is outside of what it promises.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

from residentkv.claims.arbiter import Action, Answer, Arbiter, ArbiterPolicy, ClaimDecision, Relief, RequestDecision
from residentkv.claims.ledger import ClaimRecord, Key
from residentkv.claims.lifecycle import OPEN
from residentkv.claims.model import bind_claim, decode_claim_request
from residentkv.claims.modes import Mode
from residentkv.claims.predicates import ranges_of
from residentkv.errors import UsageError
from residentkv.runtimes.claimlog import ClaimLog
from residentkv.runtimes.kvcr.content import BLOCK_TOKENS, IDENTITY, Prompt, name_key
from residentkv.runtimes.kvcr.node import Node, Outcome
from residentkv.trace.events import BlockRemoved, BlockStored, ClaimReused, RequestRecomputed

SUCCESS = "SUCCESS"
TIER = "kvcr.local_dram"
MODES = frozenset({Mode.BEST_EFFORT, Mode.EXPIRING, Mode.DEMOTABLE, Mode.HARD_PROTECTED})


class NotYourClaim(UsageError):
    """This owner has no open claim of this name; whether somebody else has one is not told."""


class Held(msgspec.Struct, kw_only=True):
    """A claim, the blocks that it is about, and the handles that KVCR gave for them."""

    record: ClaimRecord
    prompt: Prompt
    handles: tuple[int, ...] = ()


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a request: its end, who was in the way, and which keys KVCR itself failed."""

    finish_status: str
    blocking: tuple[str, ...] = ()
    failed: tuple[bytes, ...] = ()
    reused_blocks: int = 0


class Desk:
    """The claims of one node; one thread. `now_ns` is the clock of the trace."""

    def __init__(self, log: ClaimLog, *, now_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self.log = log
        self._now_ns = now_ns
        self._held: dict[Key, Held] = {}
        self._changes: list[tuple[tuple[bytes, ...], bool]] = []
        self._requests = 0
        self._node: Node | None = None
        self._arbiter: Arbiter | None = None

    def on_inventory(self, keys: tuple[bytes, ...], tier: str, removed: bool) -> None:
        """KVCR's inventory sink: remember what came and went, in order."""
        self._changes.append((keys, removed))

    def attach(self, node: Node) -> None:
        """Decide from now on about the pool of this node; it was built with `on_inventory`."""
        self._node = node
        policy = ArbiterPolicy(supported_modes=MODES, min_active_blocks=0)
        self._arbiter = Arbiter(self.log.ledger, usable_blocks=node.slots, policy=policy)

    @property
    def node(self) -> Node:
        """The node that the desk decides about."""
        if self._node is None:
            raise UsageError("the desk has no node yet; call attach first")
        return self._node

    def claim(self, wire: dict[str, Any], prompt: Prompt) -> ClaimDecision:
        """Answer a claim on a prefix whose blocks lie in the node's buffer from index 0, and take it into the pool."""
        log, arbiter = self.log, self._decider()
        request = decode_claim_request(wire)
        claim = bind_claim(
            request,
            cache_identity=IDENTITY.digest(),
            object_id=prompt.names[-1],
            token_map_id=prompt.token_map_id,
            footprint_blocks=prompt.blocks,
        )
        request_id = self._begin(claim.owner_scope, claim.claim_id, prompt)
        self.expire_due()
        record = log.ledger.submit(claim)
        decision = arbiter.decide_claim(claim, object_blocks=prompt.blocks)
        if decision.verdict is not Answer.ACCEPTED:
            log.reject(record, request_id, decision.reason, decision.detail)
            log.end_request(request_id, "aborted")
            return decision
        log.accept(record, request_id, decision, now_ns=self._now_ns())
        held = Held(record=record, prompt=prompt)
        self._held[claim.key] = held
        reserved = prompt.blocks if record.protected_blocks() else 0
        need = arbiter.decide_request(prompt.blocks - reserved, active_blocks=0, now_ns=self._now_ns())
        log.admit(request_id, need, ())
        results = self.node.deposit({key: i for i, key in enumerate(prompt.keys)}, no_evict=bool(reserved))
        self._tell_changes()
        held.handles = tuple(r.handle for r in results.values() if r.handle is not None)
        if self._all_claimed(results, prompt):
            log.materialize(record, request_id, tier=TIER, held_pos=((0, prompt.blocks),), block_hashes=prompt.names)
            log.end_request(request_id, "stopped")
        else:
            log.demote(record, request_id, "deposit_failed")
            self._give_back(held)
            log.end_request(request_id, "aborted")
        return decision

    def read(self, owner_scope: str, claim_id: str) -> Reply:
        """Copy the blocks of a claim into the node's buffer, from index 0, for a request of its owner.

        Raises:
            NotYourClaim: this owner has no such claim.
        """
        self.expire_due()
        held = self._find(owner_scope, claim_id)
        log, record, prompt = self.log, held.record, held.prompt
        request_id = self._begin(owner_scope, claim_id, prompt)
        log.admit(request_id, self._decider().decide_request(0, active_blocks=0, now_ns=self._now_ns()), ())
        results = self.node.deliver({key: i for i, key in enumerate(prompt.keys)})
        self._tell_changes()
        failed = tuple(key for key, r in results.items() if r.word != SUCCESS)
        missing = ranges_of(prompt.keys.index(k) for k in failed)
        if failed and record.mode is Mode.BEST_EFFORT:
            log.emit(
                RequestRecomputed,
                request_id=request_id,
                claim_id=claim_id,
                owner_scope=owner_scope,
                recomputed_pos=missing,
                reason="not_in_pool",
            )
            log.end_request(request_id, "stopped")
            return Reply(finish_status="stopped", failed=failed)
        if failed:
            log.harm(record, request_id, "not_delivered", missing)
            self._give_back(held)
            log.end_request(request_id, "error")
            return Reply(finish_status="error", failed=failed)
        log.emit_claim(ClaimReused, record, request_id, tier=TIER, reused_pos=((0, prompt.blocks),))
        log.end_request(request_id, "stopped")
        return Reply(finish_status="stopped", reused_blocks=prompt.blocks)

    def deposit(self, prompt: Prompt) -> Reply:
        """Deposit blocks that nobody claims, if they fit beside the claims; otherwise say which are in the way."""
        log, arbiter = self.log, self._decider()
        request_id = self._begin(None, None, prompt)
        self._tell_changes()
        need = sum(status != "HIT" for status, _ in self.node.query(prompt.keys))
        actions: list[str] = []
        decision = arbiter.decide_request(need, active_blocks=0, now_ns=self._now_ns())
        if decision.action is not Action.ADMIT:
            blocking = log.refuse(request_id, decision)
            log.end_request(request_id, "refused")
            return Reply(finish_status="refused", blocking=blocking)
        self._relieve(decision, request_id, actions)
        log.admit(request_id, decision, tuple(actions))
        results = self.node.deposit({key: i for i, key in enumerate(prompt.keys)}, no_evict=False)
        self._tell_changes()
        failed = tuple(key for key, r in results.items() if r.word != SUCCESS)
        status = "error" if failed else "stopped"
        log.end_request(request_id, status)
        return Reply(finish_status=status, failed=failed)

    def release(self, owner_scope: str, claim_id: str) -> None:
        """Let a claim go: first the word, then the handles.

        Raises:
            NotYourClaim: this owner has no such claim.
        """
        held = self._find(owner_scope, claim_id)
        self.log.release(held.record, owner_scope, "owner")
        self._give_back(held)

    def expire_due(self) -> None:
        """End the claims whose term is over: first the word, then the handles."""
        for record in self.log.ledger.due(self._now_ns()):
            self.log.expire(record)
            self._give_back(self._held[record.claim.key])

    def close(self) -> None:
        """End every claim and the trace; the node is closed by whoever made it."""
        self.expire_due()
        for held in list(self._held.values()):
            if held.record.state in OPEN:
                self.log.release(held.record, "engine:shutdown", "shutdown")
                self._give_back(held)
        self._tell_changes()
        self.log.close("shutdown")

    def _relieve(self, decision: RequestDecision, request_id: str, actions: list[str]) -> None:
        for what, record in decision.relief:
            if what is Relief.EXPIRE:
                self.log.expire(record)
            else:
                self.log.demote(record, request_id, "capacity")
            self._give_back(self._held[record.claim.key])
            actions.append(f"{what.value}:{record.claim.claim_id}")

    def _give_back(self, held: Held) -> None:
        if held.handles:
            self.node.release(held.handles)
            held.handles = ()

    def _find(self, owner_scope: str, claim_id: str) -> Held:
        held = self._held.get((owner_scope, claim_id))
        if held is None or held.record.state not in OPEN:
            raise NotYourClaim(f"{owner_scope!r} has no open claim {claim_id!r}; claim it first, under your own name")
        return held

    def _decider(self) -> Arbiter:
        if self._arbiter is None:
            raise UsageError("the desk has no node yet; call attach first")
        return self._arbiter

    def _begin(self, owner_scope: str | None, claim_id: str | None, prompt: Prompt) -> str:
        self._requests += 1
        request_id = f"request-{self._requests}"
        self.log.begin_request(request_id, owner_scope, claim_id, prompt.blocks * BLOCK_TOKENS)
        return request_id

    @staticmethod
    def _all_claimed(results: dict[bytes, Outcome], prompt: Prompt) -> bool:
        return all(key in results and results[key].word == SUCCESS for key in prompt.keys)

    def _tell_changes(self) -> None:
        changes, self._changes = self._changes, []
        for keys, removed in changes:
            self.log.emit(
                BlockRemoved if removed else BlockStored,
                tier=TIER,
                block_hashes=tuple(name_key(k) for k in keys),
                block_ids=(),
                request_id=None,
            )
