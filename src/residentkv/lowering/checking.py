"""From a descriptor and what was read in this run to judged rows, and from judged rows to one exit code. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from residentkv.claims.modes import Mode
from residentkv.errors import EXIT_NO_INPUT, EXIT_PASS, EXIT_UNKNOWN, EXIT_VIOLATED
from residentkv.lowering.anchors import AnchorReport, AnchorState, Scope
from residentkv.lowering.depth import Depth
from residentkv.lowering.exhibits import Findings, row_anchors, row_basis, row_exhibits, row_related
from residentkv.lowering.format import Anchor, DocumentAnchor, TraceAnchor
from residentkv.lowering.model import Descriptor, Row
from residentkv.lowering.relation import RowVerdict, Verdict, judge_row


def scope_of(descriptor: Descriptor) -> Scope:
    """Return what the anchors of a descriptor share."""
    return Scope(descriptor.path, descriptor.package, descriptor.distributions, descriptor.versions)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows are asked for; None asks for all."""

    primitive: str | None = None
    mode: Mode | None = None
    depth: Depth | None = None

    def rows(self, descriptor: Descriptor) -> Iterator[Row]:
        """Yield the rows of a descriptor that are asked for."""
        for row in descriptor.rows():
            if self.primitive is not None and row.primitive.id != self.primitive:
                continue
            if self.mode is not None and row.mode is not self.mode:
                continue
            if self.depth is not None and row.depth is not self.depth:
                continue
            yield row


@dataclass(frozen=True, slots=True)
class CheckedRow:
    """A row with its verdict in this run.

    `recorded`, when it was asked for and differs, is what the verdict was when the digests were written, on
    `recorded_on` (dates and versions). It is history: it never changes the exit code.
    """

    descriptor: Descriptor
    row: Row
    verdict: RowVerdict
    anchors: Mapping[str, AnchorReport]
    recorded: RowVerdict | None = None
    recorded_on: tuple[str, ...] = ()


def check_row(row: Row, descriptor: Descriptor, findings: Findings, *, with_recorded: bool = False) -> CheckedRow:
    """Judge one row; with `with_recorded` also as it was when anchors that cannot be reached here were written."""
    mine = {name: findings.anchors[name] for name in row_anchors(row) if name in findings.anchors}
    checked = CheckedRow(descriptor, row, _judge(row, descriptor, findings), mine)
    if not with_recorded:
        return checked
    recalled: dict[str, AnchorReport] = {}
    dates: set[str] = set()
    for name, report in mine.items():
        when = _recorded_on(descriptor.anchors[name])
        if report.state.is_unreached and when:
            sentence = f"not read in this run; recorded {when}"
            recalled[name] = replace(report, state=AnchorState.VERIFIED, sentence=sentence)
            dates.add(when)
    if not recalled:
        return checked
    past = replace(findings, anchors={**findings.anchors, **recalled})
    return replace(checked, recorded=_judge(row, descriptor, past), recorded_on=tuple(sorted(dates)))


def exit_code_of(verdicts: Iterable[Verdict]) -> int:
    """Return the exit code of the rows that were asked for, one or many.

    0 only when there is at least one row and every row is positive; 10 when any is rejected; else 11. So a listing
    that holds a mapping that is known to be bad exits 10: it was asked for, and it is not a promise.
    """
    found = list(verdicts)
    if not found:
        return EXIT_NO_INPUT
    if Verdict.REJECTED in found:
        return EXIT_VIOLATED
    return EXIT_PASS if all(v.is_positive for v in found) else EXIT_UNKNOWN


def _judge(row: Row, descriptor: Descriptor, findings: Findings) -> RowVerdict:
    return judge_row(
        row.mode,
        row.depth,
        row_exhibits(row, descriptor, findings),
        basis=row_basis(row, findings),
        related=row_related(row, findings),
    )


def _recorded_on(anchor: Anchor) -> str:
    if isinstance(anchor, DocumentAnchor):
        return anchor.retrieved
    if isinstance(anchor, TraceAnchor) or anchor.recorded is None:
        return ""
    recorded = anchor.recorded
    version = f" with {recorded.distribution} {recorded.version}" if recorded.distribution and recorded.version else ""
    return f"{recorded.date}{version}"
