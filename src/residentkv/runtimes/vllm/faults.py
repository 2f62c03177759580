"""The public fault interface: what the second tier is told to do wrong, as data.

Faults act on bytes, on job results and on time, inside the tier; no event is ever made up or changed. A plan is a JSON
file, so that it reaches the scheduler and the worker whether or not they are one process; it is read again when it
changes, and its counters begin anew.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Literal

import msgspec

from residentkv.errors import InputError

logger = logging.getLogger("vllm.residentkv")

UNREADABLE = "fault_plan_unreadable"
"""Reason of whatever is refused because nobody knows which faults are meant to strike."""

Action = Literal["fail_load", "fail_store", "corrupt", "zero_tier", "zero", "lose", "delay_load", "delay_store"]
"""What is done.

`fail_load`, `fail_store`: the transfer reports failure for the positions, and does not move them.
`corrupt`: flip bytes of the positions in the tier, before a load, leaving their checksums as they were.
`zero`: overwrite the positions with zeros before a load, with checksums to match: they look like good bytes.
`zero_tier`: the same for the whole tier, at once.
`lose`: the tier forgets the positions without telling anybody.
`delay_load`, `delay_store`: the transfer takes `delay_s` longer.
"""


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One fault and where it strikes.

    A transfer matches when everything that is stated agrees. `claimed` asks whether the transfer belongs to any claim.
    `first_match` lets that many matching transfers pass before; `times` strikes at most so often (None: always).
    `positions` are half-open ranges of logical block positions (None: all of the transfer); `last_blocks` takes the
    last so many of it instead. `worker` limits the fault to one rank.
    """

    action: Action
    claim_id: str | None = None
    owner_scope: str | None = None
    claimed: bool | None = None
    first_match: int = 0
    times: int | None = None
    positions: tuple[tuple[int, int], ...] | None = None
    last_blocks: int | None = None
    worker: int | None = None
    delay_s: float = 0.0
    reason: str = "injected"


class FaultPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All faults that are active; an empty plan does nothing. `serial` tells two equal plans apart."""

    faults: tuple[Fault, ...] = ()
    serial: int = 0


def decode_plan(data: bytes, path: str = "-") -> FaultPlan:
    """Read a plan strictly.

    Raises:
        InputError: it is not a plan; the message names the field.
    """
    try:
        return msgspec.json.decode(data, type=FaultPlan, strict=True)
    except msgspec.DecodeError as e:
        raise InputError(f"not a fault plan: {e}; see residentkv.runtimes.vllm.faults", path=path) from None


def write_plan(path: Path, plan: FaultPlan) -> None:
    """Put a plan where the engine reads it; a reader sees the old one or the new one, never a part."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_bytes(msgspec.json.encode(plan))
    beside.replace(path)


class FaultInjector:
    """Answers which fault strikes now, for one process; not safe for several threads at a time.

    `unreadable` says why the plan cannot be read, if so: then nobody knows what was meant to strike. The engine goes
    on, but the tier fails every transfer and no claim is accepted, so that nothing passes for having been tested.
    """

    def __init__(self, path: str | None, worker: int | None = None) -> None:
        self.unreadable: str | None = None
        self._path = path
        self._worker = worker
        self._stamp: tuple[int, ...] | None = None
        self._plan = FaultPlan()
        self._seen: list[int] = []
        self._struck: list[int] = []

    def refresh(self) -> None:
        """Read the plan again when the file changed; one that cannot be read is one error in the log a change."""
        if self._path is None:
            return
        try:
            stat = os.stat(self._path)  # noqa: PTH116 (once a step, on the hot path)
            stamp: tuple[int, ...] | None = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        except FileNotFoundError:
            stamp = None
        except OSError as e:
            stamp = (e.errno or 0,)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        self._plan, self.unreadable = FaultPlan(), None
        if stamp is not None:
            try:
                self._plan = decode_plan(Path(self._path).read_bytes(), self._path)
            except (InputError, OSError) as e:
                self.unreadable = str(e)
                logger.error(
                    "residentkv: %s; until the plan is mended or removed, every transfer of the second tier fails and "
                    "no claim is accepted",
                    e,
                )
        self._seen = [0] * len(self._plan.faults)
        self._struck = [0] * len(self._plan.faults)

    def strike(
        self, action: Action, *, claim_id: str | None, owner_scope: str | None, positions: tuple[int, ...]
    ) -> tuple[Fault, tuple[int, ...]] | None:
        """Return the first fault of this action that strikes a transfer, with the positions it hits, and count it."""
        for i, fault in enumerate(self._plan.faults):
            if fault.action != action or not self._matches(fault, claim_id, owner_scope):
                continue
            hit = _positions(fault, positions)
            if not hit:
                continue
            self._seen[i] += 1
            if self._seen[i] <= fault.first_match:
                continue
            if fault.times is not None and self._struck[i] >= fault.times:
                continue
            self._struck[i] += 1
            return fault, hit
        return None

    def take(self, action: Action) -> list[Fault]:
        """Return faults of this action that are not about a transfer and have not struck yet; each strikes once."""
        out = []
        for i, fault in enumerate(self._plan.faults):
            if fault.action == action and self._struck[i] == 0 and fault.worker in (None, self._worker):
                self._struck[i] = 1
                out.append(fault)
        return out

    def _matches(self, fault: Fault, claim_id: str | None, owner_scope: str | None) -> bool:
        return (
            (fault.worker is None or fault.worker == self._worker)
            and (fault.claim_id is None or fault.claim_id == claim_id)
            and (fault.owner_scope is None or fault.owner_scope == owner_scope)
            and (fault.claimed is None or fault.claimed is (claim_id is not None))
        )


def _positions(fault: Fault, positions: tuple[int, ...]) -> tuple[int, ...]:
    if fault.last_blocks is not None:
        return positions[max(len(positions) - fault.last_blocks, 0) :]
    if fault.positions is None:
        return positions
    return tuple(p for p in positions if any(lo <= p < hi for lo, hi in fault.positions))
