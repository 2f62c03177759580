"""The questions put to Dynamo: is a claim routed to its blocks, and what is told when not; answers come from runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from residentkv.runtimes.dynamo import route_cases, stock_cases
from residentkv.runtimes.dynamo.stage import Stage
from residentkv.runtimes.study import CaseRun

CASES: dict[str, Callable[[Stage], CaseRun]] = {
    "warm_route": route_cases.warm_route,
    "evicted_at_target": route_cases.evicted_at_target,
    "dead_target_direct": route_cases.dead_target_direct,
    "dead_target_hard_affinity": route_cases.dead_target_hard_affinity,
    "soft_affinity_migration": route_cases.soft_affinity_migration,
    "prediction_without_events": route_cases.prediction_without_events,
    "reservation_too_large": stock_cases.reservation_too_large,
    "accepted_hints": stock_cases.accepted_hints,
    "busy_elsewhere": stock_cases.busy_elsewhere,
    "score_as_binding": stock_cases.score_as_binding,
    "salt_dropped": stock_cases.salt_dropped,
    "host_tier": route_cases.host_tier,
    "event_gap": route_cases.event_gap,
    "best_effort_observed": stock_cases.best_effort_observed,
}
"""All cases by name, in the order in which they run."""


def run_case(name: str, out: Path) -> CaseRun:
    """Run one case on a fleet of its own."""
    with Stage(name, out) as stage:
        return CASES[name](stage)
