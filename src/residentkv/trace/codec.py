"""Strict decoding of native traces: bytes to events, or an error with line, column and code.

Three ways lead to an event, each tried only when the one before it cannot answer:

1. A chunk whose events encode to the very same bytes has, for that reason alone, one event a line, no duplicate key
   and no stray byte. This is what `TraceWriter` writes, and it costs a third of the decoding itself.
2. A line in which the number of key ends equals the number of fields of its event type has no duplicate key, because
   every field is required (see `_has_each_key_once`).
3. Everything else goes to `scan_line`, which knows the place of every key.

The decoder of msgspec judges types in all three; it refuses unknown and missing fields, but keeps the last of two
equal keys, and that is what the rest is for.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, get_args

import msgspec

from residentkv.errors import InputError, near
from residentkv.trace.codes import (
    EMPTY,
    MALFORMED,
    MISSING_FIELD,
    MIXED_FORMATS,
    TORN_LINE,
    UNKNOWN_EVENT,
    UNKNOWN_FIELD,
    UNKNOWN_SCHEMA,
    WRONG_VALUE,
    InputRule,
)
from residentkv.trace.events import SCHEMA, AnyEvent, Event
from residentkv.trace.scan import Member, line_error, scan_line

ErrorAt = Callable[[InputRule, int, str], InputError]

EVENT_TYPES: Final[dict[str, type[Event]]] = {str(kind.__struct_config__.tag): kind for kind in get_args(AnyEvent)}
"""Every event type by its name."""

_KEYS: Final[dict[type[Event], int]] = {kind: len(kind.__struct_fields__) + 1 for kind in EVENT_TYPES.values()}
_DECODER: Final = msgspec.json.Decoder(AnyEvent)
_ENCODER: Final = msgspec.json.Encoder()
_REFUSALS: Final = (msgspec.MsgspecError, ValueError, OverflowError, RecursionError)
_FIELD_PATH = re.compile(r" - at `\$\.(?P<field>[a-z_]+)[^`]*`$")


def encode_event(event: Event) -> bytes:
    """Return the one line of an event, line end included; `decode_line` gives the event back."""
    return _ENCODER.encode(event) + b"\n"


def _has_each_key_once(line: bytes, event: Event) -> bool:
    """Tell whether a line that decoded to `event` surely has no duplicate key; False means not known.

    Let k be the number of keys in the line. The decoder refuses unknown fields and every field is required, so
    k >= the fields of the type, and k is greater exactly when a key is duplicate. Between a key's closing quote and
    its colon only white space may stand; with none of it after any quote, every key shows as `":`, and so does `\\":`
    inside a string. The count is therefore k or more, and equals the fields only when there is no duplicate.
    """
    return (
        line.count(b'":') == _KEYS[type(event)]
        and b'" ' not in line
        and b"\t" not in line
        and b"\r" not in line
        and b"\n" not in line
    )


def decode_line(line: bytes, *, path: str = "-", line_number: int = 1) -> AnyEvent:
    """Decode one line, given without its line end.

    Raises:
        InputError: RKV101 to RKV107, RKV109 or RKV113, with line and column.
    """
    event: AnyEvent | None = None
    refusal: Exception | None = None
    try:
        event = _DECODER.decode(line)
    except _REFUSALS as e:
        refusal = e
    if event is not None and _has_each_key_once(line, event):
        return event
    members = scan_line(line, path=path, line_number=line_number)
    if event is not None:
        return event

    def error(rule: InputRule, offset: int, message: str) -> InputError:
        return line_error(rule, line, offset, message, path=path, line_number=line_number)

    raise _explain(line, members, refusal, error)


def decode_chunk(chunk: bytes, *, path: str = "-", lines_before: int = 0) -> tuple[list[AnyEvent], InputError | None]:
    """Decode whole lines, up to the first that is wrong.

    Args:
        chunk: lines, each with its line end `\\n`.
        path: name of the file in errors.
        lines_before: number of lines of the file before this chunk.

    Returns:
        The events before the first wrong line, and the error of that line, or None.
    """
    try:
        events = _DECODER.decode_lines(chunk)
        if _ENCODER.encode_lines(events) == chunk:
            return events, None
    except _REFUSALS:
        pass
    events = []
    lines = chunk.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    for line in lines:
        try:
            events.append(decode_line(line, path=path, line_number=lines_before + len(events) + 1))
        except InputError as e:
            return events, e
    return events, None


def decode_trace(data: bytes, *, path: str = "-") -> list[AnyEvent]:
    """Decode a whole trace that is in memory.

    Raises:
        InputError: RKV110 empty, RKV108 torn last line, or what `decode_line` raises.
    """
    if not data:
        raise empty_error(path)
    whole, tail = split_tail(data)
    events, error = decode_chunk(whole, path=path)
    if error is not None:
        raise error
    if tail:
        raise torn_error(tail, path=path, line_number=len(events) + 1)
    return events


def split_tail(data: bytes) -> tuple[bytes, bytes]:
    """Return the whole lines and what stands after the last line end."""
    end = data.rfind(b"\n") + 1
    return data[:end], data[end:]


def empty_error(path: str) -> InputError:
    """Build the error for a trace of no bytes."""
    return InputError(
        "empty trace: found no line, expected trace_opened as the first; check that the runtime wrote to this file",
        path=path,
        code=EMPTY.code,
    )


def torn_error(tail: bytes, *, path: str, line_number: int) -> InputError:
    """Build the error for what stands after the last line end."""
    return line_error(
        TORN_LINE,
        tail,
        len(tail),
        f"torn last line: found {len(tail)} bytes without a line end, expected '\\n'; the writer was stopped in the "
        "middle of a write or the file was cut; the events before it were read",
        path=path,
        line_number=line_number,
    )


def _explain(line: bytes, members: dict[str, Member], refusal: Exception | None, error: ErrorAt) -> InputError:
    """Say why a line that is one well-formed object is not an event; the first reason that applies."""
    end = len(line.rstrip()) - 1
    if "schema" not in members:
        if "event_sequence" in members:
            return error(
                MIXED_FORMATS,
                members["event_sequence"].key_start,
                "a line of the published format: found 'event_sequence' and no 'schema', expected a residentkv event; "
                "one file holds one format, read the published one by itself",
            )
        return error(MISSING_FIELD, end, f"missing field: found no 'schema', expected \"schema\":{SCHEMA}")
    schema = _text(line, members["schema"])
    if schema != str(SCHEMA):
        return error(
            UNKNOWN_SCHEMA,
            members["schema"].value_start,
            f"unknown schema: found {schema[:40]}, expected {SCHEMA}; "
            "read this trace with the version of residentkv that wrote it",
        )
    if "event" not in members:
        return error(MISSING_FIELD, end, "missing field: found no 'event', expected the name of the event")
    try:
        name = msgspec.json.decode(_text(line, members["event"]), type=str)
    except _REFUSALS:
        return error(
            WRONG_VALUE,
            members["event"].value_start,
            f"wrong value of 'event': found {_text(line, members['event'])[:40]}, expected a string",
        )
    kind = EVENT_TYPES.get(name)
    if kind is None:
        return error(
            UNKNOWN_EVENT,
            members["event"].value_start,
            f"unknown event: found {name[:60]!r}, expected a name of docs/trace-format.md{near(name, EVENT_TYPES)}",
        )
    known = {"event", *kind.__struct_fields__}
    for key, member in members.items():
        if key not in known:
            return error(
                UNKNOWN_FIELD,
                member.key_start,
                f"unknown field {key[:60]!r} of {name}: expected only the fields of docs/trace-format.md"
                f"{near(key, known - set(members))}",
            )
    missing = [field for field in kind.__struct_fields__ if field not in members]
    if missing:
        return error(
            MISSING_FIELD,
            end,
            f"missing field of {name}: found no {', '.join(map(repr, missing))}, expected every field; "
            "what has nothing to say is null",
        )
    at = _FIELD_PATH.search(str(refusal))
    if at is None or at["field"] not in members:
        return error(MALFORMED, 0, f"malformed JSON: {refusal}; what wrote this line did not write it whole")
    member = members[at["field"]]
    reason = str(refusal)[: at.start()]
    return error(
        WRONG_VALUE,
        member.value_start,
        f"wrong value of {at['field']!r}: found {_text(line, member)[:60]}; {reason[:1].lower()}{reason[1:]}; "
        "see docs/trace-format.md",
    )


def _text(line: bytes, member: Member) -> str:
    return line[member.value_start : member.value_end].decode("utf-8", "replace")
