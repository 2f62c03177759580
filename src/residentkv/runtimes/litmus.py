"""The capacity and materialization litmus: what is asked of every runtime, and what has to come out (spec section 8).

The expected numbers are facts of the spec, written down here cell by cell; a runtime measures its own by serving the
prompts and looking at what is left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Protocol

import msgspec

RESIDENT_BLOCKS = 60
ACTIVE_BLOCKS = 70
USABLE_BLOCKS = (80, 90, 100, 110, 120, 130, 150)
PRESSURE = (40, 46, 68)
"""Resident, active and usable blocks of the live pressure case."""


class LitmusPolicy(StrEnum):
    """How the runtime treats the resident prefix and the active request."""

    NATIVE = "native"
    WRITE_NO_ADMIT = "write_no_admit"
    HARD_PROTECTED = "hard_protected"


class CapacityCase(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked: sizes in blocks, and the policy."""

    policy: LitmusPolicy
    usable_blocks: int
    resident_blocks: int = RESIDENT_BLOCKS
    active_blocks: int = ACTIVE_BLOCKS


class CapacityCell(msgspec.Struct, frozen=True, kw_only=True):
    """One run: a resident prompt, then an active one, then what is left of the first.

    `lost_blocks` are resident blocks that the prompt could not reuse when it came again; `shortfall_blocks` is what
    the refusal said, 0 when served.
    """

    policy: LitmusPolicy
    usable_blocks: int
    served: bool
    lost_blocks: int
    shortfall_blocks: int


class Materialization(msgspec.Struct, frozen=True, kw_only=True):
    """Cached tokens of one object that are spread over spans, and what they are worth under a leading prefix.

    `holds` is the answer to a claim for one leading block; `reused_tokens` is what the object's prompt found when it
    came again.
    """

    cached_tokens: int
    spans: int
    leading_tokens: int
    holds: bool
    reused_tokens: int


class Litmus(msgspec.Struct, frozen=True, kw_only=True):
    """All cells of one runtime; `materialization` is None where the runtime's block size cannot express the case."""

    capacity: tuple[CapacityCell, ...]
    pressure: CapacityCell
    materialization: Materialization | None


class LitmusRuntime(Protocol):
    """What a runtime has to offer to be measured."""

    @property
    def name(self) -> str:
        """Runtime and version, for the table."""

    def measure_capacity(self, cases: Sequence[CapacityCase]) -> list[CapacityCell]:
        """Serve both prompts of each case from empty caches and measure; the cells come in the order of the cases."""

    def measure_materialization(self) -> Materialization | None:
        """Leave 1,104 tokens of one object cached in three spans away from its beginning, and measure.

        None when the runtime cannot hold them so: 1,104 is no multiple of its block size.
        """


_LOST = dict(zip(USABLE_BLOCKS, (50, 40, 30, 20, 10, 0, 0), strict=True))

EXPECTED = Litmus(
    capacity=tuple(
        CapacityCell(policy=policy, usable_blocks=usable, served=True, lost_blocks=lost, shortfall_blocks=0)
        if policy is not LitmusPolicy.HARD_PROTECTED
        else CapacityCell(policy=policy, usable_blocks=usable, served=lost == 0, lost_blocks=0, shortfall_blocks=lost)
        for policy in LitmusPolicy
        for usable, lost in _LOST.items()
    ),
    pressure=CapacityCell(
        policy=LitmusPolicy.HARD_PROTECTED, usable_blocks=68, served=False, lost_blocks=0, shortfall_blocks=18
    ),
    materialization=Materialization(cached_tokens=1104, spans=3, leading_tokens=0, holds=False, reused_tokens=0),
)


def capacity_cases() -> list[CapacityCase]:
    """Return all cases of the capacity table, and last the one of live pressure."""
    resident, active, usable = PRESSURE
    hard = LitmusPolicy.HARD_PROTECTED
    return [
        *(CapacityCase(policy=policy, usable_blocks=size) for policy in LitmusPolicy for size in USABLE_BLOCKS),
        CapacityCase(policy=hard, usable_blocks=usable, resident_blocks=resident, active_blocks=active),
    ]


def run_litmus(runtime: LitmusRuntime) -> Litmus:
    """Measure every cell."""
    *capacity, pressure = runtime.measure_capacity(capacity_cases())
    return Litmus(capacity=tuple(capacity), pressure=pressure, materialization=runtime.measure_materialization())


def differences(measured: Litmus, expected: Litmus = EXPECTED) -> list[str]:
    """Say for every number that is not the expected one where it is and what it was to be."""
    out: list[str] = []
    for found, wanted, where in _pairs(measured, expected):
        for field in found.__struct_fields__:
            a, b = getattr(found, field), getattr(wanted, field)
            if a != b:
                out.append(f"{where}: {field} is {a}, expected {b}")
    if len(measured.capacity) != len(expected.capacity):
        out.append(f"capacity: {len(measured.capacity)} cells, expected {len(expected.capacity)}")
    return out


def _pairs(measured: Litmus, expected: Litmus) -> Iterator[tuple[msgspec.Struct, msgspec.Struct, str]]:
    for found, wanted in zip(measured.capacity, expected.capacity, strict=False):
        yield found, wanted, f"{wanted.policy.value} at {wanted.usable_blocks}"
    yield measured.pressure, expected.pressure, "live pressure"
    if measured.materialization is not None and expected.materialization is not None:
        yield measured.materialization, expected.materialization, "materialization"
