"""The published traces, when they are at hand, and equivalents of our own that do not need them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from residentkv.audit import AuditReport, Profile, Verdict, audit_file
from tests.trace.published_samples import FAILED_LOAD, LOAD, MODEL, TO_GPU, Record, encode, live, reference

PEERS = Path(os.environ.get("RESIDENTKV_PEER_TRACES", Path(__file__).parents[3] / "shared" / "peer-traces"))

_FAILED_BRANCH = (
    (
        "resident_claim_restoration_failed",
        TO_GPU
        | {
            "request_id": "b",
            "offload_generation": 1,
            "outcome_claim_id": "claim:a",
            "restoration_failure_reason": "gone",
        },
    ),
)


def _model() -> list[Record]:
    """Both branches in order, as a model writes them: the success of MODEL, then a failure told by the connector."""
    success = [(r["event"], dict(r)) for r in MODEL if r["event"] != "resident_claim_demoted"]
    again = [
        (r["event"], dict(r) | {"offload_generation": 2})
        for r in MODEL
        if r["event"].endswith(("offloaded", "required"))
    ]
    failure = ("resident_claim_restoration_failed", dict(_FAILED_BRANCH[0][1]) | {"offload_generation": 2})
    events = [*success, *again, failure]
    keep = ("event", "event_sequence", "timestamp_ns")
    return reference(*((name, {k: v for k, v in fields.items() if k not in keep}) for name, fields in events))


def _unclaimed() -> list[Record]:
    """A load without a claim fails, and two numbers are missing."""
    records = live(
        ("request_initialized", {"request_id": "q0", "num_prompt_tokens": 33, "num_block_hashes": 2}),
        (
            "offload_load_job_created",
            LOAD | {"request_id": "q0", "restoration_generation": 1},
        ),
        ("offload_request_finished_pending_jobs", {"request_id": "q0", "pending_job_ids": [6]}),
    )
    records[2]["event_sequence"] = 5
    return records


def _counters() -> list[Record]:
    return [
        {
            "event": "generic_kv_transfer_failed_counter",
            "event_sequence": 1,
            "failure_count": 1,
            "run_id": "r",
            "timestamp_ns": 5,
        },
        {
            "event": "generic_request_error_counter",
            "event_sequence": 2,
            "request_failures": 1,
            "run_id": "r",
            "timestamp_ns": 6,
        },
    ]


OWN = {
    "positive_bundle": _model,
    "claimed_load_failure": lambda: FAILED_LOAD,
    "unclaimed_load_failure": _unclaimed,
    "generic_counter_only": _counters,
}


@pytest.fixture
def each(tmp_path):
    """Return our own equivalent of a published trace, and the published file itself when this machine has it."""

    def files(name: str) -> Iterator[Path]:
        own = tmp_path / f"{name}.jsonl"
        own.write_bytes(encode(OWN[name]()))
        yield own
        if (PEERS / f"{name}.jsonl").exists():
            yield PEERS / f"{name}.jsonl"

    return files


def codes(report: AuditReport) -> set[str]:
    return {f.code for f in report.all_findings()}


def passed(path: Path) -> set[str]:
    return {g.name for g in audit_file(path, Profile.PUBLISHED).gates if g.passed}


def test_a_models_trace_keeps_the_order_and_is_told_what_it_leaves_open(each):
    """positive_bundle: both branches in order, without transfers, scheduler events or requests: inconclusive."""
    for path in each("positive_bundle"):
        report = audit_file(path)
        assert report.verdict is Verdict.INCONCLUSIVE, path
        assert not any(f.verdict is Verdict.VIOLATING for f in report.all_findings())
        assert not any(f.slug == "illegal-transition" for f in report.all_findings())
        assert {"RKV245", "RKV255", "RKV271", "RKV217"} <= codes(report)


def test_a_run_that_never_accepts_its_claim_is_told_exactly_that(each):
    """claimed_load_failure passes the published failure gate; under the contract nobody accepted the claim."""
    for path in each("claimed_load_failure"):
        report = audit_file(path)
        assert report.verdict is Verdict.VIOLATING, path
        bad = [f for f in report.all_findings() if f.verdict is Verdict.VIOLATING]
        assert [f.slug for f in bad] == ["claim-never-accepted"]
        assert bad[0].missing_event == "resident_claim_accepted, resident_claim_materialized"
        assert "failure_outcome" in passed(path)


def test_an_unclaimed_failure_with_gaps_is_inconclusive(each):
    """unclaimed_load_failure: numbers are missing, and there is no claim; it passes no gate."""
    for path in each("unclaimed_load_failure"):
        report = audit_file(path)
        assert report.verdict is Verdict.INCONCLUSIVE, path
        assert "RKV204" in codes(report)
        assert not report.claims
        assert not passed(path) & {"observation", "failure_outcome"}


def test_counters_alone_hold_no_claim(each):
    """generic_counter_only: two counters; it passes no gate."""
    for path in each("generic_counter_only"):
        report = audit_file(path)
        assert report.verdict is Verdict.INCONCLUSIVE, path
        assert "RKV211" in codes(report)
        assert not passed(path) & {"observation", "failure_outcome"}
