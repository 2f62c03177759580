from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from residentkv.errors import InputError, ResidentKVError
from residentkv.trace import codec
from residentkv.trace.codec import EVENT_TYPES, decode_chunk, decode_line, decode_trace, encode_event
from residentkv.trace.codes import INPUT_RULES
from residentkv.trace.events import AnyEvent
from residentkv.trace.scan import scan_line
from tests.trace.samples import ANY_EVENT, PLAIN_EVENTS, closed

LINE = encode_event(closed(3, "x"))[:-1]
"""{"event":"trace_closed","schema":1,"run_id":"r","source":"s","epoch":0,"seq":3,"mono_ns":3,"wall_ns":3,"reason":"x"}"""


def code_of(data: bytes) -> str:
    """Return the code of the error for a line, or `ok`."""
    try:
        decode_line(data)
    except InputError as e:
        return e.code
    return "ok"


def keys_of(line: bytes) -> list[str]:
    """Return the keys of a line as another JSON reader sees them, duplicates included."""
    pairs: list[tuple[str, Any]] = json.loads(line, object_pairs_hook=list)
    return [key for key, _ in pairs]


@given(ANY_EVENT)
def test_every_event_comes_back_from_its_line(event: AnyEvent) -> None:
    """What was encoded is decoded to an equal event, for every type and any values of its fields."""
    assert decode_line(encode_event(event)[:-1]) == event
    assert decode_chunk(encode_event(event)) == ([event], None)


def test_the_vocabulary_is_flat_and_every_field_is_required() -> None:
    """The proof that a line has no duplicate key counts on it: no event type has an optional or a nested field."""
    for event in PLAIN_EVENTS:
        line = encode_event(event)
        assert len(keys_of(line)) == len(type(event).__struct_fields__) + 1
        assert line.count(b"{") == 1
        for key in keys_of(line):
            without = {k: v for k, v in json.loads(line).items() if k != key}
            assert code_of(json.dumps(without).encode()) == "RKV104", (type(event), key)


def test_what_the_writer_writes_is_never_scanned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Canonical chunks are proven by encoding them again; the slow path is not entered."""
    monkeypatch.setattr(codec, "scan_line", None)
    monkeypatch.setattr(codec, "decode_line", None)
    assert decode_chunk(b"".join(map(encode_event, PLAIN_EVENTS))) == (PLAIN_EVENTS, None)


def test_lines_with_spaces_are_not_scanned_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines as json.dumps writes them are proven by counting their keys."""
    monkeypatch.setattr(codec, "scan_line", None)
    spaced = b"".join(json.dumps(json.loads(encode_event(e))).encode() + b"\n" for e in PLAIN_EVENTS)
    assert decode_chunk(spaced) == (PLAIN_EVENTS, None)


