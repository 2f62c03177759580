"""The fault interface: data, read again when it changes, and never about events."""

from __future__ import annotations

from pathlib import Path

import pytest

from residentkv.errors import InputError
from residentkv.runtimes.vllm.faults import Fault, FaultInjector, FaultPlan, decode_plan, write_plan

POSITIONS = (0, 1, 2, 3)


def injector(tmp_path: Path, *faults: Fault, worker: int | None = 0) -> FaultInjector:
    write_plan(tmp_path / "plan.json", FaultPlan(faults=faults))
    made = FaultInjector(str(tmp_path / "plan.json"), worker)
    made.refresh()
    return made


def strike(made: FaultInjector, action: str = "fail_load", claim_id: str | None = "c") -> tuple[int, ...] | None:
    hit = made.strike(action, claim_id=claim_id, owner_scope="o", positions=POSITIONS)  # type: ignore[arg-type]
    return None if hit is None else hit[1]


def test_a_fault_strikes_the_named_claim_only(tmp_path: Path) -> None:
    """Another claim, and no claim, pass."""
    made = injector(tmp_path, Fault(action="fail_load", claim_id="c"))
    assert strike(made) == POSITIONS
    assert strike(made, claim_id="d") is None
    assert strike(made, claim_id=None) is None
    assert strike(made, action="fail_store") is None


def test_a_fault_can_ask_for_unclaimed_transfers(tmp_path: Path) -> None:
    """`claimed: false` spares every claim."""
    made = injector(tmp_path, Fault(action="fail_load", claimed=False))
    assert strike(made) is None
    assert strike(made, claim_id=None) == POSITIONS


def test_a_fault_counts_what_it_lets_pass_and_what_it_strikes(tmp_path: Path) -> None:
    """The second transfer only."""
    made = injector(tmp_path, Fault(action="fail_load", first_match=1, times=1))
    assert [strike(made) for _ in range(3)] == [None, POSITIONS, None]


def test_a_fault_can_hit_positions_or_the_last_blocks(tmp_path: Path) -> None:
    """Positions are logical and half-open."""
    assert strike(injector(tmp_path, Fault(action="fail_load", positions=((1, 3),)))) == (1, 2)
    assert strike(injector(tmp_path, Fault(action="fail_load", last_blocks=1))) == (3,)
    assert strike(injector(tmp_path, Fault(action="fail_load", positions=((9, 10),)))) is None


def test_a_fault_of_another_worker_does_not_strike(tmp_path: Path) -> None:
    """One rank of several can fail alone."""
    assert strike(injector(tmp_path, Fault(action="fail_load", worker=1))) is None


def test_a_changed_plan_takes_effect_and_counts_anew(tmp_path: Path) -> None:
    """The file is read again when it changes, and is an empty plan when it is gone."""
    made = injector(tmp_path, Fault(action="fail_load", times=1))
    assert strike(made) == POSITIONS
    assert strike(made) is None
    write_plan(tmp_path / "plan.json", FaultPlan(faults=(Fault(action="fail_load", times=1),), serial=1))
    made.refresh()
    assert strike(made) == POSITIONS
    (tmp_path / "plan.json").unlink()
    made.refresh()
    assert strike(made) is None


def test_what_is_about_no_transfer_strikes_once(tmp_path: Path) -> None:
    """The whole tier is zeroed once a plan."""
    made = injector(tmp_path, Fault(action="zero_tier"))
    assert len(made.take("zero_tier")) == 1
    assert made.take("zero_tier") == []


@pytest.mark.parametrize("text", [b"", b"[]", b'{"faults": [{"action": "explode"}]}', b'{"fault": []}'])
def test_a_plan_that_cannot_be_read_is_an_error(text: bytes) -> None:
    """A test that injects nothing by mistake would prove nothing."""
    with pytest.raises(InputError, match="fault plan"):
        decode_plan(text)


def test_an_unreadable_plan_is_one_error_in_the_log_and_is_known_until_it_is_mended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The engine reads the plan once a step: it must not end by it, nor take a broken plan for an empty one."""
    path = tmp_path / "plan.json"
    made = injector(tmp_path, Fault(action="fail_load"))
    path.write_bytes(b'{"faults": [{"action": "explode"}]}')
    for _ in range(3):
        made.refresh()
    assert made.unreadable is not None and "not a fault plan" in made.unreadable
    assert strike(made) is None
    assert [r.levelname for r in caplog.records] == ["ERROR"]
    assert str(path) in caplog.text and "no claim is accepted" in caplog.text
    path.unlink()
    path.mkdir()
    made.refresh()
    assert made.unreadable is not None and "plan.json" in made.unreadable
    path.rmdir()
    made.refresh()
    assert made.unreadable is None
    write_plan(path, FaultPlan(faults=(Fault(action="fail_load"),), serial=2))
    made.refresh()
    assert strike(made) == POSITIONS
