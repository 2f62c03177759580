"""`residentkv suite`: exit codes, what it prints, and its JSON."""

from __future__ import annotations

import json
import shutil

import pytest

from residentkv.cli import suite as command
from residentkv.cli.main import main
from residentkv.suite.case import CASES, load_cases
from residentkv.suite.tally import Tally


def run(capsys, *arguments):
    code = main(["suite", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_all_cases_are_refused_and_the_table_fits_80_columns(capsys):
    """A line a case, the counts in the last line, exit 0."""
    code, out, err = run(capsys)
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert max(map(len, lines)) <= 80
    count = len(load_cases())
    assert len(lines) == count + 2
    assert lines[-1] == f"{count} cases: {count} refused for its own reason while its twin passes, 0 not"


def test_one_case_is_told_in_full(capsys):
    """Where it comes from, why, what was found, and the defect."""
    code, out, _ = run(capsys, "--case", "restore-after-reuse")
    assert code == 0
    assert "from spec section 7 (restore after reuse)" in out
    assert "audit of the trace: violating" in out
    assert "told: RKV256" in out
    assert "resident_claim_reuse_after_restore" in out.split("the defect")[1]
    assert max(map(len, out.splitlines())) <= 80


def test_a_case_whose_trace_cannot_be_read_is_told_without_a_defect(capsys):
    """The story says what is torn."""
    code, out, _ = run(capsys, "--case", "torn-log")
    assert code == 0
    assert "RKV108" in out
    assert "the defect" not in out


def test_a_case_that_is_not_refused_exits_10_and_says_what_was_found(capsys, monkeypatch, tmp_path):
    """One failing case fails the suite."""
    folder = tmp_path / "torn-log"
    shutil.copytree(CASES / "torn-log", folder)
    shutil.copy(folder / "twin.jsonl", folder / "trace.jsonl")
    monkeypatch.setattr(command, "load_cases", lambda: load_cases(tmp_path))
    real = command.run_case
    monkeypatch.setattr(command, "run_case", lambda slug, case: real(slug, case, tmp_path))
    code, out, _ = run(capsys)
    assert code == 10
    assert "FAIL torn-log" in out
    assert "audit of the trace: found conforming; expected inconclusive" in out
    assert out.splitlines()[-1] == "1 case: 0 refused for its own reason while its twin passes, 1 not"


def test_json_says_the_same(capsys):
    """Every case with its checks, and the exit code."""
    code, out, _ = run(capsys, "--json", "--case", "pin-without-owner")
    document = json.loads(out)
    assert (document["schema"], document["exit_code"], code) == ("residentkv.suite/1", 0, 0)
    (case,) = document["cases"]
    assert case["slug"] == "pin-without-owner"
    assert case["threads"] == ["sgl-project/sglang#27024"]
    assert all(check["passed"] for check in case["checks"])
    assert document["mutants"] is None


def test_mutants_are_counted_and_a_survivor_exits_10(capsys, monkeypatch):
    """The command hangs on the tally: none survived is 0, one is 10, in text and in JSON."""
    tally = Tally()
    tally.add("delete", "refused")
    tally.add("swap", "equivalent", reason="independent")
    monkeypatch.setattr(command, "tally_all", lambda cases, traces: (tally, "1 trace and 0 rows"))
    code, out, _ = run(capsys, "--mutants")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert "2 mutants of 1 trace and 0 rows: 1 killed (1 refused, 0 weaker), 1 equivalent" in out
    tally.add("swap", "survived", sentence="x.jsonl: swap: seq 3")
    code, out, _ = run(capsys, "--mutants")
    assert code == 10
    assert "SURVIVED x.jsonl: swap: seq 3" in out
    code, out, _ = run(capsys, "--mutants", "--json")
    document = json.loads(out)
    assert code == document["exit_code"] == 10
    assert document["mutants"]["survivors"] == ["x.jsonl: swap: seq 3"]
    assert document["mutants"]["operators"]["swap"]["made"] == 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--case", "torn-logs"), 2, "did you mean 'torn-log'"),
        (("--trace", "x.jsonl"), 2, "without --mutants"),
        (("--mutants", "--case", "torn-log"), 2, "expected one of them"),
        (("--mutants", "--trace", "no-such-file.jsonl"), 3, "no-such-file.jsonl"),
        (("--mutants", "--trace", str(CASES / "restore-after-reuse" / "trace.jsonl")), 2, "does not conform"),
    ],
)
def test_what_cannot_be_run_is_one_clear_line(arguments, code, message, capsys):
    """Usage errors, and input that is no positive."""
    found, out, err = run(capsys, *arguments)
    assert found == code
    assert out == ""
    assert message in err
    assert err.count("\n") == 1
