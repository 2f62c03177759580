"""Numbers of the engine process, counted from its events and rendered for Prometheus; no owner and no name in them."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from residentkv.server.usage import ENDS
from residentkv.trace import events as ev

RESTORE_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Log(Protocol):
    """What is asked of the event log."""

    events_written: int
    events_lost: int
    write_ns: int


class EngineMetrics:
    """Counts events; safe only under the engine's guard."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        r = self._registry
        self._claims = Gauge("residentkv_claims", "Open claims.", ("state", "mode"), registry=r)
        self._protected = Gauge("residentkv_protected_blocks", "Primary-tier blocks protected by claims.", registry=r)
        self._decisions = Counter(
            "residentkv_claim_decisions", "Decisions about submitted claims.", ("decision", "reason"), registry=r
        )
        self._outcomes = Counter("residentkv_claim_outcomes", "Claims that ended.", ("outcome",), registry=r)
        self._renewals = Counter("residentkv_claim_renewals", "Terms that were extended.", registry=r)
        self._refusals = Counter("residentkv_refusals", "Active requests refused.", ("reason",), registry=r)
        self._restores = Histogram(
            "residentkv_restore_seconds",
            "From restore_required to restored.",
            buckets=RESTORE_BUCKETS_S,
            registry=r,
        )
        self._failed = Counter("residentkv_failed_restores", "Restorations that failed.", ("reason",), registry=r)
        self._written = Gauge("residentkv_event_log_events", "Events written to the log.", registry=r)
        self._lag = Gauge(
            "residentkv_event_log_lag_events",
            "Events that happened and are not in the log; 0 while it is whole.",
            registry=r,
        )
        self._write_s = Gauge("residentkv_event_log_write_seconds", "Time spent in writes to the log.", registry=r)
        self._required_ns: dict[tuple[str, str], int] = {}

    def observe(self, kind: type[ev.Event], fields: dict[str, Any], now_ns: int) -> None:
        """Take in an event that happened at `now_ns`."""
        if kind is ev.ClaimAccepted:
            self._decisions.labels(fields["decision"], "clipped" if fields["clipped_from"] else "fits").inc()
        elif kind is ev.ClaimRejected:
            self._decisions.labels("rejected", fields["reason"]).inc()
        elif kind is ev.ClaimRenewed:
            self._renewals.inc()
        elif kind in (ev.RequestRefused, ev.SchedulerRequestRefused):
            self._refusals.labels(fields["reason"]).inc()
        elif kind is ev.ClaimRestoreRequired:
            self._required_ns[_key(fields)] = now_ns
        elif kind is ev.ClaimRestored:
            begun_ns = self._required_ns.pop(_key(fields), None)
            if begun_ns is not None:
                self._restores.observe((now_ns - begun_ns) / 1e9)
        elif kind is ev.ClaimRestorationFailed:
            self._required_ns.pop(_key(fields), None)
            self._failed.labels(fields["reason"].partition(":")[0]).inc()  # What follows is for the log: it has no end.
        elif kind in ENDS:
            self._required_ns.pop(_key(fields), None)
            self._outcomes.labels(kind.__name__.removeprefix("Claim").lower()).inc()

    def render(self, log: Log, claims: Iterable[tuple[str, str]], protected_blocks: int) -> str:
        """Return the numbers as text; `claims` gives (state, mode) of each open claim."""
        self._claims.clear()
        for (state, mode), count in Tally(claims).items():
            self._claims.labels(state, mode).set(count)
        self._protected.set(protected_blocks)
        self._written.set(log.events_written)
        self._lag.set(log.events_lost)
        self._write_s.set(log.write_ns / 1e9)
        return generate_latest(self._registry).decode()


def _key(fields: dict[str, Any]) -> tuple[str, str]:
    return fields["owner_scope"], fields["claim_id"]
