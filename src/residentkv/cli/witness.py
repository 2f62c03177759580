"""`residentkv witness`: real vLLM runs, their traces audited, the verdicts in a table."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from residentkv.audit.confirm import write_evidence
from residentkv.cli.audit import exit_code_of
from residentkv.cli.options import make_folder, write_file
from residentkv.errors import EXIT_PASS, EXIT_VIOLATED, UsageError, near
from residentkv.report.audits import audit_document
from residentkv.report.console import open_console
from residentkv.report.documents import json_text
from residentkv.report.plain import escape_controls, list_lines
from residentkv.witness.driver import WitnessError, perform, plan_runs, prepare_model
from residentkv.witness.judge import RunResult, judge_run
from residentkv.witness.scenario import Scenario
from residentkv.witness.scenarios import SCENARIOS
from residentkv.witness.table import ScenarioSummary, render_markdown, summarize


@click.command()
@click.option(
    "--scenario", "names", multiple=True, metavar="NAME", help="A scenario to run; may be given several times."
)
@click.option("--all", "everything", is_flag=True, help="Run every scenario.")
@click.option("--list", "listing", is_flag=True, help="List the scenarios and end.")
@click.option("--prepare", is_flag=True, help="Prepare the model that the runs use and end.")
@click.option("--repeat", type=click.IntRange(min=1), help="Repetitions at most; default: the scenario's own.")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), default=Path("out/witness"), help="Folder for all files."
)
@click.option("--json", "as_json", is_flag=True, help="Print the aggregate as JSON.")
def witness(
    names: tuple[str, ...],
    everything: bool,
    listing: bool,
    prepare: bool,
    repeat: int | None,
    out: Path,
    as_json: bool,
) -> int:
    """Run scenarios on a real, unmodified vLLM and judge them from their traces.

    Needs an environment with vLLM ('make env-vllm'). Runs that are done are kept, so an interrupted call can be
    repeated. Exit code: 0 when every run shows what its scenario expects, 10 when one does not.

    \b
    Examples:
      residentkv witness --list
      residentkv witness --scenario success_path --repeat 1
    """
    if listing:
        for line in list_lines((s.name, s.title) for s in SCENARIOS.values()):
            click.echo(line)
        return EXIT_PASS
    if prepare:
        click.echo(prepare_model())
        return EXIT_PASS
    scenarios = list(SCENARIOS.values()) if everything else [find_scenario(n) for n in names]
    if not scenarios:
        raise UsageError("witness: found nothing to run, expected --scenario NAME or --all; --list shows the names")
    console = Console(stderr=True, markup=False, highlight=False, emoji=False)
    todo = plan_runs(scenarios, make_folder(out), repeat=repeat)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        total = sum(1 + bool(r.scenario.same or r.scenario.differ) for r in todo)
        task = bar.add_task("engine runs", total=total)
        perform(todo, out, progress=lambda line: bar.update(task, advance=1, description=line.split()[-1]))
    results = [r for s in scenarios for r in judge_scenario(s, out)]
    summaries = summarize(results)
    write_file(out / "summary.json", f"{json_text(summaries)}\n")
    write_file(out / "summary.md", render_markdown(summaries))
    if as_json:
        click.echo(json_text(summaries))
    else:
        print_summary(summaries, results)
        click.echo(escape_controls(f"files: {out}"))
    return EXIT_PASS if all(r.passed for r in results) else EXIT_VIOLATED


def find_scenario(name: str) -> Scenario:
    """Return a scenario by name.

    Raises:
        UsageError: there is none; the message names the nearest.
    """
    if name not in SCENARIOS:
        raise UsageError(
            f"unknown scenario {name[:60]!r}, expected one of {', '.join(SCENARIOS)}{near(name, SCENARIOS)}"
        )
    return SCENARIOS[name]


def judge_scenario(scenario: Scenario, out: Path) -> list[RunResult]:
    """Judge every run of a scenario that lies in `out`; write audit, verdict and evidence beside its trace.

    Raises:
        WitnessError: a folder holds another run than its own.
    """
    results = []
    for folder in sorted(p for p in (out / scenario.name).glob("[0-9]*") if p.is_dir()):
        result, report = judge_run(scenario, folder)
        own = f"{scenario.name}-{folder.name}"
        if result.run_id != own:  # A run that was copied would count twice.
            raise WitnessError(f"{folder}: found run {result.run_id!r}, expected {own!r}; remove the folder")
        write_file(folder / "result.json", f"{json_text(result)}\n")
        if report is not None:
            code = exit_code_of([report], missing=False)
            write_file(folder / "audit.json", f"{json_text(audit_document([report], code))}\n")
            write_evidence(folder / "evidence.json", [report])
        results.append(result)
    return results


def print_summary(summaries: list[ScenarioSummary], results: list[RunResult]) -> None:
    """Print the aggregate, then every expectation that was not met."""
    table = Table(title=None, box=None, pad_edge=False)
    for name in ("scenario", "runs", "as exp.", "observ.", "outcome", "audit", "refusal us"):
        left = name in ("scenario", "audit")
        table.add_column(
            name, justify="left" if left else "right", no_wrap=left, min_width=30 if name == "scenario" else None
        )
    for s in summaries:
        refusal = s.failed_transfer_to_refusal_median_us
        table.add_row(
            s.scenario,
            str(s.runs),
            str(s.passed),
            str(s.observation),
            str(s.failure_outcome),
            ", ".join(f"{n} {v}" for v, n in s.verdicts.items()),
            "-" if refusal is None else f"{refusal:.0f}",
        )
    open_console(sys.stdout).print(table)
    negative = sum(r.negative for r in results)
    click.echo(f"negative runs: {negative}, false positives: {sum(r.false_positive for r in results)}")
    for result in results:
        for check in result.checks:
            if not check.passed:
                click.echo(escape_controls(f"NOT AS EXPECTED {result.run_id}: {check.name}; found {check.found}"))
