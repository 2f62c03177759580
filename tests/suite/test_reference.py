"""docs/suite.md: its generated parts are what the code and the cases say now."""

from __future__ import annotations

from pathlib import Path

import pytest

from residentkv.suite.case import load_cases
from residentkv.suite.equivalent import EQUIVALENCES
from residentkv.suite.reference import RENDERERS, refresh_blocks

DOCUMENT = Path(__file__).parents[2] / "docs" / "suite.md"


def test_the_document_is_up_to_date():
    """`make gen` refreshes it."""
    text = DOCUMENT.read_text(encoding="utf-8")
    assert refresh_blocks(text) == text
    assert all(f"<!-- generated: {name} -->" in text for name in RENDERERS)


def test_every_case_and_every_kind_of_equivalent_mutant_is_in_it():
    """With the reason."""
    text = DOCUMENT.read_text(encoding="utf-8")
    for slug, case in load_cases().items():
        assert f"### {slug}\n" in text
        assert " ".join(case.why.split()) in text
    for kind in EQUIVALENCES:
        assert f"`{kind.name}` | {kind.reason} |" in text


def test_only_the_generated_blocks_change():
    """Text around a block is kept; a block that nothing renders is an error."""
    text = "before\n<!-- generated: equivalences -->\nSTALE\n<!-- end of generated -->\nafter\n"
    fresh = refresh_blocks(text)
    assert fresh.startswith("before\n<!-- generated: equivalences -->\n\n| mutant of a |")
    assert fresh.endswith("<!-- end of generated -->\nafter\n")
    assert "STALE" not in fresh
    with pytest.raises(KeyError):
        refresh_blocks("<!-- generated: nothing -->\n<!-- end of generated -->")
