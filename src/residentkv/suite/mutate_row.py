"""Mutants of a positive row: every small lie of a descriptor, and of the evidence that goes with it."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import yaml

from residentkv.claims.modes import Mode
from residentkv.errors import ResidentKVError
from residentkv.lowering.anchors import AnchorReport, AnchorVerifier, Sources
from residentkv.lowering.checking import Selection, scope_of
from residentkv.lowering.depth import Depth
from residentkv.lowering.descriptor import decode_descriptor
from residentkv.lowering.exhibits import Findings, TraceItem, row_basis, row_exhibits, row_related
from residentkv.lowering.format import EvidenceKind, Polarity
from residentkv.lowering.model import Descriptor, Row
from residentkv.lowering.obligations import BUNDLES, Obligation
from residentkv.lowering.relation import Verdict, judge_row, why_not_counted
from residentkv.lowering.yamltree import decode_text, parse_yaml
from residentkv.suite.tally import NotPositive, Support, Tally

Plain = dict[str, Any]

_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

REDUNDANT = "order-and-repetition"
UNCOUNTED = "uncounted-statement"
SURPLUS = "surplus-statement"
MOVED = "moved-text"
ROW_EQUIVALENCES: Mapping[str, str] = {
    REDUNDANT: "the order of evidence and its repetition carry nothing (spec section 5)",
    UNCOUNTED: "a statement or an anchor that did not count before, such as text about what has to happen or about "
    "what the mode does not ask for, and does not count now",
    MOVED: "the anchored text is found by its digest elsewhere in its file: verified with a warning (spec section 5)",
    SURPLUS: "a further statement about what is satisfied without it; what a text means is for people to judge",
}


class PositiveRow(msgspec.Struct, frozen=True, kw_only=True):
    """A positive row and what makes it so.

    Args:
        name: for sentences.
        raw: the descriptor file.
        path: how it is named; traces that it brings are not supported.
        selection: which row.
        sources: where anchors are looked up.
        items: what the audits of this run say about its traces.
    """

    name: str
    raw: bytes
    path: str
    selection: Selection
    sources: Sources
    items: tuple[TraceItem, ...]


class RowMutant(msgspec.Struct, frozen=True, kw_only=True):
    """One changed descriptor, or one changed list of evidence. `spared` are the equivalences that may apply."""

    operator: str
    what: str
    plain: Plain | None = None
    items: tuple[TraceItem, ...] | None = None
    spared: tuple[str, ...] = ()


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """Verdict of a row, and every support that counts, with the anchors that show where the primitive lives."""

    verdict: Verdict
    support: Support


def tally_row(row: PositiveRow, tally: Tally) -> None:
    """Judge every mutant of a positive row.

    A mutant is refused when the loader refuses the descriptor, the row is gone or its verdict is not positive; it is
    weaker when the verdict is positive on less than the same evidence for the same obligations.

    Raises:
        NotPositive: the row is not positive itself.
    """
    plain = parse_yaml(decode_text(row.raw, row.path), row.path).plain()
    judge = _Judge(row)
    base = judge.judge(None, row.items)
    if not isinstance(plain, dict) or base is None or not base.verdict.is_positive:
        raise NotPositive(f"{row.name}: {base.verdict if base else 'no such row'}")
    for mutant in mutate_row(row, plain):
        after = judge.judge(mutant.plain, row.items if mutant.items is None else mutant.items)
        if after is None or not after.verdict.is_positive:
            tally.add(mutant.operator, "refused")
        elif not base.support <= after.support:
            tally.add(mutant.operator, "weaker")
        elif mutant.spared and after == base:
            tally.add(mutant.operator, "equivalent", reason=mutant.spared[0])
        elif UNCOUNTED in mutant.spared and after.verdict is base.verdict and _obligations(after) == _obligations(base):
            tally.add(mutant.operator, "equivalent", reason=SURPLUS)
        else:
            tally.add(mutant.operator, "survived", sentence=f"{row.name}: {mutant.operator}: {mutant.what}")


def _obligations(judgement: Judgement) -> set[str]:
    return {s[0] for s in judgement.support}


class _Judge:
    """Judges the row; the unchanged descriptor is read once."""

    def __init__(self, row: PositiveRow) -> None:
        self._row = row
        self._verifier = AnchorVerifier(row.sources)
        self._original = decode_descriptor(row.raw, row.path)
        self._reports = self._verify(self._original)

    def _verify(self, descriptor: Descriptor) -> dict[str, AnchorReport]:
        scope = scope_of(descriptor)
        return self._verifier.verify_all(descriptor.anchors, scope)

    def judge(self, plain: Plain | None, items: tuple[TraceItem, ...]) -> Judgement | None:
        """Return the judgement on the row; None when the descriptor cannot be read or has no such row."""
        descriptor, reports = self._original, self._reports
        if plain is not None:
            raw = yaml.dump(plain, Dumper=_DUMPER, sort_keys=False).encode()
            try:
                descriptor = decode_descriptor(raw, self._row.path)
            except ResidentKVError:
                return None
            reports = self._verify(descriptor)
        rows = list(self._row.selection.rows(descriptor))
        if len(rows) != 1 or descriptor.runtime != self._original.runtime:
            return None
        return _judgement(rows[0], descriptor, Findings(anchors=reports, audited={}, traces=items))


def _judgement(row: Row, descriptor: Descriptor, findings: Findings) -> Judgement:
    exhibits = tuple(row_exhibits(row, descriptor, findings))
    basis, related = row_basis(row, findings), row_related(row, findings)
    verdict = judge_row(row.mode, row.depth, exhibits, basis=basis, related=related)
    counted = {
        (e.obligation.value, e.kind.value, e.depth.value, e.source, e.standing.label, e.note)
        for e in exhibits
        if e.polarity is Polarity.SUPPORTS and not why_not_counted(e, row.mode, row.depth)
    }
    return Judgement(verdict=verdict.verdict, support=frozenset((*counted, *(("where", name) for name in row.basis))))


def mutate_row(row: PositiveRow, plain: Plain) -> Iterator[RowMutant]:
    """Yield every mutant of a row; `plain` is the descriptor as plain data."""
    for path in _evidence_paths(row, plain):
        yield from _mutate_evidence(row, plain, path)
    yield from _mutate_where(row, plain)
    yield from _mutate_anchors(row, plain)
    yield from _mutate_head(row, plain)
    for at, item in enumerate(row.items):
        if item.mode is row.selection.mode and item.primitive == row.selection.primitive:
            yield from _mutate_item(row, at, item)


_Path = tuple[str, int, int]
"""primitives or adapters, which of them, which statement of it."""


def _evidence_paths(row: PositiveRow, plain: Plain) -> Iterator[_Path]:
    for part, key in (("primitives", "id"), ("adapters", "primitive")):
        for n, entry in enumerate(plain.get(part) or ()):
            if entry[key] == row.selection.primitive:
                yield from ((part, n, m) for m in range(len(entry["evidence"])))


def _evidence(plain: Plain, path: _Path) -> tuple[list[Plain], int]:
    part, n, m = path
    return plain[part][n]["evidence"], m


def _changed(plain: Plain, path: _Path, **fields: Any) -> Plain:
    out = copy.deepcopy(plain)
    statements, m = _evidence(out, path)
    statements[m].update(fields)
    return out


def _mutate_evidence(row: PositiveRow, plain: Plain, path: _Path) -> Iterator[RowMutant]:
    statements, m = _evidence(plain, path)
    entry = statements[m]
    what = f"{entry['obligation']} {entry['polarity']} by {entry['kind']} {entry['anchor']}"
    gone = copy.deepcopy(plain)
    del _evidence(gone, path)[0][m]
    yield RowMutant(operator="statement delete", what=what, plain=gone, spared=(UNCOUNTED,))
    other = next(p for p in Polarity if p.value != entry["polarity"])
    turned = _changed(plain, path, polarity=other.value)
    yield RowMutant(operator="statement polarity", what=what, plain=turned, spared=(UNCOUNTED,))
    for kind in EvidenceKind:
        if kind.value != entry["kind"]:
            changed = _changed(plain, path, kind=kind.value)
            yield RowMutant(operator="statement kind", what=f"{what} -> {kind}", plain=changed, spared=(UNCOUNTED,))
    for obligation in _obligations_for(row):
        if obligation.value != entry["obligation"]:
            changed = _changed(plain, path, obligation=obligation.value)
            yield RowMutant(
                operator="statement obligation", what=f"{what} -> {obligation}", plain=changed, spared=(UNCOUNTED,)
            )
    for mode in Mode:
        if mode is not row.selection.mode:
            changed = _changed(plain, path, modes=[mode.value])
            yield RowMutant(operator="statement mode", what=f"{what} -> {mode}", plain=changed, spared=(UNCOUNTED,))
    twice = copy.deepcopy(plain)
    _evidence(twice, path)[0].append(copy.deepcopy(entry))
    yield RowMutant(operator="statement duplicate", what=what, plain=twice, spared=(REDUNDANT,))
    if m + 1 < len(statements):
        swapped = copy.deepcopy(plain)
        both = _evidence(swapped, path)[0]
        both[m], both[m + 1] = both[m + 1], both[m]
        yield RowMutant(operator="statement swap", what=what, plain=swapped, spared=(REDUNDANT,))


def _obligations_for(row: PositiveRow) -> tuple[Obligation, ...]:
    """Return the obligations of the row's mode, and one that it does not ask for."""
    mode = row.selection.mode
    bundle = BUNDLES[mode] if mode is not None else ()
    return (*bundle, next(o for o in Obligation if o not in bundle))


