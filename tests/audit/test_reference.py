"""The rule reference in docs/audit.md is what the rules say."""

from __future__ import annotations

from pathlib import Path

from residentkv.audit.reference import RENDERERS, refresh_blocks, render_rule_reference
from residentkv.audit.rules import RULES

DOCUMENT = Path(__file__).parents[2] / "docs" / "audit.md"


def test_the_document_is_up_to_date():
    """What is generated in docs/audit.md is what the rules say now; `make gen` refreshes it."""
    text = DOCUMENT.read_text(encoding="utf-8")
    assert refresh_blocks(text) == text


def test_every_rule_is_told_with_its_reason():
    """No rule is left out, and each says what it checks, why, and when it is inconclusive."""
    text = render_rule_reference()
    for rule in RULES:
        section = text.split(f"#### {rule.code} `{rule.slug}`\n")[1].split("\n#### ")[0]
        for part in (rule.title, rule.checks, rule.why, rule.inconclusive_when, rule.source):
            assert part in section
        assert all(f"`{o}`" in section for o in rule.contradicts)


def test_only_the_generated_blocks_change():
    """Text around a block is kept."""
    text = "before\n<!-- generated: table -->\nold\n<!-- end of generated -->\nafter\n"
    fresh = refresh_blocks(text)
    assert fresh.startswith("before\n<!-- generated: table -->\n\n| code |")
    assert fresh.endswith("<!-- end of generated -->\nafter\n")
    assert refresh_blocks(fresh) == fresh
    assert set(RENDERERS) == {"rules", "table"}
