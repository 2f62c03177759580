"""OpenTelemetry spans of requests that name a claim and of restorations, made from the events as they happen.

Off unless the operator sets `spans`. vLLM sets up the exporter in the engine process when the environment variable
OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is there (vllm/tracing, 0.32); without one the spans go nowhere. Owners and claims
are named in spans: who can read them is the operator's choice.
"""

from __future__ import annotations

import time
from typing import Any, Protocol

from residentkv.errors import UsageError
from residentkv.server.usage import ENDS
from residentkv.trace import events as ev

MAX_OPEN_SPANS = 100_000


class Span(Protocol):
    """What is asked of a span of OpenTelemetry."""

    def set_attribute(self, key: str, value: Any) -> None:
        """Set an attribute."""

    def end(self, end_time: int | None = None) -> None:
        """End it, at a wall-clock time in nanoseconds."""


class Tracer(Protocol):
    """What is asked of a tracer of OpenTelemetry."""

    def start_span(self, name: str, *, attributes: dict[str, Any], start_time: int) -> Span:
        """Begin a span at a wall-clock time in nanoseconds."""


def tracer() -> Tracer:
    """Return the process's tracer.

    Raises:
        UsageError: OpenTelemetry is not installed.
    """
    try:
        from opentelemetry import trace
    except ImportError:
        raise UsageError("spans: found no opentelemetry here, expected it; install opentelemetry-api") from None
    found: Tracer = trace.get_tracer("residentkv")
    return found


class Spans:
    """Begins and ends spans; safe only under the engine's guard. Beyond `MAX_OPEN_SPANS` no new one is begun."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._requests: dict[str, Span] = {}
        self._restores: dict[tuple[str, str], Span] = {}
        self._wall_ahead_ns = time.time_ns() - time.monotonic_ns()

    def observe(self, kind: type[ev.Event], fields: dict[str, Any], now_ns: int) -> None:
        """Take in an event that happened at `now_ns`, of the monotonic clock."""
        at_ns = now_ns + self._wall_ahead_ns
        if kind is ev.RequestInitialized:
            if fields["claim_id"] is not None and len(self._requests) < MAX_OPEN_SPANS:
                self._requests[fields["request_id"]] = self._begin("residentkv.request", fields, at_ns)
        elif kind in (ev.RequestRefused, ev.SchedulerRequestRefused):
            span = self._requests.get(fields["request_id"])
            if span is not None:
                span.set_attribute("residentkv.refused", fields["reason"])
        elif kind is ev.RequestTerminated:
            span = self._requests.pop(fields["request_id"], None)
            if span is not None:
                span.set_attribute("residentkv.finish_status", fields["finish_status"])
                span.end(at_ns)
        elif kind is ev.ClaimRestoreRequired:
            if len(self._restores) < MAX_OPEN_SPANS:
                self._restores[_key(fields)] = self._begin("residentkv.restore", fields, at_ns)
        elif kind is ev.ClaimRestored:
            self._end_restore(fields, "restored", at_ns)
        elif kind is ev.ClaimRestorationFailed:
            self._end_restore(fields, f"failed: {fields['reason']}", at_ns)
        elif kind in ENDS:
            self._end_restore(fields, "claim_ended", at_ns)

    def _begin(self, name: str, fields: dict[str, Any], at_ns: int) -> Span:
        attributes = {
            f"residentkv.{key}": fields[key]
            for key in ("request_id", "claim_id", "owner_scope")
            if fields.get(key) is not None
        }
        return self._tracer.start_span(name, attributes=attributes, start_time=at_ns)

    def _end_restore(self, fields: dict[str, Any], outcome: str, at_ns: int) -> None:
        span = self._restores.pop(_key(fields), None)
        if span is not None:
            span.set_attribute("residentkv.outcome", outcome)
            span.end(at_ns)


def _key(fields: dict[str, Any]) -> tuple[str, str]:
    return fields["owner_scope"], fields["claim_id"]
