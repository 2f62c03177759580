"""Splitting a trace into the parts that can be audited on their own.

Only the order of `seq` within one (source, epoch) is causal, so that is the outer key. Within it a claim is the inner
one: the step keeps a state for each claim and joins requests and jobs to it by name, so that the result of a claim
follows from its own events and those of its requests and jobs, and from nothing else but the capacity decisions.
"""

from __future__ import annotations

from collections.abc import Iterable

from residentkv.trace.events import Event

Place = tuple[str, int]


def partition(events: Iterable[Event]) -> dict[Place, list[Event]]:
    """Split events by (source, epoch); each part keeps its order, and parts may be audited anywhere.

    For traces that fit in memory; `audit_events` does the same while it streams.
    """
    parts: dict[Place, list[Event]] = {}
    for e in events:
        parts.setdefault((e.source, e.epoch), []).append(e)
    return parts
