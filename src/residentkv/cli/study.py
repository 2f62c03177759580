"""`residentkv study`: put questions to a real runtime, audit what it did, and say what was told and what was silent."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table

from residentkv.audit.api import audit_file
from residentkv.audit.confirm import write_evidence
from residentkv.audit.model import AuditReport
from residentkv.cli.options import make_folder, write_file
from residentkv.errors import EXIT_PASS, EXIT_VIOLATED
from residentkv.report.console import open_console
from residentkv.report.documents import json_text
from residentkv.report.plain import escape_cell, escape_controls, list_lines
from residentkv.runtimes.study import CaseRun, Check, Loss, choose_cases, find_study


class StudyResult(msgspec.Struct, frozen=True, kw_only=True):
    """One case after its traces were audited: its own checks, and one a trace."""

    run: CaseRun
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether all that the case expects was found; a case without any check shows nothing and does not pass."""
        return bool(self.checks) and all(c.passed for c in self.checks)

    @property
    def losses(self) -> tuple[Loss, ...]:
        """The losses that were made to happen: none when something that the case expects was not found."""
        return self.run.losses if self.passed else ()


@click.command()
@click.argument("runtime")
@click.option("--case", "names", multiple=True, metavar="NAME", help="A case to run; may be given several times.")
@click.option("--list", "listing", is_flag=True, help="List the cases and end.")
@click.option("--reduced", is_flag=True, help="Fewer repetitions of the same questions.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for traces, evidence and tables.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def study(runtime: str, names: tuple[str, ...], listing: bool, reduced: bool, out: Path | None, as_json: bool) -> int:
    """Run cases on a real RUNTIME, audit their traces, and write the evidence that check takes.

    Needs the environment of the runtime ('make envs'). Writes traces, evidence.json, results.json and losses.md to the
    folder. Exit code: 0 when every case shows what it expects, 10 when one does not.

    \b
    Examples:
      residentkv study RUNTIME --list
      residentkv study RUNTIME --reduced --out DIR
    """
    found = find_study(runtime)
    if listing:
        for line in list_lines((case.name, case.title) for case in found.cases):
            click.echo(line)
        return EXIT_PASS
    folder = make_folder(out if out is not None else Path("out") / "study" / runtime)
    console = Console(stderr=True, markup=False, highlight=False, emoji=False)
    runs = found.run(
        choose_cases(found, names), folder, reduced=reduced, progress=lambda line: console.print(line, style="dim")
    )
    results, reports = judge_runs(runs, folder)
    write_evidence(folder / "evidence.json", reports)
    text = json_text(results)
    write_file(folder / "results.json", f"{text}\n")
    write_file(folder / "losses.md", render_losses(results))
    if as_json:
        click.echo(text)
    else:
        print_results(results)
        click.echo(escape_controls(f"files: {folder}"))
    return EXIT_PASS if results and all(r.passed for r in results) else EXIT_VIOLATED


def judge_runs(runs: Sequence[CaseRun], folder: Path) -> tuple[list[StudyResult], list[AuditReport]]:
    """Audit the traces of the cases and turn each expected verdict into a check."""
    results, reports = [], []
    for run in runs:
        checks = list(run.checks)
        for trace in run.traces:
            report = audit_file(folder / trace.path)
            reports.append(report)
            found = [f"{f.code} {f.slug}: {' '.join(f.story)}" for f in report.all_findings()]
            checks.append(
                Check(
                    name=f"the audit of {trace.path} says {trace.verdict}",
                    passed=report.verdict.value == trace.verdict,
                    found="; ".join([report.verdict.value, *found[:3]]),
                )
            )
        results.append(StudyResult(run=run, checks=tuple(checks)))
    return results, reports


def render_losses(results: Sequence[StudyResult]) -> str:
    """Return the losses that were made to happen as a Markdown table: who told them, and who noticed."""
    lines = ["| loss | the runtime | noticed by | how |", "|---|---|---|---|"]
    for result in results:
        for loss in result.losses:
            cells = map(escape_cell, (loss.name, loss.told, loss.caught, loss.by))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def print_results(results: Sequence[StudyResult]) -> None:
    """Print one line a case and a loss, then every expectation that was not met."""
    table = Table(box=None, pad_edge=False)
    for name in ("case", "checks", "traces", "losses made", "told"):
        table.add_column(name, justify="left" if name == "case" else "right")
    for r in results:
        told = sum(loss.told == "told" for loss in r.losses)
        good = sum(c.passed for c in r.checks)
        table.add_row(r.run.case, f"{good}/{len(r.checks)}", str(len(r.run.traces)), str(len(r.losses)), str(told))
    open_console(sys.stdout).print(table)
    for r in results:
        for loss in r.losses:
            click.echo(escape_controls(f"{loss.told:7} {loss.name}; noticed by {loss.caught}: {loss.by}"))
    for r in results:
        for check in r.checks:
            if not check.passed:
                click.echo(escape_controls(f"NOT AS EXPECTED {r.run.case}: {check.name}; found {check.found}"))
        for loss in () if r.passed else r.run.losses:
            click.echo(escape_controls(f"NOT SHOWN {r.run.case}: {loss.name}"))
        if not r.checks:
            click.echo(f"NOT AS EXPECTED {r.run.case}: nothing was checked")
