"""The codes of everything that can be wrong with a trace as input, in one place; all of them are inconclusive."""

from __future__ import annotations

from typing import Final, NamedTuple


class InputRule(NamedTuple):
    """One way in which a trace cannot be understood: stable code, slug, and what it means."""

    code: str
    slug: str
    meaning: str


MALFORMED: Final = InputRule("RKV101", "malformed-json", "the line is not exactly one JSON object")
DUPLICATE_KEY: Final = InputRule("RKV102", "duplicate-key", "a key occurs twice in one event, so it says two things")
UNKNOWN_FIELD: Final = InputRule("RKV103", "unknown-field", "the event has a field that its type does not know")
MISSING_FIELD: Final = InputRule("RKV104", "missing-field", "a field that the event type requires is absent")
WRONG_VALUE: Final = InputRule("RKV105", "wrong-value", "a field has another type or range than the event type allows")
UNKNOWN_EVENT: Final = InputRule("RKV106", "unknown-event", "the event name is not in the vocabulary")
UNKNOWN_SCHEMA: Final = InputRule("RKV107", "unknown-schema", "the line was written for another schema version")
TORN_LINE: Final = InputRule("RKV108", "torn-last-line", "the last line has no line end, so its write did not finish")
NOT_TEXT: Final = InputRule("RKV109", "not-text", "the bytes are not UTF-8 text")
EMPTY: Final = InputRule("RKV110", "empty-trace", "there is no line at all")
LONG_LINE: Final = InputRule("RKV111", "line-too-long", "a line is longer than any event can be")
TORN_STREAM: Final = InputRule("RKV112", "torn-stream", "the stored or compressed bytes end early or are corrupt")
MIXED_FORMATS: Final = InputRule("RKV113", "mixed-formats", "lines of two trace formats stand in one file")

INPUT_RULES: Final = (
    MALFORMED,
    DUPLICATE_KEY,
    UNKNOWN_FIELD,
    MISSING_FIELD,
    WRONG_VALUE,
    UNKNOWN_EVENT,
    UNKNOWN_SCHEMA,
    TORN_LINE,
    NOT_TEXT,
    EMPTY,
    LONG_LINE,
    TORN_STREAM,
    MIXED_FORMATS,
)
