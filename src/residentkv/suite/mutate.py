"""Mutants of a trace: every small lie that one event, its place or one of its fields could tell.

A mutant keeps the envelope of the place (numbers without gaps, times that do not go back) unless the envelope is what
is changed, so that an audit has to notice the content and not the bookkeeping. Mutants are made one at a time; a trace
of n events has some thirty times n of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from residentkv.claims.modes import Mode
from residentkv.trace import events as ev
from residentkv.trace.events import Event

Trace = tuple[Event, ...]


class Mutant(msgspec.Struct, frozen=True, kw_only=True):
    """One changed trace.

    `at` is the index of the changed event in the original trace, `before` that event, `beside` what it was swapped
    with, `field`, `old` and `new` what was changed in it.
    """

    operator: str
    events: Trace
    at: int
    before: Event
    beside: Event | None = None
    field: str = ""
    old: Any = None
    new: Any = None

    def sentence(self) -> str:
        """Say what was done, for a reader."""
        where = f"seq {self.before.seq} {event_name(self.before)}"
        if self.beside is not None:
            return f"{self.operator}: {where} with {event_name(self.beside)}"
        if self.field:
            return f"{self.operator}: {where} {self.field} {_short(self.old)} -> {_short(self.new)}"
        return f"{self.operator}: {where}"


def event_name(event: Event) -> str:
    """Return the name that an event has in the trace."""
    config: Any = event.__struct_config__
    return str(config.tag)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def renumber(events: Sequence[Event]) -> Trace:
    """Give the events of each (source, epoch) numbers without gaps, in the order in which they stand."""
    next_seq: dict[tuple[str, int], int] = {}
    out = []
    for e in events:
        key = (e.source, e.epoch)
        seq = next_seq.get(key, 0)
        next_seq[key] = seq + 1
        out.append(e if e.seq == seq else msgspec.structs.replace(e, seq=seq))
    return tuple(out)


def mutate_trace(trace: Trace) -> Iterator[Mutant]:
    """Yield every mutant of a trace.

    Args:
        trace: events in file order; the numbers of each (source, epoch) have no gaps.
    """
    for operator in OPERATORS.values():
        yield from operator(trace)


def delete(trace: Trace) -> Iterator[Mutant]:
    """Leave an event out and close the gap."""
    for at, e in enumerate(trace):
        yield Mutant(operator="delete", events=renumber((*trace[:at], *trace[at + 1 :])), at=at, before=e)


def delete_leaving_gap(trace: Trace) -> Iterator[Mutant]:
    """Leave an event out and keep the numbers of the others."""
    for at, e in enumerate(trace):
        yield Mutant(operator="delete-leaving-gap", events=(*trace[:at], *trace[at + 1 :]), at=at, before=e)


def swap(trace: Trace) -> Iterator[Mutant]:
    """Swap an event with the next one of the same (source, epoch); numbers and times stay where they are."""
    for at, e in enumerate(trace):
        other = next((n for n in range(at + 1, len(trace)) if _home(trace[n]) == _home(e)), None)
        if other is None:
            continue
        changed = list(trace)
        changed[at], changed[other] = _moved(trace[other], e), _moved(e, trace[other])
        yield Mutant(operator="swap", events=tuple(changed), at=at, before=e, beside=trace[other])


def duplicate(trace: Trace) -> Iterator[Mutant]:
    """Write an event twice, numbers going on."""
    for at, e in enumerate(trace):
        yield Mutant(operator="duplicate", events=renumber((*trace[: at + 1], e, *trace[at + 1 :])), at=at, before=e)


def edit_seq(trace: Trace) -> Iterator[Mutant]:
    """Change one number: skip one, repeat the one before, begin again at 0."""
    for at, e in enumerate(trace):
        for new in dict.fromkeys((e.seq + 1, max(e.seq - 1, 0), 0)):
            if new != e.seq:
                yield _edited("seq", trace, at, "seq", new)


def edit_identity(trace: Trace) -> Iterator[Mutant]:
    """Change one name in one event: to another one of the trace, to one that occurs nowhere, to none."""
    known = {name: _known(trace, name) for name in IDENTITY}
    for at, e in enumerate(trace):
        fields = {f.name: f for f in msgspec.structs.fields(e)}
        for name in IDENTITY:
            if name not in fields:
                continue
            old = getattr(e, name)
            for new in (*known[name], _fresh(known[name])):
                if new != old:
                    yield _edited(f"identity {name}", trace, at, name, new)
            if old is not None and _takes_none(fields[name].type):
                yield _edited(f"identity {name}", trace, at, name, None)


def edit_outcome(trace: Trace) -> Iterator[Mutant]:
    """Change what one event says: results, names of outcomes, words, ranges, blocks, jobs."""
    claims, priorities = _known(trace, "claim_id"), _known(trace, "priority")
    for at, e in enumerate(trace):
        for field in msgspec.structs.fields(e):
            old = getattr(e, field.name)
            for new in _other_values(field.name, old, claims, priorities):
                yield _edited(f"outcome {field.name}", trace, at, field.name, new)


Operator = Callable[[Trace], Iterator[Mutant]]

OPERATORS: dict[str, Operator] = {
    "delete": delete,
    "delete-leaving-gap": delete_leaving_gap,
    "swap": swap,
    "duplicate": duplicate,
    "seq": edit_seq,
    "identity": edit_identity,
    "outcome": edit_outcome,
}
"""Every operator by name; `identity` and `outcome` are counted a field."""

IDENTITY = (
    "claim_id",
    "owner_scope",
    "object_id",
    "token_map_id",
    "cache_identity",
    "predicate",
    "request_id",
    "job_id",
    "worker_id",
    "worker_epoch",
)

_WORDS: dict[str, tuple[str, ...]] = {
    "decision": ("accepted", "clipped"),
    "mode": tuple(mode.value for mode in Mode),
    "on_restore_failure": ("refuse", "recompute"),
    "failure_policy": ("fail", "recompute", "retry"),
    "finish_status": ("length", "error", "aborted"),
    "outcome": ("served_by_binding", "moved", "lost", "refused"),
    "direction": ("store", "load"),
}
"""Fields that hold one word of a few."""

_COUNTED = (
    "generation",
    "revision",
    "footprint_blocks",
    "object_blocks",
    "shortfall_blocks",
    "workers_total",
    "protected_blocks",
    "usable_blocks",
    "active_blocks",
    "need_blocks",
    "reused_blocks",
)
"""Numbers that other events of the trace, or other numbers beside them, determine."""

_NAMES: dict[str, tuple[str, ...]] = {
    "tier": ("another-tier",),
    "tier_from": ("another-tier",),
    "tier_to": ("another-tier",),
    "released_by": ("a-stranger", "engine:pressure"),
}
"""Fields that hold a name, and others that they could hold."""


def _other_values(name: str, old: Any, claims: Sequence[Any], priorities: Sequence[Any]) -> Iterator[Any]:
    """Yield what a field could say instead."""
    if name == "success":
        yield not old
    elif name in _WORDS:
        yield from (word for word in _WORDS[name] if word != old)
    elif name == "outcome_claim_id":
        yield from (new for new in (*claims, _fresh(claims)) if new != old)
        if old is not None:
            return
    elif name == "blocking_claim_ids":
        yield from _other_names(old, claims)
    elif name.endswith("_pos"):
        yield from _other_ranges(old)
    elif name in ("block_ids", "invalid_block_ids", "job_ids"):
        if old:
            yield from dict.fromkeys((old[:-1], (*old[:-1], 1_000_003), ()))
    elif name == "block_hashes":
        if old:
            yield from dict.fromkeys((old[:-1], (*old[:-1], "kv:of-something-else"), ()))
    elif name in _NAMES:
        yield from (word for word in _NAMES[name] if word != old)
    elif name in ("actions", "clipped_from"):
        yield from dict.fromkeys((old[:-1], (*old, "demote:nobody-known"))) if old else (("demote:nobody-known",),)
    elif name == "priority":
        yield from (new for new in (*priorities, 1_000_003, -1_000_003) if new != old)
    elif name == "bytes" and old:
        yield 0
    elif name == "worker":
        yield old + 1
    elif name == "output_tokens" and not old:
        yield 1
    elif name == "ttl_s" and old:
        yield old / 2
    elif name == "deadline_ns" and old is not None:
        yield old + 1_000_000
        yield max(old - 1_000_000, 0)
    elif name in _COUNTED and old is not None:
        yield old + 1
        if old > (name == "workers_total"):
            yield old - 1


def _other_names(old: tuple[str, ...], claims: Sequence[Any]) -> Iterator[tuple[str, ...]]:
    if old:
        yield old[:-1]
        yield (*old[:-1], _fresh(claims))
    others = [c for c in claims if c not in old]
    yield (*old, others[0] if others else _fresh(claims))


def _other_ranges(old: ev.Ranges) -> Iterator[ev.Ranges]:
    """Yield the ranges without their first position, without their last one, and empty."""
    if not old:
        return
    (first, end), (start, last) = old[0], old[-1]
    shorter = {
        ((first + 1, end), *old[1:]) if first + 1 < end else old[1:],
        (*old[:-1], (start, last - 1)) if start < last - 1 else old[:-1],
        (),
    }
    yield from sorted(shorter)


def _edited(operator: str, trace: Trace, at: int, field: str, new: Any) -> Mutant:
    e = trace[at]
    changed = (*trace[:at], msgspec.structs.replace(e, **{field: new}), *trace[at + 1 :])
    return Mutant(operator=operator, events=changed, at=at, before=e, field=field, old=getattr(e, field), new=new)


def _home(e: Event) -> tuple[str, int]:
    return (e.source, e.epoch)


def _moved(e: Event, to: Event) -> Event:
    return msgspec.structs.replace(e, seq=to.seq, mono_ns=to.mono_ns, wall_ns=to.wall_ns)


def _known(trace: Trace, name: str) -> tuple[Any, ...]:
    """Return the values that a field has in a trace, in the order of their first use, at most three."""
    values = dict.fromkeys(getattr(e, name, None) for e in trace)
    return tuple(v for v in values if v is not None)[:3]


def _fresh(known: Sequence[Any]) -> Any:
    """Return a value of the same type that does not occur."""
    if known and isinstance(known[0], int):
        return 1_000_003
    return "leading_prefix_at_least(1)" if known and "(" in str(known[0]) else "nobody-known"


def _takes_none(kind: Any) -> bool:
    return type(None) in getattr(kind, "__args__", ())