@pytest.mark.parametrize(
    ("old", "new", "code", "column"),
    [
        (b'"seq":3', b'"seq":3,"seq":3', "RKV102", 80),
        (b'"seq":3', b'"seq":3,"seq":4', "RKV102", 80),
        (b'"seq":3', b'"seq":3,"s\\u0065q":3', "RKV102", 80),
        (b'"seq":3', b'"seq" :3,"seq":3', "RKV102", 81),
        (b'"seq":3', b'"seq" :3, "seq" : 3', "RKV102", 82),
        (b'"seq":3', b'"seq"\t:3,"seq":3', "RKV102", 81),
        (b'"seq":3', b'"seq"\r:3,"seq":3', "RKV102", 81),
        (b'"event":"trace_closed"', b'"event":"trace_closed","event":"trace_closed"', "RKV102", 25),
        (b'"x"}', b'"\\":\\":","reason":"\\":"}', "RKV102", 122),
        (b'"x"}', b'"x"', "RKV101", 116),
        (b'"x"}', b'"x', "RKV101", 115),
        (b'"x"}', b'"x"}}', "RKV101", 117),
        (b'"x"}', b'"x",}', "RKV101", 117),
        (b'"x"}', b'"x"}{}', "RKV101", 117),
        (b'"x"', b'"\\ud800"', "RKV101", 114),
        (b'"x"', b'"\\udc00\\ud800"', "RKV101", 114),
        (b'"x"', b'"\\q"', "RKV101", 114),
        (b'"x"', b"[" * 100000, "RKV101", 128),
        (b'"seq":3', b'"seq":NaN', "RKV101", 78),
        (b'"seq":3', b'"seq":Infinity', "RKV101", 78),
        (b'"seq":3', b'"seq":03', "RKV101", 79),
        (b'"seq":3', b'"seq":+3', "RKV101", 78),
        (b'"seq":3', b"'seq':3", "RKV101", 72),
        (b"{", b"\xef\xbb\xbf{", "RKV101", 1),
        (LINE, b"", "RKV101", 1),
        (LINE, b"   ", "RKV101", 1),
        (LINE, b"[1]", "RKV101", 1),
        (LINE, b"null", "RKV101", 1),
        (b'"seq"', b'"sequence"', "RKV103", 72),
        (b'"x"}', b'"x","more":{"a":{}}}', "RKV103", 117),
        (b'"seq":3,', b"", "RKV104", 108),
        (b'"schema":1,', b"", "RKV104", 105),
        (b'"event":"trace_closed",', b"", "RKV104", 93),
        (LINE, b"{}", "RKV104", 2),
        (b'"seq":3', b'"seq":-1', "RKV105", 78),
        (b'"seq":3', b'"seq":3.0', "RKV105", 78),
        (b'"seq":3', b'"seq":3e0', "RKV105", 78),
        (b'"seq":3', b'"seq":"3"', "RKV105", 78),
        (b'"seq":3', b'"seq":true', "RKV105", 78),
        (b'"seq":3', b'"seq":null', "RKV105", 78),
        (b'"seq":3', b'"seq":' + b"9" * 30, "RKV105", 78),
        (b'"seq":3', b'"seq":' + b"9" * 9999, "RKV105", 78),
        (b'"x"', b'{"a":1}', "RKV105", 113),
        (b'"s"', b'""', "RKV105", 58),
        (b'"trace_closed"', b"7", "RKV105", 10),
        (b"trace_closed", b"trace_close", "RKV106", 10),
        (b'"schema":1', b'"schema":2', "RKV107", 34),
        (b'"schema":1', b'"schema":1.0', "RKV107", 34),
        (b'"schema":1', b'"schema":"1"', "RKV107", 34),
        (b'"x"', b'"\xff"', "RKV109", 114),
        (b'"x"', b'"\xed\xa0\x80"', "RKV109", 114),
        (b'"x"', b'"\x00"', "RKV109", 114),
        (b'"x"', b'"\xc3\xa4\x01"', "RKV109", 115),
        (b'"schema":1', b'"event_sequence":1', "RKV113", 25),
    ],
)
def test_bad_line_is_refused_with_its_code_and_column(old: bytes, new: bytes, code: str, column: int) -> None:
    """Each way to spoil a good line has its own code, and the column is where it is spoiled."""
    assert LINE.count(old) == 1
    bad = LINE.replace(old, new)
    with pytest.raises(InputError) as caught:
        decode_line(bad, path="trace.jsonl", line_number=7)
    assert (caught.value.code, caught.value.line, caught.value.column) == (code, 7, column)
    assert str(caught.value).startswith(f"trace.jsonl:7:{column}: {code} ")
    assert len(str(caught.value)) < 600
    events, error = decode_chunk(encode_event(closed(2)) + bad + b"\n" + LINE + b"\n", lines_before=5)
    assert events == [closed(2)]
    assert error is not None
    assert (error.code, error.line, error.column) == (code, 7, column)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"{", b" { "),
        (b"}", b" } \t"),
        (b"}", b"}\r"),
        (b'"seq":', b'"seq" :  '),
        (b'"seq":', b'"s\\u0065q":'),
        (b"trace_closed", b"trace_\\u0063losed"),
        (b'"x"', b'"\\ud83d\\ude00 \\" \\/"'),
        (b'"x"', b'"a\\": \\":"'),
    ],
)
def test_json_of_another_writer_is_read(old: bytes, new: bytes) -> None:
    """White space, escapes and a carriage return before the line end are JSON, and change nothing in the event."""
    line = LINE.replace(old, new)
    event = decode_line(line)
    assert json.loads(line) == json.loads(encode_event(event))
    assert decode_chunk(LINE + b"\n" + line + b"\n") == ([closed(3, "x"), event], None)


@pytest.mark.parametrize(
    "chunk",
    [
        LINE + LINE + b"\n\n",
        LINE.replace(b",", b",\n", 1) + b"\n" + LINE + LINE + b"\n",
        LINE + b"\n" + LINE + b" " + LINE + b"\n",
        LINE + b"\r" + LINE + b"\n",
        LINE + b"\n\n" + LINE + b"\n",
        b"\n" + LINE + b"\n",
    ],
)
def test_lines_cannot_be_traded_against_each_other(chunk: bytes) -> None:
    """Two events on one line, an event on two lines and blank lines are errors, also where their counts cancel out."""
    _, error = decode_chunk(chunk)
    assert error is not None
    assert error.code == "RKV101"


def test_a_duplicate_in_one_line_is_not_hidden_by_white_space_in_another() -> None:
    """Counts are made for each line, or not at all."""
    double = LINE.replace(b'"seq":3', b'"seq":3,"seq":3')
    spaced = LINE.replace(b'"seq":3', b'"seq" :3')
    for chunk in (double + b"\n" + spaced + b"\n", spaced + b"\n" + double + b"\n"):
        events, error = decode_chunk(chunk)
        assert error is not None
        assert error.code == "RKV102"
        assert len(events) == chunk.index(double) // len(spaced)


