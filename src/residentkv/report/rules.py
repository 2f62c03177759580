"""Rules for a reader in a terminal: one line each, or one rule in full; from the same data as the documentation."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from residentkv.report.catalogue import CataloguedRule

WIDTH = 80


def rule_lines(rules: Sequence[CataloguedRule]) -> Iterator[str]:
    """Yield a line or two a rule, a heading a family; no line is wider than 80 columns."""
    family = ""
    for rule in sorted(rules, key=lambda r: (_position(rules, r.family), r.code)):
        if rule.family != family:
            family = rule.family
            yield family
        head = f"  {rule.code}  {rule.worst:<9} "
        yield from textwrap.wrap(
            f"{rule.slug}: {rule.title}.", WIDTH, initial_indent=head, subsequent_indent=" " * len(head)
        )
    yield f"{len(rules)} rules; 'residentkv explain CODE' tells one in full"


def explain_rule(rule: CataloguedRule) -> Iterator[str]:
    """Yield everything about one rule."""
    head = f"{rule.code} {rule.slug} ({rule.family}; at worst {rule.worst})"
    yield from textwrap.wrap(head, WIDTH, subsequent_indent="  ")
    yield from textwrap.wrap(f"{rule.title}.", WIDTH, initial_indent="  ", subsequent_indent="  ")
    for label, text in rule.facts():
        yield from textwrap.wrap(
            f"{label}: {text}.",
            WIDTH,
            initial_indent="  ",
            subsequent_indent="    ",
            break_on_hyphens=False,
            break_long_words=False,
        )


def _position(rules: Sequence[CataloguedRule], family: str) -> str:
    return min(r.code for r in rules if r.family == family)
