"""What a descriptor means once it was understood: evidence with its depth and place, primitives, adapters, rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from residentkv.claims.modes import Mode
from residentkv.lowering.depth import Depth
from residentkv.lowering.format import Anchor, EvidenceKind, Polarity
from residentkv.lowering.obligations import Obligation


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a file, 1-based."""

    path: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Evidence:
    """One statement of a descriptor (spec section 5). `source` is `native` or the id of the adapter that says it."""

    obligation: Obligation
    polarity: Polarity
    kind: EvidenceKind
    depth: Depth
    anchor: str
    note: str
    where: Place
    source: str = "native"
    modes: frozenset[Mode] | None = None
    row_depths: frozenset[Depth] | None = None

    def applies_to(self, mode: Mode, row_depth: Depth) -> bool:
        """Return whether the statement is about rows of `mode` judged at `row_depth`."""
        if self.modes is not None and mode not in self.modes:
            return False
        if self.row_depths is not None and row_depth not in self.row_depths:
            return False
        return self.depth.within(row_depth)


@dataclass(frozen=True, slots=True)
class RowNote:
    """What a descriptor says about one mode of a primitive; `related` are anchor ids."""

    mode: Mode
    why: str
    related: tuple[str, ...]
    where: Place


@dataclass(frozen=True, slots=True)
class Primitive:
    """Something that the runtime has; `basis` are the anchors that show where it lives."""

    id: str
    title: str
    summary: str
    basis: tuple[str, ...]
    evidence: tuple[Evidence, ...]
    rows: tuple[RowNote, ...]
    where: Place


@dataclass(frozen=True, slots=True)
class Adapter:
    """Something outside the runtime that works on `primitive` at `depth`."""

    id: str
    title: str
    summary: str
    depth: Depth
    primitive: str
    versions: str
    basis: tuple[str, ...]
    evidence: tuple[Evidence, ...]
    rows: tuple[RowNote, ...]
    where: Place


@dataclass(frozen=True, slots=True)
class Row:
    """One thing to judge: may this primitive, with help up to `depth`, be taken for `mode`?"""

    primitive: Primitive
    mode: Mode
    depth: Depth
    adapters: tuple[Adapter, ...]
    notes: tuple[RowNote, ...]

    @property
    def basis(self) -> tuple[str, ...]:
        """Anchors of everything that takes part in this row."""
        ids = [*self.primitive.basis, *(a for adapter in self.adapters for a in adapter.basis)]
        return tuple(dict.fromkeys(ids))

    @property
    def related(self) -> tuple[str, ...]:
        """Anchors that show something like the promise."""
        return tuple(dict.fromkeys(a for note in self.notes for a in note.related))

    def evidence(self) -> Iterator[Evidence]:
        """Yield the statements of the descriptor that are about this row."""
        for item in (*self.primitive.evidence, *(e for adapter in self.adapters for e in adapter.evidence)):
            if item.applies_to(self.mode, self.depth):
                yield item


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One runtime at one version. `distributions` are the names under which its package is published."""

    path: str
    sha256: str
    runtime: str
    version: str
    title: str
    package: str
    versions: str
    distributions: tuple[str, ...]
    anchors: Mapping[str, Anchor]
    anchor_places: Mapping[str, Place]
    primitives: tuple[Primitive, ...]
    adapters: tuple[Adapter, ...]

    def rows(self) -> Iterator[Row]:
        """Yield every row: native ones, and one for each (primitive, mode, depth) that an adapter names.

        A row at a depth has the help of every adapter of its primitive that is not deeper (spec section 5).
        """
        for primitive in self.primitives:
            mine = [a for a in self.adapters if a.primitive == primitive.id]
            cells: dict[tuple[Depth, Mode], list[RowNote]] = {}
            for note in primitive.rows:
                cells.setdefault((Depth.NATIVE, note.mode), []).append(note)
            for adapter in mine:
                for note in adapter.rows:
                    cells.setdefault((adapter.depth, note.mode), []).append(note)
            for (depth, mode), notes in sorted(cells.items(), key=_cell_order):
                help_ = tuple(a for a in mine if a.depth.within(depth))
                yield Row(primitive=primitive, mode=mode, depth=depth, adapters=help_, notes=tuple(notes))


_MODE_ORDER = {mode: n for n, mode in enumerate(Mode)}


def _cell_order(cell: tuple[tuple[Depth, Mode], list[RowNote]]) -> tuple[int, int]:
    (depth, mode), _ = cell
    return (_MODE_ORDER[mode], depth.rank)
