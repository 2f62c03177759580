"""The generated parts of docs/suite.md: the table of cases, and the equivalent mutants with their reasons."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

from residentkv.audit.rules import BY_CODE
from residentkv.suite.case import Case, load_cases
from residentkv.suite.equivalent import EQUIVALENCES
from residentkv.suite.mutate_row import ROW_EQUIVALENCES

_BLOCK = re.compile(
    r"(?P<head><!-- generated: (?P<name>[a-z]+) -->)\n.*?(?P<tail><!-- end of generated -->)", re.DOTALL
)


def render_suite_reference() -> str:
    """Return a Markdown table with a row a case, and below it why each is refused."""
    cases = load_cases()
    rows = [
        (f"[`{slug}`](#{slug})", case.title, ", ".join(_sources(case)), _refused(case)) for slug, case in cases.items()
    ]
    parts = [_table(("case", "what is lowered", "from", "refused as"), rows), ""]
    for slug, case in cases.items():
        parts += [f"### {slug}", "", f"{case.title}. {' '.join(case.why.split())}", "", _expected(case), ""]
    return "\n".join(parts)


def render_equivalence_reference() -> str:
    """Return a Markdown table of the kinds of equivalent mutants."""
    rows = [("trace", f"`{e.name}`", e.reason) for e in EQUIVALENCES]
    rows += [("row", f"`{name}`", reason) for name, reason in ROW_EQUIVALENCES.items()]
    return _table(("mutant of a", "kind", "why it may stay positive"), rows)


def _sources(case: Case) -> list[str]:
    return [*([case.item] if case.item else []), *case.threads]


def _refused(case: Case) -> str:
    parts = []
    if case.trace is not None:
        parts.append(f"{case.trace.verdict}, {case.trace.rule}")
    if case.descriptor is not None:
        parts.append(f"{case.descriptor.verdict}, `{case.descriptor.open[0].obligation}`")
    return "; ".join(parts)


def _expected(case: Case) -> str:
    sentences = []
    if case.trace is not None:
        codes = [case.trace.rule, *case.trace.also]
        rules = ", ".join(f"{code} `{BY_CODE[code].slug}`" for code in codes)
        sentences.append(f"The audit calls the trace {case.trace.verdict}: {rules}, and nothing else.")
    part = case.descriptor
    if part is not None:
        gaps = ", ".join(f"`{o.obligation}` ({o.reason})" for o in part.open)
        sentences.append(
            f"The row `{part.primitive}` as {part.mode} at depth {part.depth} is {part.verdict}; open are {gaps}, and "
            f"nothing else. Its twin is {part.twin_verdict}."
        )
    return " ".join(sentences)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


RENDERERS: Final[dict[str, Callable[[], str]]] = {
    "cases": render_suite_reference,
    "equivalences": render_equivalence_reference,
}
"""What renders each generated block of docs/suite.md."""


def refresh_blocks(text: str) -> str:
    """Return a document with its generated blocks rendered anew.

    Raises:
        KeyError: a block has a name that nothing renders.
    """
    return _BLOCK.sub(lambda m: f"{m['head']}\n\n{RENDERERS[m['name']]()}\n\n{m['tail']}", text)
