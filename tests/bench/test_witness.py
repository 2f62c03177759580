"""The part of BENCHMARKS.md that `make bench-witness` writes; the runs themselves are in the live tests."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from bench.witness import PUBLISHED, main

from residentkv.errors import NoInputError
from residentkv.witness.scenarios import SCENARIOS
from residentkv.witness.table import ScenarioSummary

META = {"vllm": "0.32.0", "torch": "2.13.0", "python": "3.11.7", "machine": "x86_64", "model": "sha256:0123456789ab"}


def summary(scenario: str, **changes: object) -> ScenarioSummary:
    """A summary of three runs in which nothing is measured but what `changes` names."""
    nothing = dict.fromkeys(f for f, kind in ScenarioSummary.__annotations__.items() if kind == "float | None")
    return msgspec.convert(
        {
            "scenario": scenario,
            "runs": 3,
            "passed": 3,
            "observation": 0,
            "failure_outcome": 0,
            "negative": 0,
            "false_positives": 0,
            "sequence_valid": 3,
            "verdicts": {"conforming": 3},
            **nothing,
            **changes,
        },
        ScenarioSummary,
    )


def finished(tmp_path: Path, rows: list[ScenarioSummary]) -> Path:
    """The folder of a finished witness: its summary, and what each run says of its versions."""
    folder = tmp_path / "out"
    for row in rows:
        for number in range(row.runs):
            run = folder / row.scenario / f"{number:03d}"
            run.mkdir(parents=True)
            (run / "meta.json").write_bytes(msgspec.json.encode(META))
    (folder / "summary.json").write_bytes(msgspec.json.encode(rows))
    return folder


def test_published_scenarios_are_scenarios() -> None:
    """A row of the published table that no scenario repeats would be compared with nothing."""
    assert set(PUBLISHED) <= set(SCENARIOS)


def test_the_part_holds_matrix_refusals_and_ratios(tmp_path: Path) -> None:
    """Counts of the summary stand beside the published ones; a ratio is computed over restored."""
    rows = [
        summary("success_path", observation=3, negative=3, false_positives=1),
        summary("claimed_load_failure_alone", failure_outcome=3, failed_transfer_to_refusal_median_us=260.04),
        summary("retry_restored", observation=3),
        summary("ttft_256", resident_ttft_median_ms=300.0, reuse_ttft_median_ms=60.0),
    ]
    folder = finished(tmp_path, rows)
    path = tmp_path / "BENCHMARKS.md"
    assert main([str(folder), "--out", str(path)]) == 0
    text = path.read_text()
    assert "| success_path | 3 of 3 | 3 of 3 | 0 of 3 | 30, 0 of 30 | - |" in text
    assert "| retry_restored | 3 of 3 | 3 of 3 | 0 of 3 | 10, 0 of 10 (as fallback_recompute) | - |" in text
    assert "12 runs. 3 of them must not pass a gate: 1 of 3 did" in text
    assert "| claimed_load_failure_alone | 260.0 | - | - |" in text
    assert "| 256 | 300 | 60 | 5.0 |" in text


def test_a_folder_without_runs_is_one_clear_error(tmp_path: Path) -> None:
    """Nothing is written when there is nothing to tell."""
    with pytest.raises(NoInputError, match="expected a finished witness run"):
        main([str(tmp_path), "--out", str(tmp_path / "BENCHMARKS.md")])
    assert not (tmp_path / "BENCHMARKS.md").exists()


@pytest.mark.parametrize("key", ["vllm", "torch", "python", "machine", "model"])
def test_runs_of_different_versions_are_not_told_as_one(tmp_path: Path, key: str) -> None:
    """A folder that was filled by two versions would lend the figures of one to the other."""
    folder = finished(tmp_path, [summary("success_path")])
    (folder / "success_path" / "002" / "meta.json").write_bytes(msgspec.json.encode({**META, key: "another"}))
    with pytest.raises(NoInputError, match="another"):
        main([str(folder), "--out", str(tmp_path / "BENCHMARKS.md")])


def test_runs_that_are_not_there_are_not_counted(tmp_path: Path) -> None:
    """The summary says three, and two are there."""
    folder = finished(tmp_path, [summary("success_path")])
    (folder / "success_path" / "002" / "meta.json").unlink()
    with pytest.raises(NoInputError, match="found 2 runs of success_path, expected the 3"):
        main([str(folder), "--out", str(tmp_path / "BENCHMARKS.md")])
