"""`residentkv report`: what was judged, as one HTML file that loads nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from residentkv.audit.api import audit_events
from residentkv.claims.modes import Mode
from residentkv.cli.audit import exit_code_of as exit_code_of_audits
from residentkv.cli.check import check_primitive, check_rows
from residentkv.cli.evidence import named_traces, read_evidence, unused_note
from residentkv.cli.options import check_output, named_sources, source_files, source_options, write_report
from residentkv.errors import InputError, NoInputError, UsageError
from residentkv.files import read_input
from residentkv.lowering.checking import Selection, exit_code_of
from residentkv.lowering.depth import Depth
from residentkv.report.comparison import compare_versions, compare_with
from residentkv.report.html_matrix import render_matrix
from residentkv.report.html_timeline import render_timeline
from residentkv.report.numbers import charts_of
from residentkv.report.plain import escape_controls
from residentkv.sources.library import select_descriptors
from residentkv.trace.events import AnyEvent
from residentkv.trace.reader import TraceDigest, read_any
from residentkv.trace.segments import parts_of

MAX_EVENTS = 300_000
"""Events of one page; a browser that has to hold many more is no pleasure."""


@click.group()
def report() -> None:
    """Reports for people: one HTML file each, with everything in it, that loads nothing and sends nothing."""


@report.command(short_help="Runtimes by mode, every row with its evidence, and what changed.")
@click.option("-o", "--output", metavar="FILE", required=True, help="The HTML file to write.")
@click.option("--runtime", metavar="NAME", help="Only this runtime.")
@click.option("--version", metavar="VERSION", help="Only descriptors for this version.")
@click.option("--primitive", metavar="ID", help="Only this primitive.")
@click.option("--mode", metavar="MODE", help="Only this mode.")
@click.option("--depth", metavar="DEPTH", help="Only rows judged at this depth.")
@click.option(
    "--descriptor", "files", multiple=True, metavar="FILE", help="A descriptor of your own, instead of the library."
)
@click.option(
    "--evidence", "evidence", multiple=True, metavar="FILE", help="Evidence of an audit; its trace is audited again."
)
@click.option("--recorded", is_flag=True, help="Also show what was recorded where anchors cannot be read here.")
@click.option(
    "--baseline", metavar="FILE", help="A residentkv.check/1 report written earlier; the page says what changed."
)
@click.option("--numbers", multiple=True, metavar="FILE", help="Numbers to draw: BENCHMARKS.md, or `litmus --json`.")
@source_options
def matrix(
    output: str,
    runtime: str | None,
    version: str | None,
    primitive: str | None,
    mode: str | None,
    depth: str | None,
    files: tuple[str, ...],
    evidence: tuple[str, ...],
    recorded: bool,
    baseline: str | None,
    numbers: tuple[str, ...],
    documents: tuple[str, ...],
    checkouts: tuple[str, ...],
    archives: tuple[str, ...],
    site_packages: tuple[str, ...],
) -> int:
    """Judge rows as `check` does and write them as one HTML file; without a selection, all of the library.

    Versions of one runtime are compared with each other; --baseline compares with an earlier run.

    Exit code: that of `check` for the same rows, 0 only when every row is native_sound or sound_with_adapter, 10 when
    any is rejected, otherwise 11. A comparison does not change it.

    \b
    Examples:
      residentkv report matrix -o report.html
      residentkv report matrix --runtime vllm --evidence evidence.json -o report.html
    """
    selection = Selection(
        primitive, None if mode is None else Mode.parse(mode), None if depth is None else Depth.parse(depth)
    )
    descriptors = select_descriptors(runtime, version, files)
    check_primitive(primitive, descriptors)
    past = None if baseline is None else read_input(Path(baseline))
    traces, notes = read_evidence(evidence)
    read = source_files(documents, archives) + named_traces(descriptors, evidence)
    check_output(output, [*files, *evidence, *numbers, *filter(None, [baseline]), *read])
    sources = named_sources(documents, checkouts, archives, site_packages)
    rows = check_rows(descriptors, selection, sources, traces, recorded)
    if not rows:
        raise NoInputError(
            "report: no descriptor has a row that was asked for; leave out --mode, --depth or --primitive"
        )
    comparisons = compare_versions(rows)
    if past is not None and baseline is not None:
        comparisons = [compare_with(past, baseline, rows), *comparisons]
    page = render_matrix(
        rows,
        own=bool(files),
        options=_repeated(
            ("--evidence", evidence),
            ("--document", documents),
            ("--checkout", checkouts),
            ("--archive", archives),
            ("--site-packages", site_packages),
        ),
        comparisons=comparisons,
        charts=[chart for name in numbers for chart in charts_of(read_input(Path(name)), name)],
        notes=[*notes, *unused_note(traces, rows)],
    )
    write_report(page, output)
    click.echo(f"{escape_controls(output)}: {len(rows)} rows of {len(descriptors)} descriptors")
    return exit_code_of(row.verdict.verdict for row in rows)


@report.command(short_help="A trace as lanes, with the story of every finding.")
@click.argument("trace", metavar="TRACE")
@click.option("-o", "--output", metavar="FILE", required=True, help="The HTML file to write.")
def timeline(trace: str, output: str) -> int:
    """Audit a trace and write it as one HTML file: lanes a claim and a request, findings at their events.

    The address of the page takes `#event-N`, an event by its position in the file from 0.

    Exit code: that of `audit` for the same trace.

    \b
    Example:
      residentkv report timeline trace.jsonl -o timeline.html
    """
    check_output(output, parts_of(trace))
    digest = TraceDigest()
    chunks: list[list[AnyEvent]] = []
    problem: InputError | None = None
    count = 0
    try:
        for chunk in read_any(trace, digest=digest):
            chunks.append(chunk)
            count += len(chunk)
            if count > MAX_EVENTS:
                raise UsageError(
                    f"{trace}: found more than {MAX_EVENTS:,} events, expected at most that many on one page; "
                    "`residentkv audit` judges traces of any length"
                )
    except InputError as e:
        problem = e

    def again() -> Iterator[list[AnyEvent]]:
        yield from chunks
        if problem is not None:
            raise problem

    found = audit_events(again(), path=trace, sha256=digest.sha256 or "")
    write_report(render_timeline(chunks, found), output)
    click.echo(f"{escape_controls(output)}: {found.events} events, {found.verdict.value}")
    return exit_code_of_audits([found])


def _repeated(*options: tuple[str, tuple[str, ...]]) -> list[str]:
    return [word for name, values in options for value in values for word in (name, value)]
