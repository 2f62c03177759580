"""Devices and pipes in the place of files."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec
import pytest

from residentkv.cli.main import main
from residentkv.files import replace_file

TRACE = Path(__file__).parents[1] / "traces" / "reference" / "best_effort.jsonl"


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    err = capsys.readouterr().err
    assert err.startswith("residentkv: error: ")
    assert err.count("\n") == 1
    return err


def test_output_never_takes_the_place_of_a_pipe(tmp_path: Path) -> None:
    """A pipe or a device that is named as output stays what it is, and nothing is left beside it."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="Not a plain file"):
        replace_file(pipe, b"x")
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert [p.name for p in tmp_path.iterdir()] == ["pipe"]


def test_evidence_for_a_pipe_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`audit --evidence-out` says that it did not write, and exits with 3."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert main(["audit", str(TRACE), "--evidence-out", str(pipe)]) == 3
    assert "Not a plain file" in one_line(capsys)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_trace_from_an_endless_device_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """`audit /dev/zero` ends, with exit code 3."""
    assert main(["audit", "/dev/zero"]) == 3
    assert "a device, which may have no end" in one_line(capsys)


@pytest.mark.parametrize("name", ["pipe", "/dev/zero"])
def test_evidence_from_a_pipe_or_device_is_refused(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`check --evidence` reads plain files only, and exits with 3 on anything else."""
    os.mkfifo(tmp_path / "pipe")
    assert main(["check", "--runtime", "reference", "--evidence", str(tmp_path / name)]) == 3
    assert "Not a plain file" in one_line(capsys)


@pytest.mark.parametrize(("name", "why"), [("pipe", "Not a plain file"), ("a\0b", "embedded null byte")])
def test_evidence_that_names_a_pipe_as_its_trace_supports_nothing(
    name: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A trace that is a pipe by now or has an impossible name is not read: its evidence is unknown, and check ends."""
    evidence = tmp_path / "evidence.json"
    assert main(["audit", str(TRACE), "--evidence-out", str(evidence)]) == 0
    data = msgspec.json.decode(evidence.read_bytes())
    data["traces"][0]["path"] = name
    evidence.write_bytes(msgspec.json.encode(data))
    os.mkfifo(tmp_path / "pipe")
    selection = ["--runtime", "reference", "--mode", "best_effort"]
    assert main(["check", *selection, "--evidence", str(evidence)]) == 11
    assert why in " ".join(capsys.readouterr().out.split())
