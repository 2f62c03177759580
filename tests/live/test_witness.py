"""The witness on a real, unmodified vLLM: what each scenario shows, and what it is evidence for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from residentkv.cli.main import main
from residentkv.witness.judge import judge_run
from residentkv.witness.scenarios import SCENARIOS

ROW = [
    "check",
    "--runtime",
    "vllm",
    "--primitive",
    "offloading_connector",
    "--mode",
    "offloadable",
    "--depth",
    "plugin",
]


def events(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "trace.jsonl").read_text().splitlines()]


@pytest.fixture
def pair(witnessed: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Copies of one success trace and one failure trace."""
    success, failure = tmp_path / "success.jsonl", tmp_path / "failure.jsonl"
    shutil.copy(witnessed / "success_path" / "000" / "trace.jsonl", success)
    shutil.copy(witnessed / "claimed_load_failure" / "000" / "trace.jsonl", failure)
    return success, failure


def evidence(*traces: Path) -> list[str]:
    out = traces[0].parent / "evidence.json"
    main(["audit", *map(str, traces), "--evidence-out", str(out)])
    return ["--evidence", str(out)]


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario_shows_what_it_expects(witnessed: Path, name: str) -> None:
    """Every expectation of the scenario is met by what vLLM did: gates, audit, answers, tokens, names, outcomes."""
    result, _ = judge_run(SCENARIOS[name], witnessed / name / "000")
    assert result.checks
    assert [c for c in result.checks if not c.passed] == []


def test_witness_ends_with_0_when_all_is_as_expected(witnessed: Path) -> None:
    """The exit code sums up the runs."""
    assert (witnessed / "exit-code").read_text() == "0"


def test_a_restored_and_a_failed_load_make_the_plugin_row_positive(
    pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """The row is approximate without evidence, sound with it, and never sound with half of it."""
    success, failure = pair
    assert main(ROW) == 11
    assert "approximate" in capsys.readouterr().out
    assert main([*ROW, *evidence(success, failure)]) == 0
    assert "sound_with_adapter" in capsys.readouterr().out
    for half in pair:
        assert main([*ROW, *evidence(half)]) == 11
        assert "sound" not in capsys.readouterr().out.split("Audited:")[0].split("decided by")[1]


@pytest.mark.parametrize(
    ("which", "name"),
    [
        (0, "resident_claim_accepted"),
        (0, "resident_claim_materialized"),
        (0, "resident_claim_offloaded"),
        (0, "resident_claim_restore_required"),
        (0, "resident_claim_restored"),
        (1, "scheduler_resident_claim_restoration_failed"),
        (1, "scheduler_active_request_refused"),
        (1, "active_request_terminated"),
    ],
)
def test_one_event_less_and_the_row_is_not_positive(
    pair: tuple[Path, Path], which: int, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line deleted (numbers closed up, so that no gap gives it away): not positive, and the event is named."""
    trace = pair[which]
    found = [json.loads(line) for line in trace.read_text().splitlines()]
    at = next(
        i
        for i, e in enumerate(found)
        if e["event"] == name and (name != "active_request_terminated" or e["finish_status"] == "error")
    )
    kept = [{**e, "seq": i} for i, e in enumerate(found[:at] + found[at + 1 :])]
    trace.write_text("".join(json.dumps(e, separators=(",", ":")) + "\n" for e in kept))
    with_evidence = evidence(*pair)
    assert f"missing: {name}" in capsys.readouterr().out
    assert main([*ROW, *with_evidence]) in (10, 11)


def test_failure_is_told_in_order_before_the_request_ends(witnessed: Path) -> None:
    """Failed transfer, restoration failed, refusal naming the claim, and only then the end of the request."""
    found = events(witnessed / "claimed_load_failure" / "000")
    failed = next(e for e in found if e["event"] == "offload_worker_transfer_finished" and not e["success"])
    request = failed["request_id"]
    order = [
        e["event"]
        for e in found
        if e.get("request_id") == request and e["seq"] >= failed["seq"]  # type: ignore[operator]
    ]
    assert order == [
        "offload_worker_transfer_finished",
        "resident_claim_restoration_failed",
        "scheduler_resident_claim_restoration_failed",
        "scheduler_active_request_refused",
        "active_request_terminated",
    ]
    refused = next(e for e in found if e["event"] == "scheduler_active_request_refused")
    assert refused["blocking_claim_ids"] == ["claimed_load_failure-000:claim"]


def test_reported_cached_tokens_are_no_evidence(witnessed: Path, tmp_path: Path) -> None:
    """vLLM over-reports them after partial failures; the verdict on a run does not change with what it reports."""
    folder = tmp_path / "run"
    shutil.copytree(witnessed / "partial_load_failure" / "000", folder)
    before, _ = judge_run(SCENARIOS["partial_load_failure"], folder)
    records = json.loads((folder / "requests.json").read_text())
    for record in records["requests"]:
        record["reported_cached_tokens"] = 10_000
    (folder / "requests.json").write_text(json.dumps(records))
    after, _ = judge_run(SCENARIOS["partial_load_failure"], folder)
    assert before.checks == after.checks


def test_wrong_output_is_seen(witnessed: Path, tmp_path: Path) -> None:
    """One token of the restored answer changed: the run is not as expected any more."""
    folder = tmp_path / "run"
    shutil.copytree(witnessed / "success_path" / "000", folder)
    records = json.loads((folder / "requests.json").read_text())
    next(r for r in records["requests"] if r["label"] == "reuse")["output_token_ids"][0] += 1
    (folder / "requests.json").write_text(json.dumps(records))
    result, _ = judge_run(SCENARIOS["success_path"], folder)
    assert [c.name for c in result.checks if not c.passed] == ["reuse tokens equal vLLM without connector"]


def test_runs_that_are_done_are_kept(witnessed: Path) -> None:
    """A second call starts no engine and judges the same files."""
    trace = witnessed / "success_path" / "000" / "trace.jsonl"
    before = trace.stat().st_mtime_ns
    assert main(["witness", "--scenario", "success_path", "--repeat", "1", "--out", str(witnessed)]) == 0
    assert trace.stat().st_mtime_ns == before
