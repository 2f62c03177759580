"""What the suite found, as lines of text 80 columns wide and as plain data."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from residentkv.report.plain import escape_controls
from residentkv.report.shapes import MutantsDocument, SuiteDocument
from residentkv.suite.case import Case
from residentkv.suite.equivalent import EQUIVALENCES
from residentkv.suite.mutate_row import ROW_EQUIVALENCES
from residentkv.suite.run import CaseResult
from residentkv.suite.tally import Tally

JSON_SCHEMA: Final = "residentkv.suite/1"
WIDTH = 80
MAX_SURVIVORS = 200

REASONS: dict[str, str] = {**{e.name: e.reason for e in EQUIVALENCES}, **ROW_EQUIVALENCES}
"""Why a mutant may stay positive, by name."""


def render_cases(results: Sequence[CaseResult]) -> Iterator[str]:
    """Yield a line a case, what was not as expected, and the counts."""
    yield f"{'':<4} {'case':<34} {'verdict':<12} reason"
    for result in results:
        mark = "ok" if result.passed else "FAIL"
        yield f"{mark:<4} {result.slug:<34} {result.verdict:<12} {result.reason}"
        for check in result.checks:
            if not check.passed:
                yield from _wrapped(f"     {check.what}: found {check.found}; expected {check.expected}")
    passed = sum(result.passed for result in results)
    yield (
        f"{len(results)} case{'s' if len(results) != 1 else ''}: {passed} refused for its own reason while its twin "
        f"passes, {len(results) - passed} not"
    )


def render_case(result: CaseResult, case: Case, difference: Sequence[str]) -> Iterator[str]:
    """Yield everything about one case: where it comes from, why, what was found, and what the twin has repaired."""
    yield escape_controls(f"{result.slug}: {case.title}")
    source = [case.item] if case.item else []
    yield from _wrapped(f"  from {', '.join([*source, *case.threads])}")
    yield from _wrapped(f"  {' '.join(case.why.split())}")
    for check in result.checks:
        mark = "ok" if check.passed else "FAIL"
        told = check.found if check.passed else f"found {check.found}; expected {check.expected}"
        yield from _wrapped(f"  {mark:<4} {check.what}: {told}")
    for sentence in result.told:
        yield from _wrapped(f"  told: {sentence}")
    if difference:
        yield "  the defect (- only here, + only in the twin, ~ differs):"
        for line in difference:
            yield from _wrapped(f"    {line}")


def render_tally(tally: Tally, positives: str) -> Iterator[str]:
    """Yield the counts by operator, the equivalent mutants by reason, the survivors, and the totals.

    Args:
        tally: the counts.
        positives: what the mutants were made from, such as `51 traces and 21 rows`.
    """
    yield f"{'operator':<28}{'made':>8}{'refused':>9}{'weaker':>8}{'equivalent':>12}{'survived':>10}"
    for operator, s in sorted(tally.scores.items()):
        yield f"{operator:<28}{s.made:>8}{s.refused:>9}{s.weaker:>8}{s.equivalent:>12}{s.survived:>10}"
    yield "equivalent, by reason"
    for name, count in sorted(tally.equivalent.items(), key=lambda pair: (-pair[1], pair[0])):
        yield from _wrapped(f"  {count:>5} {name}: {REASONS[name]}", indent=8)
    for survivor in tally.survivors[:MAX_SURVIVORS]:
        yield from _wrapped(f"SURVIVED {survivor}")
    if len(tally.survivors) > MAX_SURVIVORS:
        yield f"and {len(tally.survivors) - MAX_SURVIVORS} more survived"
    total = tally.total()
    yield from _wrapped(
        f"{total.made} mutants of {positives}: {total.killed} killed ({total.refused} refused, {total.weaker} weaker), "
        f"{total.equivalent} equivalent for {len(tally.equivalent)} reasons, {total.survived} survived"
    )


def suite_document(
    results: Sequence[CaseResult], cases: Mapping[str, Case], tally: Tally | None, exit_code: int
) -> SuiteDocument:
    """Return the report as plain data, `residentkv.suite/1`."""
    return {
        "schema": JSON_SCHEMA,
        "exit_code": exit_code,
        "cases": [
            {
                "slug": r.slug,
                "kind": r.kind,
                "title": r.title,
                "item": cases[r.slug].item,
                "threads": cases[r.slug].threads,
                "passed": r.passed,
                "checks": [
                    {"what": c.what, "expected": c.expected, "found": c.found, "passed": c.passed} for c in r.checks
                ],
                "told": list(r.told),
            }
            for r in results
        ],
        "mutants": None if tally is None else _tally_document(tally),
    }


def _tally_document(tally: Tally) -> MutantsDocument:
    return {
        "operators": {
            operator: {
                "made": s.made,
                "refused": s.refused,
                "weaker": s.weaker,
                "equivalent": s.equivalent,
                "survived": s.survived,
            }
            for operator, s in sorted(tally.scores.items())
        },
        "equivalent": {
            name: {"count": count, "reason": REASONS[name]} for name, count in sorted(tally.equivalent.items())
        },
        "survivors": tally.survivors,
    }


def _wrapped(line: str, indent: int | None = None) -> Iterator[str]:
    further = len(line) - len(line.lstrip()) + 2 if indent is None else indent
    yield from textwrap.wrap(
        escape_controls(line),
        width=WIDTH,
        subsequent_indent=" " * further,
        break_on_hyphens=False,
        break_long_words=False,
    )