def _mutate_where(row: PositiveRow, plain: Plain) -> Iterator[RowMutant]:
    for n, entry in enumerate(plain["primitives"]):
        if entry["id"] == row.selection.primitive:
            for m, name in enumerate(entry["where"]):
                gone = copy.deepcopy(plain)
                del gone["primitives"][n]["where"][m]
                yield RowMutant(operator="where delete", what=name, plain=gone)


def _mutate_anchors(row: PositiveRow, plain: Plain) -> Iterator[RowMutant]:
    for name, anchor in plain["anchors"].items():
        digest = anchor["sha256"]
        edits: dict[str, Plain] = {"anchor digest": {"sha256": digest[:-1] + ("0" if digest[-1] != "0" else "1")}}
        if anchor["type"] == "package":
            edits["anchor version"] = {"version": "==99"}
            edits["anchor file"] = {"file": f"{anchor['file'][:-3]}_other.py"}
            edits["anchor symbol"] = {"symbol": "nobody_defines_this", "lines": None}
        for operator, fields in edits.items():
            changed = copy.deepcopy(plain)
            changed["anchors"][name].update(fields)
            changed["anchors"][name] = {k: v for k, v in changed["anchors"][name].items() if v is not None}
            spared = () if name in _where(row, plain) else (UNCOUNTED,)
            if operator == "anchor symbol":
                spared = (MOVED,)
            yield RowMutant(operator=operator, what=name, plain=changed, spared=spared)


