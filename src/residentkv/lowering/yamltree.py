"""Strict YAML: a tree of plain values in which every value knows its line and column.

Refused, never repaired: duplicate keys, keys that are not text, aliases, anchors, tags, several documents, a byte
order mark, anything that is not UTF-8. Plain scalars are read by the YAML 1.2 core schema, so `yes`, `no` and `on`
are text and `0.32` is a number (quote a version).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

from residentkv.errors import InputError

MAX_BYTES = 4 << 20
MAX_LEVELS = 32
SYNTAX = "RKV151"

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INT = re.compile(r"[-+]?[0-9]{1,18}\Z")
_RADIX = re.compile(r"0o[0-7]{1,20}\Z|0x[0-9a-fA-F]{1,15}\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_WORDS: dict[str, object] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **{s + w: float(s + "inf") for s in ("", "+", "-") for w in (".inf", ".Inf", ".INF")},
    **{w: float("nan") for w in (".nan", ".NaN", ".NAN")},
}

Plain = object


@dataclass(frozen=True, slots=True)
class Span:
    """Where a value stands: 1-based line and column, and the half-open range of characters in the text."""

    line: int
    column: int
    start: int
    end: int


@dataclass(slots=True)
class Node:
    """One value: a dict of nodes, a list of nodes, or a scalar. `is_flow` tells `{..}`/`[..]` from block style."""

    value: dict[str, Node] | list[Node] | str | int | float | bool | None
    span: Span
    is_flow: bool = False
    keys: dict[str, Span] = field(default_factory=dict)

    def plain(self) -> Plain:
        """Return the value without positions."""
        if isinstance(self.value, dict):
            return {k: v.plain() for k, v in self.value.items()}
        if isinstance(self.value, list):
            return [v.plain() for v in self.value]
        return self.value

    def content_end(self) -> int:
        """Return where the last scalar or closing bracket of this value ends (comments after it not counted)."""
        if not self.is_flow:
            if isinstance(self.value, dict) and self.value:
                return list(self.value.values())[-1].content_end()
            if isinstance(self.value, list) and self.value:
                return self.value[-1].content_end()
        return self.span.end


def decode_text(raw: bytes, path: str) -> str:
    """Decode UTF-8 strictly.

    Raises:
        InputError: too large, a byte order mark, or not UTF-8; the message gives the byte offset.
    """
    if len(raw) > MAX_BYTES:
        raise InputError(f"found {len(raw)} bytes, expected at most {MAX_BYTES}; split it", path=path, code=SYNTAX)
    if raw[:3] == b"\xef\xbb\xbf":
        raise InputError("found a byte order mark, expected plain UTF-8; remove it", path=path, line=1, code=SYNTAX)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as e:
        line = raw.count(b"\n", 0, e.start) + 1
        message = f"found byte 0x{raw[e.start]:02x} at offset {e.start}, expected UTF-8 text"
        raise InputError(message, path=path, line=line, code=SYNTAX) from None


def parse_yaml(text: str, path: str) -> Node:
    """Parse exactly one document.

    Args:
        text: the document.
        path: how to name it in errors.

    Raises:
        InputError: RKV151, with line and column, for anything that the module docstring says is refused.
    """
    return _Builder(text, path).document()


class _Builder:
    def __init__(self, text: str, path: str) -> None:
        self._path = path
        self._events = self._read(text)

    def _read(self, text: str) -> Iterator[yaml.Event]:
        try:
            yield from yaml.parse(text, Loader=_LOADER)
        except yaml.MarkedYAMLError as e:
            mark = e.problem_mark or e.context_mark
            line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
            what = " ".join(str(part) for part in (e.context, e.problem) if part)
            raise self._error(f"not YAML: {what or 'unreadable'}", line, column) from None
        except yaml.YAMLError as e:
            what = getattr(e, "reason", None) or str(e).splitlines()[0]
            position = getattr(e, "position", 0)
            line = text.count("\n", 0, position) + 1 if isinstance(position, int) and position > 0 else 1
            raise self._error(f"not YAML: {what}", line, 0) from None

    def _error(self, message: str, line: int, column: int) -> InputError:
        return InputError(message, path=self._path, line=line, column=column, code=SYNTAX)

    def _refuse(self, event: yaml.Event, message: str) -> InputError:
        span = _span(event, event)
        return self._error(message, span.line, span.column)

    def document(self) -> Node:
        event = next(self._events)  # stream start
        event = next(self._events)
        if isinstance(event, yaml.StreamEndEvent):
            raise self._error("found an empty document, expected a mapping", 1, 1)
        if getattr(event, "tags", None) or getattr(event, "version", None):
            raise self._refuse(event, "found a %-directive, expected none; remove it")
        root = self._node(next(self._events), 0)
        next(self._events)  # document end
        event = next(self._events)
        if not isinstance(event, yaml.StreamEndEvent):
            raise self._refuse(event, "found a second document, expected one; split the file")
        return root

    def _node(self, event: yaml.Event, level: int) -> Node:
        if isinstance(event, yaml.AliasEvent):
            raise self._refuse(event, f"found the alias *{event.anchor}, expected the value itself; write it out")
        anchor, tag = getattr(event, "anchor", None), getattr(event, "tag", None)
        if anchor is not None:
            raise self._refuse(event, f"found the YAML anchor &{anchor}, expected none; remove it")
        if tag is not None:
            raise self._refuse(event, f"found the tag {tag}, expected a plain value; remove it")
        if level > MAX_LEVELS:
            raise self._refuse(event, f"found more than {MAX_LEVELS} levels, expected fewer")
        if isinstance(event, yaml.ScalarEvent):
            return Node(self._scalar(event), _span(event, event))
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(event, level)
        return self._sequence(event, level)

    def _mapping(self, start: yaml.Event, level: int) -> Node:
        value: dict[str, Node] = {}
        keys: dict[str, Span] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._node(event, level + 1)
            if not isinstance(key.value, str):
                raise self._refuse(event, "found a key that is not text, expected a name; quote it")
            if key.value in value:
                first = keys[key.value]
                raise self._refuse(
                    event, f"found the key {key.value[:60]!r} twice, first in line {first.line}; keep one of them"
                )
            keys[key.value] = key.span
            value[key.value] = self._node(next(self._events), level + 1)
        return Node(value, _span(start, event), bool(getattr(start, "flow_style", False)), keys)

    def _sequence(self, start: yaml.Event, level: int) -> Node:
        items: list[Node] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(event, level + 1))
        return Node(items, _span(start, event), bool(getattr(start, "flow_style", False)))

    def _scalar(self, event: yaml.ScalarEvent) -> str | int | float | bool | None:
        text = str(event.value)
        if event.style not in (None, ""):
            return text
        if text in _WORDS:
            return _WORDS[text]  # type: ignore[return-value]
        if _INT.match(text):
            return int(text)
        if _RADIX.match(text):
            return int(text, 0)
        if len(text) <= 64 and _FLOAT.match(text):
            return float(text)
        return text


def _span(first: yaml.Event, last: yaml.Event) -> Span:
    start, end = first.start_mark, last.end_mark
    if start is None or end is None:
        raise TypeError("a YAML event without a position")
    return Span(line=start.line + 1, column=start.column + 1, start=start.index, end=end.index)
