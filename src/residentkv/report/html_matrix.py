"""Checked rows as one HTML file: matrix of runtime and mode, every row with all that led to it, and what changed.

Nothing is judged here: a cell shows the best of its rows as the relation judged them.
"""

from __future__ import annotations

import itertools
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from residentkv.claims.modes import Mode
from residentkv.lowering.anchors import AnchorReport, AnchorState
from residentkv.lowering.checking import CheckedRow
from residentkv.lowering.format import DocumentAnchor, GitAnchor, TraceAnchor
from residentkv.lowering.matrix import find_obstacle
from residentkv.lowering.model import Descriptor, Primitive
from residentkv.lowering.obligations import MEANING, Obligation
from residentkv.lowering.relation import Exhibit, Status, Verdict
from residentkv.report.charts import Chart
from residentkv.report.comparison import Comparison
from residentkv.report.documents import calibration, name_of
from residentkv.report.html import render_page
from residentkv.report.places import shipped_name

NOT_PROVEN: Mapping[Verdict, str] = {
    Verdict.NATIVE_SOUND: "That it holds beyond what the audited traces exercised, in another version, in another "
    "configuration, or at any speed.",
    Verdict.SOUND_WITH_ADAPTER: "That the runtime keeps the promise by itself: without the adapter named here it does "
    "not. Nor that it holds beyond what the audited traces exercised, in another version, or at any speed.",
    Verdict.APPROXIMATE: "That the promise is kept: something like it is there, and obligations have no evidence that "
    "counts. Nor that an adapter could not supply them.",
    Verdict.REJECTED: "That the primitive is bad at what it is for, or that another version or deeper help would not "
    "keep the promise. It proves that this primitive must not be counted as keeping it here.",
    Verdict.UNKNOWN: "Anything: neither that the promise is kept nor that it is broken. What was needed to judge could "
    "not be seen in this run.",
}
"""What a reader must not take from a verdict."""

_BEST_FIRST = (
    Verdict.NATIVE_SOUND,
    Verdict.SOUND_WITH_ADAPTER,
    Verdict.APPROXIMATE,
    Verdict.UNKNOWN,
    Verdict.REJECTED,
)
"""Order in which a cell shows its rows: what may be counted, what resembles it, what is open, what is refuted."""


@dataclass(frozen=True, slots=True)
class AnchorView:
    """One anchor as a reader looks it up: `place` is a file or an address, `lines` where it was found or recorded."""

    id: str
    name: str
    kind: str
    place: str
    symbol: str
    lines: str
    sha256: str
    of: str
    report: AnchorReport
    command: str
    descriptor_place: str


@dataclass(frozen=True, slots=True)
class EvidenceView:
    """One statement with the anchor that it leans on; `why_not` says why it did not count."""

    exhibit: Exhibit
    role: str
    anchor: AnchorView | None
    place: str
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class ObligationView:
    """One obligation of a row."""

    name: str
    meaning: str
    status: Status
    sentence: str
    evidence: tuple[EvidenceView, ...]


@dataclass(frozen=True, slots=True)
class RowView:
    """One row and everything that is shown when it is opened."""

    id: str
    checked: CheckedRow
    decided_by: str
    obligations: tuple[ObligationView, ...]
    related: tuple[AnchorView, ...]
    satisfied: int
    command: str
    not_proven: str

    @property
    def told(self) -> tuple[ObligationView, ...]:
        """Obligations about which there is something to tell."""
        return tuple(o for o in self.obligations if o not in self.without_evidence)

    @property
    def without_evidence(self) -> tuple[ObligationView, ...]:
        """Obligations that nobody says anything about."""
        return tuple(o for o in self.obligations if o.status is Status.MISSING and not o.evidence)

    @property
    def verdict(self) -> Verdict:
        """The verdict of this run."""
        return self.checked.verdict.verdict


@dataclass(frozen=True, slots=True)
class Cell:
    """The rows of one mode, the best first, and how many have which verdict."""

    rows: tuple[RowView, ...]
    counts: tuple[tuple[Verdict, int], ...]


