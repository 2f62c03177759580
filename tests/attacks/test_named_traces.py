"""Traces that evidence files and statements name: every part of a rotated one counts, and `-` is a name."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from residentkv.cli.main import main
from tests.attacks.test_devices import one_line
from tests.audit.stories import SUCCESS
from tests.lowering.site import Site, build_site
from tests.lowering.test_check_evidence import ADAPTERS, ROW, write_trace

PART = Path("t.jsonl.000001")


@pytest.fixture(autouse=True)
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Site:
    """A descriptor of our own with a plugin, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RESIDENTKV_CACHE", str(tmp_path / "cache"))
    made = build_site(tmp_path)
    made.descriptor.write_text(made.descriptor.read_text() + ADAPTERS)
    capsys.readouterr()
    return made


@pytest.fixture
def rotated(site: Site, capsys: pytest.CaptureFixture[str]) -> Site:
    """A conforming trace in two parts, and evidence of it."""
    lines = write_trace(Path("t.jsonl"), SUCCESS).read_bytes().splitlines(keepends=True)
    PART.write_bytes(b"".join(lines[:9]))
    Path("t.jsonl").write_bytes(b"".join(lines[9:]))
    assert main(["audit", "t.jsonl", "--evidence-out", "e.json"]) == 0
    capsys.readouterr()
    return site


def check(site: Site, *more: str) -> int:
    return site.run("check", *ROW, "--evidence", "e.json", *more)


def verify() -> int:
    return main(["attest", "verify", "s.json", "--unsigned"])


@pytest.fixture(params=["audit", "check"])
def stated(request: pytest.FixtureRequest, rotated: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """A statement about the rotated trace, of an audit and of a check."""
    if request.param == "audit":
        assert main(["audit", "t.jsonl", "--format", "in-toto", "-o", "s.json"]) == 0
    else:
        assert check(rotated, "--format", "in-toto", "-o", "s.json") == 11
    capsys.readouterr()


@pytest.mark.usefixtures("stated")
def test_a_statement_about_a_rotated_trace_holds_until_a_part_of_it_changes() -> None:
    """Every part is what was judged: one that changed, went or came makes it differ, and put back it is the same."""
    before = PART.read_bytes()
    assert verify() == 0
    PART.write_bytes(before.replace(b"tenant", b"mallet"))
    assert PART.read_bytes() != before
    assert verify() == 10
    PART.unlink()
    assert verify() == 10
    PART.write_bytes(before)
    assert verify() == 0
    Path("t.jsonl.000002").write_bytes(before)
    assert verify() == 10


@pytest.mark.usefixtures("stated")
def test_a_part_that_is_a_pipe_is_not_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 3: it may never be written."""
    os.mkfifo("t.jsonl.000002")
    assert verify() == 3
    assert "Not a plain file" in "".join(capsys.readouterr())


def test_a_descriptor_has_no_parts(rotated: Site) -> None:
    """What lies beside it under such a name is another file."""
    assert check(rotated, "--format", "in-toto", "-o", "s.json") == 11
    Path(f"{rotated.descriptor}.000001").write_text("# not of it\n")
    assert verify() == 0


def test_no_output_takes_the_place_of_a_part(rotated: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 2, and every part is as it was; another file is written."""
    before = PART.read_bytes()
    assert check(rotated, "--json", "-o", str(PART)) == 2
    assert "found what this command reads" in one_line(capsys)
    assert PART.read_bytes() == before
    assert check(rotated, "--json", "-o", "t.json") == 11


def test_evidence_of_a_trace_whose_last_part_was_rotated_away_is_read(rotated: Site) -> None:
    """Right after a rotation there is no file without a number; a trace of the same bytes is the same trace."""
    assert main(["audit", "t.jsonl", "--format", "in-toto", "-o", "s.json"]) == 0
    Path("t.jsonl").rename("t.jsonl.000002")
    assert check(rotated, "--json", "-o", "r.json") == 11
    assert not json.loads(Path("r.json").read_text())["notes"]
    assert verify() == 0


def test_a_trace_that_is_called_as_standard_input_is_read_from_its_file(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`-` in an evidence file or a statement is a file beside it, and nobody has to type it."""
    write_trace(Path("-"), SUCCESS)
    assert main(["audit", "./-", "--evidence-out", "e.json"]) == 0
    assert json.loads(Path("e.json").read_text())["traces"][0]["path"] == "-"
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"typed\n")))
    assert check(site, "--json", "-o", "r.json") == 11
    report = json.loads(Path("r.json").read_text())
    assert not report["notes"]
    (row,) = report["rows"]
    assert "satisfied" in {o["status"] for o in row["obligations"]}
    assert check(site, "--format", "in-toto", "-o", "s.json") == 11
    assert verify() == 0
    capsys.readouterr()
    assert check(site, "--json", "-o", "./-") == 2
