"""Normalisation and symbols."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from residentkv.lowering.text import digest_lines, digest_quote, normalise, split_lines, symbol_spans

CODE = """\
import os
from a import b as renamed
X = 1
Y: int = 2
first, (second, *rest) = 1, (2, 3)
X += 1

@decorate
@decorate.twice(
    1)
def f():
    inner = 1
    def nested(): pass

class C(Base):
    field: int = 0
    other = 1
    @property
    def p(self): ...
    @p.setter
    def p(self, v): ...
    async def m(self):
        pass
    class D:
        def deep(self): pass

if A:
    def maybe(): pass
elif B:
    W = 1
else:
    def maybe(): pass
try:
    import fast
except ImportError:
    fast = None
finally:
    Z = 3
match v:
    case 1:
        M = 1
with x as y:
    def inside(): pass
"""


@pytest.mark.parametrize(
    ("symbol", "spans"),
    [
        ("Y", [(4, 4)]),
        ("first", [(5, 5)]),
        ("second", [(5, 5)]),
        ("rest", [(5, 5)]),
        ("f", [(8, 13)]),
        ("C", [(15, 25)]),
        ("C.field", [(16, 16)]),
        ("C.other", [(17, 17)]),
        ("C.m", [(22, 23)]),
        ("C.D.deep", [(25, 25)]),
        ("W", [(30, 30)]),
        ("Z", [(38, 38)]),
        ("M", [(41, 41)]),
        ("inside", [(43, 43)]),
        ("renamed", [(2, 2)]),
    ],
)
def test_a_symbol_is_found_where_it_is_bound(symbol, spans):
    """Decorators belong to it; classes nest; compound statements do not hide it."""
    assert symbol_spans(CODE.encode())[symbol] == spans


@pytest.mark.parametrize("symbol", ["X", "C.p", "maybe", "fast"])
def test_a_symbol_that_is_bound_twice_has_two_places(symbol):
    """Which one counts cannot be told from the text."""
    assert len(symbol_spans(CODE.encode())[symbol]) == 2


@pytest.mark.parametrize("symbol", ["f.inner", "inner", "f.nested", "nested", "C.D.nothing"])
def test_what_is_inside_a_function_is_no_symbol(symbol):
    """A name of a function body is not part of the surface."""
    assert symbol not in symbol_spans(CODE.encode())


@pytest.mark.parametrize("raw", [b"def f(:", b"\x00", b"x = '\xff'", b"print 1"])
def test_what_is_no_python_raises(raw):
    """The caller turns this into `unreadable`."""
    with pytest.raises((SyntaxError, ValueError)):
        symbol_spans(raw)


def test_lines_are_counted_as_the_tokenizer_counts_them():
    """A form feed or a line separator inside a string is no line end."""
    text = 'a = "\x0c\u2028\x1c"\r\nb = 1\rc = 2\n'
    assert len(split_lines(text)) == 3
    assert symbol_spans(text.encode())["c"] == [(3, 3)]


def test_indentation_line_ends_and_trailing_blanks_do_not_matter():
    """Code that moved into a class, or was saved on another system, is the same text."""
    plain = ["def f():", "    if x:", "", "        return 1"]
    indented = ["    def f():  ", "        if x:\t", "   ", "            return 1"]
    assert normalise(plain) == normalise(indented)
    assert digest_lines(split_lines("a\r\nb\r\n")) == digest_lines(split_lines("a\nb"))


def test_relative_indentation_matters():
    """What a statement belongs to is part of the text."""
    assert digest_lines(["if a:", "    b", "    c"]) != digest_lines(["if a:", "    b", "c"])


@given(st.lists(st.text(st.characters(exclude_characters="\r\n"), max_size=12), max_size=6))
def test_normalising_twice_is_normalising_once(lines):
    """The digest of a normalised text is stable."""
    once = normalise(lines)
    assert normalise(once.split("\n")) == once


@given(
    st.lists(st.text("ab (", min_size=1, max_size=8), min_size=1, max_size=4),
    st.integers(0, 30),
    st.sampled_from("xyz"),
)
def test_one_changed_letter_changes_the_digest(lines, at, letter):
    """Any visible change is seen."""
    text = list("\n".join(lines))
    at %= len(text)
    if text[at] in " \n":
        return
    text[at] = letter
    assert digest_lines("".join(text).split("\n")) != digest_lines(lines)


def test_white_space_in_a_quote_does_not_matter():
    """A quotation is wrapped differently in every copy."""
    assert digest_quote(" a  b\n c ") == digest_quote("a b c")
    assert digest_quote("a b c") != digest_quote("a b C")


def test_a_long_indentation_takes_no_longer_than_its_text():
    """Ten lines of 100,000 blanks and tabs in turn; shortening the indent by one at a time took minutes."""
    lines = [indent * 100_000 + "x" for indent in (" ", "\t")] * 5
    assert normalise(lines) == "\n".join(lines)