@dataclass(frozen=True, slots=True)
class PrimitiveView:
    """One primitive and its rows, by mode."""

    id: str
    primitive: Primitive
    rows: tuple[RowView, ...]
    cells: tuple[tuple[RowView, ...], ...]


@dataclass(frozen=True, slots=True)
class RuntimeView:
    """One runtime at one version."""

    id: str
    name: str
    descriptor: Descriptor
    path: str
    cells: tuple[Cell, ...]
    primitives: tuple[PrimitiveView, ...]
    anchors: tuple[AnchorView, ...]
    states: tuple[tuple[AnchorState, int], ...]
    read: str


def render_matrix(
    rows: Sequence[CheckedRow],
    *,
    own: bool,
    options: Sequence[str] = (),
    comparisons: Sequence[Comparison] = (),
    charts: Sequence[Chart] = (),
    notes: Sequence[str] = (),
) -> str:
    """Return the report as one HTML file.

    Args:
        rows: what was judged.
        own: whether the descriptors are the caller's own files and not the library's, so that commands name them.
        options: options of this run that say where anchors are looked up; commands repeat them.
        comparisons: what changed, beside this judgement.
        charts: numbers to show.
        notes: more sentences for the reader.
    """
    runtimes = runtime_views(rows, own=own, options=options)
    counts = Counter(row.verdict.verdict for row in rows)
    return render_page(
        "matrix.html.j2",
        styles=("base.css", "matrix.css"),
        scripts=("matrix.js",),
        title="Who may be counted as keeping a claim",
        runtimes=runtimes,
        modes=list(Mode),
        counts=[(v, counts[v]) for v in _BEST_FIRST],
        total=len(rows),
        comparisons=comparisons,
        charts=[replace(chart, id=f"chart-{n}-{chart.id}") for n, chart in enumerate(charts)],
        notes=notes,
        caveat=calibration(rows),
        meaning=[(o, MEANING[o]) for o in Obligation],
        link=_links(runtimes),
    )


def runtime_views(rows: Sequence[CheckedRow], *, own: bool, options: Sequence[str]) -> list[RuntimeView]:
    """Arrange rows by runtime, primitive and mode."""
    out = []
    for _, group in itertools.groupby(rows, key=lambda r: r.descriptor.sha256):
        mine = list(group)
        descriptor = mine[0].descriptor
        address = (
            ["--descriptor", descriptor.path]
            if own
            else ["--runtime", descriptor.runtime, "--version", descriptor.version]
        )
        name = name_of(mine[0])
        prefix = f"{descriptor.runtime}-{descriptor.version}"
        reports = {key: report for row in mine for key, report in row.anchors.items()}
        anchors = {
            key: _anchor_view(f"anchor/{prefix}/{key}", key, reports[key], descriptor, [*address, *options])
            for key in sorted(reports)
        }
        views = [_row_view(prefix, row, anchors, address, options) for row in mine]
        states = Counter(a.report.state for a in anchors.values())
        seen = sorted({f"{r.distribution} {r.version}" for r in reports.values() if r.distribution and r.sha256})
        out.append(
            RuntimeView(
                id=f"runtime/{prefix}",
                name=name,
                descriptor=descriptor,
                path=_shown(descriptor.path, descriptor),
                cells=tuple(_cell(v for v in views if v.checked.row.mode is mode) for mode in Mode),
                primitives=tuple(_primitives(prefix, views)),
                anchors=tuple(anchors.values()),
                states=tuple((s, states[s]) for s in AnchorState if states[s]),
                read=", ".join(seen),
            )
        )
    return out


def _shown(place: str, descriptor: Descriptor) -> str:
    """Return a place in a descriptor; where this package lies is of no interest."""
    path = descriptor.path
    return f"{shipped_name(path) or path}{place.removeprefix(path)}" if place.startswith(path) else place


