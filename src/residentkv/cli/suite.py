"""`residentkv suite`: every bad lowering must be refused, for its own reason, and no small lie may stay positive."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from residentkv.audit import Verdict, audit_file
from residentkv.audit.confirm import items_of
from residentkv.cli.check import check_rows
from residentkv.cli.options import UNSIGNED_FORMATS, Format, check_output, format_options, write_report
from residentkv.cli.render import render_suite_as
from residentkv.errors import EXIT_PASS, EXIT_VIOLATED, InputError, UsageError
from residentkv.files import read_input
from residentkv.lowering.checking import Selection
from residentkv.report.suites import render_case, render_cases, render_tally, suite_document
from residentkv.runtimes.reference.workloads import WORKLOADS, play_workload
from residentkv.sources.library import LIBRARY, load_library
from residentkv.sources.machine import machine_sources
from residentkv.suite.case import CASES, Case, load_cases, pick_cases
from residentkv.suite.difference import tell_difference
from residentkv.suite.mutate_row import PositiveRow, tally_row
from residentkv.suite.positives import distinct_traces, twin_rows, twin_traces
from residentkv.suite.run import run_case
from residentkv.suite.tally import Tally, tally_trace


@click.command()
@click.option("--case", "slugs", multiple=True, metavar="SLUG", help="Only this case, told in full.")
@click.option("--mutants", is_flag=True, help="Also change every positive input in every small way (half a minute).")
@click.option(
    "--trace",
    "traces",
    multiple=True,
    metavar="FILE",
    help="With --mutants: one more conforming trace, and the rows that it makes positive here.",
)
@format_options(UNSIGNED_FORMATS)
def suite(slugs: tuple[str, ...], mutants: bool, traces: tuple[str, ...], form: Format, output: str | None) -> int:
    """Run the bad lowerings: each must be refused for its own reason, and its repaired twin must pass.

    Exit code: 0 when all are, 10 when one is not or a mutant survived.
    """
    if traces and not mutants:
        raise UsageError("suite: found --trace without --mutants, expected both; without it no trace is changed")
    if slugs and mutants:
        raise UsageError("suite: found --case with --mutants, expected one of them; mutants are made from everything")
    check_output(output, traces)
    known = load_cases()
    cases = pick_cases(known, slugs)
    results = [run_case(slug, case) for slug, case in cases.items()]
    tally: Tally | None = None
    positives = ""
    if mutants:
        tally, positives = tally_all(known, [Path(t) for t in traces])
    passed = all(r.passed for r in results) and (tally is None or not tally.survivors)
    code = EXIT_PASS if passed else EXIT_VIOLATED
    if form is not Format.TEXT:
        write_report(render_suite_as(form, suite_document(results, cases, tally, code)), output)
        return code
    lines: list[str] = []
    if slugs:
        for result in results:
            case = cases[result.slug]
            lines.extend(render_case(result, case, difference_of(result.slug, case)))
    lines.extend(render_cases(results))
    if tally is not None:
        lines.extend(render_tally(tally, positives))
    write_report("\n".join(lines), output)
    return code


def difference_of(slug: str, case: Case) -> list[str]:
    """Return what separates the trace of a case from its twin; nothing when it has none or it cannot be read."""
    if case.trace is None:
        return []
    try:
        both = [dict(distinct_traces([CASES / slug / file])) for file in (case.trace.file, case.trace.twin)]
    except InputError:
        return []
    (trace,), (twin,) = both[0].values(), both[1].values()
    return list(tell_difference(trace, twin))


def tally_all(cases: dict[str, Case], traces: list[Path]) -> tuple[Tally, str]:
    """Judge the mutants of everything positive: twins of cases, the reference runtime, and the given traces.

    Rows are those of the twins, and those of the library that the traces make positive on this machine.

    Raises:
        UsageError: a given trace does not conform.
    """
    tally = Tally()
    trace_count = row_count = 0
    with tempfile.TemporaryDirectory() as folder:
        played = play_reference(Path(folder) / "reference")
        for path in traces:
            if audit_file(path).verdict is not Verdict.CONFORMING:
                raise UsageError(f"{path}: does not conform, expected a conforming trace; run 'residentkv audit'")
        for name, trace in (*twin_traces(cases), *distinct_traces([*played, *traces])):
            tally_trace(name, trace, tally)
            trace_count += 1
        for row in (*twin_rows(cases), *positive_rows([*played, *traces])):
            tally_row(row, tally)
            row_count += 1
    return tally, f"{trace_count} traces and {row_count} rows"


def play_reference(folder: Path) -> list[Path]:
    """Run every workload of the reference runtime and return the traces."""
    folder.mkdir()
    paths = []
    for workload in WORKLOADS:
        path = folder / f"{workload.name}.jsonl"
        play_workload(workload, path)
        paths.append(path)
    return paths


def positive_rows(traces: Iterable[Path]) -> Iterator[PositiveRow]:
    """Yield every row of the shipped library that these traces make positive on this machine, with what they show."""
    items = [item for path in traces for item in items_of(audit_file(path), path.name)]
    sources = machine_sources()
    for runtime in sorted({item.runtime for item in items}):
        for checked in check_rows(load_library(runtime), Selection(), sources, tuple(items), recorded=False):
            if checked.verdict.verdict.is_positive:
                descriptor, row = checked.descriptor, checked.row
                yield PositiveRow(
                    name=f"{runtime} {row.primitive.id} {row.mode} {row.depth}",
                    raw=read_input(LIBRARY / runtime / Path(descriptor.path).name),
                    path=descriptor.path,
                    selection=Selection(row.primitive.id, row.mode, row.depth),
                    sources=sources,
                    items=tuple(item for item in items if item.mode is row.mode),
                )
