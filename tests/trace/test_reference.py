from __future__ import annotations

from pathlib import Path

import pytest

from residentkv.trace.codec import EVENT_TYPES
from residentkv.trace.codes import INPUT_RULES
from residentkv.trace.published_fields import FIELDS
from residentkv.trace.published_map import EVENTS
from residentkv.trace.reference import RENDERERS, refresh_blocks, type_name

DOCUMENT = Path(__file__).parents[2] / "docs" / "trace-format.md"


def test_the_document_is_up_to_date() -> None:
    """What is generated in docs/trace-format.md is what the code says now; `make gen` refreshes it."""
    text = DOCUMENT.read_text(encoding="utf-8")
    assert refresh_blocks(text) == text


def test_every_event_field_and_code_is_in_the_document() -> None:
    """Nothing of the vocabulary, the codes or the importer's tables is left out, and each block is there."""
    text = DOCUMENT.read_text(encoding="utf-8")
    for name, kind in EVENT_TYPES.items():
        section = text.split(f"### `{name}`\n")[1].split("\n### ")[0]
        for field in set(kind.__struct_fields__) - {"schema", "run_id", "source", "epoch", "seq", "mono_ns", "wall_ns"}:
            assert f"`{field}`" in section or "and the claim" in section
    for rule in INPUT_RULES:
        assert f"| {rule.code} | `{rule.slug}` |" in text
    published = text.split("<!-- generated: published -->")[1]
    assert all(f"`{name}`" in published for name in (*EVENTS, *FIELDS))
    assert all(f"<!-- generated: {name} -->" in text for name in RENDERERS)


def test_only_the_generated_blocks_change() -> None:
    """Text around a block is kept; a block of another name is an error and not left as it is."""
    text = "before\n<!-- generated: codes -->\nold\n<!-- end of generated -->\nafter\n"
    fresh = refresh_blocks(text)
    assert fresh.startswith("before\n<!-- generated: codes -->\n\n| code |")
    assert fresh.endswith("<!-- end of generated -->\nafter\n")
    assert "old" not in fresh
    assert refresh_blocks(fresh) == fresh
    with pytest.raises(KeyError):
        refresh_blocks(text.replace("codes", "colours"))


def test_a_type_without_words_is_an_error() -> None:
    """A new field type has to be given words before it can be documented."""
    with pytest.raises(TypeError, match="no words"):
        type_name(dict[str, int])
