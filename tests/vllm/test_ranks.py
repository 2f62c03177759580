"""Two workers, one claim: what one rank says is not what happened."""

from __future__ import annotations

from pathlib import Path

import pytest

from residentkv.audit.model import AuditReport, Verdict
from residentkv.runtimes.vllm.jobs import JobPart, OpenJob
from residentkv.trace import events as ev
from tests.vllm.bench import Bench, claim, prompt


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, ranks=2)


def part(job: OpenJob, worker: int, failed: tuple[int, ...] = ()) -> JobPart:
    return JobPart(
        job_id=job.job_id,
        worker=worker,
        failed=failed,
        bytes=10,
        reason="injected" if failed else "",
        damaged=False,
        start_ns=1,
        end_ns=2,
    )


def load(bench: Bench) -> OpenJob:
    """Store a claim on both ranks, empty the primary tier and begin the restoration."""
    assert bench.serve("r1", prompt(), claim()) == "served"
    bench.reset_primary()
    bench.arrive("r2", prompt(), claim())
    job = bench.schedule("r2")
    assert isinstance(job, OpenJob)
    return job


def codes(report: AuditReport) -> set[str]:
    return {finding.code for finding in report.all_findings()}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_claim_is_restored_when_the_last_rank_has_reported(bench: Bench, order: tuple[int, int]) -> None:
    """After the first rank's part nothing is told; the parts are joined by their job, in whatever order they come."""
    job = load(bench)
    assert bench.residency.transfers([part(job, order[0])]) == []
    assert bench.events("resident_claim_restored") == []
    assert bench.residency.transfers([part(job, order[1])]) == [job]
    names = bench.names()
    assert names[-3:] == ["offload_worker_transfer_finished"] * 2 + ["resident_claim_restored"]
    bench.tiers.primary.update(bench.prompts["r2"].hashes)
    bench.compute("r2")
    assert bench.stop().verdict is Verdict.CONFORMING


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_one_rank_that_fails_is_a_failed_restoration(bench: Bench, order: tuple[int, int]) -> None:
    """The refusal comes after both parts, names the claim, and says which positions failed on any rank."""
    job = load(bench)
    parts = [part(job, worker, (2,) if worker == 1 else ()) for worker in order]
    bench.residency.transfers(parts[:1])
    assert bench.residency.refusal_of("r2") is None
    bench.residency.transfers(parts[1:])
    bench.end("r2", "error", 0)
    assert bench.names()[-6:] == [
        "offload_worker_transfer_finished",
        "offload_worker_transfer_finished",
        "resident_claim_restoration_failed",
        "scheduler_resident_claim_restoration_failed",
        "scheduler_active_request_refused",
        "active_request_terminated",
    ]
    (failed,) = (e for e in bench.events() if isinstance(e, ev.SchedulerRestorationFailed))
    assert (failed.job_id, failed.failed_pos, failed.blocking_claim_ids) == (job.job_id, ((2, 3),), ("c",))
    assert bench.stop().verdict is Verdict.CONFORMING


@pytest.mark.parametrize("failed", [(), (2,)])
def test_a_switch_that_trusts_the_first_rank_makes_the_audit_red(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, failed: tuple[int, ...]
) -> None:
    """The negative control: with the rule broken, a restoration is told too early, and the audit says so."""
    job = load(bench)
    monkeypatch.setattr(OpenJob, "over", property(lambda job: bool(job.workers)))
    bench.residency.transfers([part(job, 0), part(job, 1, failed)])
    bench.tiers.primary.update(bench.prompts["r2"].hashes)
    bench.compute("r2")
    report = bench.stop()
    assert report.verdict is Verdict.VIOLATING
    assert "RKV255" in codes(report)
