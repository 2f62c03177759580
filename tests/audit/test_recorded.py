"""Recorded traces with their origin and digest: what the audit says of them, and that they are what was recorded."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from residentkv.audit import Verdict, audit_file
from residentkv.claims.modes import Mode
from residentkv.lowering.obligations import BUNDLES, Obligation

FOLDER = Path(__file__).parents[1] / "traces"
MANIFEST = json.loads((FOLDER / "MANIFEST.json").read_bytes())


def test_the_manifest_names_every_trace_and_no_other():
    """A trace without origin is no evidence of anything."""
    assert {t["file"] for t in MANIFEST["traces"]} == {str(p.relative_to(FOLDER)) for p in FOLDER.rglob("*.jsonl")}


@pytest.mark.parametrize("entry", MANIFEST["traces"], ids=lambda t: t["file"])
def test_a_recorded_trace_is_what_was_recorded_and_gets_its_verdict(entry):
    """Digest, number of events and verdict, as the manifest says."""
    path = FOLDER / entry["file"]
    data = path.read_bytes()
    assert hashlib.sha256(data).hexdigest() == entry["sha256"]
    assert len(entry["origin"]) > 20
    report = audit_file(path)
    assert report.verdict.value == entry["verdict"], [f.story for f in report.all_findings()]
    assert report.events == entry["events"] == data.count(b"\n")


def test_the_recorded_reference_runs_show_every_obligation_of_every_mode():
    """Together they exercise each bundle, but for the preference, which only an experiment can show."""
    shown: dict[str, set[str]] = {}
    for path in sorted((FOLDER / "reference").glob("*.jsonl")):
        report = audit_file(path)
        assert report.verdict is Verdict.CONFORMING
        for claim in report.claims:
            shown.setdefault(claim.mode or "", set()).update(claim.observed)
    for mode in Mode:
        assert {o.value for o in BUNDLES[mode]} - {Obligation.EVICTION_PREFERENCE.value} <= shown[mode.value], mode
