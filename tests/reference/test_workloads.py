"""The workloads behind the reference descriptor: what their audits show, and what is lost without a mechanism."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from residentkv.audit.api import audit_file
from residentkv.audit.model import AuditReport, Verdict
from residentkv.claims.modes import Mode
from residentkv.errors import UsageError
from residentkv.lowering.obligations import BUNDLES, Obligation
from residentkv.runtimes.reference.config import BASE_MODES, Mechanism
from residentkv.runtimes.reference.workloads import WORKLOADS, Workload, play_workload

BY_NAME = {w.name: w for w in WORKLOADS}


@cache
def audited(name: str, off: frozenset[Mechanism] = frozenset()) -> AuditReport:
    with TemporaryDirectory() as folder:
        trace = Path(folder) / f"{name}.jsonl"
        play_workload(BY_NAME[name], trace, off=off)
        return audit_file(trace)


def observed(mode: Mode, off: frozenset[Mechanism] = frozenset()) -> set[str]:
    """Obligations that conforming claims of a mode exercised, over all its workloads."""
    reports = [audited(w.name, off) for w in WORKLOADS if w.mode is mode]
    return {o for r in reports for c in r.claims if c.mode == mode.value for o in c.observed}


def contradicted(mode: Mode, off: frozenset[Mechanism]) -> set[str]:
    """Obligations that violations in the workloads of a mode contradict."""
    reports = [audited(w.name, off) for w in WORKLOADS if w.mode is mode]
    found = (f for r in reports for f in r.all_findings() if f.verdict is Verdict.VIOLATING)
    return {o for f in found for o in f.contradicts}


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda w: w.name)
def test_workload_with_every_mechanism_on_is_conforming(workload: Workload) -> None:
    """The audit finds nothing at all in it, not even something that it could not decide."""
    report = audited(workload.name)
    assert report.verdict is Verdict.CONFORMING and report.all_findings() == []


@pytest.mark.parametrize("mode", sorted(BASE_MODES | {Mode.OFFLOADABLE, Mode.ROUTED_REUSE}))
def test_workloads_of_a_mode_exercise_its_whole_bundle(mode: Mode) -> None:
    """Every obligation of the bundle is shown by an audited claim; preference alone needs the experiment."""
    missing = {o.value for o in BUNDLES[mode]} - observed(mode)
    assert missing == ({"eviction_preference"} if mode is Mode.SOFT_PRIORITY else set())


# Which mode shows the loss of a mechanism; the obligation of the same name must then be contradicted in it.
CONTRADICTED = {
    Mechanism.CLAIM_IDENTITY: Mode.HARD_PROTECTED,
    Mechanism.CACHE_IDENTITY: Mode.HARD_PROTECTED,
    Mechanism.OBJECT_IDENTITY: Mode.HARD_PROTECTED,
    Mechanism.JOINABILITY: Mode.HARD_PROTECTED,
    Mechanism.ACCEPTANCE: Mode.HARD_PROTECTED,
    Mechanism.PREDICATE: Mode.HARD_PROTECTED,
    Mechanism.ORDERED_LIFECYCLE: Mode.HARD_PROTECTED,
    Mechanism.EXPIRY_ENFORCEMENT: Mode.EXPIRING,
    Mechanism.RELEASE_BEFORE_LOSS: Mode.DEMOTABLE,
    Mechanism.OFFLOAD_IDENTITY: Mode.OFFLOADABLE,
    Mechanism.RESTORE_BEFORE_REUSE: Mode.OFFLOADABLE,
    Mechanism.RESTORATION_FAILURE_OUTCOME: Mode.OFFLOADABLE,
    Mechanism.SCOPED_OUTCOME: Mode.DEMOTABLE,
    Mechanism.FEASIBILITY_CHECK: Mode.HARD_PROTECTED,
    Mechanism.VICTIM_EXCLUSION: Mode.HARD_PROTECTED,
    Mechanism.CONFLICT_OUTCOME: Mode.HARD_PROTECTED,
    Mechanism.ROUTE_BINDING: Mode.ROUTED_REUSE,
}

# Here nothing false is said; something is left unsaid, so the obligation is no longer shown.
UNSHOWN = {
    Mechanism.LOSS_REPORTING: Mode.SOFT_PRIORITY,
    Mechanism.ROUTE_OUTCOME: Mode.ROUTED_REUSE,
}


@pytest.mark.parametrize("mechanism", list(CONTRADICTED), ids=lambda m: m.value)
def test_mechanism_turned_off_contradicts_its_obligation(mechanism: Mechanism) -> None:
    """The audit of the same workloads without the mechanism finds violations that contradict this obligation."""
    mode = CONTRADICTED[mechanism]
    assert Obligation(mechanism.value) in BUNDLES[mode]
    assert mechanism.value in contradicted(mode, frozenset({mechanism}))


@pytest.mark.parametrize("mechanism", list(UNSHOWN), ids=lambda m: m.value)
def test_mechanism_turned_off_leaves_its_obligation_unshown(mechanism: Mechanism) -> None:
    """No conforming claim of the same workloads shows the obligation any more."""
    mode = UNSHOWN[mechanism]
    assert Obligation(mechanism.value) in BUNDLES[mode]
    assert mechanism.value in observed(mode)
    assert mechanism.value not in observed(mode, frozenset({mechanism}))


def test_every_mechanism_has_its_negative_proof() -> None:
    """No switch without a test; preference is proven by the experiment."""
    assert set(CONTRADICTED) | set(UNSHOWN) | {Mechanism.EVICTION_PREFERENCE} == set(Mechanism)
    assert {m.value for m in Mechanism} <= {o.value for o in Obligation}


def test_trace_is_not_appended_to(tmp_path: Path) -> None:
    """A second run into the same file is refused, and the first stays as it is."""
    trace = tmp_path / "t.jsonl"
    play_workload(BY_NAME["best_effort"], trace)
    before = trace.read_bytes()
    with pytest.raises(UsageError, match="choose another folder"):
        play_workload(BY_NAME["best_effort"], trace)
    assert trace.read_bytes() == before


def test_run_that_breaks_off_leaves_no_trace(tmp_path: Path) -> None:
    """Nothing half-written can be taken for evidence."""

    def breaks(stage: object) -> None:
        BY_NAME["hard_protected"].play(stage)  # type: ignore[arg-type]
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        play_workload(Workload(name="breaks", mode=Mode.HARD_PROTECTED, play=breaks), tmp_path / "t.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_workload_is_the_same_every_time(tmp_path: Path) -> None:
    """Evidence can be made again byte for byte."""
    for workload in WORKLOADS:
        traces = [tmp_path / f"{workload.name}-{n}.jsonl" for n in range(2)]
        for trace in traces:
            play_workload(workload, trace)
        assert traces[0].read_bytes() == traces[1].read_bytes()
