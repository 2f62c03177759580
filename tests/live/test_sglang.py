"""The study of SGLang on a real server, in reduced form; its traces' audit gives the evidence, the page its losses."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

import residentkv
from residentkv.audit.confirm import confirm_evidence
from residentkv.cli.main import main
from residentkv.cli.study import StudyResult
from residentkv.lowering.anchors import AnchorState, AnchorVerifier, Scope
from residentkv.lowering.descriptor import decode_descriptor
from residentkv.lowering.format import Polarity
from residentkv.lowering.model import Descriptor
from residentkv.lowering.obligations import Obligation
from residentkv.sources.machine import machine_sources

PAGE = Path(__file__).parents[2] / "docs" / "studies" / "sglang.md"
DESCRIPTOR = Path(residentkv.__file__).parent / "descriptors" / "sglang" / "0.5.23.yaml"


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one study; three servers are started for it, one after the other."""
    out = tmp_path_factory.mktemp("sglang")
    code = main(["--debug", "study", "sglang", "--reduced", "--out", str(out)])
    (out / "exit-code").write_text(str(code))
    return out


@pytest.fixture(scope="module")
def sglang() -> Descriptor:
    return decode_descriptor(DESCRIPTOR.read_bytes(), DESCRIPTOR.name)


def results(studied: Path) -> list[StudyResult]:
    return msgspec.json.decode((studied / "results.json").read_bytes(), type=list[StudyResult])


def check(studied: Path, primitive: str, mode: str, depth: str, *, evidence: bool = True) -> int:
    given = ["--evidence", str(studied / "evidence.json")] if evidence else []
    row = ["--runtime", "sglang", "--primitive", primitive, "--mode", mode, "--depth", depth]
    return main(["check", *row, *given])


def test_every_case_shows_what_it_expects(studied: Path) -> None:
    """Each check of each case holds, and each trace gets the verdict that its case names."""
    failed = [(r.run.case, c.name, c.found) for r in results(studied) for c in r.checks if not c.passed]
    assert failed == []
    assert (studied / "exit-code").read_text() == "0"
    assert len(results(studied)) == 12


def test_best_effort_is_sound_with_the_observer_and_only_with_its_traces(studied: Path) -> None:
    """The row is positive with the evidence of this run and not without it."""
    assert check(studied, "radix_cache", "best_effort", "observe") == 0
    assert check(studied, "radix_cache", "best_effort", "observe", evidence=False) == 11
    assert check(studied, "radix_cache", "best_effort", "native") == 11


def test_soft_priority_is_sound_with_the_policy_by_experiment(studied: Path) -> None:
    """Five losses while older and five while newer; native the row stays approximate."""
    assert check(studied, "priority_eviction", "soft_priority", "policy") == 0
    assert check(studied, "priority_eviction", "soft_priority", "native") == 11
    items = confirm_evidence(studied / "evidence.json")
    shown = [
        i
        for i in items
        if i.obligation is Obligation.EVICTION_PREFERENCE and i.primitive == "priority_eviction" and not i.problem
    ]
    assert [(i.kind.value, i.polarity) for i in shown] == [("experiment", Polarity.SUPPORTS)]
    assert "10 of 10 times" in shown[0].note and "5 of them although" in shown[0].note


def test_the_switch_that_turns_priority_round_is_rejected_by_experiment_too(studied: Path) -> None:
    """Unchecked, the most important claim goes first; the trace of that contradicts the preference."""
    assert check(studied, "priority_low_values_first", "soft_priority", "policy") == 10
    items = confirm_evidence(studied / "evidence.json")
    wrong = [i for i in items if i.primitive == "priority_low_values_first" and i.polarity is Polarity.CONTRADICTS]
    assert [i.obligation for i in wrong] == [Obligation.EVICTION_PREFERENCE]


def test_the_page_lists_the_losses_that_this_run_made(studied: Path) -> None:
    """Who told each loss, and who noticed, is what was measured; ten of them, and some that nobody can see."""
    table = (
        PAGE.read_text().split("<!-- losses sglang 0.5.23")[1].split("-->\n", 1)[1].split("<!-- end of losses -->")[0]
    )
    assert table.strip() == (studied / "losses.md").read_text().strip()
    losses = [loss for r in results(studied) for loss in r.run.losses]
    assert len(losses) >= 10
    assert {loss.caught for loss in losses} == {"adapter", "audit", "nobody"}


def test_every_trace_says_what_stands_in(studied: Path) -> None:
    """A CPU for a GPU, in each header; and a fault on purpose where there was one."""
    traces = sorted(studied.glob("*.jsonl"))
    heads = {t.name: msgspec.json.decode(t.read_text().splitlines()[0]) for t in traces}
    assert len(heads) == 13
    assert all("CPU instead of a GPU" in head["stands_in"][0] for head in heads.values())
    faulty = {name for name, head in heads.items() if any("fault on purpose" in s for s in head["stands_in"])}
    assert faulty == {"copy_skipped.jsonl", "copy_raised.jsonl", "storage_deleted.jsonl"}


def test_every_anchor_is_verified_in_the_installed_sglang(sglang: Descriptor) -> None:
    """Each digest matches the text that is installed, at the lines where it was recorded."""
    scope = Scope(sglang.path, sglang.package, sglang.distributions, sglang.versions)
    reports = AnchorVerifier(machine_sources()).verify_all(sglang.anchors, scope)
    assert {name: r.sentence for name, r in reports.items() if r.state is not AnchorState.VERIFIED} == {}
