"""`make gen`: write again everything that is generated from the code; a test fails when the result would differ."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import residentkv
from residentkv.audit import reference as audit_reference
from residentkv.audit.api import audit_file
from residentkv.audit.confirm import items_of
from residentkv.cli.check import check_rows
from residentkv.cli.litmus import litmus_document
from residentkv.cli.schema import write_schemas
from residentkv.lowering.checking import Selection
from residentkv.report import numbers, studies
from residentkv.report import reference as rules_reference
from residentkv.report.charts import Chart, render_svg
from residentkv.report.documents import json_text
from residentkv.runtimes.litmus import differences, run_litmus
from residentkv.runtimes.reference.litmus import ReferenceLitmus
from residentkv.sources.library import load_library
from residentkv.sources.recorded import OwnSources
from residentkv.suite import reference as suite_reference
from residentkv.trace import reference as trace_reference

RECORDED_TRACES = Path(residentkv.__file__).parents[2] / "tests" / "traces"
"""Runs that were recorded once, with their origin in a manifest."""


def refresh_studies(text: str) -> str:
    """Render the generated parts of docs/studies.md: the library as recorded, whatever is installed here.

    The recorded traces of the repository, all of them, are audited anew.
    """
    library = load_library()
    traces = sorted(RECORDED_TRACES.rglob("*.jsonl"))
    items = tuple(i for p in traces for i in items_of(audit_file(p), p.relative_to(RECORDED_TRACES).as_posix()))
    matrices = (studies.as_recorded(check_rows(library, Selection(), OwnSources(), t, True)) for t in ((), items))
    return studies.refresh_blocks(text, *matrices)


PAGES: dict[str, Callable[[str], str]] = {
    "docs/audit.md": audit_reference.refresh_blocks,
    "docs/rules.md": rules_reference.refresh_blocks,
    "docs/studies.md": refresh_studies,
    "docs/suite.md": suite_reference.refresh_blocks,
    "docs/trace-format.md": trace_reference.refresh_blocks,
}
"""Pages with generated blocks and what refreshes them."""


def drawn_numbers(root: Path) -> list[Chart]:
    """Return the charts of BENCHMARKS.md, and of the litmus measured now on the reference runtime."""
    runtime = ReferenceLitmus()
    measured = run_litmus(runtime)
    document = litmus_document(runtime.name, measured, differences(measured), 0)
    benchmarks = (root / "BENCHMARKS.md").read_bytes()
    return [*numbers.charts_of(benchmarks, "BENCHMARKS.md"), *numbers.charts_of(json_text(document).encode(), "litmus")]


def generate(root: Path) -> dict[Path, bytes]:
    """Return what each generated file has to be, by its path below `root`."""
    out = {Path(page): refresh((root / page).read_text()).encode() for page, refresh in PAGES.items()}
    charts = drawn_numbers(root)
    out[Path("docs", "numbers.md")] = numbers.render_page(charts).encode()
    for chart in charts:
        out[Path("docs", "pictures", f"{chart.id}.svg")] = render_svg(chart, standalone=True).encode()
    with tempfile.TemporaryDirectory() as folder:
        for path in write_schemas(Path(folder)):
            out[Path("schemas") / path.name] = path.read_bytes()
    return out


def main() -> int:
    """Write the files that differ and name them."""
    root = Path.cwd()
    for path, content in generate(root).items():
        target = root / path
        if not target.exists() or target.read_bytes() != content:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
