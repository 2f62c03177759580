"""The study of Dynamo: a real frontend, router and event plane, with simulated workers; its traces are the evidence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from residentkv.cli.main import main
from tests.live.test_kvcr_study import DOCS, judge


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one run of all cases; every case found what it expects."""
    out = tmp_path_factory.mktemp("dynamo")
    assert main(["--debug", "study", "dynamo", "--reduced", "--out", str(out)]) == 0
    return out


def test_routing_is_kept_with_the_adapter_and_by_nothing_alone(
    studied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """routed_reuse is positive only where the adapter bound, verified and told; every row of Dynamo alone is a no."""
    rows = judge(capsys, "dynamo", "--evidence", str(studied / "evidence.json"))
    positive = {row for row, (verdict, _) in rows.items() if verdict in ("sound_with_adapter", "native_sound")}
    assert positive == {
        ("direct_worker", "routed_reuse", "policy"),
        ("session_affinity_hard", "routed_reuse", "policy"),
        ("session_affinity_soft", "routed_reuse", "policy"),
        ("event_plane", "best_effort", "observe"),
    }


def test_without_its_evidence_no_row_is_positive(capsys: pytest.CaptureFixture[str]) -> None:
    """Every anchor is verified in the installed packages, and bindings and options support no behaviour."""
    assert {verdict for verdict, _ in judge(capsys, "dynamo").values()} == {"rejected", "approximate"}


def test_scores_alone_are_contradicted_by_their_own_trace(studied: Path) -> None:
    """What the router does without an adapter was run, and its audit says that nobody was bound."""
    items = json.loads((studied / "evidence.json").read_text())["items"]
    alone = [i for i in items if i["primitive"] == "kv_router_events"]
    assert {i["adapter"] for i in alone} == {"residentkv_score_unchecked"}
    assert "route_binding" in {i["obligation"] for i in alone if i["polarity"] == "contradicts"}
    assert not [i for i in alone if i["polarity"] == "supports"]


def test_what_was_simulated_is_said_with_the_evidence(studied: Path) -> None:
    """The engine is simulated; every statement that the study makes carries that."""
    items = json.loads((studied / "evidence.json").read_text())["items"]
    assert items
    assert all("engine: dynamo.mocker" in item["stands_in"] for item in items)


def test_the_losses_of_the_study_are_the_ones_in_the_documentation(studied: Path) -> None:
    """The list in the documentation is what the command wrote in this run, word by word."""
    assert (studied / "losses.md").read_text() in DOCS.read_text()
