"""`residentkv check`: judge rows of descriptors, fail-closed."""

from __future__ import annotations

import hashlib
import io
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from residentkv.claims.modes import Mode
from residentkv.cli.evidence import audit_brought_traces, named_traces, read_evidence, trace_files, unused_note
from residentkv.cli.options import (
    Format,
    check_output,
    complete_from,
    format_options,
    named_sources,
    source_files,
    source_options,
    write_report,
)
from residentkv.cli.render import render_check_as
from residentkv.errors import EXIT_PASS, EXIT_VIOLATED, NoInputError, UsageError, near
from residentkv.files import read_input
from residentkv.lowering.anchors import AnchorVerifier
from residentkv.lowering.baseline import Change, compare_rows, decode_baseline
from residentkv.lowering.checking import CheckedRow, Selection, check_row, exit_code_of, scope_of
from residentkv.lowering.depth import Depth
from residentkv.lowering.exhibits import Findings, TraceItem, row_anchors
from residentkv.lowering.matrix import build_matrix
from residentkv.lowering.model import Descriptor
from residentkv.report.anchors import anchor_lines
from residentkv.report.documents import baseline_document, baseline_notes, calibration, check_document
from residentkv.report.matrix import matrix_lines, wrap_line
from residentkv.report.shapes import BaselineDocument
from residentkv.sources.library import select_descriptors, shipped_runtimes
from residentkv.sources.machine import MachineSources


@click.command()
@click.option("--runtime", metavar="NAME", shell_complete=complete_from(shipped_runtimes), help="Only this runtime.")
@click.option("--version", metavar="VERSION", help="Only descriptors for this version.")
@click.option("--primitive", metavar="ID", help="Only this primitive.")
@click.option("--mode", metavar="MODE", shell_complete=complete_from(lambda: Mode), help="Only this mode.")
@click.option(
    "--depth", metavar="DEPTH", shell_complete=complete_from(lambda: Depth), help="Only rows judged at this depth."
)
@click.option("--all", "everything", is_flag=True, help="Every row of every descriptor.")
@click.option(
    "--descriptor", "files", multiple=True, metavar="FILE", help="A descriptor of your own, instead of the library."
)
@click.option(
    "--evidence", "evidence", multiple=True, metavar="FILE", help="Evidence of an audit; its trace is audited again."
)
@click.option("--recorded", is_flag=True, help="Also show what was recorded where anchors cannot be read here.")
@click.option("--explain", is_flag=True, help="Tell every row in sentences.")
@click.option(
    "--baseline",
    metavar="FILE",
    help="A report of --format json from earlier: exit 10 when a verdict got worse since, otherwise 0.",
)
@format_options()
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
    explain: bool,
    baseline: str | None,
    form: Format,
    output: str | None,
    documents: tuple[str, ...],
    checkouts: tuple[str, ...],
    archives: tuple[str, ...],
    site_packages: tuple[str, ...],
) -> int:
    """Judge rows: may this primitive of this runtime, with help up to this depth, be counted as keeping a mode?

    Exit code of one row and of many: 0 only when every row asked for is native_sound or sound_with_adapter; 10 when
    any is rejected; otherwise 11. What --recorded shows never changes the exit code. With --baseline only a verdict
    that got worse counts: 10 when there is one, otherwise 0, however many rows are a no as before.

    --all without other selection shows the matrix: a line for each primitive and depth, a column for each mode, and
    what decided each cell. With --explain or in another format every row is told.

    \b
    Examples:
      residentkv check --all
      residentkv check --runtime vllm
      residentkv check --runtime vllm --format json -o baseline.json
      residentkv check --runtime vllm --baseline baseline.json
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
    read = source_files(documents, archives) + named_traces(descriptors, evidence)
    check_output(output, [*files, *evidence, *filter(None, [baseline]), *read])
    rows = check_rows(descriptors, selection, sources, traces, recorded)
    if not rows:
        raise NoInputError(
            "check: no descriptor has a row that was asked for; leave out --mode, --depth or --primitive"
        )
    code = exit_code_of(row.verdict.verdict for row in rows)
    notes += unused_note(traces, rows)
    since = None
    if baseline is not None:
        since = compare_with(baseline, rows)
        code = EXIT_VIOLATED if any(Change.parse(c["change"]).is_worse for c in since["changes"]) else EXIT_PASS
        notes += baseline_notes(since)
    if form is not Format.TEXT:
        document = check_document(rows, code, notes, evidence=trace_files(evidence), baseline=since)
        write_report(render_check_as(form, document), output)
    elif everything and not explain and not any(s is not None for s in stated):
        write_matrix(rows, notes, output)
    else:
        write_check(rows, notes, output, explain=explain or len(rows) == 1)
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
        scope = scope_of(descriptor)
        reports = verifier.verify_all(needed, scope)
        audited = audit_brought_traces(descriptor, needed, reports)
        findings = Findings(anchors=reports, audited=audited, traces=traces)
        checked.extend(check_row(row, descriptor, findings, with_recorded=recorded) for row in rows)
    return checked


def write_matrix(rows: Sequence[CheckedRow], notes: Sequence[str], output: str | None) -> None:
    """Write the matrix, the anchors that need attention, and what a verdict says."""
    lines = list(matrix_lines(build_matrix(rows)))
    for _, group in itertools.groupby(rows, key=lambda r: r.descriptor.sha256):
        for told in anchor_lines(list(group)):
            lines.extend(wrap_line(told))
    for told in (*notes, calibration(rows)):
        lines.extend(wrap_line(told))
    write_report("\n".join(lines), output)


def compare_with(path: str, rows: Sequence[CheckedRow]) -> BaselineDocument:
    """Return what changed since a baseline file.

    Raises:
        NoInputError: it cannot be read.
        InputError: it is no report of `check`.
    """
    raw = read_input(Path(path))
    changes, unchanged = compare_rows(decode_baseline(raw, path), rows)
    return baseline_document(path, hashlib.sha256(raw).hexdigest(), changes, unchanged)


def write_check(rows: Sequence[CheckedRow], notes: Sequence[str], output: str | None, *, explain: bool) -> None:
    """Write the report as text to stdout, or to a file."""
    from residentkv.report.verdicts import render_check  # rich takes longer to import than a check takes

    if output is None:
        render_check(rows, sys.stdout, explain=explain, notes=notes)
        return
    buffer = io.StringIO()
    render_check(rows, buffer, explain=explain, notes=notes)
    write_report(buffer.getvalue(), output)
