"""The study of KVCR: two processes with real bytes; its traces are the evidence that check is given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from residentkv.cli.main import main

DOCS = Path(__file__).parent.parent.parent / "docs" / "studies.md"


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one run of all cases; every case found what it expects."""
    out = tmp_path_factory.mktemp("kvcr")
    assert main(["--debug", "study", "kvcr", "--reduced", "--out", str(out)]) == 0
    return out


def judge(
    capsys: pytest.CaptureFixture[str], runtime: str, *options: str
) -> dict[tuple[str, str, str], tuple[str, str]]:
    """Return (verdict, first open obligation) by primitive, mode and depth."""
    capsys.readouterr()
    main(["check", "--runtime", runtime, "--json", *options])
    rows = json.loads(capsys.readouterr().out)["rows"]
    return {(r["primitive"], r["mode"], r["depth"]): (r["verdict"], r["first_open_obligation"] or "") for r in rows}


def test_the_desk_keeps_what_its_traces_show(studied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the evidence of the study four modes are positive at depth plugin; nothing of KVCR alone is."""
    rows = judge(capsys, "kvcr", "--evidence", str(studied / "evidence.json"))
    positive = {row for row, (verdict, _) in rows.items() if verdict in ("sound_with_adapter", "native_sound")}
    kept = ("hard_protected", "expiring", "demotable", "best_effort")
    assert positive == {("claimed_deposit", mode, "plugin") for mode in kept}
    assert rows["claimed_deposit", "hard_protected", "native"] == ("rejected", "claim_identity")
    assert rows["claimed_deposit", "offloadable", "plugin"] == ("rejected", "restoration_failure_outcome")


def test_without_its_evidence_no_row_is_positive(capsys: pytest.CaptureFixture[str]) -> None:
    """Every anchor is verified in the installed package, and source alone supports no behaviour."""
    rows = judge(capsys, "kvcr")
    assert {verdict for verdict, _ in rows.values()} == {"rejected", "approximate"}


def test_the_losses_of_the_study_are_the_ones_in_the_documentation(studied: Path) -> None:
    """The list in the documentation is what the command wrote in this run, word by word."""
    assert (studied / "losses.md").read_text() in DOCS.read_text()
