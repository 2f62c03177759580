"""What separates a refused trace from its twin: the defect, event by event, without numbers and times."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

import msgspec

from residentkv.suite.mutate import Trace, event_name
from residentkv.trace.events import Event

_ENVELOPE = ("schema", "run_id", "seq", "mono_ns", "wall_ns")


def tell_difference(trace: Trace, twin: Trace) -> Iterator[str]:
    """Yield one line a difference: `-` only in the trace, `+` only in the twin, `~` a field that differs.

    Args:
        trace: the refused events.
        twin: the events that pass.
    """
    a, b = [_content(e) for e in trace], [_content(e) for e in twin]
    matcher = difflib.SequenceMatcher(None, [repr(x) for x in a], [repr(x) for x in b], autojunk=False)
    for tag, a1, a2, b1, b2 in matcher.get_opcodes():
        if tag == "equal":
            continue
        if tag == "replace" and [x["event"] for x in a[a1:a2]] == [x["event"] for x in b[b1:b2]]:
            for mine, other in zip(a[a1:a2], b[b1:b2], strict=True):
                yield from _fields(mine, other)
            continue
        yield from (f"- {_told(x)}" for x in a[a1:a2])
        yield from (f"+ {_told(x)}" for x in b[b1:b2])


def _content(e: Event) -> dict[str, Any]:
    fields = {k: v for k, v in msgspec.structs.asdict(e).items() if k not in _ENVELOPE}
    return {"event": event_name(e), **fields}


def _fields(mine: dict[str, Any], other: dict[str, Any]) -> Iterator[str]:
    for name in mine:
        if mine[name] != other[name]:
            yield f"~ {mine['event']} {name}: {_short(mine[name])}, in the twin {_short(other[name])}"


def _told(content: dict[str, Any]) -> str:
    names = ("claim_id", "request_id", "job_id", "finish_status", "outcome")
    told = [f"{n}={content[n]}" for n in names if content.get(n) is not None]
    return " ".join([content["event"], *told])


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
