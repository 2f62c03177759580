"""Which neighbours could as well have come in the other order, and which could not."""

from __future__ import annotations

import pytest

from residentkv.suite.context import Context
from residentkv.suite.independence import are_independent
from tests.audit.notation import trace

STORY = """
    open
    init r1 c
    accept c r1 mode=hard_protected
    admit r1 need_blocks=0 protected_blocks=8
    stored gpu a0,a1,a2,a3,a4,a5,a6,a7 0,1,2,3,4,5,6,7
    materialize c r1 block_hashes=a0,a1,a2,a3,a4,a5,a6,a7
    end r1
    init r2
    admit r2 protected_blocks=8
    stored gpu b0 8
    end r2
    init r3 c
    reuse-here c r3
    end r3
    init r4 c
    end r4
    removed gpu b0 8
    release c
    removed gpu a0 0
    close
"""
EVENTS = tuple(trace(STORY))
CONTEXT = Context(EVENTS)
NAMES = [line.strip() for line in STORY.strip().splitlines()]


@pytest.mark.parametrize(
    ("a", "b", "independent"),
    [
        ("end r1", "init r2", True),  # two requests, one of them about no claim
        ("end r3", "init r4 c", True),  # two requests that only read the claim
        ("init r2", "admit r2 protected_blocks=8", False),  # one request
        ("reuse-here c r3", "release c", False),  # one claim, which ends
        ("release c", "admit r2 protected_blocks=8", False),  # the sum of protected blocks changes
        ("stored gpu b0 8", "removed gpu b0 8", False),  # one place
        ("removed gpu b0 8", "release c", True),  # a block that the claim does not need
        ("release c", "removed gpu a0 0", False),  # a block that it needs: excused only when it comes later
        ("removed gpu b0 8", "removed gpu a0 0", True),  # two places, two contents
        ("removed gpu a0 0", "close", False),  # nothing comes after the close
    ],
)
def test_two_events_are_independent_when_they_share_nothing_that_one_of_them_changes(a, b, independent):
    """In whatever order they are given."""
    first, second = EVENTS[NAMES.index(a)], EVENTS[NAMES.index(b)]
    assert are_independent(first, second, CONTEXT) is independent
    assert are_independent(second, first, CONTEXT) is independent
