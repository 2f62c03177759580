"""The checker can say yes: the reference descriptor is native_sound from its own audited traces, and only with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from residentkv.claims.modes import Mode
from residentkv.cli.main import main
from residentkv.errors import EXIT_NO_INPUT, EXIT_PASS, EXIT_UNKNOWN, EXIT_USAGE, EXIT_VIOLATED
from residentkv.runtimes.reference.config import BASE_MODES, Mechanism
from residentkv.runtimes.reference.workloads import WORKLOADS
from tests.reference.test_workloads import CONTRADICTED, UNSHOWN

MODES = sorted(BASE_MODES | {Mode.OFFLOADABLE, Mode.ROUTED_REUSE})


def run(folder: Path, *arguments: str) -> int:
    return main(["reference", "run", "--out", str(folder), *arguments])


def check(capsys: pytest.CaptureFixture[str], folder: Path, mode: Mode, *, evidence: bool = True) -> dict[str, Any]:
    """Audit the traces of a folder into evidence, check one row with it, and return the row with the exit code."""
    arguments = ["check", "--runtime", "reference", "--primitive", "resident_claims", "--mode", mode.value, "--json"]
    if evidence:
        traces = sorted(map(str, folder.glob("*.jsonl")))
        main(["audit", *traces, "--evidence-out", str(folder / "evidence.json")])
        arguments += ["--evidence", str(folder / "evidence.json")]
    capsys.readouterr()
    code = main(arguments)
    document = json.loads(capsys.readouterr().out)
    (row,) = document["rows"]
    assert code == document["exit_code"]
    return {**row, "exit_code": code}


@pytest.mark.parametrize("mode", MODES)
def test_mode_is_native_sound_with_its_own_audited_traces(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, mode: Mode
) -> None:
    """Run, audit, check: every obligation is shown natively, and the class is native conformance."""
    assert run(tmp_path, "--mode", mode.value) == EXIT_PASS
    row = check(capsys, tmp_path, mode)
    assert (row["verdict"], row["evidence_class"]) == ("native_sound", "native_conformance"), row["sentence"]
    assert row["exit_code"] == EXIT_PASS


@pytest.mark.parametrize("mode", MODES)
def test_without_evidence_no_mode_is_positive(capsys: pytest.CaptureFixture[str], tmp_path: Path, mode: Mode) -> None:
    """Source code alone promises nothing."""
    row = check(capsys, tmp_path, mode, evidence=False)
    assert (row["verdict"], row["exit_code"]) == ("unknown", EXIT_UNKNOWN)


def test_evidence_of_one_mode_says_nothing_about_another(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Each mode is positive only with its own traces."""
    run(tmp_path, "--mode", "expiring")
    assert check(capsys, tmp_path, Mode.EXPIRING)["verdict"] == "native_sound"
    for mode in MODES:
        if mode is not Mode.EXPIRING:
            assert check(capsys, tmp_path, mode)["verdict"] == "unknown"


def status_of(row: dict[str, Any], obligation: str) -> str:
    return next(o["status"] for o in row["obligations"] if o["obligation"] == obligation)


@pytest.mark.parametrize("mechanism", [m for m in Mechanism if m not in UNSHOWN], ids=lambda m: m.value)
def test_mechanism_turned_off_rejects_the_row_for_its_own_obligation(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, mechanism: Mechanism
) -> None:
    """The same workloads without one mechanism: the obligation of that name is contradicted, and the row rejected."""
    mode = CONTRADICTED.get(mechanism, Mode.SOFT_PRIORITY)
    assert run(tmp_path, "--mode", mode.value, "--off", mechanism.value) == EXIT_PASS
    row = check(capsys, tmp_path, mode)
    assert status_of(row, mechanism.value) == "contradicted"
    assert (row["verdict"], row["exit_code"]) == ("rejected", EXIT_VIOLATED)


