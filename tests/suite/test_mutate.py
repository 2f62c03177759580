"""The operators: every mutant is one change, and the envelope stays that of its place unless it is what changes."""

from __future__ import annotations

import msgspec
import pytest

from residentkv.suite.case import CASES
from residentkv.suite.mutate import (
    IDENTITY,
    OPERATORS,
    delete,
    delete_leaving_gap,
    duplicate,
    edit_identity,
    edit_outcome,
    edit_seq,
    event_name,
    mutate_trace,
    renumber,
    swap,
)
from residentkv.trace.codec import decode_line, encode_event
from residentkv.trace.reader import read_trace


def read(path):
    return tuple(event for chunk in read_trace(path) for event in chunk)


TRACE = read(CASES / "restore-after-reuse" / "twin.jsonl")
FAILED = read(CASES / "wrong-claim-failure" / "twin.jsonl")
TWO_SOURCES = read(CASES / "restart-keeps-dead-blocks" / "twin.jsonl")


@pytest.mark.parametrize("trace", [TRACE, FAILED, TWO_SOURCES])
@pytest.mark.parametrize("name", OPERATORS)
def test_every_mutant_differs_from_its_original_and_can_be_written_as_a_trace(name, trace):
    """What no writer could write would be refused by the codec and would say nothing about the audit."""
    mutants = list(OPERATORS[name](trace))
    assert mutants
    for mutant in mutants:
        assert mutant.events != trace
        assert mutant.before == trace[mutant.at]
        for event in mutant.events:
            assert decode_line(encode_event(event)) == event
        assert event_name(mutant.before) in mutant.sentence()


@pytest.mark.parametrize("operator", [delete, swap, duplicate, edit_identity, edit_outcome])
@pytest.mark.parametrize("trace", [TRACE, FAILED, TWO_SOURCES])
def test_numbers_have_no_gap_and_times_do_not_go_back(operator, trace):
    """So that only the content can give a mutant away."""
    for mutant in operator(trace):
        assert renumber(mutant.events) == mutant.events
        last = {}
        for e in mutant.events:
            assert e.mono_ns >= last.get((e.source, e.epoch), 0)
            last[e.source, e.epoch] = e.mono_ns


def test_each_event_is_deleted_once_with_and_once_without_a_gap():
    """2 n mutants of n events."""
    assert [len(m.events) for m in delete(TRACE)] == [len(TRACE) - 1] * len(TRACE)
    for at, mutant in enumerate(delete_leaving_gap(TRACE)):
        assert mutant.events == (*TRACE[:at], *TRACE[at + 1 :])


def test_neighbours_of_one_source_are_swapped_and_keep_their_places():
    """Events of two sources have no order between them, so they are no neighbours."""
    assert len(list(swap(TRACE))) == len(TRACE) - 1
    sources = {(e.source, e.epoch) for e in TWO_SOURCES}
    assert len(sources) == 2
    assert len(list(swap(TWO_SOURCES))) == len(TWO_SOURCES) - 2
    for mutant in swap(TRACE):
        a, b = TRACE[mutant.at], TRACE[mutant.at + 1]
        x, y = mutant.events[mutant.at], mutant.events[mutant.at + 1]
        assert (event_name(x), event_name(y)) == (event_name(b), event_name(a))
        assert (x.seq, x.mono_ns, y.seq, y.mono_ns) == (a.seq, a.mono_ns, b.seq, b.mono_ns)


def test_a_duplicate_follows_its_original():
    """With the next number."""
    for mutant in duplicate(TRACE):
        first, second = mutant.events[mutant.at : mutant.at + 2]
        assert msgspec.structs.replace(second, seq=first.seq) == first
        assert second.seq == first.seq + 1


def test_a_number_is_skipped_repeated_and_begun_again():
    """Three edits of every number that is not near 0."""
    assert {(m.old, m.new) for m in edit_seq(TRACE) if m.at == 5} == {(5, 6), (5, 4), (5, 0)}


def test_every_name_is_changed_to_another_known_one_to_a_fresh_one_and_to_none():
    """For each field that names something."""
    changed = {m.field for m in edit_identity(FAILED)}
    assert changed == set(IDENTITY) - {"worker_id", "worker_epoch"}
    news = {m.new for m in edit_identity(FAILED) if m.field == "claim_id" and m.before.seq == 1}
    assert news == {"b", "nobody-known", None}
    jobs = {m.new for m in edit_identity(FAILED) if m.field == "job_id" and m.old == 2}
    assert {0, 1, 1_000_003} <= jobs


def test_outcomes_words_ranges_and_blocks_are_changed():
    """The fields of the contract, each in the ways in which a runtime could be wrong about it."""
    edits = {}
    for m in edit_outcome(FAILED):
        edits.setdefault(m.field, set()).add((m.old, m.new))
    assert {(True, False), (False, True)} <= edits["success"]
    assert (("a",), ()) in edits["blocking_claim_ids"]
    assert (("a",), ("a", "b")) in edits["blocking_claim_ids"]
    assert ("a", "b") in edits["outcome_claim_id"]
    assert ("fail", "retry") in edits["failure_policy"]
    assert ("error", "length") in edits["finish_status"]
    assert ("accepted", "clipped") in edits["decision"]
    assert {((), ("demote:nobody-known",))} <= edits["clipped_from"]
    assert {(0, 1_000_003), (0, -1_000_003)} <= edits["priority"]
    assert ("offloadable", "best_effort") in edits["mode"]
    assert {(((0, 8),), ((1, 8),)), (((0, 8),), ((0, 7),)), (((0, 8),), ())} <= edits["retrievable_pos"]
    assert ((10, 11), (10,)) in edits["invalid_block_ids"]


def test_a_priority_is_changed_to_every_other_one_of_the_trace_and_beyond_all_of_them():
    """So that its order to each of the others is told wrong once."""
    prompt = read(CASES / "loss-told-when-all-is-lost" / "prompt.jsonl")
    edits = {(m.old, m.new) for m in edit_outcome(prompt) if m.field == "priority"}
    assert edits == {(old, new) for old in (1, 9) for new in (1, 9, 1_000_003, -1_000_003) if new != old}


def test_mutate_trace_is_every_operator():
    """And makes some thirty times as many mutants as there are events."""
    mutants = list(mutate_trace(TRACE))
    assert len(mutants) == sum(len(list(op(TRACE))) for op in OPERATORS.values())
    assert len(mutants) > 10 * len(TRACE)
