"""The generated part of docs/rules.md: every rule, from the catalogue."""

from __future__ import annotations

import itertools
import re
from typing import Final

from residentkv.report.catalogue import all_rules

_BLOCK: Final = re.compile(r"(?P<head><!-- generated: rules -->)\n.*?(?P<tail><!-- end of generated -->)", re.DOTALL)


def render_rules() -> str:
    """Return every rule as Markdown, a heading a family and one a rule."""
    out: list[str] = []
    for family, rules in itertools.groupby(all_rules(), key=lambda r: r.family):
        out.append(f"## {family}\n")
        for rule in rules:
            out.append(f"### {rule.code} {rule.slug}\n\n{rule.title}. At worst {rule.worst}.\n")
            out.extend(f"- {label}: {text}." for label, text in rule.facts())
            out.append("")
    return "\n".join(out).rstrip("\n")


def refresh_blocks(text: str) -> str:
    """Return the page with its generated block rendered anew."""
    return _BLOCK.sub(lambda m: f"{m['head']}\n\n{render_rules()}\n\n{m['tail']}", text)
