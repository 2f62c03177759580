"""What got better or worse between two judgements: a file written earlier, or two versions of one runtime. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from residentkv.claims.modes import Mode
from residentkv.errors import InputError
from residentkv.lowering.checking import CheckedRow
from residentkv.lowering.depth import Depth
from residentkv.lowering.obligations import Obligation
from residentkv.lowering.relation import EvidenceClass, Status, Verdict
from residentkv.report.documents import JSON_SCHEMA

RowKey = tuple[str, Mode, Depth]
"""Primitive, mode and depth: what stays the same between two versions of a runtime."""


class Change(StrEnum):
    """What became of a row. `better` and `worse` are about `Verdict.rank`; the ways of saying no are not ranked."""

    WORSE = "worse"
    BETTER = "better"
    DIFFERENT = "different"
    ADDED = "added"
    GONE = "gone"


class PastObligation(msgspec.Struct, frozen=True):
    """One obligation of a row that was judged earlier."""

    obligation: Obligation
    status: Status


class PastRow(msgspec.Struct, frozen=True):
    """One row of `residentkv.check/1`: what a comparison needs of it."""

    runtime: str
    version: str
    primitive: str
    mode: Mode
    depth: Depth
    verdict: Verdict
    evidence_class: EvidenceClass
    obligations: tuple[PastObligation, ...]


class _PastCheck(msgspec.Struct, frozen=True):
    schema: str
    rows: tuple[PastRow, ...]


@dataclass(frozen=True, slots=True)
class RowChange:
    """One row that is not what it was. `moved` names obligations with their status before and after."""

    runtime: str
    primitive: str
    mode: Mode
    depth: Depth
    change: Change
    before: PastRow | None
    after: PastRow | None
    moved: tuple[tuple[Obligation, Status | None, Status | None], ...]

    @property
    def steps(self) -> list[tuple[Status | None, Status | None, list[Obligation]]]:
        """The obligations that moved, together when they moved alike."""
        alike: dict[tuple[Status | None, Status | None], list[Obligation]] = {}
        for obligation, was, now in self.moved:
            alike.setdefault((was, now), []).append(obligation)
        return [(was, now, names) for (was, now), names in alike.items()]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two judgements side by side; `same` counts the rows that did not change."""

    title: str
    before: str
    after: str
    changes: tuple[RowChange, ...]
    same: int


def decode_past(raw: bytes, path: str) -> tuple[PastRow, ...]:
    """Read what `residentkv check --json` wrote earlier.

    Raises:
        InputError: it is something else; nothing of it is guessed.
    """
    try:
        past = msgspec.json.decode(raw, type=_PastCheck)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        message = f"found no {JSON_SCHEMA} document ({e}), expected what 'residentkv check --json' writes"
        raise InputError(message, path=path) from None
    if past.schema != JSON_SCHEMA:
        raise InputError(f"found schema {past.schema[:60]!r}, expected {JSON_SCHEMA}", path=path)
    return past.rows


def past_of(checked: CheckedRow) -> PastRow:
    """Return a row of this run as it will be compared later."""
    return PastRow(
        runtime=checked.descriptor.runtime,
        version=checked.descriptor.version,
        primitive=checked.row.primitive.id,
        mode=checked.row.mode,
        depth=checked.row.depth,
        verdict=checked.verdict.verdict,
        evidence_class=checked.verdict.evidence_class,
        obligations=tuple(PastObligation(o.obligation, o.status) for o in checked.verdict.obligations),
    )


def compare_with(past: Sequence[PastRow], rows: Sequence[CheckedRow], name: str) -> list[Comparison]:
    """Compare this run with one written earlier, a runtime and version at a time; `name` is how the file is called."""
    now: dict[tuple[str, str], list[PastRow]] = {}
    for row in rows:
        now.setdefault((row.descriptor.runtime, row.descriptor.version), []).append(past_of(row))
    out = []
    for (runtime, version), mine in now.items():
        old = [p for p in past if p.runtime == runtime and p.version == version]
        others = sorted({p.version for p in past if p.runtime == runtime})
        if not old and others:  # The file is about another version: an upgrade, compared with the newest it has.
            old = [p for p in past if p.runtime == runtime and p.version == others[-1]]
        before = f"{runtime} {old[0].version} in {name}" if old else f"no {runtime} in {name}"
        out.append(_compare(f"{runtime} {version}", before, "this run", old, mine))
    return out


def compare_versions(rows: Sequence[CheckedRow]) -> list[Comparison]:
    """Compare each version of a runtime with the one before it, in the order in which they were judged."""
    by_runtime: dict[str, dict[str, list[PastRow]]] = {}
    for row in rows:
        versions = by_runtime.setdefault(row.descriptor.runtime, {})
        versions.setdefault(row.descriptor.version, []).append(past_of(row))
    out = []
    for runtime, versions in by_runtime.items():
        names = list(versions)
        for old, new in itertools.pairwise(names):
            title = f"{runtime} {old} to {new}"
            out.append(_compare(title, f"{runtime} {old}", f"{runtime} {new}", versions[old], versions[new]))
    return out


def change_of(before: PastRow | None, after: PastRow | None) -> Change | None:
    """Return what became of a row, or None when it is what it was."""
    if after is None:
        return Change.WORSE if before is not None and before.verdict.is_positive else Change.GONE
    if before is None:
        return Change.ADDED
    if before.verdict.rank != after.verdict.rank:
        return Change.BETTER if after.verdict.rank > before.verdict.rank else Change.WORSE
    same = before.verdict is after.verdict and before.evidence_class is after.evidence_class
    return None if same and not _moved(before, after) else Change.DIFFERENT


def _compare(title: str, before: str, after: str, old: Iterable[PastRow], new: Iterable[PastRow]) -> Comparison:
    was, now = _by_key(old), _by_key(new)
    changes = []
    same = 0
    for key in dict.fromkeys([*now, *was]):
        a, b = was.get(key), now.get(key)
        change = change_of(a, b)
        if change is None:
            same += 1
            continue
        row = b or a
        if row is not None:
            changes.append(RowChange(row.runtime, *key, change, a, b, _moved(a, b)))
    order = list(Change)
    changes.sort(key=lambda c: order.index(c.change))
    return Comparison(title, before, after, tuple(changes), same)


def _by_key(rows: Iterable[PastRow]) -> Mapping[RowKey, PastRow]:
    return {(r.primitive, r.mode, r.depth): r for r in rows}


def _moved(
    before: PastRow | None, after: PastRow | None
) -> tuple[tuple[Obligation, Status | None, Status | None], ...]:
    was = {o.obligation: o.status for o in before.obligations} if before else {}
    now = {o.obligation: o.status for o in after.obligations} if after else {}
    if not was or not now:
        return ()
    return tuple((o, was.get(o), now.get(o)) for o in Obligation if was.get(o) is not now.get(o))