PIECES = st.sampled_from(
    [
        *(b" ", b"\t", b"\r", b'"', b'":', b'" :', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"0", b"-", b".", b"e9"),
        *(b"null", b"NaN", b'"seq":3,', b'"s\\u0065q":3,', b'"event":"trace_closed",', b'\\":', b"\\ud800"),
        *(b"\xff", b"\x00", b"\xc3"),
    ]
)


@st.composite
def spoiled_lines(draw: st.DrawFn) -> bytes:
    """Take the line of any event and change it in a few places, mostly into something that is nearly JSON."""
    line = encode_event(draw(ANY_EVENT))[:-1]
    if draw(st.booleans()):
        line = json.dumps(json.loads(line), separators=draw(st.sampled_from([(", ", ": "), (",", " :")]))).encode()
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(line)))
        match draw(st.integers(0, 3)):
            case 0:
                line = line[:at] + draw(PIECES) + line[at:]
            case 1:
                line = line[:at] + line[at + draw(st.integers(1, 4)) :]
            case 2:
                keys = [i for i in range(len(line)) if line[i : i + 1] in b'{,"']
                at = draw(st.sampled_from(keys)) if keys else at
                line = line[: at + 1] + draw(PIECES) + line[at + 1 :]
            case _:
                members = line[1:-1].split(b",")
                line = line[:1] + draw(st.sampled_from(members)) + b"," + line[1:]
    return line.replace(b"\n", b" ")


@given(spoiled_lines())
@example(LINE.replace(b'"seq":3', b'"seq" :3,"seq":3'))
def test_no_accepted_line_has_a_duplicate_key(line: bytes) -> None:
    """Whatever is accepted, on whichever path, the slow path accepts, and another reader finds each key once in it."""
    events, error = decode_chunk(line + b"\n")
    if error is not None:
        assert error.code in {rule.code for rule in INPUT_RULES}
        assert error.line == 1
        assert 1 <= error.column <= len(line) + 1
        return
    event = events[0]
    assert decode_line(line) == event
    assert list(scan_line(line)) == keys_of(line)
    assert sorted(keys_of(line)) == sorted({"event", *event.__struct_fields__})
    assert json.loads(line) == json.loads(encode_event(event))


@given(st.lists(spoiled_lines(), max_size=4))
def test_a_chunk_says_what_its_lines_say(lines: list[bytes]) -> None:
    """The fast path over many lines gives the same events and the same first error as one line after another."""
    chunk = b"".join(line + b"\n" for line in lines)
    events: list[AnyEvent] = []
    expected: InputError | None = None
    for number, line in enumerate(lines, 1):
        try:
            events.append(decode_line(line, line_number=number))
        except InputError as e:
            expected = e
            break
    found, error = decode_chunk(chunk)
    assert found == events
    assert str(error) == str(expected)


@given(st.binary(max_size=60) | st.text().map(str.encode) | spoiled_lines())
@example(b"\xff" * 4)
@example(b'{"schema":1,"event":"trace_closed","seq":"\xff')
@example(b'{"' + b"[" * 100 + b'":1}')
def test_any_bytes_give_events_or_one_clear_error(data: bytes) -> None:
    """Decoding raises nothing but errors of this project, whatever it is given."""
    for decode in (decode_trace, decode_line, decode_chunk):
        caught: ResidentKVError | None = None
        try:
            decode(data)
        except ResidentKVError as e:
            caught = e
        if caught is not None:
            assert "\n" not in str(caught)
            assert caught.exit_code == 11


def test_trace_in_memory_must_not_be_empty_or_torn() -> None:
    """No line at all is RKV110; a last line without a line end is RKV108 even when it is a whole event."""
    with pytest.raises(InputError, match="RKV110"):
        decode_trace(b"")
    with pytest.raises(InputError, match=r"-:2:117: RKV108") as caught:
        decode_trace(LINE + b"\n" + LINE)
    assert caught.value.line == 2
    assert decode_trace(LINE + b"\n") == [closed(3, "x")]


def test_every_event_type_has_its_own_name() -> None:
    """No two event types share a name, and the names follow the spelling of the published ones."""
    assert len(EVENT_TYPES) == len(PLAIN_EVENTS) == len({type(e) for e in PLAIN_EVENTS})
    assert all(name.replace("_", "").isalpha() and name.islower() for name in EVENT_TYPES)


def test_codes_are_unique() -> None:
    """Each code and each slug stands for one rule, and all of them are in this module's range."""
    assert len({rule.code for rule in INPUT_RULES}) == len({rule.slug for rule in INPUT_RULES}) == len(INPUT_RULES)
    assert [rule.code for rule in INPUT_RULES] == [f"RKV{101 + i}" for i in range(len(INPUT_RULES))]
