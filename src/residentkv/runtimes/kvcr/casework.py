"""What the cases have in common: claiming, pressing, reading back, and putting into words what was found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from residentkv.runtimes.kvcr.content import Prompt
from residentkv.runtimes.kvcr.desk import Desk, NotYourClaim
from residentkv.runtimes.kvcr.node import Node, Outcome
from residentkv.runtimes.kvcr.offload import Offloader
from residentkv.runtimes.kvcr.stage import SLOTS, Stage, load, same_bytes, wipe
from residentkv.runtimes.study import Caught, Check, ExpectedTrace, Loss, Told

OWNER, STRANGER = "tenant-a", "tenant-b"
PRESSURE_ROUNDS = 4


def claim_prefix(desk: Desk, prompt: Prompt, mode: str, **more: Any) -> str:
    """Put a prefix into the buffer and claim it; return the answer."""
    load(desk.node, prompt)
    wire = {"claim_id": "claim", "owner_scope": OWNER, "mode": mode, "predicate": "whole_object", **more}
    return desk.claim(wire, prompt).verdict.value


def reads_back(desk: Desk, prompt: Prompt) -> bool:
    """Tell whether the bytes of the claim come back into a wiped buffer."""
    wipe(desk.node, prompt.blocks)
    answer = desk.read(OWNER, "claim")
    return answer.reused_blocks == prompt.blocks and same_bytes(desk.node, prompt)


def offload_then_load(offloader: Offloader, prompt: Prompt, *, before_load: Callable[[], None] | None = None) -> bool:
    """Offload a claimed prefix, overwrite its place, and load it again; tell whether all of it came.

    `before_load` happens after the lookup found it.
    """
    load(offloader.node, prompt)
    wire = {"claim_id": "claim", "owner_scope": OWNER, "mode": "offloadable", "predicate": "whole_object"}
    record = offloader.claim(wire, prompt)

    def intervene() -> None:
        if before_load is not None:
            before_load()
        wipe(offloader.node, prompt.blocks)

    return offloader.restore(record, prompt, before_load=intervene)


def take_away(stage: Stage, node: Node, handles: list[int]) -> None:
    """Release somebody's handles by their numbers, and fill the pool."""
    node.release(handles)
    node.deposit(load(node, stage.prompt("stranger", SLOTS)), no_evict=False)


def press(stage: Stage, desk: Desk, *, blocks: int = 5) -> None:
    """Deposit unclaimed prefixes until everything unclaimed before them must have gone."""
    for n in range(PRESSURE_ROUNDS):
        prompt = stage.prompt(f"pressure-{blocks}-{n}", blocks)
        load(desk.node, prompt)
        desk.deposit(prompt)


def find_present(node: Node, prompt: Prompt) -> list[bytes]:
    """Return the keys of a prefix that are in the pool."""
    return [k for k, (status, _) in zip(prompt.keys, node.query(prompt.keys), strict=True) if status == "HIT"]


def count_held(node: Node, prompt: Prompt) -> int:
    """Count the blocks of a prefix that are in the pool."""
    return len(find_present(node, prompt))


def say_words(results: dict[bytes, Outcome]) -> str:
    """Return the words that KVCR used for the keys of an operation."""
    return ", ".join(sorted({r.word for r in results.values()}))


def is_refused(call: Callable[[], object]) -> bool:
    """Tell whether the desk turns a caller away."""
    try:
        call()
    except NotYourClaim:
        return True
    return False


def expect_trace(stage: Stage) -> tuple[ExpectedTrace, ...]:
    """Return the trace of the case and what its audit has to say."""
    return (ExpectedTrace(path=f"{stage.case}.jsonl", verdict="conforming"),)


def expect(name: str, passed: bool, found: str) -> Check:
    """Return an expectation and what was found."""
    return Check(name=name, passed=passed, found=found)


def note_loss(name: str, *, told: Told, caught: Caught, by: str) -> Loss:
    """Return a loss that was made to happen."""
    return Loss(name=name, told=told, caught=caught, by=by)
