"""The capacity litmus on real vLLM, at few sizes; `residentkv litmus --runtime vllm` measures all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from residentkv.audit.api import audit_file
from residentkv.audit.model import Verdict
from residentkv.runtimes.litmus import EXPECTED, CapacityCase, CapacityCell, LitmusPolicy, capacity_cases
from residentkv.trace.events import TraceOpened
from residentkv.trace.reader import read_trace
from residentkv.witness.capacity import STANDS_IN, VllmLitmus

SIZES = (80, 130)
HARD = LitmusPolicy.HARD_PROTECTED


def cases() -> list[CapacityCase]:
    *capacity, pressure = capacity_cases()
    return [c for c in capacity if c.usable_blocks in SIZES] + [pressure]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("litmus")


@pytest.fixture(scope="module")
def measured(folder: Path) -> list[CapacityCell]:
    return VllmLitmus(folder).measure_capacity(cases())


def test_vllm_meets_the_expected_cells(measured: list[CapacityCell]) -> None:
    """Native and write-no-admit serve and lose 50 at 80; hard protection refuses, 50 short, and loses none."""
    expected = [c for c in EXPECTED.capacity if c.usable_blocks in SIZES] + [EXPECTED.pressure]
    assert measured == expected


def test_traces_of_hard_protection_conform_and_say_what_stood_in(measured: list[CapacityCell], folder: Path) -> None:
    """Every plugin trace names the made-up weights; those with a claim are conforming."""
    traces = sorted(folder.glob("*.jsonl"))
    assert len(traces) == 2 * len(SIZES) + 1
    for path in traces:
        opened = next(e for chunk in read_trace(path) for e in chunk)
        assert isinstance(opened, TraceOpened) and opened.stands_in == (STANDS_IN,)
        if path.name.startswith(HARD.value):
            report = audit_file(path)
            assert report.verdict is Verdict.CONFORMING, [f.story for f in report.all_findings()]
