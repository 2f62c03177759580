"""What separates a trace from its twin: few events, told without numbers and times."""

from __future__ import annotations

import pytest

from residentkv.cli.suite import difference_of
from residentkv.suite.case import CASES, load_cases
from residentkv.suite.difference import tell_difference
from residentkv.trace.reader import read_trace


def read(slug, file):
    return tuple(event for chunk in read_trace(CASES / slug / file) for event in chunk)


@pytest.mark.parametrize(
    ("slug", "lines"),
    [
        (
            "routing-score-as-binding",
            ["+ resident_claim_route_bound claim_id=c"],
        ),
        (
            "stale-worker-as-route-outcome",
            ["~ resident_claim_route_outcome worker_epoch: 1, in the twin 0"],
        ),
        (
            "refusal-names-no-claim",
            ["~ active_request_refused blocking_claim_ids: (), in the twin ('c',)"],
        ),
    ],
)
def test_the_one_defect_is_told(slug, lines):
    """An event that is missing, a field that differs."""
    assert list(tell_difference(read(slug, "trace.jsonl"), read(slug, "twin.jsonl"))) == lines


def test_equal_traces_do_not_differ():
    """Numbers, times and run ids are not compared."""
    trace = read("restore-after-reuse", "trace.jsonl")
    assert list(tell_difference(trace, trace)) == []


OTHER_STORIES = {
    "generic-counter-only",
    "ordinary-offload-without-claim",
    "unclaimed-failure",
    "sequence-regression-after-restart",
    "wrong-claim-failure",
}
"""Nothing was claimed, all numbers are others, or an outcome went to another request: more than one event differs."""


def test_a_case_and_its_twin_differ_in_one_defect():
    """At most seven lines: the defect, and what cannot happen because of it."""
    told = {slug: difference_of(slug, case) for slug, case in load_cases().items()}
    assert {slug for slug, lines in told.items() if len(lines) > 7} == OTHER_STORIES
    unreadable = {"missing-cache-identity", "missing-predicate", "missing-token-map", "torn-log"}
    only_numbers_or_times = {"sequence-gap", "read-after-lease"}
    untold = {slug for slug, case in load_cases().items() if case.trace is not None and not told[slug]}
    assert untold == unreadable | only_numbers_or_times
