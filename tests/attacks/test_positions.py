"""Positions that an object does not have."""

from __future__ import annotations

import pytest

from residentkv.audit import Verdict, audit_events
from tests.audit.notation import trace
from tests.audit.stories import HARD, SUCCESS

LINES = ("store 0 r1 c", "offload c r1", "lookup r2 c", "require c r2", "load 1 r2 c", "restore c r2", "reuse c r2")
BEYOND = SUCCESS
for _line in LINES:
    assert BEYOND.count(_line) == 1
    BEYOND = BEYOND.replace(_line, f"{_line} 0-9")


@pytest.mark.parametrize("far", [9, 100, (1 << 63) - 1])
def test_materialized_beyond_its_object_is_inconclusive(far: int) -> None:
    """Of eight blocks nobody holds a ninth: the event contradicts itself, and supports nothing."""
    story = HARD.replace("    materialize c r1 ", f"    materialize c r1 0-{far} ")
    report = audit_events([trace(story)])
    assert report.verdict is Verdict.INCONCLUSIVE
    assert {f.code for f in report.all_findings()} == {"RKV253"}


def test_a_whole_cycle_beyond_the_object_is_inconclusive() -> None:
    """A store, an offload and a restoration that agree on a ninth block of eight agree on nothing."""
    report = audit_events([trace(BEYOND)])
    assert report.verdict is Verdict.INCONCLUSIVE
    assert {f.code for f in report.all_findings()} == {"RKV253"}


@pytest.mark.parametrize("line", ["restore c r2", "reuse c r2"])
def test_a_load_beyond_the_object_stays_out_of_the_claim(line: str) -> None:
    """A load may bring more than the claim's blocks; what comes back of the claim is its own blocks."""
    story = SUCCESS.replace("load 1 r2 c", "load 1 r2 c 0-9")
    assert audit_events([trace(story)]).verdict is Verdict.CONFORMING
    story = story.replace("restore c r2", "restore c r2 0-9").replace(line, f"{line} 0-9")
    assert audit_events([trace(story.replace("0-9 0-9", "0-9"))]).verdict is Verdict.INCONCLUSIVE
