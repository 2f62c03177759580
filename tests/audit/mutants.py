"""A small mutation engine over event structs: every single edit of a trace, with the edit's name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from residentkv.audit import AuditReport, Verdict
from residentkv.trace import events as ev

replace = msgspec.structs.replace


class Mutant(NamedTuple):
    """One edited trace; `index` is where the edit was made."""

    kind: str
    index: int
    event: str
    events: list[ev.Event]


def renumber(events: list[ev.Event]) -> list[ev.Event]:
    """Give seq and mono_ns anew in the order of the list, so that only the content can give an edit away."""
    times = sorted(e.mono_ns for e in events)
    next_seq: dict[tuple[str, int], int] = {}
    out = []
    for e, mono_ns in zip(events, times, strict=True):
        place = (e.source, e.epoch)
        seq = next_seq.get(place, 0)
        next_seq[place] = seq + 1
        out.append(replace(e, seq=seq, mono_ns=mono_ns))
    return out


def name_of(e: ev.Event) -> str:
    return str(e.__struct_config__.tag)


IDENTITY = {
    "claim_id": ("other", "d", "c"),
    "owner_scope": ("stranger",),
    "object_id": ("object:other",),
    "token_map_id": ("tokens:other",),
    "cache_identity": ("cache:other",),
    "request_id": ("r1", "r2", "r3", "other"),
    "job_id": (0, 1, 2, 3, 99),
    "outcome_claim_id": ("other", "d", "c"),
}
OUTCOMES = {
    "success": (True, False),
    "decision": ("accepted", "clipped"),
    "finish_status": ("stopped", "length", "error", "aborted"),
    "failure_policy": ("fail", "recompute", "retry"),
    "outcome": ("served_by_binding", "moved", "lost", "refused"),
    "blocking_claim_ids": ((), ("other",), ("c", "d")),
    "direction": ("store", "load"),
    "on_restore_failure": ("refuse", "recompute"),
    "generation": (0, 1, 2, 3),
    "job_ids": ((), (99,), (0, 99), (1,)),
    "worker_id": ("w0", "w9"),
    "worker_epoch": (0, 1),
    "released_by": ("stranger",),
}
POSITIONS = (
    "retrievable_pos",
    "required_pos",
    "reused_pos",
    "ok_pos",
    "failed_pos",
    "hit_pos",
    "pos",
    "recomputed_pos",
)


def deletions(events: list[ev.Event]) -> Iterator[Mutant]:
    for i, e in enumerate(events):
        yield Mutant("delete", i, name_of(e), renumber(events[:i] + events[i + 1 :]))
        yield Mutant("delete, gap left", i, name_of(e), events[:i] + events[i + 1 :])


def swaps(events: list[ev.Event]) -> Iterator[Mutant]:
    for i in range(len(events) - 1):
        swapped = [*events[:i], events[i + 1], events[i], *events[i + 2 :]]
        yield Mutant("swap", i, f"{name_of(events[i])}, {name_of(events[i + 1])}", renumber(swapped))
        yield Mutant("swap, numbers kept", i, name_of(events[i]), swapped)


def duplications(events: list[ev.Event]) -> Iterator[Mutant]:
    for i, e in enumerate(events):
        yield Mutant("duplicate", i, name_of(e), renumber([*events[: i + 1], e, *events[i + 1 :]]))
        yield Mutant("duplicate, number kept", i, name_of(e), [*events[: i + 1], e, *events[i + 1 :]])


def sequence_edits(events: list[ev.Event]) -> Iterator[Mutant]:
    for i, e in enumerate(events):
        for delta in (-1, 1, 1000):
            if e.seq + delta >= 0:
                edited = [*events[:i], replace(e, seq=e.seq + delta), *events[i + 1 :]]
                yield Mutant(f"seq {delta:+}", i, name_of(e), edited)
        yield Mutant("epoch", i, name_of(e), [*events[:i], replace(e, epoch=e.epoch + 1), *events[i + 1 :]])
        yield Mutant("run", i, name_of(e), [*events[:i], replace(e, run_id="other"), *events[i + 1 :]])


def field_edits(events: list[ev.Event]) -> Iterator[Mutant]:
    for i, e in enumerate(events):
        for field in msgspec.structs.fields(type(e)):
            name, old = field.name, getattr(e, field.name)
            values: tuple[object, ...] = ()
            if name in IDENTITY:
                values = IDENTITY[name]
                if (
                    old is not None
                    and not isinstance(e, ev.SchedulerRequestRefused)
                    and name in ("claim_id", "owner_scope", "request_id")
                    and not isinstance(e, ev.ClaimEvent)
                ):
                    values = (*values, None) if name != "request_id" else values
            elif name in OUTCOMES:
                values = OUTCOMES[name]
            elif name in POSITIONS and old:
                lo, hi = old[0]
                values = (((lo + 1, hi), *old[1:]), ((lo, hi - 1), *old[1:]))
            for value in values:
                if value != old and not (old is None and value is None):
                    edited = [*events[:i], replace(e, **{name: value}), *events[i + 1 :]]
                    yield Mutant(f"{name}={value}", i, name_of(e), edited)


def all_mutants(events: list[ev.Event]) -> Iterator[Mutant]:
    """Yield every mutant of a trace."""
    for engine in (deletions, swaps, duplications, sequence_edits, field_edits):
        yield from engine(events)


Signature = frozenset[tuple[str, str, str, int]]


def signature(report: AuditReport) -> Signature:
    """Return what a report is evidence for: (owner, claim, obligation, number of events that show it)."""
    if report.verdict is not Verdict.CONFORMING:
        return frozenset()
    return frozenset(
        (c.owner_scope, c.claim_id, obligation, len(seqs))
        for c in report.claims
        if c.verdict is Verdict.CONFORMING
        for obligation, seqs in c.observed.items()
    )
