"""Spans with the OpenTelemetry that vLLM's own environment has."""

from __future__ import annotations

from pathlib import Path

from residentkv.environments import run_in_runtime

SCRIPT = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from residentkv.server.spans import Spans, tracer
from residentkv.trace import events as ev

memory = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(memory))
trace.set_tracer_provider(provider)
spans = Spans(tracer())
names = {"request_id": "r", "claim_id": "c", "owner_scope": "o"}
spans.observe(ev.RequestInitialized, names, 1_000)
spans.observe(ev.ClaimRestoreRequired, names, 2_000)
spans.observe(ev.ClaimRestored, names, 5_000)
spans.observe(ev.RequestTerminated, {"request_id": "r", "finish_status": "length"}, 9_000)
for span in memory.get_finished_spans():
    print(span.name, span.end_time - span.start_time, span.attributes["residentkv.claim_id"])
"""


def test_spans_reach_an_exporter_of_opentelemetry(tmp_path: Path) -> None:
    """With names, attributes, and the times of the events and not of their making."""
    lines: list[str] = []
    run_in_runtime("vllm", ["-c", SCRIPT], log=tmp_path / "log", what="the spans", on_line=lines.append)
    assert lines == ["residentkv.restore 3000 c", "residentkv.request 8000 c"]
