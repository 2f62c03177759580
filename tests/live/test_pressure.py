"""Claims under memory pressure on a real vLLM: each mode is positive with the traces of its own scenario only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from residentkv.audit.api import audit_file
from residentkv.cli.main import main

MODES = {
    "hard_protected": "hard_protected_unpinned",
    "expiring": "expiring_overdue",
    "demotable": "demotable_loss_first",
    "soft_priority": "soft_priority_unranked",
}
"""The modes and the scenario in which the mechanism of each is turned off; that of the mode is `<mode>_pressure`."""


def verdict(folder: Path, mode: str, *scenarios: str, out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the line in which the check answers for a mode, given the traces of some scenarios."""
    traces = [str(folder / name / "000" / "trace.jsonl") for name in scenarios]
    main(["audit", *traces, "--evidence-out", str(out)])
    capsys.readouterr()
    row = ["check", "--runtime", "vllm", "--primitive", "offloading_connector", "--mode", mode, "--depth", "plugin"]
    main([*row, "--evidence", str(out)])
    words = capsys.readouterr().out
    return next(word for word in ("sound_with_adapter", "rejected", "approximate", "unknown") if word in words)


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_is_positive_with_its_own_traces_only(
    witnessed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    """Its scenario makes the row sound; the scenarios of all other modes leave it approximate."""
    own = verdict(witnessed, mode, f"{mode}_pressure", out=tmp_path / "own.json", capsys=capsys)
    assert own == "sound_with_adapter"
    rest = [f"{other}_pressure" for other in MODES if other != mode]
    assert verdict(witnessed, mode, *rest, out=tmp_path / "rest.json", capsys=capsys) == "approximate"


@pytest.mark.parametrize(("mode", "control"), MODES.items())
def test_with_its_mechanism_off_a_mode_is_rejected(
    witnessed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: str, control: str
) -> None:
    """One run in which the mechanism was off outvotes the good one beside it."""
    both = (f"{mode}_pressure", control)
    assert verdict(witnessed, mode, *both, out=tmp_path / "both.json", capsys=capsys) == "rejected"


def test_ten_trials_show_the_preference_and_its_control(witnessed: Path) -> None:
    """Five losses of the less important claim with either assignment; unranked, a more important one went before."""
    report = audit_file(witnessed / "soft_priority_pressure" / "000" / "trace.jsonl")
    counts = [c.counts for c in report.claims]
    assert sum(c.get("lost_first_while_older", 0) for c in counts) == 5
    assert sum(c.get("lost_first_while_newer", 0) for c in counts) == 5
    report = audit_file(witnessed / "soft_priority_unranked" / "000" / "trace.jsonl")
    assert sum(c.counts.get("lost_before_less_important", 0) for c in report.claims) == 5


@pytest.mark.parametrize(
    ("scenario", "ends"),
    [("deferred_until_release", "active_request_admitted"), ("deferred_past_deadline", "active_request_refused")],
)
def test_a_deferred_request_holds_nobody_up_and_ends(witnessed: Path, scenario: str, ends: str) -> None:
    """One event says that it waits; a request that came later comes in before it; then it is let in, or refused."""
    text = (witnessed / scenario / "000" / "trace.jsonl").read_text()
    told = [(e["event"], e.get("request_id") or "") for e in map(json.loads, text.splitlines())]
    (waits,) = [i for i, (event, _) in enumerate(told) if event == "active_request_deferred"]
    request_id = told[waits][1]
    beside = next(i for i, t in enumerate(told) if t[0] == "active_request_admitted" and t[1].startswith("beside"))
    assert waits < beside < told.index((ends, request_id))
