"""The reference engine: requests come in, are admitted, computed a token a step, and end; claims are kept meanwhile.

One thread, one clock, no randomness: two runs of one workload write the same trace byte for byte.
"""

from __future__ import annotations

import math

from residentkv.claims.arbiter import Arbiter
from residentkv.claims.ledger import ClaimLedger, ClaimRecord
from residentkv.claims.lifecycle import TERMINAL, State
from residentkv.claims.modes import Mode
from residentkv.claims.predicates import Ranges, leading_blocks
from residentkv.errors import ResidentKVError, UsageError
from residentkv.runtimes.reference.admission import Admission, Entry
from residentkv.runtimes.reference.clock import ManualClock
from residentkv.runtimes.reference.config import EngineConfig, Mechanism
from residentkv.runtimes.reference.content import Context, chain_hashes
from residentkv.runtimes.reference.desk import ClaimDesk
from residentkv.runtimes.reference.faults import Faults
from residentkv.runtimes.reference.journal import EventSink, Journal
from residentkv.runtimes.reference.pool import PrimaryPool
from residentkv.runtimes.reference.prefill import Prefill
from residentkv.runtimes.reference.state import ClaimNotFound, Kept, Live, Parts, Request, Result
from residentkv.runtimes.reference.tiers import OffloadTier


def open_journal(config: EngineConfig, sink: EventSink | None) -> Journal:
    """Begin a trace: write who writes."""
    other = config.identity(weights_epoch=config.weights_epoch + 1).digest()
    journal = Journal(sink, off=config.off, other_identity=other)
    journal.open()
    return journal


class EngineStopped(ResidentKVError):
    """The engine was shut down or has crashed; a restart is a new engine with the next epoch."""


