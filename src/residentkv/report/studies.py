"""The generated parts of docs/studies.md: the matrix as recorded, what traces add, and the published verdicts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from residentkv.claims.modes import Mode
from residentkv.lowering.checking import CheckedRow
from residentkv.lowering.matrix import Cell, Matrix, RuntimePart, build_matrix
from residentkv.lowering.relation import Verdict
from residentkv.report.matrix import LETTERS
from residentkv.report.published import NO_NATIVE, PUBLISHED, best_cell, explain

REFERENCE = "reference"
"""Our own runtime, which serves no model."""

_BLOCK = re.compile(
    r"(?P<head><!-- generated: (?P<name>[a-z]+) -->)\n.*?(?P<tail><!-- end of generated -->)", re.DOTALL
)


def as_recorded(rows: Sequence[CheckedRow]) -> Matrix:
    """Return the matrix of rows that were judged with their record: every anchor as when its digest was written."""
    return build_matrix([r if r.recorded is None else replace(r, verdict=r.recorded, recorded=None) for r in rows])


def refresh_blocks(text: str, matrix: Matrix, with_traces: Matrix) -> str:
    """Return a document with its generated blocks rendered anew; everything around them is kept.

    Args:
        text: the document.
        matrix: of the library alone.
        with_traces: of the library with the recorded traces of the repository as evidence.

    Raises:
        KeyError: a block has a name that nothing renders, or a verdict changed and nobody has written why.
    """
    blocks = {
        "summary": lambda: render_summary(matrix),
        "matrix": lambda: render_matrix(matrix),
        "published": lambda: render_published(matrix, with_traces),
        "traces": lambda: render_traces(matrix, with_traces),
    }
    return _BLOCK.sub(lambda m: f"{m['head']}\n\n{blocks[m['name']]()}\n{m['tail']}", text)


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


def render_traces(matrix: Matrix, with_traces: Matrix) -> str:
    """Return the rows to which the traces give another verdict than the library alone."""
    rows = []
    for before, after in zip(matrix.cells(), with_traces.cells(), strict=True):
        if before.verdict is not after.verdict:
            row = (f"{after.runtime} {after.version}", f"`{after.primitive}`", after.mode.value, after.depth.value)
            stood_in = "; ".join(after.stands_in) or "nothing"
            rows.append((*row, before.verdict.value, f"{after.verdict} ({after.evidence_class})", stood_in))
    return _table(("runtime", "primitive", "mode", "depth", "library alone", "with the traces", "stood in"), rows)


def render_published(matrix: Matrix, with_traces: Matrix) -> str:
    """Return the published verdicts with ours, and why they differ."""
    rows = []
    for published in PUBLISHED:
        cell, why = explain(published, with_traces)
        alone = best_cell(matrix, published.runtime, published.mode)
        theirs = f"{published.verdict}: {published.figures}"
        rows.append((published.subject, published.mode.value, theirs, _row_told(alone), _row_told(cell), why))
    native = [c for c in with_traces.cells() if c.verdict is Verdict.NATIVE_SOUND and c.runtime != REFERENCE]
    ours = ", ".join(sorted({f"{c.runtime} {c.primitive}" for c in native})) or "no serving runtime either"
    why = "A serving runtime that keeps a promise by itself has yet to be seen; our reference runtime is made to."
    rows.append(("every runtime", "all", NO_NATIVE, ours, ours, why))
    return _table(("subject", "mode", "published", "library alone", "with the traces", "why"), rows)


def _row_told(cell: Cell | None) -> str:
    return "no row" if cell is None else f"{cell.verdict} (`{cell.primitive}`, depth {cell.depth})"


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