def _primitives(prefix: str, views: Iterable[RowView]) -> Iterable[PrimitiveView]:
    for primitive, group in itertools.groupby(views, key=lambda v: v.checked.row.primitive):
        mine = tuple(group)
        cells = tuple(tuple(v for v in mine if v.checked.row.mode is mode) for mode in Mode)
        yield PrimitiveView(f"primitive/{prefix}/{primitive.id}", primitive, mine, cells)


def _cell(views: Iterable[RowView]) -> Cell:
    rows = sorted(views, key=lambda v: (_BEST_FIRST.index(v.verdict), v.checked.row.depth.rank))
    counts = Counter(v.verdict for v in rows)
    return Cell(tuple(rows), tuple((v, counts[v]) for v in _BEST_FIRST if counts[v]))


def _row_view(
    prefix: str, checked: CheckedRow, anchors: Mapping[str, AnchorView], address: Sequence[str], options: Sequence[str]
) -> RowView:
    row, verdict = checked.row, checked.verdict
    select = ["--primitive", row.primitive.id, "--mode", row.mode, "--depth", row.depth]
    obstacle = find_obstacle(verdict)
    return RowView(
        id=f"{prefix}-{row.primitive.id}-{row.mode}-{row.depth}",
        checked=checked,
        decided_by="" if obstacle is None else f"{obstacle.name} {obstacle.status or obstacle.state}",
        obligations=tuple(
            ObligationView(
                name=o.obligation,
                meaning=MEANING[o.obligation],
                status=o.status,
                sentence=o.sentence,
                evidence=tuple(
                    EvidenceView(e, role, anchors.get(e.standing.label), _shown(e.place, checked.descriptor), why)
                    for e, role, why in (
                        *([(o.used, "satisfied by", "")] if o.used else []),
                        *((e, "contradicted by", "") for e in o.contradictions),
                        *((r.exhibit, "not counted", r.why) for r in o.refused),
                    )
                ),
            )
            for o in verdict.obligations
        ),
        related=tuple(anchors[name] for name in verdict.related if name in anchors),
        satisfied=sum(o.status is Status.SATISFIED for o in verdict.obligations),
        command=shlex.join(["residentkv", "check", *address, *select, "--explain", *options]),
        not_proven=NOT_PROVEN[verdict.verdict],
    )


def _anchor_view(
    html_id: str, name: str, report: AnchorReport, descriptor: Descriptor, arguments: Sequence[str]
) -> AnchorView:
    anchor = descriptor.anchors[name]
    symbol, lines, sha256 = "", report.lines, report.sha256
    if isinstance(anchor, DocumentAnchor):
        kind, place, of = "document", anchor.url, f"retrieved {anchor.retrieved}"
        symbol = f"“{anchor.quote}”"
    elif isinstance(anchor, TraceAnchor):
        kind, place, of = "trace", anchor.file, "beside the descriptor"
        lines = "; ".join(f"{e.source}/{e.epoch} seq {', '.join(e.seqs)}" for e in anchor.events)
    else:
        kind, place = "source", anchor.file
        symbol, lines = anchor.symbol or "", report.lines or anchor.lines or ""
        of = (
            f"{anchor.repository} at {anchor.commit[:12]}"
            if isinstance(anchor, GitAnchor)
            else f"{report.distribution or anchor.package} {report.version}".strip()
        )
    expected = anchor.sha256 if isinstance(anchor.sha256, str) else ""
    return AnchorView(
        id=html_id,
        name=name,
        kind=kind,
        place=place,
        symbol=symbol,
        lines=lines,
        sha256=expected or sha256,
        of=of,
        report=report,
        command=shlex.join(["residentkv", "anchors", "verify", name, *arguments]),
        descriptor_place=_shown(str(descriptor.anchor_places[name]), descriptor),
    )


def _links(runtimes: Sequence[RuntimeView]) -> dict[tuple[str, str | None, str, str, str], str]:
    return {
        (r.descriptor.runtime, r.descriptor.version, p.primitive.id, v.checked.row.mode, v.checked.row.depth): v.id
        for r in runtimes
        for p in r.primitives
        for v in p.rows
    }
