"""What a case stands on: fleets, listeners and adapters with traces, all gone when the case is over."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from residentkv.claims.model import CacheIdentity
from residentkv.runtimes.claimlog import ClaimLog
from residentkv.runtimes.dynamo.bindings import hash_blocks
from residentkv.runtimes.dynamo.client import Frontend, Response
from residentkv.runtimes.dynamo.fleet import BLOCK_TOKENS, MODEL, WORKER_BLOCKS, Fleet
from residentkv.runtimes.dynamo.listener import Listener
from residentkv.runtimes.dynamo.observer import Observer
from residentkv.runtimes.dynamo.router import ClaimRouter, Knob
from residentkv.runtimes.dynamo.scoring import ScoreBelief
from residentkv.trace.writer import TraceWriter

RUNTIME = "dynamo"
STANDS_IN = ("engine: dynamo.mocker", "KV bytes: none, dynamo.mocker simulates them")
OWNER = "tenant-a"
VOCABULARY = range(1000, 39_000)
"""Token ids that prompts are drawn from; fences lie above."""

IDENTITY = CacheIdentity(
    model="smollm2-135m-instruct",
    model_revision="tokenizer only",
    weights_epoch=0,
    tokenizer="smollm2-135m-instruct",
    kv_dtype="none",
    kv_layout="dynamo.mocker",
    block_size_tokens=BLOCK_TOKENS,
)

DIRECT = ("direct_worker", "residentkv_router", Knob.WORKER)
HARD = ("session_affinity_hard", "residentkv_hard_session", Knob.SESSION)
SOFT = ("session_affinity_soft", "residentkv_soft_session", Knob.SESSION)
"""Primitive, adapter and knob of the three ways to send a claim's requests to its worker."""


class Stage:
    """The processes of one case; leaving it stops them."""

    def __init__(self, case: str, out: Path) -> None:
        self.case = case
        self.out = out
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def fleet(self, *, frontend: Sequence[str] = (), worker: Sequence[str] = ()) -> Fleet:
        """Start a frontend with its KV router and two simulated workers."""
        folder = self.out / "logs" / self.case
        return self._open.enter_context(Fleet(folder, frontend=("--router-mode", "kv", *frontend), worker=worker))

    def listener(self, fleet: Fleet) -> Listener:
        """Subscribe to the KV events of all workers of a fleet."""
        return self._open.enter_context(Listener(fleet.event_channels()))

    def router(self, fleet: Fleet, way: tuple[str, str, Knob], listener: Listener | None = None) -> ClaimRouter:
        """Put the adapter before the frontend; it writes the trace of the case."""
        primitive, adapter, knob = way
        return ClaimRouter(
            self._log(primitive, adapter, "policy"),
            Frontend(fleet.port),
            listener or self.listener(fleet),
            knob=knob,
            identity=IDENTITY,
            hash_blocks=hash_blocks,
            worker_blocks=WORKER_BLOCKS,
            workers=fleet.instances,
            is_alive=fleet.is_alive,
        )

    def observer(self, fleet: Fleet) -> Observer:
        """Put the observer beside the frontend; it writes the trace of the case."""
        log = self._log("event_plane", "residentkv_observer", "observe")
        return Observer(log, Frontend(fleet.port), self.listener(fleet), identity=IDENTITY, hash_blocks=hash_blocks)

    def score_belief(self, fleet: Fleet) -> ScoreBelief:
        """Put the control that believes scores beside the frontend; it writes the trace of the case."""
        log = self._log("kv_router_events", "residentkv_score_unchecked", "policy")
        return ScoreBelief(log, Frontend(fleet.port), self.listener(fleet), identity=IDENTITY, hash_blocks=hash_blocks)

    def tokens(self, name: str, blocks: int) -> list[int]:
        """Return the tokens of whole blocks that no other name or case has."""
        stream = hashlib.shake_256(f"{self.case}:{name}".encode()).digest(4 * blocks * BLOCK_TOKENS)
        numbers = (int.from_bytes(stream[i : i + 4], "little") for i in range(0, len(stream), 4))
        return [VOCABULARY[n % len(VOCABULARY)] for n in numbers]

    def press(self, fleet: Fleet, worker_id: int, *, rounds: int = 3) -> list[Response]:
        """Let one worker serve prompts that fill it, so that everything else there goes."""
        frontend = Frontend(fleet.port)
        blocks = WORKER_BLOCKS - 6
        return [
            frontend.complete(self.tokens(f"pressure-{worker_id}-{n}", blocks), worker_id=worker_id)
            for n in range(rounds)
        ]

    def _log(self, primitive: str, adapter: str, depth: str) -> ClaimLog:
        path = self.out / f"{self.case}.jsonl"
        path.unlink(missing_ok=True)
        log = ClaimLog(TraceWriter(path, source=adapter, run_id=self.case))
        log.open(
            runtime=RUNTIME,
            version=version("ai-dynamo"),
            primitive=primitive,
            adapter=adapter,
            depth=depth,
            stands_in=STANDS_IN,
        )
        return log


def wire(mode: str = "routed_reuse", **more: Any) -> dict[str, Any]:
    """Return a claim on a whole prefix as a client states it."""
    return {"claim_id": "claim", "owner_scope": OWNER, "mode": mode, "predicate": "whole_object", **more}


__all__ = ["DIRECT", "HARD", "MODEL", "OWNER", "SOFT", "Stage", "wire"]
