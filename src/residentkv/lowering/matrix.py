"""The matrix: every judged row of a library by runtime, primitive, depth and mode, apart from how it is shown. Pure."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from residentkv.claims.modes import Mode
from residentkv.lowering.anchors import WORST_FIRST, AnchorState
from residentkv.lowering.checking import CheckedRow
from residentkv.lowering.depth import Depth
from residentkv.lowering.obligations import Obligation
from residentkv.lowering.relation import EvidenceClass, RowVerdict, Status, Verdict


@dataclass(frozen=True, slots=True)
class Obstacle:
    """What decided a verdict that is not positive: an obligation, or an anchor that was not verified.

    Args:
        name: the obligation, or the id of the anchor.
        status: what became of the obligation; None when it is an anchor.
        state: what became of the anchor, in a word; empty when it is an obligation.
    """

    name: str
    status: Status | None
    state: str = ""

    @property
    def mark(self) -> str:
        """`x` contradicted, `?` not verified, `-` missing."""
        return _MARKS.get(self.status, "?")

    def __str__(self) -> str:
        if self.status is None:
            return f"{self.mark} anchor {self.name} {self.state.replace('_', ' ')}"
        return f"{self.mark} {self.name}"


_MARKS: Mapping[Status | None, str] = {Status.CONTRADICTED: "x", Status.UNKNOWN: "?", Status.MISSING: "-"}


@dataclass(frozen=True, slots=True)
class Cell:
    """One judged row.

    Args:
        runtime, version, primitive, mode, depth: what was judged.
        title: of the primitive.
        adapters: ids of the adapters that the row may have help from.
        verdict, evidence_class: of this run.
        first_open: the first obligation of the mode's bundle that is not satisfied, with its status; None when
            every one is satisfied.
        obstacle: what decided a verdict that is not positive.
        sentence: the verdict in a sentence.
        anchors: how many of the anchors that the row leans on are in each state.
        stands_in: what stood in for something else in the runs that a positive verdict rests on.
        recorded, recorded_on: the verdict when the digests were written, and when that was, if it was asked for and
            differs in what could be read; history, never a verdict of this run.
    """

    runtime: str
    version: str
    primitive: str
    title: str
    mode: Mode
    depth: Depth
    adapters: tuple[str, ...]
    verdict: Verdict
    evidence_class: EvidenceClass
    first_open: tuple[Obligation, Status] | None
    obstacle: Obstacle | None
    sentence: str
    anchors: Mapping[AnchorState, int]
    recorded: Verdict | None = None
    recorded_on: tuple[str, ...] = ()
    stands_in: tuple[str, ...] = ()

    @property
    def anchors_state(self) -> AnchorState | None:
        """The worst state of the anchors that the row leans on; None when it leans on none."""
        return min(self.anchors, key=WORST_FIRST.index, default=None)


@dataclass(frozen=True, slots=True)
class Line:
    """One primitive at one depth: a cell for each mode that it could be taken for."""

    primitive: str
    depth: Depth
    cells: Mapping[Mode, Cell]


@dataclass(frozen=True, slots=True)
class RuntimePart:
    """The lines of one runtime at one version."""

    runtime: str
    version: str
    title: str
    lines: tuple[Line, ...]
    anchors: Mapping[AnchorState, int]

    def cells(self) -> Iterator[Cell]:
        """Yield its cells in the order of lines and modes."""
        for line in self.lines:
            yield from line.cells.values()


@dataclass(frozen=True, slots=True)
class Matrix:
    """Runtimes, in the order of the descriptors."""

    parts: tuple[RuntimePart, ...]

    def cells(self) -> Iterator[Cell]:
        """Yield every cell."""
        for part in self.parts:
            yield from part.cells()

    def verdicts(self) -> Counter[Verdict]:
        """Return how often each verdict occurs."""
        return Counter(cell.verdict for cell in self.cells())


def build_matrix(rows: Sequence[CheckedRow]) -> Matrix:
    """Arrange checked rows; rows of one descriptor have to stand together, as `check` gives them."""
    parts = []
    for _, group in itertools.groupby(rows, key=lambda r: r.descriptor.sha256):
        mine = list(group)
        descriptor = mine[0].descriptor
        lines: dict[tuple[str, Depth], dict[Mode, Cell]] = {}
        states: dict[str, AnchorState] = {}
        for checked in mine:
            cell = cell_of(checked)
            lines.setdefault((cell.primitive, cell.depth), {})[cell.mode] = cell
            states |= {name: report.state for name, report in checked.anchors.items()}
        shown = tuple(Line(primitive, depth, cells) for (primitive, depth), cells in lines.items())
        parts.append(RuntimePart(descriptor.runtime, descriptor.version, descriptor.title, shown, _count(states)))
    return Matrix(tuple(parts))


def cell_of(checked: CheckedRow) -> Cell:
    """Return one checked row as a cell."""
    row, verdict = checked.row, checked.verdict
    first = verdict.first_open
    return Cell(
        runtime=checked.descriptor.runtime,
        version=checked.descriptor.version,
        primitive=row.primitive.id,
        title=row.primitive.title,
        mode=row.mode,
        depth=row.depth,
        adapters=tuple(a.id for a in row.adapters),
        verdict=verdict.verdict,
        evidence_class=verdict.evidence_class,
        first_open=None if first is None else (first.obligation, first.status),
        obstacle=find_obstacle(verdict),
        sentence=verdict.sentence,
        anchors=_count({name: report.state for name, report in checked.anchors.items()}),
        recorded=None if checked.recorded is None else checked.recorded.verdict,
        recorded_on=checked.recorded_on,
        stands_in=verdict.stands_in if verdict.verdict.is_positive else (),
    )


def find_obstacle(verdict: RowVerdict) -> Obstacle | None:
    """Return what decided a verdict that is not positive: for a rejected row the contradicted obligation, else an
    anchor that shows where the primitive lives and was not verified, else the first unknown, else the first missing
    obligation.
    """
    if verdict.verdict is not Verdict.REJECTED:
        for problem in (*verdict.basis_problems, *verdict.related_problems):
            return Obstacle(problem.label, None, problem.state)
    wanted = (Status.CONTRADICTED,) if verdict.verdict is Verdict.REJECTED else (Status.UNKNOWN, Status.MISSING)
    for status in wanted:
        for result in verdict.obligations:
            if result.status is status:
                return Obstacle(result.obligation.value, status)
    return None


def _count(states: Mapping[str, AnchorState]) -> dict[AnchorState, int]:
    counts = Counter(states.values())
    return {state: counts[state] for state in AnchorState if counts[state]}
