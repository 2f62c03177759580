"""A position-aware scanner for one line: the slow path, which knows duplicate keys and columns exactly."""

from __future__ import annotations

import json
import re
from typing import Final, NamedTuple

from residentkv.errors import InputError
from residentkv.trace.codes import DUPLICATE_KEY, MALFORMED, NOT_TEXT, InputRule

MAX_DEPTH: Final = 16
"""Arrays and objects may nest this deep; the deepest field of any event nests two deep."""

_SPACE = re.compile(rb"[ \t\r\n]*+")
_PLAIN = rb'[^"\\\x00-\x1f]++'
_ESCAPE = (
    rb'\\["\\/bfnrt]|\\u(?![dD][89a-fA-F])[0-9a-fA-F]{4}'
    rb"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)
_STRING = re.compile(rb'"(?:' + _PLAIN + rb"|" + _ESCAPE + rb')*+"')
_STRING_PART = re.compile(_PLAIN + rb"|" + _ESCAPE)
_NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?")
_WORD = re.compile(rb"true|false|null")
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")


class Member(NamedTuple):
    """One member of the object of a line; offsets are in bytes from the start of the line."""

    key: str
    key_start: int
    value_start: int
    value_end: int


def column_of(line: bytes, offset: int) -> int:
    """Return the 1-based column, in characters, of a byte offset."""
    return len(line[:offset].decode("utf-8", "replace")) + 1


def line_error(rule: InputRule, line: bytes, offset: int, message: str, *, path: str, line_number: int) -> InputError:
    """Build the error for one place of one line."""
    return InputError(message, path=path, line=line_number, column=column_of(line, offset), code=rule.code)


def first_bad_byte(data: bytes) -> int | None:
    """Return the offset of the first byte that cannot stand in a text file, or None.

    A character that is only cut off by the end of `data` is not bad.
    """
    control = _CONTROL.search(data)
    end = control.start() if control else len(data)
    try:
        data[:end].decode("utf-8")
    except UnicodeDecodeError as e:
        if control or e.end < len(data) or e.reason != "unexpected end of data":
            return e.start
    return control.start() if control else None


def not_text_error(line: bytes, bad: int, *, path: str, line_number: int) -> InputError:
    """Build the error for a byte that cannot stand in a trace."""
    return line_error(
        NOT_TEXT,
        line,
        bad,
        f"not text: found byte 0x{line[bad]:02x}, expected UTF-8; is this a trace, or a compressed or binary file?",
        path=path,
        line_number=line_number,
    )


class _Fault(Exception):
    """Where the grammar is left; never leaves this module."""

    def __init__(self, offset: int, expected: str) -> None:
        self.offset = offset
        self.expected = expected


def _found(line: bytes, offset: int) -> str:
    if offset >= len(line):
        return "the end of the line"
    return repr(line[offset : offset + 12].decode("utf-8", "replace"))


def _string_end(line: bytes, start: int) -> int:
    whole = _STRING.match(line, start)
    if whole is not None:
        return whole.end()
    i = start + 1
    while part := _STRING_PART.match(line, i):
        i = part.end()
    if line[i : i + 1] == b"\\":
        raise _Fault(i, "a valid escape sequence")
    raise _Fault(i, "the rest of a string and its closing quote")


def _skip(line: bytes, start: int) -> int:
    m = _SPACE.match(line, start)
    return m.end() if m else start


def _value_end(line: bytes, start: int, depth: int) -> int:
    first = line[start : start + 1]
    if first == b'"':
        return _string_end(line, start)
    if first in (b"[", b"{"):
        if depth >= MAX_DEPTH:
            raise _Fault(start, f"values nested at most {MAX_DEPTH} deep")
        return _container_end(line, start, depth + 1)
    m = _NUMBER.match(line, start) or _WORD.match(line, start)
    if m is None:
        raise _Fault(start, "a value")
    return m.end()


def _container_end(line: bytes, start: int, depth: int) -> int:
    is_object = line[start] == 0x7B
    close = 0x7D if is_object else 0x5D
    i = _skip(line, start + 1)
    if line[i : i + 1] == bytes((close,)):
        return i + 1
    while True:
        if is_object:
            i = _skip(line, _key_end(line, i))
        i = _skip(line, _value_end(line, i, depth))
        after = line[i : i + 1]
        if after == bytes((close,)):
            return i + 1
        if after != b",":
            raise _Fault(i, f"',' or '{chr(close)}'")
        i = _skip(line, i + 1)


def _key_end(line: bytes, start: int) -> int:
    """Return the offset after the colon that follows the key at `start`."""
    if line[start : start + 1] != b'"':
        raise _Fault(start, "a key in double quotes")
    i = _skip(line, _string_end(line, start))
    if line[i : i + 1] != b":":
        raise _Fault(i, "':' after the key")
    return i + 1


def _members(line: bytes) -> list[Member]:
    i = _skip(line, 0)
    if i == len(line):
        raise _Fault(0, "a JSON object; blank lines are not part of a trace")
    if line[i : i + 1] != b"{":
        raise _Fault(i, "'{', the start of a JSON object")
    members: list[Member] = []
    i = _skip(line, i + 1)
    if line[i : i + 1] != b"}":
        while True:
            key_start = i
            value_start = _skip(line, _key_end(line, key_start))
            value_end = _value_end(line, value_start, 1)
            key = json.loads(line[key_start : _string_end(line, key_start)])
            members.append(Member(key, key_start, value_start, value_end))
            i = _skip(line, value_end)
            if line[i : i + 1] == b"}":
                break
            if line[i : i + 1] != b",":
                raise _Fault(i, "',' or '}'")
            i = _skip(line, i + 1)
    i = _skip(line, i + 1)
    if i != len(line):
        raise _Fault(i, "the end of the line; one object a line")
    return members


def scan_line(line: bytes, *, path: str = "-", line_number: int = 1) -> dict[str, Member]:
    """Read the members of the one object of a line, in order.

    Args:
        line: one line without its line end.

    Returns:
        The members by name.

    Raises:
        InputError: RKV109 not text, RKV101 not one JSON object, RKV102 a key twice; with line and column.
    """
    bad = first_bad_byte(line)
    if bad is None:
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as e:
            bad = e.start
    if bad is not None:
        raise not_text_error(line, bad, path=path, line_number=line_number)
    try:
        members = _members(line)
    except _Fault as e:
        raise line_error(
            MALFORMED,
            line,
            e.offset,
            f"malformed JSON: found {_found(line, e.offset)}, expected {e.expected}; "
            "what wrote this line did not write it whole, or something wrote into it",
            path=path,
            line_number=line_number,
        ) from None
    by_name: dict[str, Member] = {}
    for member in members:
        first = by_name.setdefault(member.key, member)
        if first is not member:
            raise line_error(
                DUPLICATE_KEY,
                line,
                member.key_start,
                f"duplicate key {member.key[:60]!r}: found again, first at column "
                f"{column_of(line, first.key_start)}, expected once; nothing tells which of the two was meant",
                path=path,
                line_number=line_number,
            )
    return by_name
