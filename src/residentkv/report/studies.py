"""The generated parts of docs/studies.md: the matrix as recorded, and the published verdicts beside it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from residentkv.claims.modes import Mode
from residentkv.lowering.checking import CheckedRow
from residentkv.lowering.matrix import Cell, Matrix, RuntimePart, build_matrix
from residentkv.lowering.relation import Verdict
from residentkv.report.matrix import LETTERS
from residentkv.report.published import NO_NATIVE, PUBLISHED, explain

_BLOCK = re.compile(
    r"(?P<head><!-- generated: (?P<name>[a-z]+) -->)\n.*?(?P<tail><!-- end of generated -->)", re.DOTALL
)


def as_recorded(rows: Sequence[CheckedRow]) -> Matrix:
    """Return the matrix of rows that were judged with their record: every anchor as when its digest was written."""
    return build_matrix([r if r.recorded is None else replace(r, verdict=r.recorded, recorded=None) for r in rows])


def refresh_blocks(text: str, matrix: Matrix) -> str:
    """Return a document with its generated blocks rendered anew; everything around them is kept.

    Raises:
        KeyError: a block has a name that nothing renders, or a verdict changed and nobody has written why.
    """
    blocks = {"summary": render_summary, "matrix": render_matrix, "published": render_published}
    return _BLOCK.sub(lambda m: f"{m['head']}\n\n{blocks[m['name']](matrix)}\n{m['tail']}", text)


def render_summary(matrix: Matrix) -> str:
    """Return a line a runtime: what its rows for each mode are worth."""
    rows = []
    for part in matrix.parts:
        told = [_told([c for c in part.cells() if c.mode is mode]) for mode in Mode]
        rows.append((f"{part.runtime} {part.version}", *told))
    return _table(("runtime", *Mode), rows)


def render_matrix(matrix: Matrix) -> str:
    """Return a table a runtime: primitive and depth against modes, with the obligation that decided."""
    parts = []
    for part in matrix.parts:
        parts += [f"**{part.runtime} {part.version}**: {part.title}", "", _part(part)]
    return "\n".join(parts)


def render_published(matrix: Matrix) -> str:
    """Return the published verdicts with ours, and why they differ."""
    rows = []
    for published in PUBLISHED:
        cell, why = explain(published, matrix)
        ours = "no row" if cell is None else f"{cell.verdict} ({cell.primitive}, depth {cell.depth})"
        theirs = f"{published.verdict}: {published.figures}"
        rows.append((published.subject, published.mode.value, theirs, ours, why))
    native = [c for c in matrix.cells() if c.verdict is Verdict.NATIVE_SOUND]
    ours = ", ".join(sorted({f"{c.runtime} {c.primitive}" for c in native})) or "none of ours is either"
    rows.append(
        ("every runtime", "all", NO_NATIVE, ours, "A runtime that keeps a promise by itself has yet to be seen.")
    )
    return _table(("subject", "mode", "published", "ours, from the library alone", "why"), rows)


def _part(part: RuntimePart) -> str:
    rows = []
    for line in part.lines:
        cells = [_cell(line.cells.get(mode)) for mode in Mode]
        rows.append((f"`{line.primitive}`", line.depth.value, *cells))
    return _table(("primitive", "depth", *Mode), rows)


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return ""
    reason = cell.evidence_class.value if cell.obstacle is None else cell.obstacle.name
    return f"{LETTERS[cell.verdict]} {reason}"


def _told(cells: Sequence[Cell]) -> str:
    """Name the positive rows; count the others."""
    if not cells:
        return ""
    positive = [f"{c.verdict} ({c.primitive}, {c.depth})" for c in cells if c.verdict.is_positive]
    counts = [f"{n} {v}" for v in Verdict if not v.is_positive and (n := sum(c.verdict is v for c in cells))]
    return "; ".join([*positive, ", ".join(counts)]) if counts else "; ".join(positive)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(_escape(c) for c in line)} |\n" for line in lines)


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