class ReferenceEngine:
    """One incarnation of the runtime; it writes `trace_opened` when built and `trace_closed` at `shutdown`.

    Args:
        config: sizes and policies.
        sink: where events go; None writes none.
        clock: the time that terms and deadlines are measured in.
        faults: what is made to go wrong in the second tier.
        journal: the open journal of a router, which several engines share; then `sink` is not used.
    """

    def __init__(
        self,
        config: EngineConfig,
        *,
        sink: EventSink | None = None,
        clock: ManualClock | None = None,
        faults: Faults | None = None,
        journal: Journal | None = None,
    ) -> None:
        self.config = config
        self.clock = clock or ManualClock()
        self.faults = faults or Faults()
        ledger = ClaimLedger()
        self.parts = Parts(
            config=config,
            clock=self.clock,
            pool=PrimaryPool(config.usable_blocks, exclude_victims=Mechanism.VICTIM_EXCLUSION not in config.off),
            tier=OffloadTier(config.offload_blocks, self.faults),
            ledger=ledger,
            arbiter=Arbiter(ledger, usable_blocks=config.usable_blocks, policy=config.policy()),
            journal=journal or open_journal(config, sink),
        )
        self.desk = ClaimDesk(self.parts)
        self.waiting: list[Live] = []
        self.running: list[Live] = []
        self.results: dict[str, Result] = {}
        self.stopped = False
        self._admission = Admission(self.parts, self.desk)
        self._prefill = Prefill(self.parts, self.desk, self._finish)
        self._seen: set[str] = set()

    def submit(self, request: Request, named: Kept | None = None) -> Live:
        """Take a request in; a claim that it brings is answered now, before anything else happens.

        Args:
            named: the claim that the request comes for, when a router has found it already.

        Raises:
            InputError: the claim is malformed.
            UsageError: the request id was used before, or the request could never fit.
            ClaimKeyInUse: the owner has an open claim of this name.
            EngineStopped: the engine has ended.
        """
        self._check_running()
        if request.request_id in self._seen:
            raise UsageError(f"request {request.request_id!r} was submitted before; choose another id")
        size = self.config.block_size_tokens
        tokens = len(request.prompt) + max(request.max_tokens - 1, 0)
        total = math.ceil(tokens / size)
        if not request.prompt or total > self.config.usable_blocks:
            raise UsageError(
                f"request {request.request_id!r}: found {total} blocks, expected 1 to {self.config.usable_blocks}"
            )
        wire = self.desk.decode(request) if request.claim is not None else None
        if wire is None and request.max_tokens < 1:
            raise UsageError(f"request {request.request_id!r}: max_tokens 0 is for a claim on what is resident")
        live = Live(
            request=request,
            names=chain_hashes(self.config.identity(cache_salt=request.cache_salt), request.prompt),
            total_blocks=total,
            context=Context(self.config.model, self.config.weights_epoch),
        )
        self.desk.expire_due()
        if wire is not None:
            live.decision = self.desk.submit(wire, live)
        else:
            if named is None and request.reuse is not None:
                named = self.desk.find(request.owner_scope, request.reuse)
            live.reuse = named if named is not None and named.is_about(live.names) else None
            record = live.reuse.record if live.reuse is not None else None
            self.parts.journal.request_initialized(
                request.request_id,
                record.claim.claim_id if record else None,
                record.claim.owner_scope if record else None,
                len(request.prompt),
            )
        self._seen.add(request.request_id)
        if request.max_tokens == 0:
            self._admission.tell_admitted(live, 0, ())
            if live.kept is not None:
                self.desk.materialize(live.kept)
            self._finish(live, Result(request_id=request.request_id, status="finished", decision=live.decision))
        else:
            self.waiting.append(live)
        return live

    def serve(self, request: Request) -> Result:
        """Submit one request and run until it has its result."""
        self.submit(request)
        while request.request_id not in self.results:
            self._advance()
        return self.results[request.request_id]

    def run(self) -> None:
        """Run until no request waits or is being served."""
        while self.waiting or self.running:
            self._advance()

    def step(self) -> bool:
        """Do one round: expire, decide, admit, and compute one token each; tell whether anything happened."""
        self._check_running()
        self.desk.expire_due()
        self.desk.retry_deferred()
        moved = False
        for live in list(self.waiting):
            entry, refusal = self._admission.try_enter(live)
            if entry is Entry.WAITING:
                continue
            moved = True
            self.waiting.remove(live)
            if refusal is not None:
                self._finish(live, refusal)
            elif self._prefill.serve(live):
                self.running.append(live)
        for live in list(self.running):
            moved = True
            self._decode(live)
        self._offload_pending()
        return moved

    def release(self, owner_scope: str, claim_id: str, *, reason: str = "owner_release") -> None:
        """Let a claim of this owner go.

        Raises:
            ClaimNotFound: this owner has no open claim of this name.
        """
        self.desk.release(self._owned(owner_scope, claim_id), owner_scope, reason)

    def renew(self, owner_scope: str, claim_id: str, *, revision: int, ttl_s: float | None) -> None:
        """Give a claim of this owner a new term.

        Raises:
            ClaimNotFound: this owner has no open claim of this name; an expired one is not open.
            StaleRevision: the revision is not above the last one.
        """
        self.desk.renew(self._owned(owner_scope, claim_id), revision=revision, ttl_s=ttl_s)

    def claims(self, owner_scope: str) -> list[ClaimRecord]:
        """Return this owner's claims that have not ended; those of others do not show."""
        records = (k.record for k in self.desk.kept.values())
        return [r for r in records if r.claim.owner_scope == owner_scope and r.state not in TERMINAL]

    def resident_spans(self, prompt: tuple[int, ...], cache_salt: str | None = None) -> Ranges:
        """Return the positions of a prompt's full blocks that lie in the primary tier."""
        return self.parts.primary_pos(chain_hashes(self.config.identity(cache_salt=cache_salt), prompt))

    def count_resident(self, prompt: tuple[int, ...], cache_salt: str | None = None) -> tuple[int, int]:
        """Return how many full blocks of a prompt lie in the primary tier: (anywhere, leading)."""
        pos = self.resident_spans(prompt, cache_salt)
        return sum(hi - lo for lo, hi in pos), leading_blocks(pos)

    def reset_prefix_cache(self) -> int:
        """Drop every cached block that nobody uses and no claim holds; return how many."""
        self._check_running()
        gone = [self.parts.pool.drop(b) for b in self.parts.pool.idle_cached()]
        self.desk.tell_evicted(gone, None)
        return len(gone)

    def shutdown(self) -> None:
        """End in order: every request and every claim gets its outcome, then the trace is closed."""
        if self.stopped:
            return
        for live in (*self.waiting, *self.running):
            self._finish(live, Result(request_id=live.request.request_id, status="aborted", decision=live.decision))
        self.waiting.clear()
        self.running.clear()
        self.desk.expire_due()
        self.desk.close()
        self.parts.journal.close("engine_shutdown")
        self.stopped = True

    def crash(self) -> None:
        """End as a killed process does: nothing is told, and what was promised is void."""
        self.parts.journal.abandon()
        self.stopped = True

    def _decode(self, live: Live) -> None:
        token = live.context.next_token(live.tail)
        live.output.append(token)
        live.tail.append(token)
        if len(live.output) == live.request.max_tokens:
            self.running.remove(live)
            self._finish(
                live,
                Result(
                    request_id=live.request.request_id,
                    status="finished",
                    output=tuple(live.output),
                    hit_blocks=live.hit_blocks,
                    loaded_blocks=sum(hi - lo for lo, hi in live.loaded_pos),
                    computed_blocks=live.computed_blocks,
                    decision=live.decision,
                ),
            )

    def _finish(self, live: Live, result: Result) -> None:
        words = {"finished": "length" if live.request.max_tokens else "stopped", "failed": "error", "refused": "error"}
        self.parts.journal.request_terminated(
            result.request_id, words.get(result.status, result.status), len(result.output)
        )
        self.parts.pool.release(live.blocks)
        live.blocks = []
        self.results[result.request_id] = result
        kept = live.kept
        if kept is not None and kept.record.state is State.ACCEPTED:
            self.desk.release(kept, "engine:request", f"request_{result.status}")

    def _offload_pending(self) -> None:
        """Try again to copy claims whose first store transfer failed."""
        if self.config.eager_offload:
            for kept in list(self.desk.kept.values()):
                if kept.record.mode is Mode.OFFLOADABLE and kept.record.state is State.MATERIALIZED:
                    self.desk.offload(kept)

    def _advance(self) -> None:
        """Do a round; when nothing can move, let time pass to the next deadline."""
        if self.step():
            return
        times = [live.deferred_until_ns for live in self.waiting]
        times += [self.parts.ledger.next_deadline_ns()]
        times += [k.deferred_until_ns for k in self.desk.kept.values() if k.record.state is State.DEFERRED]
        ahead = [t for t in times if t is not None and t > self.clock.now_ns]
        if not ahead:
            raise ResidentKVError(f"{len(self.waiting)} requests wait for nothing; this is a bug of the engine")
        self.clock.advance_to(min(ahead))

    def _owned(self, owner_scope: str, claim_id: str) -> Kept:
        self._check_running()
        self.desk.expire_due()
        kept = self.desk.find(owner_scope, claim_id)
        if kept is None:
            raise ClaimNotFound(f"{owner_scope!r} has no open claim {claim_id!r}")
        return kept

    def _check_running(self) -> None:
        if self.stopped:
            raise EngineStopped("the engine has ended; start a new one with the next epoch")


__all__ = ["ClaimNotFound", "EngineStopped", "ReferenceEngine", "Request", "Result"]
