"""What changed, with the obligations that moved: against a report written earlier, or between versions of a runtime.

Which rows are worse or better is said by `lowering.baseline`; this adds what a reader wants to see beside it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from residentkv.lowering.baseline import Baseline, BaselineRow, RowChange, compare_rows, decode_baseline
from residentkv.lowering.checking import CheckedRow
from residentkv.lowering.obligations import Obligation

_Address = tuple[str, str | None, str, str, str]
_Statuses = Mapping[_Address, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class ShownChange:
    """One row that changed; `steps` are status before, status now, and the obligations that moved so."""

    row: RowChange
    steps: tuple[tuple[str, str, tuple[str, ...]], ...]

    @property
    def address(self) -> _Address:
        """The row that it is now."""
        return (self.row.runtime, self.row.version_now, self.row.primitive, self.row.mode, self.row.depth)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two judgements side by side; `same` counts the rows that did not change."""

    title: str
    changes: tuple[ShownChange, ...]
    same: int


class _PastObligation(msgspec.Struct, frozen=True):
    obligation: str
    status: str


class _PastRow(BaselineRow, frozen=True, kw_only=True):
    obligations: tuple[_PastObligation, ...] = ()


class _Past(msgspec.Struct, frozen=True):
    rows: list[_PastRow]


def compare_with(raw: bytes, path: str, rows: Sequence[CheckedRow]) -> Comparison:
    """Compare this run with a report that was written earlier.

    Args:
        raw: what `residentkv check` wrote, as residentkv.check/1.
        path: how it is called.
        rows: what was judged now.

    Raises:
        InputError: RKV166, it is something else.
    """
    baseline = decode_baseline(raw, path)
    past = msgspec.json.decode(raw, type=_Past)
    before: dict[_Address, Mapping[str, str]] = {
        (r.runtime, r.version, r.primitive, r.mode, r.depth): {o.obligation: o.status for o in r.obligations}
        for r in past.rows
    }
    return _comparison(f"since {path}", baseline, before, rows)


def compare_versions(rows: Sequence[CheckedRow]) -> list[Comparison]:
    """Compare each version of a runtime with the one before it, in the order in which they were judged."""
    by_runtime: dict[str, dict[str, list[CheckedRow]]] = {}
    for row in rows:
        versions = by_runtime.setdefault(row.descriptor.runtime, {})
        versions.setdefault(row.descriptor.version, []).append(row)
    return [
        _comparison(f"{runtime} {old} to {new}", _baseline_of(versions[old]), _statuses(versions[old]), versions[new])
        for runtime, versions in by_runtime.items()
        for old, new in itertools.pairwise(versions)
    ]


def _comparison(title: str, baseline: Baseline, before: _Statuses, rows: Sequence[CheckedRow]) -> Comparison:
    changes, same = compare_rows(baseline, rows)
    now = _statuses(rows)
    return Comparison(title, tuple(ShownChange(c, _steps(c, before, now)) for c in changes), same)


def _steps(change: RowChange, before: _Statuses, now: _Statuses) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    rest = (change.primitive, change.mode, change.depth)
    was = before.get((change.runtime, change.version_before, *rest), {})
    has = now.get((change.runtime, change.version_now, *rest), {})
    alike: dict[tuple[str, str], list[str]] = {}
    for name in Obligation:
        if name in was and name in has and was[name] != has[name]:
            alike.setdefault((was[name], has[name]), []).append(name.value)
    return tuple((old, new, tuple(names)) for (old, new), names in alike.items())


def _address_of(row: CheckedRow) -> _Address:
    return (row.descriptor.runtime, row.descriptor.version, row.row.primitive.id, row.row.mode, row.row.depth)


def _statuses(rows: Sequence[CheckedRow]) -> dict[_Address, Mapping[str, str]]:
    return {_address_of(r): {o.obligation.value: o.status.value for o in r.verdict.obligations} for r in rows}


def _baseline_of(rows: Sequence[CheckedRow]) -> Baseline:
    return Baseline(
        schema="residentkv.check/1",
        rows=[
            BaselineRow(
                runtime=r.descriptor.runtime,
                version=r.descriptor.version,
                primitive=r.row.primitive.id,
                mode=r.row.mode.value,
                depth=r.row.depth.value,
                verdict=r.verdict.verdict,
            )
            for r in rows
        ],
    )
