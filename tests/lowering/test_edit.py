"""Writing an anchor into a descriptor: the anchor changes, nothing else does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from residentkv.errors import InputError
from residentkv.lowering.edit import set_anchor
from residentkv.lowering.yamltree import parse_yaml

VALUES = {"type": "package", "file": "a/b.py", "sha256": "f" * 64, "recorded": {"date": "2026-01-05", "version": "1.0"}}

BLOCK = """\
# top
title:   "kept  as is"   # here too
anchors:
    # about one
    one:
        type: package  # kind
        file: x.py

    two: {type: package, file: y.py}   # flow
# about the rest
rest:
  - a
"""


def plain(text: str) -> object:
    return parse_yaml(text, "d.yaml").plain()


def without(text: str, added: list[str]) -> list[str]:
    """The lines of a text without the added ones."""
    return [line for line in text.splitlines() if line not in added]


def test_a_new_anchor_goes_after_the_last_one_and_other_lines_stay():
    """Every old line is there, in order, byte for byte."""
    edited = set_anchor(BLOCK, "d.yaml", "three", VALUES)
    added = [
        "    three:",
        "      type: package",
        "      file: a/b.py",
        f"      sha256: {'f' * 64}",
        '      recorded: {date: "2026-01-05", version: "1.0"}',
    ]
    assert without(edited, added) == BLOCK.splitlines()
    at = edited.splitlines().index("    three:")
    assert edited.splitlines()[at - 1].startswith("    two:")
    assert plain(edited)["anchors"]["three"] == VALUES


def test_missing_keys_of_a_block_entry_are_added_below_it():
    """The comment beside a key stays beside it."""
    edited = set_anchor(BLOCK, "d.yaml", "one", {"sha256": "a" * 64, "lines": "3-4"})
    added = [f"        sha256: {'a' * 64}", "        lines: 3-4"]
    assert without(edited, added) == BLOCK.splitlines()
    assert plain(edited)["anchors"]["one"] == {"type": "package", "file": "x.py", "sha256": "a" * 64, "lines": "3-4"}


def test_missing_keys_of_a_flow_entry_are_added_inside_it():
    """Only that line changes."""
    edited = set_anchor(BLOCK, "d.yaml", "two", {"sha256": "a" * 64})
    changed = [n for n, (a, b) in enumerate(zip(BLOCK.splitlines(), edited.splitlines(), strict=True)) if a != b]
    assert len(changed) == 1
    assert edited.splitlines()[changed[0]].endswith("}   # flow")


def test_a_present_key_is_replaced_in_place():
    """Pinning again changes the digest and nothing else."""
    once = set_anchor(BLOCK, "d.yaml", "one", {"sha256": "a" * 64, "recorded": {"date": "2026-01-05"}})
    twice = set_anchor(once, "d.yaml", "one", {"sha256": "b" * 64, "recorded": {"date": "2026-02-06"}})
    assert twice == once.replace("a" * 64, "b" * 64).replace("2026-01-05", "2026-02-06")


def test_a_replaced_anchor_loses_the_keys_that_it_had():
    """A new address leaves nothing of the old one."""
    edited = set_anchor(BLOCK, "d.yaml", "one", VALUES, replace=True)
    assert plain(edited)["anchors"]["one"] == VALUES
    assert "# about the rest\nrest:\n  - a\n" in edited


@pytest.mark.parametrize("empty", ["anchors: {}", "anchors:", "anchors: {}   # none yet", "anchors: ~"])
def test_the_first_anchor_opens_the_mapping(empty):
    """A descriptor begins with none."""
    text = f"a: 1\n{empty}\nb: 2\n"
    edited = set_anchor(text, "d.yaml", "one", VALUES)
    assert plain(edited) == {"a": 1, "anchors": {"one": VALUES}, "b": 2}


def test_line_ends_of_the_file_are_kept():
    """A file with CR LF keeps them in the new lines too."""
    text = BLOCK.replace("\n", "\r\n")
    edited = set_anchor(text, "d.yaml", "three", VALUES)
    assert "\n" not in edited.replace("\r\n", "")


def test_a_file_without_a_last_line_end_gets_one_before_the_anchor():
    """Appending does not run lines together."""
    edited = set_anchor("anchors:\n  one: {type: x}", "d.yaml", "two", VALUES)
    assert plain(edited)["anchors"]["two"] == VALUES


def test_a_block_scalar_before_the_new_anchor_keeps_its_text():
    """Literal text ends where its lines end."""
    text = (
        "anchors:\n  one:\n    quote: |\n      a\n      b\n    type: document\n  two:\n    quote: |\n      c\nrest: 1\n"
    )
    edited = set_anchor(text, "d.yaml", "three", VALUES)
    assert plain(edited)["anchors"]["two"] == {"quote": "c\n"}
    assert plain(edited)["anchors"]["three"] == VALUES


def test_an_edit_that_would_change_something_else_is_refused():
    """A scalar in place of an entry cannot take keys."""
    with pytest.raises(InputError, match="without changing something else"):
        set_anchor("anchors:\n  one: text\n", "d.yaml", "one", VALUES)


def test_a_file_without_anchors_is_refused():
    """There is no guess where they belong."""
    with pytest.raises(InputError, match="no key anchors"):
        set_anchor("a: 1\n", "d.yaml", "one", VALUES)


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=20))
def test_any_text_comes_back_as_it_was_written(text):
    """Quoting is right for every character that YAML can hold; what it cannot hold is refused."""
    values = {"quote": text}
    try:
        edited = set_anchor(BLOCK, "d.yaml", "three", values)
    except InputError:
        assert any(not c.isprintable() for c in text)
        return
    assert plain(edited)["anchors"]["three"] == values
