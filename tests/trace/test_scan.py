from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from residentkv.errors import InputError
from residentkv.trace.scan import MAX_DEPTH, column_of, first_bad_byte, scan_line

NUMBERS = st.integers(-(1 << 63), (1 << 63) - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), VALUES, max_size=5)
NEARLY_JSON = st.text(st.sampled_from('{}[]":,\\u0dD8cC1-+.eEtrunlfas \t\r\x01é'), max_size=30)


@given(OBJECTS, st.sampled_from([(",", ":"), (", ", ": "), (" , ", " :\t")]), st.booleans())
def test_scanner_finds_every_key_and_value(
    value: dict[str, Any], separators: tuple[str, str], ascii_only: bool
) -> None:
    """The offsets of each member cut exactly its key and its value out of the line."""
    line = json.dumps(value, separators=separators, ensure_ascii=ascii_only).encode()
    members = scan_line(line)
    assert list(members) == list(value)
    for key, member in members.items():
        assert json.loads(line[member.value_start : member.value_end]) == value[key]
        assert line[member.key_start : member.key_start + 1] == b'"'
        assert column_of(line, member.key_start) == len(line[: member.key_start].decode()) + 1


def refuses(line: bytes) -> bool:
    """Tell whether msgspec, which follows RFC 8259, does not read the line as an object."""
    try:
        return not isinstance(msgspec.json.decode(line), dict)
    except (ValueError, RecursionError):
        return True


@given(NEARLY_JSON | st.tuples(NEARLY_JSON, NEARLY_JSON).map(lambda p: f'{{"{p[0]}":{p[1]}}}'))
@example('{"\\ud83d\\ude00":"\\ud83d"}')
@example('{"a":"\\udc00\\ud800"}')
@example('{"a":"\\ud800\\u0041"}')
@example('{"a":"\\uD83D\\uDE00"}')
@example('{"a":-0,"b":0.5e+1,"c":-1E-1}')
@example('{"a":.5}')
@example('{"a":1.}')
@example('{"a":1e}')
@example('{"a":"\x7f"}')
def test_scanner_and_msgspec_agree_on_what_json_is(text: str) -> None:
    """Neither is laxer than the other, so the fast path accepts nothing that the slow path would refuse."""
    line = text.encode()
    code = ""
    try:
        scan_line(line)
    except InputError as e:
        code = e.code
    if code == "RKV102":
        assert not refuses(line)
    else:
        assert bool(code) == refuses(line)


def test_nesting_is_bounded() -> None:
    """A line cannot make the scanner recurse without end; deeper than any event is malformed."""
    deepest = MAX_DEPTH - 1
    assert scan_line(b'{"a":' + b"[" * deepest + b"]" * deepest + b"}")
    with pytest.raises(InputError, match=r"RKV101 .*nested at most"):
        scan_line(b'{"a":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}")
    with pytest.raises(InputError, match="RKV101"):
        scan_line(b'{"a":' + b'{"a":' * 100000)


def test_duplicate_is_named_with_both_places() -> None:
    """The message says where the key was first; keys are compared as what they stand for, not as they are spelled."""
    with pytest.raises(InputError, match=r"x:9:9: RKV102 duplicate key 'ä': found again, first at column 2") as caught:
        scan_line('{"ä":1, "\\u00e4":2}'.encode(), path="x", line_number=9)
    assert caught.value.column == 9


def test_keys_of_nested_objects_are_not_keys_of_the_line() -> None:
    """A nested object may repeat the names of the outer one; no event has one, so its type is refused later."""
    assert list(scan_line(b'{"a":{"a":1,"b":{"a":2}},"b":[{"a":1}]}')) == ["a", "b"]


@pytest.mark.parametrize(
    ("data", "bad"),
    [
        (b"", None),
        (b"plain\ttext\r\n", None),
        ("ä€😀".encode(), None),
        ("ä€😀".encode()[:-1], None),
        (b"ab\xff", 2),
        (b"ab\x00", 2),
        (b"\xc3\x00", 0),
        (b"\xc3(", 0),
        (b"\xed\xa0\x80", 0),
        (b"ok\x1b[0m", 2),
    ],
)
def test_first_byte_that_is_not_text(data: bytes, bad: int | None) -> None:
    """A character cut off by the end is still text; control characters and broken sequences are not."""
    assert first_bad_byte(data) == bad
