"""What the cases have in common: binding a claim, keeping a worker busy, and putting into words what was found."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from residentkv.runtimes.dynamo.client import Frontend, Response
from residentkv.runtimes.dynamo.kvevents import KvEvent
from residentkv.runtimes.dynamo.listener import Listener
from residentkv.runtimes.dynamo.router import ClaimOver, ClaimRouter, Served
from residentkv.runtimes.dynamo.stage import OWNER, Stage, wire
from residentkv.runtimes.study import Caught, Check, ExpectedTrace, Loss, Told, Word

BLOCKS = 8
"""Blocks of every claimed prefix."""

EVENT_S = 10.0
"""How long an event that has to come may take."""

LEASE_S = 30.0
"""Longer than discovery keeps a worker that died."""


@contextmanager
def keep_busy(stage: Stage, frontend: Frontend, worker_id: int) -> Iterator[None]:
    """Keep a worker busy with long answers while the body runs."""
    started = [threading.Event() for _ in range(2)]

    def ask(n: int) -> None:
        frontend.complete(
            stage.tokens(f"long-{n}", 6),
            worker_id=worker_id,
            max_tokens=150,
            stream=True,
            on_chunk=lambda _: started[n].set(),
        )

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(len(started))]
    for thread in threads:
        thread.start()
    try:
        for event in started:
            event.wait(LEASE_S)
        yield
    finally:
        for thread in threads:
            thread.join()


def drain_events(listener: Listener, first_s: float = EVENT_S) -> list[KvEvent]:
    """Return the events that come until nothing comes any more; the first may take its time on a busy machine."""
    return [event for batch in (*listener.read(first_s), *listener.drain()) for event in batch.events]


def bind_claim(stage: Stage, router: ClaimRouter) -> tuple[str, int]:
    """Claim a prefix; return the answer and the worker that it was bound to (0 for none)."""
    decision = router.bind(wire(), stage.tokens("claimed", BLOCKS), stage.tokens("first", 1))
    return decision.verdict.value, router.bound_to(OWNER, "claim") or 0


def is_over(router: ClaimRouter) -> bool:
    """Tell whether the claim is turned away as over."""
    try:
        router.serve(OWNER, "claim", [])
    except ClaimOver:
        return True
    return False


def ask_until_served(ask: Callable[[], Response]) -> Response:
    """Ask again until there is an answer, or discovery must have forgotten a worker that died."""
    until = time.monotonic() + LEASE_S
    answer = ask()
    while not answer.served and time.monotonic() < until:
        time.sleep(1.0)
        answer = ask()
    return answer


def judge_held(served: Served) -> tuple[bool, str]:
    """Return whether the binding held for the whole claim, and what was found."""
    good = served.outcome == "served_by_binding" and served.reused_blocks == BLOCKS
    return good, f"{served.outcome}, {served.reused_blocks} blocks, {say_rate(served.answer)}"


def names_nobody(answer: Response, worker_id: int) -> bool:
    """Tell whether an error names neither worker nor claim."""
    return answer.worker_id is None and str(worker_id) not in answer.error and "claim" not in answer.error


def say_workers(served: list[Served]) -> str:
    """Return who was told and who computed."""
    return "; ".join(f"told {s.told}, computed by {', '.join(map(str, s.computed_by))}" for s in served)


def say_rate(answer: Response) -> str:
    """Return what an answer says about the cache."""
    rate = "none" if answer.kv_hit_rate is None else f"{answer.kv_hit_rate:.2f}"
    return f"status {answer.status}, {answer.cached_tokens} of {answer.prompt_tokens} tokens cached, kv_hit_rate {rate}"


def expect_trace(stage: Stage, verdict: Word = "conforming") -> tuple[ExpectedTrace, ...]:
    """Return the trace of the case and what its audit has to say."""
    return (ExpectedTrace(path=f"{stage.case}.jsonl", verdict=verdict),)


def expect(name: str, passed: bool, found: str) -> Check:
    """Return an expectation and what was found."""
    return Check(name=name, passed=passed, found=found)


def note_loss(name: str, *, told: Told, caught: Caught, by: str) -> Loss:
    """Return a loss that was made to happen."""
    return Loss(name=name, told=told, caught=caught, by=by)