def _where(row: PositiveRow, plain: Plain) -> set[str]:
    """Return the anchors that show where the primitive of the row and its help live."""
    mine = [entry for entry in plain["primitives"] if entry["id"] == row.selection.primitive]
    mine += [entry for entry in plain.get("adapters") or () if entry["primitive"] == row.selection.primitive]
    return {name for entry in mine for name in entry.get("where", ())}


def _mutate_head(row: PositiveRow, plain: Plain) -> Iterator[RowMutant]:
    package = plain["package"]
    inside = any(plain["anchors"][name].get("package") == package["name"] for name in _where(row, plain))
    for operator, fields, spared in (
        ("runtime name", {"runtime": "another"}, ()),
        ("package versions", {"package": {**package, "versions": "==99"}}, ()),
        (
            "package name",
            {"package": {**package, "distributions": ["nobody-publishes-this"]}},
            () if inside else (UNCOUNTED,),  # The primitive lives in another package, which is looked up by its name.
        ),
    ):
        yield RowMutant(operator=operator, what=row.name, plain={**copy.deepcopy(plain), **fields}, spared=spared)
    wanted = row.selection
    for part, key in (("primitives", "id"), ("adapters", "primitive")):
        for n, entry in enumerate(plain.get(part) or ()):
            if entry[key] != wanted.primitive:
                continue
            for m, note in enumerate(entry["rows"]):
                if note["mode"] == wanted.mode and entry.get("depth", Depth.NATIVE.value) == wanted.depth:
                    changed = copy.deepcopy(plain)
                    changed[part][n]["rows"][m]["mode"] = next(x.value for x in Mode if x is not wanted.mode)
                    yield RowMutant(operator="row mode", what=f"{entry['id']} {note['mode']}", plain=changed)
            for depth in Depth if part == "adapters" else ():
                if depth.value != entry["depth"]:
                    changed = copy.deepcopy(plain)
                    changed[part][n]["depth"] = depth.value
                    yield RowMutant(operator="adapter depth", what=f"{entry['id']} -> {depth}", plain=changed)


def _mutate_item(row: PositiveRow, at: int, item: TraceItem) -> Iterator[RowMutant]:
    what = f"{item.obligation} {item.polarity} by {item.kind} {item.trace}"

    def made(operator: str, *new: TraceItem, told: str = "", spared: tuple[str, ...] = ()) -> RowMutant:
        items = (*row.items[:at], *new, *row.items[at + 1 :])
        return RowMutant(operator=f"evidence {operator}", what=f"{what}{told}", items=items, spared=spared)

    yield made("delete", spared=(UNCOUNTED,))
    yield made("duplicate", item, item, spared=(REDUNDANT,))
    if at + 1 < len(row.items):
        swapped = (*row.items[:at], row.items[at + 1], item, *row.items[at + 2 :])
        yield RowMutant(operator="evidence swap", what=what, items=swapped, spared=(REDUNDANT,))
    other = next(p for p in Polarity if p is not item.polarity)
    yield made("polarity", dataclasses.replace(item, polarity=other), spared=(UNCOUNTED,))
    for field, values in (
        ("kind", EvidenceKind),
        ("obligation", _obligations_for(row)),
        ("mode", Mode),
        ("depth", Depth),
        ("runtime", ("another",)),
        ("runtime_version", ("99",)),
        ("primitive", ("another",)),
        ("adapter", ("another",)),
        ("problem", ("the trace changed",)),
    ):
        for value in values:
            if value != getattr(item, field):
                edit: dict[str, Any] = {field: value}
                changed = dataclasses.replace(item, **edit)
                yield made(field.replace("_", " "), changed, told=f" -> {value}", spared=(UNCOUNTED,))
