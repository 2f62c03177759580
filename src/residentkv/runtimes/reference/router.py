"""A router in front of several engines: it binds a claim to the worker that holds its blocks, and says when that fails.

Router and workers write one trace: the router decides, so it is the one authority for the order of events.
"""

from __future__ import annotations

import msgspec

from residentkv.claims.lifecycle import OPEN
from residentkv.claims.modes import Mode
from residentkv.errors import UsageError
from residentkv.runtimes.reference.clock import ManualClock
from residentkv.runtimes.reference.config import EngineConfig, Mechanism
from residentkv.runtimes.reference.engine import ReferenceEngine, open_journal
from residentkv.runtimes.reference.journal import EventSink
from residentkv.runtimes.reference.state import ClaimNotFound, Kept, Request, Result
from residentkv.trace.events import ClaimRouteBound, ClaimRouteOutcome


class Worker(msgspec.Struct, kw_only=True, eq=False):
    """One engine behind the router; `alive` is what is the case, `known_dead` what the router has noticed."""

    worker_id: str
    engine: ReferenceEngine
    epoch: int = 0
    alive: bool = True


class Router:
    """Requests for a claim go to its worker; others go round in turn.

    With `route_binding` off claims are not bound: every request goes round in turn.

    Args:
        config: of each worker; `worker_id` is filled in.
        workers: how many.
    """

    def __init__(
        self, config: EngineConfig, *, workers: int = 2, sink: EventSink | None = None, clock: ManualClock | None = None
    ) -> None:
        if workers < 1:
            raise UsageError(f"workers: found {workers}, expected at least 1")
        self.clock = clock or ManualClock()
        self._config = config
        self._journal = open_journal(config, sink)
        self.workers = {f"w{n}": self._start(f"w{n}", 0) for n in range(workers)}
        self._homes: dict[tuple[str, str], tuple[str, ReferenceEngine]] = {}
        self._turn = 0

    def serve(self, request: Request) -> Result:
        """Serve a request where its claim lives, or anywhere.

        A claim whose worker is gone gets its outcome before the request is served elsewhere.
        """
        kept: Kept | None = None
        worker = self._next()
        if request.reuse is not None:
            home_id, engine = self._homes.get((request.owner_scope, request.reuse), ("", worker.engine))
            kept = engine.desk.find(request.owner_scope, request.reuse)
            home = self.workers.get(home_id)
            bound = self._journal.off.isdisjoint({Mechanism.ROUTE_BINDING})
            if kept is not None and home is not None and bound and home.alive and home.engine is engine:
                worker = home
        live = worker.engine.submit(request, named=kept)
        if live.reuse is not None and worker.engine.desk.kept.get(live.reuse.record.claim.key) is not live.reuse:
            self._tell_elsewhere(live.reuse, request, worker)
        if live.kept is not None:
            self._bind(live.kept, worker)
        while request.request_id not in worker.engine.results:
            worker.engine.step()
        return worker.engine.results[request.request_id]

    def fail_worker(self, worker_id: str) -> None:
        """Let a worker die without a word, and one of the same name start with the next epoch and nothing in it."""
        old = self._worker(worker_id)
        old.alive = False
        self.workers[worker_id] = self._start(worker_id, old.epoch + 1)

    def release(self, owner_scope: str, claim_id: str) -> None:
        """Let a claim of this owner go.

        Raises:
            ClaimNotFound: this owner has no open claim of this name.
        """
        home = self._homes.get((owner_scope, claim_id))
        if home is None:
            raise ClaimNotFound(f"{owner_scope!r} has no open claim {claim_id!r}")
        home[1].release(owner_scope, claim_id)

    def shutdown(self) -> None:
        """Give every claim its outcome and close the trace; claims of workers that died are harmed by name."""
        for key, (_, engine) in list(self._homes.items()):
            kept = engine.desk.kept.get(key)
            if (
                kept is not None
                and kept.record.state in OPEN
                and all(w.engine is not engine for w in self.workers.values())
            ):
                self._lose(kept, engine, None)
        for worker in self.workers.values():
            worker.engine.desk.expire_due()
            worker.engine.desk.close()
        self._journal.close("router_shutdown")

    def _start(self, worker_id: str, epoch: int) -> Worker:
        config = msgspec.structs.replace(self._config, worker_id=worker_id, worker_epoch=epoch)
        return Worker(
            worker_id=worker_id,
            epoch=epoch,
            engine=ReferenceEngine(config, clock=self.clock, journal=self._journal),
        )

    def _bind(self, kept: Kept, worker: Worker) -> None:
        record = kept.record
        if record.state not in OPEN:
            return
        self._homes[record.claim.key] = (worker.worker_id, worker.engine)
        if record.mode is Mode.ROUTED_REUSE and Mechanism.ROUTE_BINDING not in self._journal.off:
            self._journal.emit_claim(
                ClaimRouteBound, record, kept.request_id, worker_id=worker.worker_id, worker_epoch=worker.epoch
            )

    def _tell_elsewhere(self, kept: Kept, request: Request, worker: Worker) -> None:
        """Say that the request is not served where the claim lives; if that worker is gone, the claim is lost."""
        key = kept.record.claim.key
        _, engine = self._homes[key]
        gone = all(w.engine is not engine for w in self.workers.values())
        if kept.record.mode is Mode.ROUTED_REUSE and Mechanism.ROUTE_OUTCOME not in self._journal.off:
            self._journal.emit_claim(
                ClaimRouteOutcome,
                kept.record,
                request.request_id,
                worker_id=worker.worker_id,
                worker_epoch=worker.epoch,
                outcome="lost" if gone else "moved",
                reused_blocks=0,
                outcome_claim_id=self._journal.outcome_name(kept.record),
            )
        if gone:
            self._lose(kept, engine, request.request_id)

    def _lose(self, kept: Kept, engine: ReferenceEngine, request_id: str | None) -> None:
        """Tell what left with a dead worker: its copies, and with them every claim that it held."""
        pool = engine.parts.pool
        gone = [pool.drop(block) for block in pool.blocks if block.name is not None]
        engine.desk.tell_evicted(gone, request_id, "worker_lost")
        if kept.record.state in OPEN:
            engine.desk.harm(kept, "worker_lost", kept.needed_pos, request_id)

    def _next(self) -> Worker:
        self._turn += 1
        names = sorted(self.workers)
        return self.workers[names[self._turn % len(names)]]

    def _worker(self, worker_id: str) -> Worker:
        if worker_id not in self.workers:
            raise UsageError(f"unknown worker {worker_id!r}, expected one of {', '.join(sorted(self.workers))}")
        return self.workers[worker_id]
