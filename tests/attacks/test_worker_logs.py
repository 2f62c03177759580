"""Logs of workers that say something else than the scheduler, or of whom it is unclear what they are about."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from functools import reduce
from itertools import permutations
from pathlib import Path

import msgspec
import pytest

from residentkv.audit import AuditReport, Verdict, audit_events
from residentkv.audit.merge import Partial, merge_partials, report_of
from residentkv.audit.partition import partition
from residentkv.audit.workers import MAX_DETAILS, WorkerLedger, compare_ledgers
from residentkv.trace.codec import encode_event
from residentkv.trace.events import Event, TransferFinished
from tests.audit.notation import trace
from tests.audit.stories import FAILURE, SUCCESS, TWO_WORKERS, WORKER_LOG

RESTARTED = f"{SUCCESS}\n@scheduler/1\n{FAILURE}"
"""Two incarnations that number their jobs from 0; job 1 succeeds in the first and fails in the second."""


def worker(*lines: str, place: str = "worker0") -> str:
    """A worker's own log."""
    return "\n".join(["", f"@{place}", "open", *lines, "close"])


def found(report: AuditReport) -> set[tuple[str, str]]:
    return {(f.code, f.verdict.value) for f in report.all_findings()}


def test_a_worker_that_counts_more_workers_is_inconclusive() -> None:
    """The scheduler waited for one worker; worker 0 says that there are two, and of the other nothing is known."""
    report = audit_events([trace(SUCCESS + worker("done 0 workers_total=2", "done 1 workers_total=2"))])
    assert report.verdict is Verdict.INCONCLUSIVE
    assert found(report) == {("RKV252", "inconclusive")}
    assert "workers 2; the scheduler learned" in report.findings[0].story[0]


def test_another_number_of_workers_hides_no_other_contradiction() -> None:
    """Twenty transfers differ in the number of workers only and one in its bytes: that one is a violation."""
    lines = [f"store {n} r1\n done {n}" for n in range(2, 22)]
    story = SUCCESS.replace("    done 0\n", "    done 0\n" + "\n".join(lines) + "\n")
    said = [f"done {n} workers_total=2" for n in range(2, 22)]
    report = audit_events([trace(story + worker("done 0", *said, "done 1 bytes=1"))])
    assert found(report) == {("RKV252", "violating"), ("RKV252", "inconclusive")}


def test_workers_that_count_as_the_scheduler_does_conform() -> None:
    """Two workers, and the one that writes a log says two."""
    report = audit_events([trace(TWO_WORKERS + worker("done 0 workers_total=2", "done 1 workers_total=2"))])
    assert report.verdict is Verdict.CONFORMING


@pytest.mark.parametrize(
    ("story", "verdict"),
    [
        (RESTARTED + worker("done 0", "fail 1", place="worker0/1"), Verdict.INCONCLUSIVE),
        (RESTARTED + worker("done 0", "done 1 bytes=1", place="worker0/0"), Verdict.INCONCLUSIVE),
        (SUCCESS + worker("done 0", "fail 1", place="worker0/1"), Verdict.INCONCLUSIVE),
        (SUCCESS + worker("done 0", "fail 1"), Verdict.VIOLATING),
    ],
)
def test_the_order_of_files_changes_no_verdict(story: str, verdict: Verdict) -> None:
    """A log is held against what is certainly the other side of it, in whatever order the logs come."""
    sources = list(partition(trace(story)).values())
    reports = {
        msgspec.json.encode(audit_events([[e for events in order for e in events]])) for order in permutations(sources)
    }
    assert len(reports) == 1
    report = audit_events(sources)
    assert found(report) == {("RKV252", verdict.value)}


def test_logs_of_both_incarnations_conform() -> None:
    """Job numbers that come back after a restart are no contradiction when all logs are there."""
    first = worker("done 0", "done 1", place="worker0/0")
    second = worker("done 0", "fail 1", place="worker0/1")
    report = audit_events([trace(f"{SUCCESS}{first}\n@scheduler/1\n{FAILURE}{second}")])
    assert report.verdict is Verdict.CONFORMING


def test_the_same_contradiction_twice_does_not_cancel() -> None:
    """Two incarnations of the scheduler say the same, two of the worker say the same, and each says another thing."""
    scheduler = f"{SUCCESS}\n@scheduler/1\n{SUCCESS}"
    logs = [worker("done 0", "done 1 bytes=1", place=f"worker0/{epoch}") for epoch in range(2)]
    report = audit_events([trace(scheduler + "".join(logs))])
    assert found(report) == {("RKV252", "violating")}


def test_the_same_positions_in_pieces_agree() -> None:
    """Positions are sets: 0-3 and 4-7 are 0-7."""
    assert audit_events([trace(SUCCESS + worker("done 0", "done 1 ok_pos=4-8+0-4"))]).verdict is Verdict.CONFORMING


def test_many_workers_take_linear_time() -> None:
    """Thirty thousand workers that the scheduler does not know are compared in one pass over the kept details."""
    event = next(e for e in trace(SUCCESS) if isinstance(e, TransferFinished))
    said = WorkerLedger()
    for n in range(30_000):
        said.add(msgspec.structs.replace(event, worker=n))
    assert compare_ledgers(WorkerLedger(), said) == ([], [], list(range(30_000)))
    assert len(said.details) == MAX_DETAILS


AUDIT = """
import pickle, sys
from residentkv.audit.api import audit_part
from residentkv.trace.reader import read_any
sys.stdout.buffer.write(pickle.dumps(audit_part(read_any(sys.argv[1]))))
"""


def audited_elsewhere(events: list[Event], path: Path, seed: int) -> Partial:
    """Audit a part in a process of its own, with another seed for the hashes of strings."""
    path.write_bytes(b"".join(map(encode_event, events)))
    done = subprocess.run(
        [sys.executable, "-c", AUDIT, str(path)],
        env={**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
        stdout=subprocess.PIPE,
    )
    part: Partial = pickle.loads(done.stdout)
    return part


@pytest.mark.parametrize(
    ("story", "verdict"),
    [
        (WORKER_LOG, Verdict.CONFORMING),
        (WORKER_LOG.replace("done 1\n    close", "fail 1\n    close"), Verdict.VIOLATING),
    ],
)
def test_parts_are_audited_in_any_process(story: str, verdict: Verdict, tmp_path: Path) -> None:
    """The parts of two processes merge into the report of one."""
    parts = partition(trace(story)).values()
    partials = [audited_elsewhere(p, tmp_path / f"{n}.jsonl", seed=n + 1) for n, p in enumerate(parts)]
    report = report_of(reduce(merge_partials, partials), path="", sha256="")
    assert report.verdict is verdict
    assert report == audit_events([trace(story)])
