"""What changed, with the obligations that moved: against a report written earlier, or between versions of a runtime.

Which rows are worse or better is said by `lowering.baseline`; this adds what a reader wants to see beside it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from residentkv.lowering.baseline import (
    Baseline,
    BaselineObligation,
    BaselineRow,
    RowChange,
    compare_rows,
    decode_baseline,
)
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


def compare_with(raw: bytes, path: str, rows: Sequence[CheckedRow]) -> Comparison:
    """Compare this run with a report that was written earlier.

    Args:
        raw: what `residentkv check` wrote, as residentkv.check/1.
        path: how it is called.
        rows: what was judged now.

    Raises:
        InputError: RKV166, it is something else.
    """
    return _comparison(f"since {path}", decode_baseline(raw, path), rows)


def compare_versions(rows: Sequence[CheckedRow]) -> list[Comparison]:
    """Compare each version of a runtime with the one before it, in the order in which they were judged."""
    by_runtime: dict[str, dict[str, list[CheckedRow]]] = {}
    for row in rows:
        versions = by_runtime.setdefault(row.descriptor.runtime, {})
        versions.setdefault(row.descriptor.version, []).append(row)
    return [
        _comparison(f"{runtime} {old} to {new}", _baseline_of(versions[old]), versions[new])
        for runtime, versions in by_runtime.items()
        for old, new in itertools.pairwise(versions)
    ]


def _comparison(title: str, baseline: Baseline, rows: Sequence[CheckedRow]) -> Comparison:
    changes, same = compare_rows(baseline, rows)
    before, now = _statuses(baseline.rows), _statuses(map(_baseline_row, rows))
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


def _statuses(rows: Iterable[BaselineRow]) -> dict[_Address, Mapping[str, str]]:
    return {row.address: {o.obligation: o.status for o in row.obligations} for row in rows}


def _baseline_of(rows: Sequence[CheckedRow]) -> Baseline:
    return Baseline(schema="residentkv.check/1", rows=list(map(_baseline_row, rows)))


def _baseline_row(checked: CheckedRow) -> BaselineRow:
    obligations = checked.verdict.obligations
    return BaselineRow(
        runtime=checked.descriptor.runtime,
        version=checked.descriptor.version,
        primitive=checked.row.primitive.id,
        mode=checked.row.mode.value,
        depth=checked.row.depth.value,
        verdict=checked.verdict.verdict,
        obligations=tuple(BaselineObligation(obligation=o.obligation.value, status=o.status) for o in obligations),
    )
