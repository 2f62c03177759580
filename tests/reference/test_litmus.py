"""The litmus: the reference engine meets every expected number, and a broken engine or a wrong number is seen."""

from __future__ import annotations

import json

import msgspec
import pytest

from residentkv.cli.main import main
from residentkv.errors import EXIT_USAGE, EXIT_VIOLATED
from residentkv.runtimes.litmus import EXPECTED, USABLE_BLOCKS, LitmusPolicy, differences, run_litmus
from residentkv.runtimes.reference.config import Mechanism
from residentkv.runtimes.reference.litmus import SIZE_TOKENS, SPANS, ReferenceLitmus


def test_expected_table_is_the_one_of_the_spec() -> None:
    """Lost blocks, refusals and shortfalls of spec section 8, written out once more."""
    cells = {
        (c.policy.value, c.usable_blocks): (c.served, c.lost_blocks, c.shortfall_blocks) for c in EXPECTED.capacity
    }
    for usable, lost in zip((80, 90, 100, 110, 120, 130, 150), (50, 40, 30, 20, 10, 0, 0), strict=True):
        assert cells["native", usable] == cells["write_no_admit", usable] == (True, lost, 0)
        assert cells["hard_protected", usable] == (usable >= 130, 0, lost)
    assert len(cells) == 21
    pressure, material = EXPECTED.pressure, EXPECTED.materialization
    assert (pressure.served, pressure.lost_blocks, pressure.shortfall_blocks) == (False, 0, 40 + 46 - 68)
    assert (material.cached_tokens, material.spans, material.holds, material.reused_tokens) == (1104, 3, False, 0)
    assert sum(end - start for start, end in SPANS) * SIZE_TOKENS == 1104


def test_reference_engine_meets_every_cell() -> None:
    """All 23 cells, each measured in an engine of its own."""
    assert differences(run_litmus(ReferenceLitmus())) == []


@pytest.mark.parametrize("mechanism", [Mechanism.FEASIBILITY_CHECK, Mechanism.VICTIM_EXCLUSION])
def test_engine_without_the_mechanism_fails_the_litmus(mechanism: Mechanism) -> None:
    """The numbers are measured: an engine that does not protect does not pass."""
    wrong = differences(run_litmus(ReferenceLitmus(frozenset({mechanism}))))
    if mechanism is Mechanism.FEASIBILITY_CHECK:
        assert "hard_protected at 80: shortfall_blocks is 0, expected 50" in wrong
    else:
        assert "materialization: spans is 1, expected 3" in wrong


def test_every_differing_number_is_told_with_its_place() -> None:
    """A difference names the cell, the field, what was found and what was expected."""
    cell = msgspec.structs.replace(EXPECTED.capacity[0], lost_blocks=51)
    measured = msgspec.structs.replace(
        EXPECTED,
        capacity=(cell, *EXPECTED.capacity[1:]),
        pressure=msgspec.structs.replace(EXPECTED.pressure, served=True),
        materialization=msgspec.structs.replace(EXPECTED.materialization, reused_tokens=1104),
    )
    assert differences(measured) == [
        "native at 80: lost_blocks is 51, expected 50",
        "live pressure: served is True, expected False",
        "materialization: reused_tokens is 1104, expected 0",
    ]
    shorter = msgspec.structs.replace(EXPECTED, capacity=EXPECTED.capacity[:-1])
    assert differences(shorter) == ["capacity: 20 cells, expected 21"]


def test_command_prints_measured_beside_expected_and_passes(capsys: pytest.CaptureFixture[str]) -> None:
    """The table fits a terminal and shows both numbers of every cell."""
    assert main(["litmus", "--runtime", "reference"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) < 80
    for policy in LitmusPolicy:
        assert policy.value in out
    for size in USABLE_BLOCKS:
        assert str(size) in out
    assert "r(50)/0" in out and "measured r(18)/0, expected r(18)/0" in out
    assert "1,104 cached tokens in 3 spans: predicate does not hold, 0 reused" in out


def test_json_carries_every_number(capsys: pytest.CaptureFixture[str]) -> None:
    """The same data for programs, with its schema and exit code."""
    assert main(["litmus", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "residentkv.litmus/1" and document["exit_code"] == 0
    assert document["measured"] == document["expected"] == json.loads(msgspec.json.encode(EXPECTED))


def test_difference_exits_violated(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime that loses what it protects does not pass, in either format."""
    broken = ReferenceLitmus(frozenset({Mechanism.FEASIBILITY_CHECK}))
    monkeypatch.setattr("residentkv.cli.litmus.RUNTIMES", {"reference": lambda out: broken})
    assert main(["litmus"]) == EXIT_VIOLATED
    assert "DIFFERS hard_protected at 80: shortfall_blocks is 0, expected 50" in capsys.readouterr().out
    assert main(["litmus", "--json"]) == EXIT_VIOLATED
    assert json.loads(capsys.readouterr().out)["differences"]


def test_unknown_runtime_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    """One line that names what there is."""
    assert main(["litmus", "--runtime", "nosuch"]) == EXIT_USAGE
    err = capsys.readouterr().err
    assert "'nosuch'" in err and "reference" in err and err.count("\n") == 1
