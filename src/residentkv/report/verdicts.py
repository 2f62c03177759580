"""Checked rows for people: a table, and each row in sentences."""

from __future__ import annotations

import io
import itertools
import textwrap
from collections.abc import Iterator, Sequence
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from residentkv.lowering.checking import CheckedRow
from residentkv.lowering.matrix import find_obstacle
from residentkv.lowering.relation import Exhibit, Verdict
from residentkv.report.anchors import anchor_lines
from residentkv.report.console import open_console
from residentkv.report.documents import calibration, name_of
from residentkv.report.plain import escape_controls

LEGEND = "x contradicted, ? not verified, - missing"
_STYLES = {
    Verdict.NATIVE_SOUND: "bold green",
    Verdict.SOUND_WITH_ADAPTER: "green",
    Verdict.APPROXIMATE: "yellow",
    Verdict.UNKNOWN: "yellow",
    Verdict.REJECTED: "red",
}


def render_check(rows: Sequence[CheckedRow], out: TextIO, *, explain: bool, notes: Sequence[str] = ()) -> None:
    """Write the rows as one table a descriptor, anchors that need attention, notes, and what a verdict says.

    Args:
        rows: what to show.
        out: where to; plain text 80 columns wide unless it is a terminal.
        explain: also tell every row in sentences.
        notes: more sentences for the reader.
    """
    if out.isatty():
        _print_check(open_console(out), rows, explain, notes)
        return
    buffer = io.StringIO()
    _print_check(open_console(buffer), rows, explain, notes)
    out.writelines(f"{line.rstrip()}\n" for line in buffer.getvalue().splitlines())


def _print_check(console: Console, rows: Sequence[CheckedRow], explain: bool, notes: Sequence[str]) -> None:
    for _, group in itertools.groupby(rows, key=lambda r: r.descriptor.sha256):
        part = list(group)
        console.print(Text(f"{name_of(part[0])}: {escape_controls(part[0].descriptor.title)}", style="bold"))
        _print_table(console, part)
        for line in _stood_in_lines(part):
            _print_line(console, line)
        if explain:
            for row in part:
                for line in explain_row(row):
                    _print_line(console, line)
                console.print()
        for line in anchor_lines(part):
            _print_line(console, line)
    if len(rows) > 1:
        console.print(Text(LEGEND, style="dim"))
    for note in notes:
        _print_line(console, note)
    _print_line(console, calibration(rows))


def explain_row(checked: CheckedRow) -> Iterator[str]:
    """Yield the lines that tell how a row came to its verdict."""
    row, verdict = checked.row, checked.verdict
    yield (
        f"{name_of(checked)}: {row.primitive.id} as {row.mode} at depth {row.depth}: "
        f"{verdict.verdict} ({verdict.evidence_class})"
    )
    yield f"  {verdict.sentence}."
    for note in row.notes:
        if note.why:
            yield f"  {note.why}"
    for problem in verdict.basis_problems:
        yield f"  not seen here: {problem.sentence}"
    for problem in verdict.related_problems:
        yield f"  changed: {problem.sentence}"
    for result in verdict.obligations:
        yield f"  {result.status:<12} {result.obligation}: {result.sentence}"
        for other in result.refused:
            if other.why != result.sentence:
                yield f"               not counted, {_source(other.exhibit)}: {other.why}"
    if verdict.related:
        yield f"  resembles the promise: {', '.join(verdict.related)}"
    if checked.recorded is not None:
        yield (
            f"  RECORDED, not verified in this run: {checked.recorded.verdict} ({checked.recorded.evidence_class}), "
            f"from digests of {'; '.join(checked.recorded_on)}"
        )


def _print_line(console: Console, line: str) -> None:
    """Print one line of prose, wrapped so that what belongs to it stands further in."""
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    wrapped = textwrap.wrap(
        escape_controls(line), width=console.width, subsequent_indent=indent, break_on_hyphens=False
    )
    console.print(Text("\n".join(wrapped)), soft_wrap=True)


def _print_table(console: Console, rows: Sequence[CheckedRow]) -> None:
    console.print(Text(f"   {'mode':<14}  {'depth':<7}  {'verdict':<18}  decided by", style="dim"))
    for primitive, group in itertools.groupby(rows, key=lambda r: r.row.primitive.id):
        console.print(Text(escape_controls(primitive)))
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        for width in (1, 14, 7, 18):
            table.add_column(min_width=width, no_wrap=True)
        table.add_column(overflow="fold")
        for checked in group:
            verdict = checked.verdict.verdict
            word = Text(verdict, style=_STYLES[verdict])
            table.add_row("", Text(checked.row.mode), Text(checked.row.depth), word, Text(_decided_by(checked)))
            if checked.recorded is not None:
                table.add_row("", "", "", Text(f"[{checked.recorded.verdict}]"), Text("recorded, not verified"))
        console.print(table)


def _decided_by(checked: CheckedRow) -> str:
    """Return the anchor or obligation that decided, marked as the legend says."""
    obstacle = find_obstacle(checked.verdict)
    return "" if obstacle is None else escape_controls(str(obstacle))


def _stood_in_lines(rows: Sequence[CheckedRow]) -> Iterator[str]:
    """Yield what stood in for something else in the runs that positive rows rest on, with those rows."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for checked in rows:
        if checked.verdict.verdict.is_positive and checked.verdict.stands_in:
            name = f"{checked.row.primitive.id} as {checked.row.mode} at {checked.row.depth}"
            groups.setdefault(checked.verdict.stands_in, []).append(name)
    for parts, names in groups.items():
        yield f"stood in: {', '.join(parts)}; in the runs behind {', '.join(names)}"


def _source(exhibit: Exhibit) -> str:
    return f"{exhibit.polarity} by {exhibit.source} ({exhibit.kind} {exhibit.standing.label})"
