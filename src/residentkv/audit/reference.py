"""The reference part of docs/audit.md, rendered from the rules themselves."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from residentkv.audit.model import Rule, Verdict
from residentkv.audit.rules import FAMILIES

_MARK: Final = re.compile(r"<!-- generated: (?P<name>[a-z]+) -->\n.*?<!-- end of generated -->\n", re.DOTALL)


def render_rule_reference() -> str:
    """Return every rule, a heading a family, as Markdown."""
    out: list[str] = []
    for title, rules in FAMILIES:
        out.append(f"### {title}\n")
        out.extend(_rule(rule) for rule in rules)
    return "\n".join(out)


def render_rule_table() -> str:
    """Return one line a rule: code, slug, worst verdict, title."""
    lines = ["| code | rule | at worst | what is found |", "|---|---|---|---|"]
    for _, rules in FAMILIES:
        lines.extend(f"| {r.code} | `{r.slug}` | {r.verdict.value} | {_cell(r.title)} |" for r in rules)
    return "\n".join(lines) + "\n"


def _rule(rule: Rule) -> str:
    lines = [f"#### {rule.code} `{rule.slug}`\n", f"{rule.title}.\n"]
    lines.append(f"- Checks {rule.checks}.")
    lines.append(f"- Why: {rule.why}.")
    if rule.required_order:
        lines.append(f"- Order: {' -> '.join(rule.required_order)}.")
    if rule.verdict is Verdict.VIOLATING:
        lines.append(f"- A violation contradicts {', '.join(f'`{o}`' for o in rule.contradicts)}.")
    lines.append(f"- Inconclusive: {rule.inconclusive_when}.")
    lines.append(f"- Source: {rule.source}.")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


RENDERERS: Final[dict[str, Callable[[], str]]] = {"rules": render_rule_reference, "table": render_rule_table}


def refresh_blocks(text: str) -> str:
    """Return a document with its generated blocks rendered anew; everything around them is kept.

    Raises:
        KeyError: a block has a name that nothing renders.
    """
    return _MARK.sub(
        lambda m: f"<!-- generated: {m['name']} -->\n\n{RENDERERS[m['name']]()}\n<!-- end of generated -->\n", text
    )
