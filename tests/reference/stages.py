"""Engines, requests and traces for the tests of the reference runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from residentkv.runtimes.reference.clock import ManualClock
from residentkv.runtimes.reference.config import EngineConfig
from residentkv.runtimes.reference.content import compute_alone
from residentkv.runtimes.reference.engine import ReferenceEngine, Request
from residentkv.runtimes.reference.faults import Faults
from residentkv.trace.codec import decode_trace
from residentkv.trace.events import Event
from residentkv.trace.writer import TraceWriter

SIZE = 4


class Bench:
    """One engine over a trace file, with short ways to write requests and claims and to read events back."""

    def __init__(self, folder: Path, *, usable_blocks: int = 20, epoch: int = 0, **config: Any) -> None:
        self.path = folder / "trace.jsonl"
        self.clock = ManualClock()
        self.faults = Faults()
        sink = TraceWriter(
            self.path,
            source="reference",
            run_id="test",
            epoch=epoch,
            mono_ns=self.clock.tick,
            wall_ns=lambda: self.clock.now_ns,
        )
        fields = {"block_size_tokens": SIZE, "block_bytes": 64, **config}
        self.config = EngineConfig(usable_blocks=usable_blocks, **fields)
        self.engine = ReferenceEngine(self.config, sink=sink, clock=self.clock, faults=self.faults)
        self.count = 0

    def request(self, prompt: tuple[int, ...], **more: Any) -> Request:
        self.count += 1
        return Request(**{"request_id": f"r{self.count}", "prompt": prompt, "owner_scope": "a", **more})

    def serve(self, prompt: tuple[int, ...], **more: Any) -> Any:
        return self.engine.serve(self.request(prompt, **more))

    def events(self) -> list[Event]:
        return list(decode_trace(self.path.read_bytes(), path=str(self.path)))

    def tags(self, *, about: str = "") -> list[str]:
        return [tag(e) for e in self.events() if about in tag(e)]

    def alone(self, prompt: tuple[int, ...], max_tokens: int = 1) -> tuple[int, ...]:
        c = self.config
        return compute_alone(
            prompt,
            max_tokens,
            model=c.model,
            weights_epoch=c.weights_epoch,
            block_size=c.block_size_tokens,
            block_bytes=c.block_bytes,
        )


def tag(event: Event) -> str:
    return str(event.__struct_config__.tag)


def prompt_of(first: int, blocks: int, tail: int = 0) -> tuple[int, ...]:
    """`blocks` full blocks that no prompt of another `first` shares, and `tail` tokens."""
    return tuple(range(first * 10_000, first * 10_000 + blocks * SIZE + tail))


def claim_of(name: str, mode: str, blocks: int, **more: Any) -> dict[str, Any]:
    predicate = f"leading_prefix_at_least({blocks})"
    return {"claim_id": name, "owner_scope": "a", "predicate": predicate, "mode": mode, **more}
