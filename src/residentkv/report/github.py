"""Results as workflow commands of GitHub Actions: an annotation for each that is not a pass, and a closing line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from residentkv.report.plain import escape_controls
from residentkv.report.results import Outcome, Result

MAX_MESSAGE = 4000
_COMMANDS = {Outcome.VIOLATED: "error", Outcome.UNKNOWN: "warning"}


def github_lines(results: Iterable[Result], caveat: str) -> Iterator[str]:
    """Yield the lines, violations first, because GitHub shows only the first ten of a kind in a step."""
    found = list(results)
    for outcome, command in _COMMANDS.items():
        for result in found:
            if result.outcome is outcome:
                yield _annotation(command, result)
    counts = Counter(r.outcome for r in found)
    yield f"residentkv: {', '.join(f'{counts[o]} {o.value}' for o in Outcome)}. {escape_controls(caveat)}"


def _annotation(command: str, result: Result) -> str:
    site = result.sites[0] if result.sites else None
    properties: dict[str, str] = {}
    if site is not None and not site.base and not Path(site.path).is_absolute():
        properties["file"] = site.path
        if site.line:
            properties["line"] = str(site.line)
        if site.column:
            properties["col"] = str(site.column)
    properties["title"] = f"{result.rule} {result.name}".strip()
    where = f" ({site.event})" if site is not None and site.event else ""
    listed = ",".join(f"{key}={_property(value)}" for key, value in properties.items())
    return f"::{command} {listed}::{_data((result.message + where)[:MAX_MESSAGE])}"


def _data(text: str) -> str:
    return escape_controls(text).replace("%", "%25")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
