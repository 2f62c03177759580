"""`residentkv reference run`: let the reference runtime play its workloads and write their traces."""

from __future__ import annotations

import click

from residentkv.claims.modes import Mode
from residentkv.cli.options import make_folder
from residentkv.errors import EXIT_PASS, NoInputError, UsageError
from residentkv.report.plain import escape_controls
from residentkv.runtimes.reference.config import Mechanism
from residentkv.runtimes.reference.workloads import WORKLOADS, Workload, play_workload


@click.group()
def reference() -> None:
    """The reference runtime: a small deterministic engine that keeps claims."""


@reference.command("run")
@click.option("--out", required=True, metavar="DIR", help="Folder for the traces; made when it does not exist.")
@click.option("--mode", metavar="MODE", help="Only the workloads of this mode.")
@click.option("--workload", "name", metavar="NAME", help="Only this workload.")
@click.option(
    "--off", multiple=True, metavar="MECHANISM", help="Turn a mechanism off, to see which obligation is lost."
)
def reference_run(out: str, mode: str | None, name: str | None, off: tuple[str, ...]) -> int:
    """Write one trace a workload, for `residentkv audit` to judge.

    The same workload always writes the same bytes. A trace that exists is not replaced.

    \b
    Examples:
      residentkv reference run --out DIR
      residentkv audit DIR/*.jsonl --evidence-out FILE
    """
    chosen = select_workloads(mode, name)
    mechanisms = frozenset(_mechanism(word) for word in off)
    folder = make_folder(out)
    for workload in chosen:
        trace = folder / f"{workload.name}.jsonl"
        try:
            play_workload(workload, trace, off=mechanisms)
        except OSError as e:
            raise NoInputError(f"{trace}: cannot be written ({e.strerror or e}), expected a writable folder") from None
        click.echo(escape_controls(f"{workload.mode.value:<15} {trace}"))
    return EXIT_PASS


def select_workloads(mode: str | None, name: str | None) -> list[Workload]:
    """Return the workloads that were asked for.

    Raises:
        UsageError: unknown mode or workload, or none of that mode has that name.
    """
    wanted = None if mode is None else Mode.parse(mode)
    names = [w.name for w in WORKLOADS]
    if name is not None and name not in names:
        raise UsageError(f"unknown workload {name[:60]!r}, expected one of {', '.join(names)}")
    chosen = [w for w in WORKLOADS if wanted in (None, w.mode) and name in (None, w.name)]
    if not chosen:
        raise UsageError(f"workload {name} is not of mode {mode}; leave one of the two out")
    return chosen


def _mechanism(word: str) -> Mechanism:
    for member in Mechanism:
        if member.value == word:
            return member
    raise UsageError(f"unknown mechanism {word[:60]!r}, expected one of {', '.join(m.value for m in Mechanism)}")
