"""Claims whose bytes are kept in KVCR while their place in framework memory goes (mode `offloadable`).

Store and load are transfers with real bytes, and what they say becomes the claim's. What KVCR has not is a scheduler:
when a load fails, nobody at the boundary of the engine can refuse the request. The connector alone says it, and the
audit of such a trace calls that a failure without an outcome.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from residentkv.claims.arbiter import Answer, Arbiter, ArbiterPolicy
from residentkv.claims.ledger import ClaimRecord
from residentkv.claims.lifecycle import OPEN, Step, advance
from residentkv.claims.model import bind_claim, decode_claim_request
from residentkv.claims.modes import Mode
from residentkv.claims.predicates import Ranges, ranges_of
from residentkv.runtimes.claimlog import ClaimLog
from residentkv.runtimes.kvcr.content import BLOCK_BYTES, BLOCK_TOKENS, IDENTITY, Prompt
from residentkv.runtimes.kvcr.desk import SUCCESS, TIER
from residentkv.runtimes.kvcr.node import Node, Outcome
from residentkv.trace.events import (
    BlockRemoved,
    BlockStored,
    ClaimOffloaded,
    ClaimRestorationFailed,
    ClaimRestored,
    ClaimRestoreRequired,
    ClaimReusedAfterRestore,
    JobCreated,
    LookupResult,
    TransferFinished,
)

PRIMARY = "framework_memory"


class Offloader:
    """One offloadable claim, in the buffer and the pool of one node; one thread."""

    def __init__(
        self, log: ClaimLog, node: Node, *, buffer_blocks: int, now_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self.log = log
        self._now_ns = now_ns
        self.node = node
        self.handles: list[int] = []
        policy = ArbiterPolicy(supported_modes=frozenset({Mode.OFFLOADABLE}), min_active_blocks=0)
        self._arbiter = Arbiter(log.ledger, usable_blocks=buffer_blocks, policy=policy)
        self._record: ClaimRecord | None = None
        self._requests = 0
        self._jobs = 0

    def claim(self, wire: dict[str, Any], prompt: Prompt) -> ClaimRecord:
        """Answer a claim whose bytes lie in the buffer from index 0, store them in the pool, give up their place.

        Returns:
            The claim: offloaded, rejected by the arbiter, or demoted because the pool did not take all of it.
        """
        log = self.log
        claim = bind_claim(
            decode_claim_request(wire),
            cache_identity=IDENTITY.digest(),
            object_id=prompt.names[-1],
            token_map_id=prompt.token_map_id,
            footprint_blocks=prompt.blocks,
        )
        request_id = self._begin(claim.owner_scope, claim.claim_id, prompt)
        record = log.ledger.submit(claim)
        decision = self._arbiter.decide_claim(claim, object_blocks=prompt.blocks)
        if decision.verdict is not Answer.ACCEPTED:
            log.reject(record, request_id, decision.reason, decision.detail)
            log.end_request(request_id, "aborted")
            return record
        self._record = record
        log.accept(record, request_id, decision, now_ns=self._now_ns())
        log.admit(request_id, self._arbiter.decide_request(0, active_blocks=0, now_ns=self._now_ns()), ())
        whole: Ranges = ((0, prompt.blocks),)
        self._blocks(BlockStored, prompt, request_id)
        log.materialize(record, request_id, tier=PRIMARY, held_pos=whole, block_hashes=prompt.names)
        job_id = self._create(record, request_id, "store", whole)
        started_ns = self._now_ns()
        results = self.node.deposit({key: i for i, key in enumerate(prompt.keys)}, no_evict=True)
        self.handles = [r.handle for r in results.values() if r.handle is not None]
        good = self._finish(record, request_id, job_id, "store", prompt, results, started_ns)
        stored = tuple(prompt.names[p] for start, end in good for p in range(start, end))
        if stored:
            log.emit(BlockStored, tier=TIER, block_hashes=stored, block_ids=(), request_id=request_id)
        if good != whole:
            log.demote(record, request_id, "deposit_failed")
            self._give_back()
            self._blocks(BlockRemoved, prompt, request_id)
            log.end_request(request_id, "aborted")
            return record
        log.ledger.step(record, Step.OFFLOAD)
        log.emit_claim(
            ClaimOffloaded,
            record,
            request_id,
            tier_from=PRIMARY,
            tier_to=TIER,
            retrievable_pos=good,
            job_ids=(job_id,),
        )
        self._blocks(BlockRemoved, prompt, request_id)
        log.end_request(request_id, "stopped")
        return record

    def restore(self, record: ClaimRecord, prompt: Prompt, *, before_load: Callable[[], None] = lambda: None) -> bool:
        """Bring the bytes of a claim back to the buffer from index 0 for a request; tell whether all came.

        A claim of which the pool no longer has all is harmed by name. `before_load` is called between the lookup and
        the load, where a copy that was found can still go.

        Raises:
            IllegalTransition: the claim is not offloaded; nothing is written.
        """
        log, claim = self.log, record.claim
        advance(record.state, Step.REQUIRE_RESTORE)  # Raises before anything is written.
        request_id = self._begin(claim.owner_scope, claim.claim_id, prompt)
        need = self._arbiter.decide_request(prompt.blocks, active_blocks=0, now_ns=self._now_ns())
        log.admit(request_id, need, ())
        whole: Ranges = ((0, prompt.blocks),)
        gone = [p for p, (status, _) in enumerate(self.node.query(prompt.keys)) if status != "HIT"]
        log.emit(
            LookupResult,
            request_id=request_id,
            claim_id=claim.claim_id,
            owner_scope=claim.owner_scope,
            tier=TIER,
            hit_pos=ranges_of(p for p in range(prompt.blocks) if p not in gone),
        )
        if gone:
            names = tuple(prompt.names[p] for p in gone)
            log.emit(BlockRemoved, tier=TIER, block_hashes=names, block_ids=(), request_id=request_id)
            log.harm(record, request_id, "not_in_pool", ranges_of(gone))
            self._give_back()
            log.end_request(request_id, "error")
            return False
        before_load()
        log.ledger.step(record, Step.REQUIRE_RESTORE)
        log.emit_claim(ClaimRestoreRequired, record, request_id, tier_from=TIER, tier_to=PRIMARY, required_pos=whole)
        job_id = self._create(record, request_id, "load", whole)
        started_ns = self._now_ns()
        results = self.node.deliver({key: i for i, key in enumerate(prompt.keys)})
        good = self._finish(record, request_id, job_id, "load", prompt, results, started_ns)
        if good != whole:
            log.ledger.step(record, Step.FAIL_RESTORE)
            log.emit_claim(
                ClaimRestorationFailed,
                record,
                request_id,
                job_id=job_id,
                reason="not_delivered",
                failed_pos=failed_positions(prompt, results),
                outcome_claim_id=claim.claim_id,
                blocking_claim_ids=(claim.claim_id,),
            )
            log.end_request(request_id, "error")
            return False
        self._blocks(BlockStored, prompt, request_id)
        log.ledger.step(record, Step.RESTORE)
        log.emit_claim(
            ClaimRestored,
            record,
            request_id,
            job_id=job_id,
            tier_from=TIER,
            tier_to=PRIMARY,
            retrievable_pos=whole,
        )
        log.emit_claim(ClaimReusedAfterRestore, record, request_id, reused_pos=whole)
        log.end_request(request_id, "stopped")
        return True

    def release(self) -> None:
        """Let the claim go, then its handles."""
        if self._record is not None and self._record.state in OPEN:
            self.log.release(self._record, self._record.claim.owner_scope, "owner")
        self._give_back()

    def _give_back(self) -> None:
        self.node.release(self.handles)
        self.handles = []

    def _create(self, record: ClaimRecord, request_id: str, direction: str, pos: Ranges) -> int:
        self._jobs += 1
        self.log.emit(
            JobCreated,
            request_id=request_id,
            job_id=self._jobs,
            direction=direction,
            claim_id=record.claim.claim_id,
            owner_scope=record.claim.owner_scope,
            generation=record.generation,
            pos=pos,
        )
        return self._jobs

    def _finish(
        self,
        record: ClaimRecord,
        request_id: str,
        job_id: int,
        direction: str,
        prompt: Prompt,
        results: dict[bytes, Outcome],
        started_ns: int,
    ) -> Ranges:
        """Write what KVCR said of each block of a transfer; return the positions that are good."""
        failed = failed_positions(prompt, results)
        good = ranges_of(p for p, key in enumerate(prompt.keys) if key in results and results[key].word == SUCCESS)
        self.log.emit(
            TransferFinished,
            request_id=request_id,
            job_id=job_id,
            direction=direction,
            claim_id=record.claim.claim_id,
            owner_scope=record.claim.owner_scope,
            worker=0,
            workers_total=1,
            success=not failed,
            ok_pos=good,
            failed_pos=failed,
            bytes=sum(end - start for start, end in good) * BLOCK_BYTES,
            reason="" if not failed else "FAILED",
            worker_start_ns=started_ns,
            worker_end_ns=self._now_ns(),
        )
        return good

    def _blocks(self, kind: type[BlockStored] | type[BlockRemoved], prompt: Prompt, request_id: str) -> None:
        self.log.emit(
            kind,
            tier=PRIMARY,
            block_hashes=prompt.names,
            block_ids=tuple(range(prompt.blocks)),
            request_id=request_id,
        )

    def _begin(self, owner_scope: str, claim_id: str, prompt: Prompt) -> str:
        self._requests += 1
        request_id = f"request-{self._requests}"
        self.log.begin_request(request_id, owner_scope, claim_id, prompt.blocks * BLOCK_TOKENS)
        return request_id


def failed_positions(prompt: Prompt, results: dict[bytes, Outcome]) -> Ranges:
    """Return the positions whose block KVCR did not call a success."""
    return ranges_of(p for p, key in enumerate(prompt.keys) if key not in results or results[key].word != SUCCESS)
