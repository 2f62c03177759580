"""Spans of requests and restorations, made from the events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from residentkv.server.spans import Spans
from tests.vllm.bench import Bench, claim, prompt


class Span:
    def __init__(self, name: str, attributes: dict[str, Any], start_time: int) -> None:
        self.name, self.attributes, self.start_time = name, dict(attributes), start_time
        self.end_time: int | None = None

    def set_attribute(self, key: str, value: Any) -> None:
        self.attributes[key] = value

    def end(self, end_time: int | None = None) -> None:
        self.end_time = end_time


class Tracer:
    def __init__(self) -> None:
        self.spans: list[Span] = []

    def start_span(self, name: str, *, attributes: dict[str, Any], start_time: int) -> Span:
        self.spans.append(Span(name, attributes, start_time))
        return self.spans[-1]


def test_a_request_of_a_claim_and_its_restoration_are_spans(tmp_path: Path) -> None:
    """One that failed says so; a request without a claim has none; every span ends after it began."""
    bench, tracer = Bench(tmp_path), Tracer()
    bench.log.observers.append(Spans(tracer).observe)
    bench.serve("r0", prompt(9))
    bench.serve("r1", prompt(), claim())
    bench.reset_primary()
    bench.serve("r2", prompt(), claim())
    bench.reset_primary()
    bench.serve("r3", prompt(), claim(), fail=[0])
    found = [
        (s.name, s.attributes.get("residentkv.request_id"), s.attributes.get("residentkv.outcome"))
        for s in tracer.spans
    ]
    assert found == [
        ("residentkv.request", "r1", None),
        ("residentkv.request", "r2", None),
        ("residentkv.restore", "r2", "restored"),
        ("residentkv.request", "r3", None),
        ("residentkv.restore", "r3", "failed: injected"),
    ]
    assert tracer.spans[3].attributes["residentkv.refused"] == "resident_claim_restoration_failed"
    assert all(s.end_time is not None and s.end_time > s.start_time for s in tracer.spans)
    assert Spans(tracer)._requests == {}
