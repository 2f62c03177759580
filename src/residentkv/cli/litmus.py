"""`residentkv litmus`: measure the capacity and materialization cells on a runtime, beside what has to come out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
import msgspec

from residentkv.cli.options import make_folder
from residentkv.errors import EXIT_PASS, EXIT_VIOLATED, UsageError
from residentkv.report.documents import json_text
from residentkv.runtimes.litmus import (
    ACTIVE_BLOCKS,
    EXPECTED,
    PRESSURE,
    RESIDENT_BLOCKS,
    USABLE_BLOCKS,
    CapacityCell,
    Litmus,
    LitmusPolicy,
    LitmusRuntime,
    differences,
    run_litmus,
)

JSON_SCHEMA = "residentkv.litmus/1"


def _reference(out: Path | None) -> LitmusRuntime:
    from residentkv.runtimes.reference.litmus import ReferenceLitmus

    if out is not None:
        raise UsageError("--out: the reference runtime writes its traces with 'residentkv reference run --out DIR'")
    return ReferenceLitmus()


def _vllm(out: Path | None) -> LitmusRuntime:
    from residentkv.witness.capacity import VllmLitmus

    return VllmLitmus(None if out is None else make_folder(out))


RUNTIMES: dict[str, Callable[[Path | None], LitmusRuntime]] = {"reference": _reference, "vllm": _vllm}
"""Runtimes that can be measured; each is imported only when it is asked for."""


@click.command()
@click.option("--runtime", default="reference", show_default=True, metavar="NAME", help="Which runtime to measure.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep the traces of a live runtime in this folder, for 'residentkv audit'.",
)
@click.option("--json", "as_json", is_flag=True, help=f"Write {JSON_SCHEMA} instead of tables.")
def litmus(runtime: str, out: Path | None, as_json: bool) -> int:
    """Serve 60 resident and 70 active blocks at 80 to 150 usable, and ask what scattered tokens are worth.

    With 'vllm' the requests go to real engines (about a minute; needs 'make env-vllm'): native is vLLM without any
    plugin, and random weights stand in for a trained model, since only blocks are counted.

    Exit code: 0 when every measured number is the expected one, 10 when any differs.
    """
    if runtime not in RUNTIMES:
        raise UsageError(f"unknown runtime {runtime[:60]!r}, expected one of {', '.join(sorted(RUNTIMES))}")
    measurer = RUNTIMES[runtime](out)
    measured = run_litmus(measurer)
    wrong = differences(measured)
    code = EXIT_VIOLATED if wrong else EXIT_PASS
    if as_json:
        click.echo(json_text(litmus_document(measurer.name, measured, wrong, code)))
    else:
        click.echo(render_litmus(measurer.name, measured, wrong), nl=False)
    return code


def litmus_document(name: str, measured: Litmus, wrong: list[str], exit_code: int) -> dict[str, object]:
    """Return the litmus as plain data, `residentkv.litmus/1`."""
    return {
        "schema": JSON_SCHEMA,
        "runtime": name,
        "exit_code": exit_code,
        "measured": msgspec.to_builtins(measured),
        "expected": msgspec.to_builtins(EXPECTED),
        "differences": wrong,
    }


def render_litmus(name: str, measured: Litmus, wrong: list[str]) -> str:
    """Return the tables, under 80 columns."""
    lines = [
        f"Capacity litmus on {name}: {RESIDENT_BLOCKS} resident + {ACTIVE_BLOCKS} active blocks",
        "(what happened to the active request / resident blocks lost)",
        "",
        "usable blocks        " + "".join(f"{size:>8}" for size in USABLE_BLOCKS),
    ]
    for policy in LitmusPolicy:
        for title, source in ((policy.value, measured), ("  expected", EXPECTED)):
            cells = [_cell(c) for c in source.capacity if c.policy is policy]
            lines.append(f"{title:<21}" + "".join(f"{cell:>8}" for cell in cells))
    lines += ["", "s: served, r(n): refused, n blocks short", ""]
    resident, active, usable = PRESSURE
    lines.append(f"Live pressure, {resident} resident + {active} active in {usable} usable blocks:")
    lines.append(f"  measured {_cell(measured.pressure)}, expected {_cell(EXPECTED.pressure)}")
    lines += ["", "Materialization, one object under leading_prefix_at_least(1):"]
    if measured.materialization is None:
        lines.append("  not measured: 1,104 tokens are no whole number of this runtime's blocks")
    else:
        lines += [
            f"  {title} {m.cached_tokens:,} cached tokens in {m.spans} spans: predicate "
            f"{'holds' if m.holds else 'does not hold'}, {m.reused_tokens} reused"
            for title, m in (("measured", measured.materialization), ("expected", EXPECTED.materialization))
            if m is not None
        ]
    lines.append("")
    lines += [f"DIFFERS {line}" for line in wrong]
    total = len(EXPECTED.capacity) + (2 if measured.materialization is not None else 1)
    lines.append(f"{len(wrong)} numbers differ" if wrong else f"all {total} cells are as expected")
    return "\n".join(lines) + "\n"


def _cell(cell: CapacityCell) -> str:
    word = "s" if cell.served else f"r({cell.shortfall_blocks})"
    return f"{word}/{cell.lost_blocks}"
