"""The command `study`, on a made-up runtime whose traces are recorded ones."""

from __future__ import annotations

import shutil
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from residentkv.cli.main import main
from residentkv.cli.study import StudyResult, render_losses
from residentkv.runtimes import study
from residentkv.runtimes.study import CaseRun, Check, ExpectedTrace, Loss, StudyCase, Word

RECORDED = Path(__file__).parent.parent / "traces" / "reference" / "best_effort.jsonl"


class MadeUp:
    """A study of two cases: one with a trace and a loss, one whose outcome a test sets."""

    runtime = "madeup"
    cases = (StudyCase(name="reuse", title="warm and cold"), StudyCase(name="empty", title="nothing is asked"))
    expected: Word = "conforming"

    def run(
        self, cases: Sequence[str], out: Path, *, reduced: bool, progress: Callable[[str], None]
    ) -> Sequence[CaseRun]:
        done = []
        if "reuse" in cases:
            shutil.copy(RECORDED, out / "trace.jsonl")
            lost = Loss(name="a block was evicted", told="silent", caught="adapter", by="cached tokens")
            trace = ExpectedTrace(path="trace.jsonl", verdict=self.expected)
            check = Check(name="warm is warm", passed=True, found="35 tokens")
            done.append(CaseRun(case="reuse", traces=(trace,), checks=(check,), losses=(lost,)))
        if "empty" in cases:
            done.append(CaseRun(case="empty"))
        return done


@pytest.fixture
def madeup(monkeypatch: pytest.MonkeyPatch) -> MadeUp:
    """The made-up study, registered under its name."""
    module, one = types.ModuleType("madeup_study"), MadeUp()
    module.__dict__["STUDY"] = one
    monkeypatch.setitem(sys.modules, "madeup_study", module)
    monkeypatch.setitem(study.STUDIES, "madeup", "madeup_study")
    return one


def test_a_case_passes_when_its_checks_hold_and_its_trace_is_judged_as_expected(
    madeup: MadeUp, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Evidence, results and the table of losses lie in the folder, and the code is 0."""
    assert main(["study", "madeup", "--case", "reuse", "--out", str(tmp_path)]) == 0
    assert {"evidence.json", "results.json", "losses.md", "trace.jsonl"} <= {p.name for p in tmp_path.iterdir()}
    assert "| a block was evicted | silent | adapter | cached tokens |" in (tmp_path / "losses.md").read_text()
    results = msgspec.json.decode((tmp_path / "results.json").read_bytes())
    assert [c["passed"] for c in results[0]["checks"]] == [True, True]
    assert "NOT AS EXPECTED" not in capsys.readouterr().out


def test_a_verdict_other_than_expected_is_told(
    madeup: MadeUp, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A trace that conforms where a violation was to be shown fails the case."""
    madeup.expected = "violating"
    assert main(["study", "madeup", "--case", "reuse", "--out", str(tmp_path)]) == 10
    said = capsys.readouterr().out
    assert "says violating; found conforming" in said
    assert "NOT SHOWN reuse: a block was evicted" in said
    assert "a block was evicted" not in (tmp_path / "losses.md").read_text(), "who was told is not known either"


def test_a_case_without_checks_does_not_pass(
    madeup: MadeUp, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing asked is nothing shown, also when another case of the run passes."""
    assert main(["study", "madeup", "--out", str(tmp_path)]) == 10
    assert "NOT AS EXPECTED empty: nothing was checked" in capsys.readouterr().out


def test_an_unknown_runtime_and_an_unknown_case_are_usage_errors(
    madeup: MadeUp, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message names what there is and the nearest."""
    assert main(["study", "madeupp", "--list"]) == 2
    assert "did you mean 'madeup'?" in capsys.readouterr().err
    assert main(["study", "madeup", "--case", "reus"]) == 2
    assert "did you mean 'reuse'?" in capsys.readouterr().err


def test_every_registered_study_lists_its_cases(capsys: pytest.CaptureFixture[str]) -> None:
    """Listing starts nothing, so it works without any environment."""
    for runtime in study.STUDIES:
        assert main(["study", runtime, "--list"]) == 0
        assert len(capsys.readouterr().out.splitlines()) > 2


def test_a_hostile_loss_stays_in_its_cell() -> None:
    """What a runtime calls itself neither ends a cell of the table of losses nor begins a line or an element."""
    lost = Loss(name="a | b\n# c", told="silent", caught="adapter", by="<script>\u202e\x1b[31m")
    done = CaseRun(case="reuse", losses=(lost,))
    *_, row = render_losses(
        [StudyResult(run=done, checks=(Check(name="asked", passed=True, found="yes"),))]
    ).splitlines()
    assert row == "| a \\| b # c | silent | adapter | \\<script>\\u202e\\x1b[31m |"


@pytest.mark.parametrize("command", [("study", "sglang"), ("study", "dynamo"), ("study", "kvcr"), ("witness",)])
def test_a_list_fits_eighty_columns(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """Names in one column and what they are in another, wrapped."""
    assert main([*command, "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 3 and max(map(len, lines)) <= 80