@pytest.mark.parametrize("mechanism", list(UNSHOWN), ids=lambda m: m.value)
def test_mechanism_turned_off_leaves_the_row_without_its_obligation(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, mechanism: Mechanism
) -> None:
    """What is no longer said is no longer shown: the row is not positive."""
    mode = UNSHOWN[mechanism]
    run(tmp_path, "--mode", mode.value, "--off", mechanism.value)
    row = check(capsys, tmp_path, mode)
    assert status_of(row, mechanism.value) in ("missing", "unknown", "contradicted")
    assert row["verdict"] in ("unknown", "rejected") and row["exit_code"] != EXIT_PASS


def test_good_run_does_not_outweigh_a_run_without_the_mechanism(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Evidence against an obligation counts beside any amount of evidence for it."""
    run(tmp_path, "--mode", "hard_protected")
    run(tmp_path / "off", "--mode", "hard_protected", "--off", "victim_exclusion")
    for trace in (tmp_path / "off").glob("*.jsonl"):
        trace.rename(tmp_path / f"off-{trace.name}")
    row = check(capsys, tmp_path, Mode.HARD_PROTECTED)
    assert row["verdict"] == "rejected" and status_of(row, "victim_exclusion") == "contradicted"


def test_one_deleted_event_takes_the_verdict_away(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A trace with a line less is inconclusive, and evidence of an inconclusive trace is none."""
    run(tmp_path, "--workload", "hard_protected")
    trace = tmp_path / "hard_protected.jsonl"
    lines = trace.read_bytes().splitlines(keepends=True)
    trace.write_bytes(b"".join(lines[:7] + lines[8:]))
    row = check(capsys, tmp_path, Mode.HARD_PROTECTED)
    assert row["verdict"] == "unknown" and row["exit_code"] == EXIT_UNKNOWN


def test_write_no_admit_is_rejected_as_protection(capsys: pytest.CaptureFixture[str]) -> None:
    """A request that leaves nothing behind still takes its blocks from somebody."""
    arguments = ["check", "--runtime", "reference", "--primitive", "write_no_admit", "--json"]
    assert main(arguments) == EXIT_VIOLATED
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["verdict"] == "rejected" and status_of(row, "victim_exclusion") == "contradicted"


def test_anchors_of_the_descriptor_are_verified(capsys: pytest.CaptureFixture[str]) -> None:
    """When this fails the engine was changed: pin it anew with `residentkv anchors add --descriptor FILE ID`."""
    assert main(["anchors", "verify", "--runtime", "reference"]) == EXIT_PASS, capsys.readouterr().out


def test_every_mode_of_the_engine_has_a_row_and_a_workload() -> None:
    """Neither a mode without evidence nor evidence without a mode."""
    assert sorted({w.mode for w in WORKLOADS}) == MODES == sorted(Mode)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--mode", "pinned"], "unknown mode 'pinned'"),
        (["--workload", "nosuch"], "unknown workload 'nosuch'"),
        (["--off", "gravity"], "unknown mechanism 'gravity'"),
        (["--mode", "expiring", "--workload", "demotable"], "is not of mode expiring"),
    ],
)
def test_unknown_word_is_a_usage_error_in_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], said: str
) -> None:
    """It says what was found and what there is, and writes nothing."""
    assert run(tmp_path / "out", *arguments) == EXIT_USAGE
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1 and not (tmp_path / "out").exists()


def test_existing_trace_is_not_replaced(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A second run into the same folder says so."""
    assert run(tmp_path, "--workload", "expiring") == EXIT_PASS
    assert run(tmp_path, "--workload", "expiring") == EXIT_USAGE
    assert "exists" in capsys.readouterr().err


def test_folder_that_cannot_be_made_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A file in the way of the folder is named."""
    (tmp_path / "file").write_text("")
    assert run(tmp_path / "file" / "out") == EXIT_NO_INPUT
    assert "cannot be made" in capsys.readouterr().err
