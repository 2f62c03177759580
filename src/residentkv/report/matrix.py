"""The matrix as plain text, 80 columns wide at most: a grid of letters, and what stands in the way of each cell."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping

from residentkv.claims.modes import Mode
from residentkv.lowering.anchors import AnchorState
from residentkv.lowering.matrix import Cell, Line, Matrix, RuntimePart
from residentkv.lowering.relation import Verdict
from residentkv.report.anchors import anchors_sentence
from residentkv.report.plain import escape_controls

COLUMNS = 80
LETTERS: Mapping[Verdict, str] = {
    Verdict.NATIVE_SOUND: "N",
    Verdict.SOUND_WITH_ADAPTER: "S",
    Verdict.APPROXIMATE: "A",
    Verdict.REJECTED: "R",
    Verdict.UNKNOWN: "?",
}
SHORT: Mapping[Mode, str] = {
    Mode.BEST_EFFORT: "best",
    Mode.SOFT_PRIORITY: "soft",
    Mode.EXPIRING: "expi",
    Mode.DEMOTABLE: "demo",
    Mode.OFFLOADABLE: "offl",
    Mode.HARD_PROTECTED: "hard",
    Mode.ROUTED_REUSE: "rout",
}
NO_ROW = "."
_NAME_COLUMNS = 33
_DEPTH_COLUMNS = 8
_CELL_COLUMNS = 5

_LEGEND = (
    "Columns: best_effort, soft_priority, expiring, demotable, offloadable, hard_protected, routed_reuse.",
    "N native_sound (native_conformance), S sound_with_adapter (class below), A approximate (approximation_substrate), "
    "R rejected (rejected_mapping), ? unknown (unknown_evidence), . nothing that is taken for it.",
    "Below each grid: the first obligation that decides, x contradicted, ? not verified, - missing.",
)


def matrix_lines(matrix: Matrix) -> Iterator[str]:
    """Yield the matrix as lines of text."""
    for part in matrix.parts:
        yield from _part_lines(part)
        yield ""
    for sentence in _LEGEND:
        yield from wrap_line(sentence)
    counts = matrix.verdicts()
    yield from wrap_line(f"{sum(counts.values())} rows: {', '.join(f'{counts[v]} {v}' for v in Verdict if counts[v])}.")
    if any(cell.recorded is not None for cell in matrix.cells()):
        yield from wrap_line("[R] and the like: recorded with the digests, not verified in this run.")


def _part_lines(part: RuntimePart) -> Iterator[str]:
    yield from wrap_line(f"{part.runtime} {part.version}: {part.title} ({anchors_sentence(part.anchors)})")
    head = "".join(SHORT[mode].ljust(_CELL_COLUMNS) for mode in Mode)
    yield f"{'':<{_NAME_COLUMNS}}{'depth':<{_DEPTH_COLUMNS}}{head}".rstrip()
    for line in part.lines:
        yield from _grid_line(line)
    yield from _obstacle_lines(part)


def _grid_line(line: Line) -> Iterator[str]:
    name = escape_controls(line.primitive)
    cells = "".join(_letter(line.cells.get(mode)).ljust(_CELL_COLUMNS) for mode in Mode)
    rest = f"{line.depth:<{_DEPTH_COLUMNS}}{cells}".rstrip()
    if len(name) >= _NAME_COLUMNS:
        yield from wrap_line(name)
        name = ""
    yield f"{name:<{_NAME_COLUMNS}}{rest}"


def _letter(cell: Cell | None) -> str:
    if cell is None:
        return NO_ROW
    past = f"[{LETTERS[cell.recorded]}]" if cell.recorded is not None else ""
    return LETTERS[cell.verdict] + past


def _obstacle_lines(part: RuntimePart) -> Iterator[str]:
    """Yield, for each thing that decided, the cells that it decided; and the class of each positive cell."""
    groups: dict[str, list[Cell]] = {}
    for cell in part.cells():
        if cell.obstacle is None:
            stood_in = f" (stood in: {', '.join(cell.stands_in)})" if cell.stands_in else ""
            key = f"{LETTERS[cell.verdict]} {cell.evidence_class}{stood_in}"
        elif cell.obstacle.status is None and cell.obstacle.state in _NOT_HERE:
            key = f"? anchors {cell.obstacle.state.replace('_', ' ')}"
        else:
            key = str(cell.obstacle)
        groups.setdefault(key, []).append(cell)
    total = sum(map(len, groups.values()))
    for key, cells in groups.items():
        if len(cells) == total and key.startswith("? anchors "):
            yield from wrap_line(f"  {key}: all {total} rows")
            continue
        several = {line.primitive for line in part.lines if sum(o.primitive == line.primitive for o in part.lines) > 1}
        named: dict[str, list[str]] = {}
        for cell in cells:
            at = f" at {cell.depth}" if cell.primitive in several else ""
            named.setdefault(f"{cell.primitive}{at}", []).append(SHORT[cell.mode])
        told = ", ".join(f"{primitive} ({' '.join(modes)})" for primitive, modes in named.items())
        yield from wrap_line(f"  {key}: {told}")


_NOT_HERE = (AnchorState.UNREADABLE, AnchorState.OUT_OF_VERSION_RANGE)


def wrap_line(line: str) -> Iterator[str]:
    """Yield a sentence as lines that fit, what belongs to it further in."""
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    yield from textwrap.wrap(escape_controls(line), COLUMNS, subsequent_indent=indent, break_on_hyphens=False)
