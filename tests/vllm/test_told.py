"""What the log says of requests of claims when things cross: the engine does right, and the audit has to see that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from residentkv.audit.api import audit_file
from residentkv.audit.model import AuditReport, Verdict
from residentkv.runtimes.vllm.jobs import OpenJob
from residentkv.trace import events as ev
from tests.vllm.bench import BLOCK, Bench, claim, event_name, prompt


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def codes(report: AuditReport) -> set[str]:
    return {f.code for f in report.all_findings()}


def assert_conforming(report: AuditReport) -> AuditReport:
    assert report.verdict is Verdict.CONFORMING, [f.story for f in report.all_findings()]
    return report


def forge(bench: Bench, event: str, **changes: Any) -> AuditReport:
    """Audit the log of a bench with other words in its events of one name."""
    lines = [json.loads(line) for line in bench.path.read_text().splitlines()]
    for line in lines:
        if line["event"] == event:
            line.update(changes)
    bench.path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return audit_file(bench.path)


def load(bench: Bench, request_id: str) -> OpenJob:
    """Let a request in and return the load that is made for it."""
    job = bench.schedule(request_id)
    assert isinstance(job, OpenJob)
    return job


SHORT = claim(footprint_blocks=3, predicate="leading_prefix_at_least(3)")


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize("terms", ["refuse", "recompute"])
def test_a_load_beyond_the_claimed_object_that_fails_is_told_for_the_object(
    bench: Bench, damaged: bool, terms: str
) -> None:
    """Failed positions and invalid blocks are those of the claim, however much more was to be loaded."""
    short = SHORT | {"on_restore_failure": terms}
    bench.serve("r1", prompt(blocks=8), short)
    bench.reset_primary()
    outcome = bench.serve("r2", prompt(blocks=8), short, fail=range(8), damaged=damaged)
    assert outcome == ("refused" if terms == "refuse" else "served")
    assert_conforming(bench.stop())
    (failed,) = bench.events("scheduler_resident_claim_restoration_failed")
    assert isinstance(failed, ev.SchedulerRestorationFailed)
    assert failed.failed_pos == ((0, 3),)
    assert failed.invalid_block_ids == (100, 101, 102)


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize("terms", ["refuse", "recompute"])
def test_a_load_that_fails_only_beyond_the_claimed_object_is_tried_again_without_that(
    bench: Bench, damaged: bool, terms: str
) -> None:
    """The claim's own bytes can be given back, so it is neither refused nor ended; what failed leaves the tier."""
    short = SHORT | {"on_restore_failure": terms}
    bench.serve("r1", prompt(blocks=8), short)
    bench.reset_primary()
    bench.arrive("r2", prompt(blocks=8), short)
    assert not bench.finish_job(load(bench, "r2"), (5, 6), damaged=damaged)
    again = load(bench, "r2")
    assert again.positions == (0, 1, 2, 3, 4)
    bench.finish_job(again)
    bench.compute("r2")
    report = assert_conforming(bench.stop())
    assert report.claims[0].state == "released"
    assert report.claims[0].counts["retried"] == 1


def test_a_failure_that_leaves_out_positions_of_the_claimed_object_is_violating(bench: Bench) -> None:
    """Only what is beyond the object may be left out."""
    bench.serve("r1", prompt(blocks=8), SHORT)
    bench.reset_primary()
    bench.serve("r2", prompt(blocks=8), SHORT, fail=range(8))
    bench.stop()
    report = forge(bench, "scheduler_resident_claim_restoration_failed", failed_pos=[[0, 2]])
    assert report.verdict is Verdict.VIOLATING
    assert "RKV267" in codes(report)
