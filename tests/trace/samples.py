"""Events for the tests of this folder: one of each type, and a strategy for any event at all."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st

from residentkv.trace.codec import EVENT_TYPES
from residentkv.trace.events import AnyEvent, TraceClosed

TEXT = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ['":', '"', '" ', '\\":', "ä\u2028", "\x7f"]
)


def strategy_of(info: msgspec.inspect.Type) -> st.SearchStrategy[Any]:
    """Return a strategy for the values of a field type."""
    match info:
        case msgspec.inspect.IntType(ge=low, le=high):
            return st.integers(low, high) | st.integers(max(low or 0, 0), 9)
        case msgspec.inspect.StrType(min_length=low):
            return TEXT.filter(lambda s: len(s) >= (low or 0))
        case msgspec.inspect.FloatType():
            return st.floats(allow_nan=False, allow_infinity=False)
        case msgspec.inspect.BoolType():
            return st.booleans()
        case msgspec.inspect.NoneType():
            return st.none()
        case msgspec.inspect.LiteralType(values=values):
            return st.sampled_from(values)
        case msgspec.inspect.VarTupleType(item_type=item):
            return st.lists(strategy_of(item), max_size=3).map(tuple)
        case msgspec.inspect.TupleType(item_types=items):
            return st.tuples(*map(strategy_of, items))
        case msgspec.inspect.UnionType(types=types):
            return st.one_of(*map(strategy_of, types))
    raise TypeError(info)


def events_of(kind: type) -> st.SearchStrategy[AnyEvent]:
    """Return a strategy for the events of one type."""
    info = msgspec.inspect.type_info(kind)
    assert isinstance(info, msgspec.inspect.StructType)
    return st.builds(kind, **{field.name: strategy_of(field.type) for field in info.fields})


ANY_EVENT = st.one_of(*map(events_of, EVENT_TYPES.values()))


def plain_value(info: msgspec.inspect.Type) -> Any:
    """Return one plain value of a field type; tuples are not empty, and what may be null is not."""
    match info:
        case msgspec.inspect.IntType():
            return 1
        case msgspec.inspect.StrType():
            return "word"
        case msgspec.inspect.FloatType():
            return 1.5
        case msgspec.inspect.BoolType():
            return True
        case msgspec.inspect.LiteralType(values=values):
            return values[0]
        case msgspec.inspect.VarTupleType(item_type=item):
            return (plain_value(item),)
        case msgspec.inspect.TupleType(item_types=items):
            return tuple(map(plain_value, items))
        case msgspec.inspect.UnionType(types=types):
            return plain_value(types[0])
    raise TypeError(info)


def plain_event(kind: type) -> AnyEvent:
    """Return one plain event of a type."""
    info = msgspec.inspect.type_info(kind)
    assert isinstance(info, msgspec.inspect.StructType)
    return kind(**{field.name: plain_value(field.type) for field in info.fields})


PLAIN_EVENTS = [plain_event(kind) for kind in EVENT_TYPES.values()]


def closed(seq: int, reason: str = "end") -> TraceClosed:
    """Return a small event."""
    return TraceClosed(schema=1, run_id="r", source="s", epoch=0, seq=seq, mono_ns=seq, wall_ns=seq, reason=reason)
