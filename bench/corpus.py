"""Traces to measure on: small ones recorded from real runs, and a long one made of them by renaming and renumbering."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from residentkv.audit import Verdict, audit_file
from residentkv.errors import InputError
from residentkv.runtimes.reference.clock import ManualClock
from residentkv.runtimes.reference.config import EngineConfig
from residentkv.runtimes.reference.engine import ReferenceEngine, Request
from residentkv.runtimes.reference.faults import Faults
from residentkv.runtimes.reference.litmus import make_claim, make_prompt
from residentkv.runtimes.reference.workloads import WORKLOADS, play_workload
from residentkv.trace.codec import encode_event
from residentkv.trace.events import (
    AnyEvent,
    BlockRemoved,
    BlockStored,
    ClaimReleased,
    Event,
    TraceClosed,
    TraceOpened,
)
from residentkv.trace.reader import read_any
from residentkv.trace.writer import TraceWriter

_NAMES = ("claim_id", "outcome_claim_id", "request_id", "object_id", "token_map_id")
_NAME_LISTS = ("blocking_claim_ids", "block_hashes", "actions")
_TIMES = ("mono_ns", "wall_ns", "deadline_ns", "worker_start_ns", "worker_end_ns")
_COPIES_A_TURN = 8


def record_runs(folder: Path) -> list[Path]:
    """Record every workload of the reference runtime, one trace each, and return those that audit as conforming."""
    traces = []
    for workload in WORKLOADS:
        trace = folder / f"{workload.name}.jsonl"
        play_workload(workload, trace)
        if audit_file(trace).verdict is Verdict.CONFORMING:
            traces.append(trace)
    return traces


def record_small(folder: Path) -> list[Path]:
    """Record two short runs: a hard-protected claim that refuses a request (21 events), and a failed load."""
    return [_record_refusal(folder / "refusal.jsonl"), _record_failed_load(folder / "failed_load.jsonl")]


def _engine(path: Path, faults: Faults, **config: Any) -> ReferenceEngine:
    clock = ManualClock()
    writer = TraceWriter(path, source="reference", run_id=path.stem, mono_ns=clock.tick, wall_ns=lambda: clock.now_ns)
    return ReferenceEngine(
        EngineConfig(block_size_tokens=4, block_bytes=64, **config), sink=writer, clock=clock, faults=faults
    )


def _request(name: str, first: int, blocks: int, *, extra: tuple[int, ...] = (), **more: Any) -> Request:
    prompt = (*make_prompt(blocks, first=first, size_tokens=4), *extra)
    return Request(request_id=name, prompt=prompt, owner_scope="tenant", cache_salt="salt", **more)


def _claim(name: str, mode: str) -> dict[str, Any]:
    return make_claim(name, "leading_prefix_at_least(8)", mode=mode, owner="tenant")


def _record_refusal(path: Path) -> Path:
    engine = _engine(path, Faults(), usable_blocks=16)
    engine.serve(_request("r1", 0, 8, claim=_claim("kept", "hard_protected")))
    engine.serve(_request("r2", 100, 8))
    engine.serve(_request("r3", 200, 12))
    engine.serve(_request("r4", 0, 8, extra=(1,), reuse="kept"))
    engine.shutdown()
    return path


def _record_failed_load(path: Path) -> Path:
    faults = Faults()
    engine = _engine(path, faults, usable_blocks=24, offload_blocks=16)
    engine.serve(_request("r1", 0, 8, claim=_claim("kept", "offloadable")))
    engine.reset_prefix_cache()
    faults.fail_loads()
    engine.serve(_request("r2", 0, 8, reuse="kept"))
    engine.shutdown()
    return path


def _by_owner(e: AnyEvent) -> AnyEvent:
    """Return the event as it is where the engine goes on: what it released at its end, the owner lets go."""
    if isinstance(e, ClaimReleased) and e.released_by.startswith("engine:"):
        return msgspec.structs.replace(e, released_by=e.owner_scope, reason="owner_release")
    return e


class Repeater:
    """One recorded (source, epoch), to be repeated under one source: opened once, closed once, numbered through.

    A repetition has claims, requests, objects, blocks, jobs and times of its own. Blocks that still lie in a tier at
    its end are removed before the next one, as eviction would, because the same places are used again.
    """

    def __init__(self, trace: Path, source: str) -> None:
        """Read the trace.

        Raises:
            InputError: it is not one whole (source, epoch).
        """
        events: list[AnyEvent] = [e for chunk in read_any(trace) for e in chunk]
        first, last = events[0], events[-1]
        if not (
            isinstance(first, TraceOpened)
            and isinstance(last, TraceClosed)
            and len({(e.source, e.epoch) for e in events}) == 1
        ):
            raise InputError("expected one source from trace_opened to trace_closed", path=str(trace))
        self.source = source
        self._seq = 0
        self._opened, self._body, self._closed = first, [_by_owner(e) for e in events[1:-1]], last
        self._span_ns = 1 + last.mono_ns - first.mono_ns
        self._jobs = 1 + max((j for e in self._body if (j := getattr(e, "job_id", None)) is not None), default=0)
        self._left = _blocks_left(self._body)
        self.events_a_copy = len(self._body) + len(self._left)

    def opening(self) -> bytes:
        """Return the first line."""
        return self._line(self._opened, 0)

    def copies(self, first: int, count: int) -> bytes:
        """Return the lines of some repetitions."""
        lines = []
        for n in range(first, first + count):
            lines += [self._line(event, n) for event in self._body]
            for (tier, hashes), ids in self._left.items():
                last = self._body[-1]
                removed = BlockRemoved(
                    schema=1,
                    run_id="",
                    source="",
                    epoch=0,
                    seq=0,
                    mono_ns=last.mono_ns,
                    wall_ns=last.wall_ns,
                    tier=tier,
                    block_hashes=hashes,
                    block_ids=ids,
                    request_id=None,
                )
                lines.append(self._line(removed, n))
        return b"".join(lines)

    def closing(self, copies: int) -> bytes:
        """Return the last line after so many repetitions."""
        return self._line(self._closed, copies)

    def _line(self, event: Event, n: int) -> bytes:
        changes: dict[str, Any] = {"run_id": "bench", "source": self.source, "epoch": 0, "seq": self._seq}
        self._seq += 1
        for field in event.__struct_fields__:
            value = getattr(event, field)
            if value is None:
                continue
            if field in _TIMES:
                changes[field] = value + n * self._span_ns
            elif field in _NAMES:
                changes[field] = f"{value}-{n}"
            elif field in _NAME_LISTS:
                changes[field] = tuple(f"{name}-{n}" for name in value)
            elif field == "job_id":
                changes[field] = value + n * self._jobs
            elif field == "job_ids":
                changes[field] = tuple(job + n * self._jobs for job in value)
        return encode_event(msgspec.structs.replace(event, **changes))


def _blocks_left(events: Sequence[AnyEvent]) -> dict[tuple[str, tuple[str, ...]], tuple[int, ...]]:
    """Return what the events stored and did not remove: the blocks of each tier and where they lie."""
    slots: dict[tuple[str, int], str] = {}
    for event in events:
        if isinstance(event, BlockStored):
            slots |= {(event.tier, i): h for i, h in zip(event.block_ids, event.block_hashes, strict=True)}
        elif isinstance(event, BlockRemoved):
            for i in event.block_ids:
                del slots[event.tier, i]
    left = {}
    for tier in {tier for tier, _ in slots}:
        places = sorted(i for t, i in slots if t == tier)
        left[tier, tuple(slots[tier, i] for i in places)] = tuple(places)
    return left


def write_long_trace(path: Path, traces: Sequence[Path], events: int) -> Counter[str]:
    """Write a valid trace of about so many events, in which all recorded runs go on side by side, each as a source.

    Returns:
        How many repetitions of each recorded run it has.
    """
    repeaters = [Repeater(trace, trace.stem) for trace in traces]
    counts: Counter[str] = Counter()
    with path.open("wb") as f:
        for part in _parts(repeaters, events, counts):
            f.write(part)
    return counts


def _parts(repeaters: Sequence[Repeater], events: int, counts: Counter[str]) -> Iterator[bytes]:
    for r in repeaters:
        yield r.opening()
    written = 2 * len(repeaters)
    while written < events:
        for r in repeaters:
            copies = min(_COPIES_A_TURN, max(0, events - written) // r.events_a_copy + 1)
            if written >= events:
                break
            yield r.copies(counts[r.source], copies)
            counts[r.source] += copies
            written += copies * r.events_a_copy
    for r in repeaters:
        yield r.closing(counts[r.source])
