"""The demo: everything once, a report that is whole or not there, and an exit code that can say no."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path

import pytest

from residentkv.cli.main import main
from residentkv.errors import EXIT_INTERNAL, EXIT_NO_INPUT, EXIT_PASS, EXIT_USAGE, EXIT_VIOLATED
from residentkv.runtimes.reference.config import Mechanism
from residentkv.runtimes.reference.litmus import ReferenceLitmus

FILES = {
    ".residentkv-demo",
    "audit.json",
    "audit.txt",
    "check.json",
    "check.txt",
    "evidence-violating.json",
    "evidence.json",
    "litmus.json",
    "reference.json",
    "report.txt",
    "traces",
    "violating",
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """One demo that passed: its report, and what it printed."""
    out = tmp_path_factory.mktemp("demo") / "deep" / "demo"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main(["demo", "--out", str(out)]) == EXIT_PASS
    return out, printed.getvalue()


@pytest.fixture
def report(demo: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy of the report that a test may spoil."""
    shutil.copytree(demo[0], tmp_path / "demo")
    return tmp_path / "demo"


def test_demo_shows_every_part_and_says_where_the_report_lies(demo: tuple[Path, str]) -> None:
    """Descriptors, litmus, audits with the story of a violation, and the verdicts, within 79 columns."""
    out, printed = demo
    body, _, last = printed.rstrip("\n").rpartition("\n")
    assert last == f"Everything is as it should be. Report: {out}"
    assert max(map(len, body.splitlines())) < 80
    for words in ("all 23 cells are as expected", "RKV290 promise-broken: violated", "1,104 cached tokens in 3 spans"):
        assert words in body
    assert body.count("native_sound") == 7 and "rejected, because victim_exclusion is" in " ".join(body.split())
    assert {p.name for p in out.iterdir()} == FILES and [p.name for p in out.parent.iterdir()] == ["demo"]
    assert (out / "report.txt").read_text() in printed


def test_report_names_no_path_of_this_machine(demo: tuple[Path, str], report: Path) -> None:
    """Traces are named as they lie in the report, so that the folder can be moved and the evidence read again."""
    for name in sorted(FILES - {"traces", "violating"}):
        assert str(demo[0].parents[1]) not in (report / name).read_text(), name
    moved = report.rename(report.with_name("moved"))
    arguments = ["check", "--runtime", "reference", "--primitive", "resident_claims"]
    assert main([*arguments, "--evidence", str(moved / "evidence.json")]) == EXIT_PASS
    assert main([*arguments, "--evidence", str(moved / "evidence-violating.json")]) == EXIT_VIOLATED


def test_json_files_carry_the_verdicts(demo: tuple[Path, str]) -> None:
    """The same facts for programs: seven rows of the reference, 13 audits, one of them violating."""
    out, _ = demo
    rows = json.loads((out / "reference.json").read_text())["rows"]
    assert {r["verdict"] for r in rows} == {"native_sound"} and len(rows) == 7
    traces = json.loads((out / "audit.json").read_text())["traces"]
    assert sorted(t["verdict"] for t in traces) == ["conforming"] * 12 + ["violating"]
    assert json.loads((out / "litmus.json").read_text())["differences"] == []


def test_second_demo_replaces_the_first(report: Path) -> None:
    """An earlier report gives way whole; what it held is gone."""
    (report / "stray").write_text("old")
    assert main(["demo", "--out", str(report)]) == EXIT_PASS
    assert {p.name for p in report.iterdir()} == FILES


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_is_no_report_is_not_replaced(capsys: pytest.CaptureFixture[str], tmp_path: Path, kind: str) -> None:
    """A folder with other things in it, or a file, is left alone."""
    out = tmp_path / "mine"
    if kind == "folder":
        out.mkdir()
        (out / "thesis.txt").write_text("years of work")
    else:
        out.write_text("years of work")
    assert main(["demo", "--out", str(out)]) == EXIT_USAGE
    assert "choose another folder" in capsys.readouterr().err
    assert (out / "thesis.txt" if kind == "folder" else out).read_text() == "years of work"


def test_demo_that_breaks_off_leaves_the_old_report(
    report: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing half-written takes the place of a whole report, and nothing is left beside it."""
    before = (report / "report.txt").read_bytes()

    def breaks(*_: object, **__: object) -> None:
        raise RuntimeError("power cut")

    monkeypatch.setattr("residentkv.cli.demo.run_litmus", breaks)
    assert main(["demo", "--out", str(report)]) == EXIT_INTERNAL
    assert (report / "report.txt").read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["demo"]
    assert main(["demo", "--out", str(tmp_path / "new")]) == EXIT_INTERNAL
    assert [p.name for p in tmp_path.iterdir()] == ["demo"]


def test_demo_of_a_broken_engine_does_not_pass(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A litmus that differs makes the demo exit as violated, and the report says so."""
    broken = ReferenceLitmus(frozenset({Mechanism.FEASIBILITY_CHECK}))
    monkeypatch.setattr("residentkv.cli.demo.ReferenceLitmus", lambda: broken)
    assert main(["demo", "--out", str(tmp_path / "demo")]) == EXIT_VIOLATED
    out = capsys.readouterr().out
    assert "NOT as it should be" in out and "DIFFERS" in out


def test_folder_that_cannot_be_made_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """One line, with what was expected."""
    (tmp_path / "file").write_text("")
    assert main(["demo", "--out", str(tmp_path / "file" / "demo")]) == EXIT_NO_INPUT
    assert "expected a folder to write to" in capsys.readouterr().err
