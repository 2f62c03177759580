"""Opening, closing, order and plain events of a (source, epoch)."""

from __future__ import annotations

from residentkv.audit.model import Rule
from residentkv.audit.rules import sequence
from residentkv.audit.state import SourceState
from residentkv.audit.steps.endings import MAX_BREAKS
from residentkv.trace.events import Event, GenericCounter, RuntimeEvent, TraceClosed, TraceOpened

CLOSED = -1
"""`next_seq` of a source that was closed; no event has this number."""


def on_opened(s: SourceState, e: TraceOpened) -> None:
    """Who writes; said once."""
    if s.opened is not None:
        _break(
            s,
            e,
            sequence.DUPLICATE_EPOCH,
            f"{s.at(e)}: this (source, epoch) was opened before; a process that starts again needs a new epoch.",
        )
        return
    s.opened = e


def on_closed(s: SourceState, e: TraceClosed) -> None:
    """The writer says that it is done."""
    s.closed = True
    s.next_seq = CLOSED


def on_counter(s: SourceState, e: GenericCounter) -> None:
    """A process-wide number; never evidence."""
    s.counters += 1


def on_runtime_event(s: SourceState, e: RuntimeEvent) -> None:
    """An event of the runtime's own: only its place in the order counts, and that was checked."""


def begin(s: SourceState, e: Event) -> None:
    """Check the first event of a (source, epoch)."""
    if not isinstance(e, TraceOpened):
        s.find(
            sequence.TRACE_NOT_OPENED,
            None,
            (e.seq,),
            f"{s.at(e)} is the first event of {s.source}/{s.epoch}; nothing says which runtime writes.",
            missing="trace_opened",
        )


def disorder(s: SourceState, e: Event) -> None:
    """The event does not fit its place: say why, and count everything after it as inconclusive."""
    if e.run_id != s.run_id:
        _break(s, e, sequence.MIXED_RUNS, f"{s.at(e)} is of run {e.run_id}; the source began with run {s.run_id}.")
    if s.closed:
        _break(s, e, sequence.EVENT_AFTER_CLOSE, f"{s.at(e)} comes after trace_closed at {s.seq(s.last_seq)}.")
    elif e.seq > s.next_seq:
        missing = e.seq - s.next_seq
        _break(
            s,
            e,
            sequence.SEQUENCE_GAP,
            f"{s.at(e)} follows seq {s.next_seq - 1}: {missing} event{'s' if missing > 1 else ''} missing from seq "
            f"{s.next_seq} on.",
        )
    elif e.seq < s.next_seq:
        _break(s, e, sequence.SEQUENCE_REGRESSION, f"{s.at(e)} follows seq {s.next_seq - 1}: the numbers went back.")
    if e.mono_ns < s.mono_ns:
        _break(
            s,
            e,
            sequence.CLOCK_BACKWARDS,
            f"{s.at(e)} is at {e.mono_ns} ns; the event before it was at {s.mono_ns} ns.",
        )


def _break(s: SourceState, e: Event, rule: Rule, story: str) -> None:
    if s.broken_seq < 0:
        s.broken_seq = e.seq
    s.find(rule, None, (e.seq,), story)
    s.breaks += 1
    if s.breaks > MAX_BREAKS:
        return
    for c in s.claims.values():
        if not c.ended and not c.touched:
            c.touched = True
            s.find(rule, c, (c.last_seq, e.seq), story, f"The claim was {c.state_name()} when it happened.")
