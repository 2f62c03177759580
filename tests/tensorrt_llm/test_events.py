"""TensorRT-LLM's event dicts: strict decoding, gaps, restarts, and the trace they make. Published shapes only."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from residentkv.audit.api import audit_file
from residentkv.audit.model import Verdict
from residentkv.errors import InputError
from residentkv.runtimes.tensorrt_llm.events import BlockUpdated, ChainStored, decode_event, decode_events
from residentkv.runtimes.tensorrt_llm.journal import EventJournal, EventWatch, Order
from residentkv.trace.writer import TraceWriter
from tests.tensorrt_llm.shapes import created, moved, removed, stored

FIRST = stored(1, None, {11: (1, 2, 3, 4), 12: (5, 6, 7, 8)})


def journal(path: Path) -> EventJournal:
    return EventJournal(
        lambda epoch: TraceWriter(path, source="engine", run_id="shape", epoch=epoch),
        runtime_version="1.4.0rc2",
        primitive="kv_events",
        stands_in=("engine",),
    )


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_published_shapes_are_understood():
    """As the serializer writes them, with and without window and rank; hashes beyond 63 bits; newer optional fields."""
    event = decode_event(FIRST)
    assert isinstance(event.data, ChainStored)
    assert (event.event_id, event.rank, event.data.parent) == (1, 0, None)
    assert [(b.name, b.token_ids, b.level, b.priority) for b in event.data.blocks] == [
        (f"{11:016x}", (1, 2, 3, 4), 0, 35),
        (f"{12:016x}", (5, 6, 7, 8), 0, 35),
    ]
    windowed = decode_event(removed(9, 9622824665191806685, window_size=4096, attention_dp_rank=3))
    assert windowed.rank == 3
    assert windowed.data.names == (f"{9622824665191806685:016x}@4096",)
    signed = decode_event(removed(9, 9622824665191806685 - 2**64, window_size=4096))
    assert signed.data.names == windowed.data.names
    newer = copy.deepcopy(FIRST)
    key = {"type": "mm_key", "hash": "ab", "start_offset": 0, "uuid": "picture"}
    newer["data"]["blocks"][0] |= {"cache_salt": "tenant", "mm_keys": [key]}
    newer |= {"hash_algo": "v1", "layer_group_id": 0}
    assert decode_event(newer).data.blocks[0].cache_salt == "tenant"
    change = decode_event(moved(2, 11, 0, 1))
    assert change.data == BlockUpdated(name=f"{11:016x}", level=(0, 1), priority=None)


def spoil(path: tuple, value: object) -> dict:
    event = copy.deepcopy(FIRST)
    at = event
    for step in path[:-1]:
        at = at[step]
    if value is KeyError:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return event


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("event_id",), "1"),
        (("event_id",), -1),
        (("event_id",), KeyError),
        (("data", "type"), "replaced"),
        (("data", "extra"), 1),
        (("extra",), 1),
        (("data", "blocks", 0, "block_hash"), 2**64),
        (("data", "blocks", 0, "block_hash"), ""),
        (("data", "blocks", 0, "block_hash"), None),
        (("data", "blocks", 0, "cache_level"), -1),
        (("data", "blocks", 0, "cache_level"), 0.5),
        (("data", "blocks", 0, "priority"), KeyError),
        (("data", "blocks", 0, "tokens", 0, "token_id"), "7"),
        (("data", "parent_hash"), KeyError),
        (("attention_dp_rank",), -2),
    ],
)
def test_another_shape_is_an_error(path, value):
    """Nothing is guessed, converted or left out."""
    with pytest.raises(InputError, match="expected a KV cache event"):
        decode_event(spoil(path, value), source="engine")


@pytest.mark.parametrize(("before", "after"), [(0, -1), (0, -2), (0, -3), (-1, 0)])
def test_a_level_below_zero_is_an_error(before, after):
    """No tier has such a number, and none is made up for it."""
    with pytest.raises(InputError, match="level -"):
        decode_event(moved(2, 11, before, after))


@pytest.mark.parametrize(
    "text", ["", "{}", "[NaN]", '[{"event_id": 1, "event_id": 2}]', "[1]", "[[]]", "null", b"\xff", "[" * 100_000]
)
def test_an_answer_that_is_no_array_of_events_is_an_error(text):
    """Also when a key occurs twice, where the last would win."""
    with pytest.raises(InputError):
        decode_events(text)
    assert len(decode_events(json.dumps([created(), FIRST]))) == 2


def test_ids_tell_gaps_repetition_and_restarts_for_each_rank():
    """The engine discards its oldest events when the buffer is full; it counts from 0 again when it starts again."""
    watch = EventWatch()

    def orders(*events):
        return [(a.order, a.missing) for a in (watch.note(decode_event(e)) for e in events)]

    assert orders(created(0), FIRST, FIRST) == [(Order.NEXT, None), (Order.NEXT, None), (Order.REPEATED, None)]
    assert orders(removed(5, 11)) == [(Order.GAP, (2, 5))]
    assert orders(created(0, attention_dp_rank=1)) == [(Order.NEXT, None)], "each rank counts for itself"
    assert orders(stored(0, None, {11: (9,)})) == [(Order.RESTART, None)], "an id again, with another event"
    assert orders(removed(3, 11)) == [(Order.GAP, (1, 3))]
    watch = EventWatch()
    assert orders(created(0), FIRST, created(0)) == [(Order.NEXT, None), (Order.NEXT, None), (Order.RESTART, None)]
    late = EventWatch()
    assert late.note(decode_event(removed(7, 1))).missing == (0, 7), "who joins late has missed what was before"


def test_the_trace_says_which_copies_lie_where(tmp_path):
    """Stored, moved down (the copy below is there first), removed; closed in order."""
    path = tmp_path / "trace.jsonl"
    j = journal(path)
    for event in (created(), FIRST, moved(2, 12, 0, 1), removed(3, 11, 12)):
        assert j.note(decode_event(event)).order is Order.NEXT
    j.close()
    told = [(e["event"], e.get("tier"), e.get("block_ids")) for e in lines(path)]
    assert told == [
        ("trace_opened", None, None),
        ("block_stored", "gpu", [0, 1]),
        ("block_stored", "host", [2]),
        ("block_removed", "gpu", [1]),
        ("block_removed", "gpu", [0]),
        ("block_removed", "host", [2]),
        ("trace_closed", None, None),
    ]
    assert audit_file(path).verdict is not Verdict.VIOLATING


@pytest.mark.parametrize(
    "events",
    [
        [created(), FIRST, removed(5, 11)],
        [removed(3, 11)],
        [created(), FIRST, created(2)],
        [created(), FIRST, stored(2, None, {11: (1, 2, 3, 4)})],
        [created(), FIRST, moved(2, 11, 1, 0)],
    ],
)
def test_what_was_missed_or_cannot_be_told_apart_leaves_the_trace_open(events, tmp_path):
    """A gap, a late start, a pool made again, a block stored twice, a move from where it was not: inconclusive."""
    path = tmp_path / "trace.jsonl"
    j = journal(path)
    for event in events:
        j.note(decode_event(event))
    assert not j.is_complete
    j.close()
    assert lines(path)[-1]["event"] != "trace_closed"
    assert audit_file(path).verdict is Verdict.INCONCLUSIVE


def test_a_restart_begins_a_new_epoch_with_nothing_in_it(tmp_path):
    """What the old incarnation had is not taken over."""
    path = tmp_path / "trace.jsonl"
    j = journal(path)
    for event in (created(), FIRST, created(0, blocks=(9,)), removed(1, 12)):
        j.note(decode_event(event))
    j.close()
    told = lines(path)
    assert [e["epoch"] for e in told] == [0, 0, 1, 1, 1]
    assert told[-2]["block_ids"] == [], "a removal of something that this incarnation never had"
