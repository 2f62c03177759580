"""What became of the verdicts of a baseline: a row that was relied on must not get worse unnoticed. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from residentkv.claims.modes import NamedChoice
from residentkv.errors import InputError
from residentkv.lowering.checking import CheckedRow
from residentkv.lowering.codes import BASELINE
from residentkv.lowering.relation import Status, Verdict


class Change(NamedChoice):
    """What became of a row; only the first two are worse."""

    WORSE = "worse"
    GONE = "gone"
    BETTER = "better"
    DIFFERS = "differs"
    NEW = "new"

    @property
    def is_worse(self) -> bool:
        """Whether something that was relied on is no longer shown."""
        return self in (Change.WORSE, Change.GONE)


class _Key(NamedTuple):
    runtime: str
    primitive: str
    mode: str
    depth: str


class _Row(NamedTuple):
    key: _Key
    version: str
    verdict: Verdict
    is_seen: bool


class BaselineObligation(msgspec.Struct, frozen=True, kw_only=True):
    """What a baseline says became of one obligation of a row."""

    obligation: str
    status: Status


class BaselineRow(msgspec.Struct, frozen=True, kw_only=True):
    """What a baseline has to say of a row; other keys of the report are not looked at."""

    runtime: str
    version: str
    primitive: str
    mode: str
    depth: str
    verdict: Verdict
    obligations: tuple[BaselineObligation, ...] = ()

    @property
    def address(self) -> tuple[str, str, str, str, str]:
        """What tells the row from every other one."""
        return (self.runtime, self.version, self.primitive, self.mode, self.depth)


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """A report that was written earlier, of which the verdicts count."""

    schema: Literal["residentkv.check/1"]
    rows: Annotated[list[BaselineRow], Meta(min_length=1)]


@dataclass(frozen=True, slots=True)
class RowChange:
    """One row that is not as it was; None where a side does not have it."""

    runtime: str
    primitive: str
    mode: str
    depth: str
    change: Change
    version_before: str | None
    version_now: str | None
    verdict_before: Verdict | None
    verdict_now: Verdict | None

    @property
    def sentence(self) -> str:
        """The change in a sentence."""
        what = f"{self.runtime}: {self.primitive} as {self.mode} at depth {self.depth}"
        before = f"{self.verdict_before} at {self.version_before}"
        now = f"{self.verdict_now} at {self.version_now}"
        if self.change is Change.NEW:
            return f"{what} is {now}; the baseline does not have it"
        if self.change is Change.GONE:
            return f"{what} was {before}; no row of this run is about it"
        return f"{what} was {before} and is {now}"


def decode_baseline(raw: bytes, path: str) -> Baseline:
    """Read a report as a baseline.

    Raises:
        InputError: RKV166, it is no report of `check`, has a key twice, has no row, or tells one twice.
    """
    try:
        plain = json.loads(raw, object_pairs_hook=_distinct)
        baseline = msgspec.convert(plain, Baseline)
    except (ValueError, RecursionError) as e:
        message = (
            f"found no report residentkv.check/1 ({e}); write it with 'residentkv check ... --format json -o FILE'"
        )
        raise InputError(message, path=path, code=BASELINE.code) from None
    seen: set[tuple[str, ...]] = set()
    for row in baseline.rows:
        if row.address in seen:
            message = f"found {' '.join(row.address)} twice, expected each row once; write the baseline again"
            raise InputError(message, path=path, code=BASELINE.code)
        seen.add(row.address)
    return baseline


def compare_rows(baseline: Baseline, rows: Iterable[CheckedRow]) -> tuple[list[RowChange], int]:
    """Return the rows that are not as they were, worst first, and how many are.

    A row is looked up at its own version; when that version is not on this machine, at another one that is, so that an
    upgrade is judged by the version that was upgraded to. A row of the baseline that was positive and has no
    counterpart is gone, which is worse; one that was a no and has none is no loss.
    """
    before = [_Row(_Key(r.runtime, r.primitive, r.mode, r.depth), r.version, r.verdict, True) for r in baseline.rows]
    now = [
        _Row(
            _Key(r.descriptor.runtime, r.row.primitive.id, r.row.mode.value, r.row.depth.value),
            r.descriptor.version,
            r.verdict.verdict,
            not r.verdict.basis_problems,
        )
        for r in rows
    ]
    changes: list[RowChange] = []
    unchanged = 0
    for key, old, new in _pair(before, now):
        change = _change_of(old, new)
        if change is None:
            unchanged += 1
            continue
        changes.append(
            RowChange(
                runtime=key.runtime,
                primitive=key.primitive,
                mode=key.mode,
                depth=key.depth,
                change=change,
                version_before=old.version if old else None,
                version_now=new.version if new else None,
                verdict_before=old.verdict if old else None,
                verdict_now=new.verdict if new else None,
            )
        )
    order = {change: n for n, change in enumerate(Change)}
    changes.sort(key=lambda c: (order[c.change], c.sentence))
    return changes, unchanged


def _pair(before: Sequence[_Row], now: Sequence[_Row]) -> Iterator[tuple[_Key, _Row | None, _Row | None]]:
    known = {(r.key, r.version) for r in before}
    by_key: dict[_Key, list[_Row]] = {}
    for row in now:
        by_key.setdefault(row.key, []).append(row)
    used: set[_Row] = set()
    for old in before:
        rows = by_key.get(old.key, [])
        own = [r for r in rows if r.version == old.version]
        others = [r for r in rows if r.version != old.version]
        if not own:
            # Nobody asked for this version: a row that the baseline has too stands for itself only.
            others = [r for r in others if (r.key, r.version) not in known]
            own = [r for r in others if r.is_seen] or others
        elif not own[0].is_seen:
            own = [r for r in others if r.is_seen] or own
        # Of several versions the worst counts: the promise was made whichever of them runs.
        new = min(own, key=lambda r: (r.verdict.rank, r.version), default=None)
        used.update(own)
        yield old.key, old, new
    for row in now:
        if row not in used and (row.key, row.version) not in known:
            yield row.key, None, row


def _change_of(old: _Row | None, new: _Row | None) -> Change | None:
    if old is None:
        return Change.NEW
    if new is None:
        return Change.GONE if old.verdict.is_positive else None
    if new.verdict.rank < old.verdict.rank:
        return Change.WORSE
    if new.verdict.rank > old.verdict.rank:
        return Change.BETTER
    return Change.DIFFERS if new.verdict is not old.verdict else None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice in one object")
    return found
