"""Workloads that exercise what each mode promises, each written as one trace.

They are the evidence of the reference descriptor: a trace supports nothing by itself, only its audit does. Every
workload can be run with a mechanism turned off, and then shows what is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from residentkv.claims.modes import Mode
from residentkv.errors import UsageError
from residentkv.runtimes.reference.clock import ManualClock
from residentkv.runtimes.reference.config import EngineConfig, Mechanism
from residentkv.runtimes.reference.engine import ReferenceEngine, Request, Result
from residentkv.runtimes.reference.faults import Faults
from residentkv.runtimes.reference.litmus import make_claim, make_prompt
from residentkv.runtimes.reference.router import Router
from residentkv.trace.writer import TraceWriter

OWNER = "tenant-a"
SIZE_TOKENS = 4


class Stage:
    """One engine, or one router, that writes one trace; requests get names in the order in which they come."""

    def __init__(self, trace: Path, *, run_id: str, off: frozenset[Mechanism]) -> None:
        self._trace = trace
        self._run_id = run_id
        self.off = off
        self.clock = ManualClock()
        self.faults = Faults()
        self._requests = 0
        self._server: ReferenceEngine | Router | None = None

    def engine(self, usable_blocks: int, **more: Any) -> ReferenceEngine:
        """Start an engine."""
        engine = ReferenceEngine(
            self._config(usable_blocks, more), sink=self._sink(), clock=self.clock, faults=self.faults
        )
        self._server = engine
        return engine

    def router(self, usable_blocks: int, **more: Any) -> Router:
        """Start a router with two workers."""
        router = Router(self._config(usable_blocks, more), sink=self._sink(), clock=self.clock)
        self._server = router
        return router

    def serve(self, prompt: tuple[int, ...], **more: Any) -> Result:
        """Serve one request of the owner."""
        if self._server is None:
            raise UsageError("no engine was started")
        self._requests += 1
        request = Request(
            request_id=f"r{self._requests}", prompt=prompt, owner_scope=OWNER, cache_salt="salt-a", **more
        )
        return self._server.serve(request)

    def _config(self, usable_blocks: int, more: dict[str, Any]) -> EngineConfig:
        return EngineConfig(
            usable_blocks=usable_blocks,
            **{"block_size_tokens": SIZE_TOKENS, "block_bytes": 64, "off": self.off, **more},
        )

    def _sink(self) -> TraceWriter:
        return TraceWriter(
            self._trace,
            source="reference",
            run_id=self._run_id,
            mono_ns=self.clock.tick,
            wall_ns=lambda: self.clock.now_ns,
        )


def prompt_at(first: int, blocks: int) -> tuple[int, ...]:
    """Return a prompt of `blocks` full blocks, the first of which is number `first` of all blocks there are."""
    return make_prompt(blocks, first=first, size_tokens=SIZE_TOKENS)


def owned_claim(name: str, mode: Mode, blocks: int, **more: Any) -> dict[str, Any]:
    """Return a claim of the owner on the first `blocks` blocks of a prompt."""
    claim = make_claim(name, f"leading_prefix_at_least({blocks})", mode=mode.value, owner=OWNER)
    return {**claim, **more}


def best_effort(stage: Stage) -> None:
    """A hint is kept while there is room, and goes without a word when there is none."""
    engine = stage.engine(20)
    stage.serve(prompt_at(0, 8), claim=owned_claim("hint", Mode.BEST_EFFORT, 8))
    stage.serve((*prompt_at(0, 8), 1), reuse="hint")
    stage.serve(prompt_at(100, 18))
    engine.shutdown()


def soft_priority(stage: Stage) -> None:
    """Ten rounds of pressure on two claims, five with either assignment: the less important one goes, and it is told.

    In half of the rounds the important claim is the older one and was used less recently, so that recency alone would
    choose it. In every round the pressure costs one of the two, and the other is reused afterwards.
    """
    engine = stage.engine(30)
    for n in range(10):
        first = 1000 * (n + 1)
        stage.serve(prompt_at(first + 100, 10))
        older, newer = (1, 9) if n % 2 else (9, 1)
        for word, at, priority in (("older", 0, older), ("newer", 50, newer)):
            claim = owned_claim(f"{word}-{n}", Mode.SOFT_PRIORITY, 6, priority=priority)
            stage.serve(prompt_at(first + at, 6), claim=claim)
        stage.serve(prompt_at(first + 200, 20))
        kept = "older" if older > newer else "newer"
        stage.serve((*prompt_at(first + (0 if kept == "older" else 50), 6), 1), reuse=f"{kept}-{n}")
        if any(r.claim.claim_id == f"{kept}-{n}" for r in engine.claims(OWNER)):
            engine.release(OWNER, f"{kept}-{n}")
    engine.shutdown()


def expiring(stage: Stage) -> None:
    """A claim is kept until its deadline, renewed once, and ends at it: said before its blocks go."""
    engine = stage.engine(24)
    stage.serve(prompt_at(0, 8), claim=owned_claim("lease", Mode.EXPIRING, 8, ttl_s=10.0))
    stage.serve(prompt_at(100, 16))
    stage.serve((*prompt_at(0, 8), 1), reuse="lease")
    stage.clock.advance_s(9)
    if engine.claims(OWNER):
        engine.renew(OWNER, "lease", revision=1, ttl_s=10.0)
    stage.clock.advance_s(9)
    stage.serve((*prompt_at(0, 8), 2), reuse="lease")
    stage.serve(prompt_at(200, 20))
    stage.clock.advance_s(2)
    stage.serve((*prompt_at(0, 8), 3), reuse="lease")
    stage.serve(prompt_at(300, 24))
    engine.shutdown()


def demotable(stage: Stage) -> None:
    """Claims give way to active work by name, least important first and no more than needed."""
    engine = stage.engine(24)
    stage.serve(prompt_at(0, 6), claim=owned_claim("first", Mode.DEMOTABLE, 6, priority=1))
    stage.serve(prompt_at(10, 6), claim=owned_claim("second", Mode.DEMOTABLE, 6, priority=2))
    stage.serve(prompt_at(100, 12))
    stage.serve((*prompt_at(0, 6), 1), reuse="first")
    stage.serve(prompt_at(200, 16))
    stage.serve((*prompt_at(10, 6), 1), reuse="second")
    stage.serve(prompt_at(300, 24))
    engine.shutdown()


def offloadable(stage: Stage) -> None:
    """A claim is copied into the tier, its primary blocks go, and they come back before it is reused: twice."""
    engine = stage.engine(24, offload_blocks=16)
    stage.serve(prompt_at(0, 8), claim=owned_claim("kept", Mode.OFFLOADABLE, 8))
    stage.serve((*prompt_at(0, 8), 1), reuse="kept")
    for n in (1, 2):
        stage.serve(prompt_at(100 * n, 24))
        stage.serve((*prompt_at(0, 8), 1 + n), reuse="kept", max_tokens=3)
    engine.shutdown()


def offloadable_failure(stage: Stage) -> None:
    """A failed load refuses the request in the name of the claim; other claims and the next request are served."""
    engine = stage.engine(24, offload_blocks=16)
    stage.serve(prompt_at(0, 8), claim=owned_claim("target", Mode.OFFLOADABLE, 8))
    stage.serve(prompt_at(20, 8), claim=owned_claim("bystander", Mode.OFFLOADABLE, 8))
    stage.serve(prompt_at(100, 24))
    stage.faults.fail_loads()
    stage.serve((*prompt_at(0, 8), 1), reuse="target")
    stage.serve((*prompt_at(20, 8), 1), reuse="bystander")
    stage.serve((*prompt_at(0, 8), 2), reuse="target")
    engine.shutdown()


def offloadable_lost(stage: Stage) -> None:
    """A damaged copy is found at the load: the request is refused, and then the claim is harmed by name."""
    engine = stage.engine(24, offload_blocks=16)
    stage.serve(prompt_at(0, 8), claim=owned_claim("damaged", Mode.OFFLOADABLE, 8))
    stage.serve(prompt_at(100, 24))
    stage.faults.corrupt()
    stage.serve((*prompt_at(0, 8), 1), reuse="damaged")
    stage.serve((*prompt_at(0, 8), 2))
    engine.shutdown()


def offloadable_retry(stage: Stage) -> None:
    """A failed load is told, tried again, and succeeds: one failure and one restoration, both reported."""
    engine = stage.engine(24, offload_blocks=16, load_retries=1)
    stage.serve(prompt_at(0, 8), claim=owned_claim("again", Mode.OFFLOADABLE, 8))
    stage.serve(prompt_at(100, 24))
    stage.faults.fail_loads()
    stage.serve((*prompt_at(0, 8), 1), reuse="again")
    engine.shutdown()


def offloadable_recompute(stage: Stage) -> None:
    """A claim that asked for it is demoted by name, and only then its tokens are computed again."""
    engine = stage.engine(24, offload_blocks=16)
    stage.serve(prompt_at(0, 8), claim=owned_claim("soft-landing", Mode.OFFLOADABLE, 8, on_restore_failure="recompute"))
    stage.serve(prompt_at(100, 24))
    stage.faults.fail_loads()
    stage.serve((*prompt_at(0, 8), 1), reuse="soft-landing")
    engine.shutdown()


def hard_protected(stage: Stage) -> None:
    """Under pressure others are evicted or refused by name, the claim stays; released, it goes with the rest."""
    engine = stage.engine(24)
    stage.serve(prompt_at(0, 10), claim=owned_claim("resident", Mode.HARD_PROTECTED, 10))
    stage.serve(prompt_at(100, 12))
    stage.serve(prompt_at(200, 14))
    stage.serve(prompt_at(300, 15))
    stage.serve((*prompt_at(0, 10), 1), reuse="resident")
    if engine.claims(OWNER):
        engine.release(OWNER, "resident")
    stage.serve(prompt_at(400, 24))
    engine.shutdown()


def scattered(stage: Stage) -> None:
    """Blocks that lie in three spans are worth nothing to a claim on the beginning of their object."""
    engine = stage.engine(24)
    prompt = prompt_at(0, 18)
    for n, start in enumerate((3, 8, 13)):
        claim = make_claim(f"span-{n}", f"contiguous_range({start}, 4)", owner=OWNER)
        stage.serve(prompt, claim=claim, max_tokens=0 if n else 1)
    stage.serve(prompt_at(100, 12))
    stage.serve(prompt, claim=owned_claim("leading", Mode.HARD_PROTECTED, 6), max_tokens=0)
    engine.shutdown()


def routed_reuse(stage: Stage) -> None:
    """Requests of a claim go to its worker; when that worker is gone its owner is told with the next request."""
    router = stage.router(24)
    stage.serve(prompt_at(0, 6), claim=owned_claim("session", Mode.ROUTED_REUSE, 6))
    stage.serve(prompt_at(10, 6), claim=owned_claim("other", Mode.ROUTED_REUSE, 6))
    for n in range(1, 4):
        stage.serve((*prompt_at(0, 6), n), reuse="session")
    router.fail_worker("w1")
    stage.serve((*prompt_at(0, 6), 4), reuse="session")
    stage.serve((*prompt_at(10, 6), 1), reuse="other")
    router.shutdown()


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """One workload; `name` is the name of its trace."""

    name: str
    mode: Mode
    play: Callable[[Stage], None]


WORKLOADS: tuple[Workload, ...] = tuple(
    Workload(name=play.__name__, mode=mode, play=play)
    for mode, play in (
        (Mode.BEST_EFFORT, best_effort),
        (Mode.SOFT_PRIORITY, soft_priority),
        (Mode.EXPIRING, expiring),
        (Mode.DEMOTABLE, demotable),
        (Mode.OFFLOADABLE, offloadable),
        (Mode.OFFLOADABLE, offloadable_failure),
        (Mode.OFFLOADABLE, offloadable_retry),
        (Mode.OFFLOADABLE, offloadable_recompute),
        (Mode.OFFLOADABLE, offloadable_lost),
        (Mode.HARD_PROTECTED, hard_protected),
        (Mode.HARD_PROTECTED, scattered),
        (Mode.ROUTED_REUSE, routed_reuse),
    )
)


def play_workload(workload: Workload, trace: Path, *, off: frozenset[Mechanism] = frozenset()) -> None:
    """Run one workload and leave its trace; a run that breaks off leaves none.

    Args:
        trace: file that must not exist yet.
        off: mechanisms that are turned off.

    Raises:
        UsageError: the file exists.
    """
    if trace.exists():
        raise UsageError(f"{trace}: exists; a trace is not appended to, choose another folder")
    part = trace.with_name(f".{trace.name}.part")
    part.unlink(missing_ok=True)
    run_id = workload.name if not off else f"{workload.name}-without-{'-'.join(sorted(off))}"
    try:
        workload.play(Stage(part, run_id=run_id, off=off))
        part.replace(trace)
    finally:
        part.unlink(missing_ok=True)
