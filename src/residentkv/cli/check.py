"""`residentkv check`: judge rows of descriptors, fail-closed."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence

import click

from residentkv.claims.modes import Mode
from residentkv.cli.evidence import audit_brought_traces, read_evidence, unused_note
from residentkv.cli.options import named_sources, source_options
from residentkv.errors import NoInputError, UsageError, near
from residentkv.lowering.anchors import AnchorVerifier, Scope
from residentkv.lowering.checking import CheckedRow, Selection, check_row, exit_code_of
from residentkv.lowering.depth import Depth
from residentkv.lowering.exhibits import Findings, TraceItem, row_anchors
from residentkv.lowering.matrix import build_matrix
from residentkv.lowering.model import Descriptor
from residentkv.report.anchors import anchor_lines
from residentkv.report.documents import calibration, check_document, json_text
from residentkv.report.matrix import matrix_lines, wrap_line
from residentkv.sources.library import select_descriptors
from residentkv.sources.machine import MachineSources


@click.command()
@click.option("--runtime", metavar="NAME", help="Only this runtime.")
@click.option("--version", metavar="VERSION", help="Only descriptors for this version.")
@click.option("--primitive", metavar="ID", help="Only this primitive.")
@click.option("--mode", metavar="MODE", help="Only this mode.")
@click.option("--depth", metavar="DEPTH", help="Only rows judged at this depth.")
@click.option("--all", "everything", is_flag=True, help="Every row of every descriptor.")
@click.option(
    "--descriptor", "files", multiple=True, metavar="FILE", help="A descriptor of your own, instead of the library."
)
@click.option(
    "--evidence", "evidence", multiple=True, metavar="FILE", help="Evidence of an audit; its trace is audited again."
)
@click.option("--recorded", is_flag=True, help="Also show what was recorded where anchors cannot be read here.")
@click.option("--json", "as_json", is_flag=True, help="Write residentkv.check/1 instead of a table.")
@click.option("--explain", is_flag=True, help="Tell every row in sentences.")
@source_options
def check(
    runtime: str | None,
    version: str | None,
    primitive: str | None,
    mode: str | None,
    depth: str | None,
    everything: bool,
    files: tuple[str, ...],
    evidence: tuple[str, ...],
    recorded: bool,
    as_json: bool,
    explain: bool,
    documents: tuple[str, ...],
    checkouts: tuple[str, ...],
    archives: tuple[str, ...],
    site_packages: tuple[str, ...],
) -> int:
    """Judge rows: may this primitive of this runtime, with help up to this depth, be counted as keeping a mode?

    Exit code of one row and of many: 0 only when every row asked for is native_sound or sound_with_adapter; 10 when
    any is rejected; otherwise 11. What --recorded shows never changes the exit code.

    --all without other selection shows the matrix: a line for each primitive and depth, a column for each mode, and
    what decided each cell. With --explain or --json every row is told.

    \b
    Examples:
      residentkv check --all
      residentkv check --runtime vllm
      residentkv check --runtime vllm --mode offloadable --depth plugin --explain --evidence evidence.json
    """
    selection = Selection(
        primitive, None if mode is None else Mode.parse(mode), None if depth is None else Depth.parse(depth)
    )
    stated = [runtime, version, primitive, mode, depth]
    if not everything and not files and not any(s is not None for s in stated):
        raise UsageError("check: found no selection, expected --all or some of --runtime, --mode, --primitive, --depth")
    descriptors = select_descriptors(runtime, version, files)
    check_primitive(primitive, descriptors)
    sources = named_sources(documents, checkouts, archives, site_packages)
    traces, notes = read_evidence(evidence)
    rows = check_rows(descriptors, selection, sources, traces, recorded)
    if not rows:
        raise NoInputError(
            "check: no descriptor has a row that was asked for; leave out --mode, --depth or --primitive"
        )
    code = exit_code_of(row.verdict.verdict for row in rows)
    notes += unused_note(traces, rows)
    if everything and not as_json and not explain and not any(s is not None for s in stated):
        write_matrix(rows, notes)
    else:
        write_check(rows, code, notes, as_json=as_json, explain=explain or len(rows) == 1)
    return code


def check_primitive(primitive: str | None, descriptors: Sequence[Descriptor]) -> None:
    """Check that a primitive is known.

    Raises:
        UsageError: no descriptor has it; the message names the nearest.
    """
    known = sorted({p.id for d in descriptors for p in d.primitives})
    if primitive is not None and primitive not in known:
        raise UsageError(
            f"unknown primitive {primitive[:60]!r}, expected one of {', '.join(known)}{near(primitive, known)}"
        )


def check_rows(
    descriptors: Sequence[Descriptor],
    selection: Selection,
    sources: MachineSources,
    traces: tuple[TraceItem, ...],
    recorded: bool,
) -> list[CheckedRow]:
    """Judge the selected rows; only the anchors that they lean on are read."""
    verifier = AnchorVerifier(sources)
    checked: list[CheckedRow] = []
    for descriptor in descriptors:
        rows = list(selection.rows(descriptor))
        needed = {name: descriptor.anchors[name] for row in rows for name in row_anchors(row)}
        scope = Scope(descriptor.path, descriptor.package, descriptor.distributions, descriptor.versions)
        reports = verifier.verify_all(needed, scope)
        audited = audit_brought_traces(descriptor, needed, reports)
        findings = Findings(anchors=reports, audited=audited, traces=traces)
        checked.extend(check_row(row, descriptor, findings, with_recorded=recorded) for row in rows)
    return checked


def write_matrix(rows: Sequence[CheckedRow], notes: Sequence[str]) -> None:
    """Write the matrix, the anchors that need attention, and what a verdict says to stdout."""
    for line in matrix_lines(build_matrix(rows)):
        click.echo(line)
    for _, group in itertools.groupby(rows, key=lambda r: r.descriptor.sha256):
        for told in anchor_lines(list(group)):
            click.echo("\n".join(wrap_line(told)))
    for told in (*notes, calibration(rows)):
        click.echo("\n".join(wrap_line(told)))


def write_check(rows: Sequence[CheckedRow], code: int, notes: Sequence[str], *, as_json: bool, explain: bool) -> None:
    """Write the report to stdout."""
    if as_json:
        click.echo(json_text(check_document(rows, code, notes)))
    else:
        from residentkv.report.verdicts import render_check  # rich takes longer to import than a check takes

        render_check(rows, sys.stdout, explain=explain, notes=notes)
