"""Whatever a decodable trace contains, the audit answers: no exception, no pass by accident, bounded work."""

from __future__ import annotations

import random

import msgspec
import pytest

from residentkv.audit import Verdict, audit_events
from residentkv.audit.evidence import evidence_of
from residentkv.audit.gates import judge_gates
from residentkv.report.audits import audit_document
from residentkv.report.text import render_audit
from residentkv.trace import events as ev
from tests.audit.mutants import all_mutants, renumber
from tests.audit.notation import trace
from tests.audit.stories import CONFORMING

POOL = [e for text in CONFORMING.values() for e in trace(text)]
VALUES: dict[str, list[object]] = {}
for _event in POOL:
    for _field in msgspec.structs.fields(type(_event)):
        VALUES.setdefault(_field.name, []).append(getattr(_event, _field.name))
EDGES: dict[str, list[object]] = {
    "predicate": ["whole_object", "whole_object(mamba)", "contiguous_range(3, 4)", "nonsense"],
    "retrievable_pos": [(), ((5, 5),), ((7, 2),), ((0, 1), (0, 9)), ((0, (1 << 63) - 1),)],
    "required_pos": [(), ((5, 5),), ((0, (1 << 63) - 1),)],
    "reused_pos": [(), ((9, 12),), ((0, 8), (0, 8))],
    "ok_pos": [(), ((0, 3), (2, 8))],
    "failed_pos": [(), ((3, 1),), ((0, (1 << 63) - 1),)],
    "workers_total": [1, 2, 7],
    "worker": [0, 1, 9],
    "object_blocks": [0, 1, (1 << 63) - 1],
    "footprint_blocks": [0, (1 << 63) - 1],
    "block_hashes": [(), ("a0", "a0"), ("a0", "b1", "zz")],
    "block_ids": [(), (0,), (0, 0), (0, 1, 2)],
    "generation": [None, 0, 5],
    "request_id": ["r1", "r2", "rx"],
    "mono_ns": [0, (1 << 63) - 1],
    "deadline_ns": [None, 0, (1 << 63) - 1],
}


def whole(events: list[ev.Event]):
    """Everything that may be done with a trace."""
    report = audit_events([events], sha256="0" * 64)
    evidence = evidence_of(report)
    if report.verdict is not Verdict.CONFORMING:
        assert not any(i.polarity == "supports" for i in evidence)
    assert "\n".join(render_audit(report))
    assert msgspec.json.encode(audit_document([report], 11))
    judge_gates([events], path="")
    return report


@pytest.mark.parametrize("seed", range(60))
def test_random_events_are_answered(seed):
    """Events of all stories in any order and with any values of each other: an answer, and never a pass for noise."""
    rng = random.Random(seed)
    events = []
    for _ in range(300):
        e = rng.choice(POOL)
        for field in rng.sample(msgspec.structs.fields(type(e)), k=rng.randint(0, 3)):
            if field.name in ("schema", "source", "epoch", "seq", "run_id", "wall_ns"):
                continue
            choices = EDGES.get(field.name, []) + VALUES[field.name]
            value = rng.choice(choices)
            try:
                changed = msgspec.structs.replace(e, **{field.name: value})
                e = msgspec.json.decode(msgspec.json.encode(changed), type=type(e))
            except msgspec.ValidationError:
                continue
        events.append(e)
    report = whole(renumber([e for e in events if not isinstance(e, ev.TraceClosed)]))
    assert report.verdict is not Verdict.CONFORMING


@pytest.mark.parametrize("name", sorted(CONFORMING))
def test_two_edits_are_answered(name):
    """Two edits at once: still an answer for each."""
    rng = random.Random(name)
    first = list(all_mutants(trace(CONFORMING[name])))
    for m in rng.sample(first, 12):
        if len(m.events) < 3:
            continue
        second = list(all_mutants(m.events))
        for n in rng.sample(second, 12):
            whole(n.events)


def test_huge_ranges_cost_nothing():
    """Positions up to 2**63 are compared as ranges, never counted one by one."""
    top = (1 << 63) - 1
    text = CONFORMING["success"].replace("require c r2", f"require c r2 0-{top}")
    assert whole(trace(text)).verdict is Verdict.VIOLATING
    text = CONFORMING["hard"].replace("reuse-here c r5", f"reuse-here c r5 0-{top}")
    assert whole(trace(text)).verdict is Verdict.VIOLATING


@pytest.mark.parametrize("blocks", [2, 10**12])
def test_a_loss_of_unnamed_blocks_costs_nothing(blocks):
    """An object is said to have many blocks, one is named, all are lost: unclear, and never counted one by one."""
    story = CONFORMING["soft"].replace("mode=soft_priority", "mode=soft_priority predicate=whole_object")
    story = story.replace("a0,a1,a2,a3,a4,a5,a6,a7 0,1,2,3,4,5,6,7", "a0 0").replace("a0,a1,a2,a3,a4,a5,a6,a7", "a0")
    story = story.replace("materialize c r1 ", f"materialize c r1 0-{blocks} object_blocks={blocks} ")
    story = story.replace("removed gpu a7 7", "removed gpu a0 0").replace("lost_pos=7-8", f"lost_pos=0-{blocks}")
    report = whole(trace(story))
    assert report.verdict is Verdict.INCONCLUSIVE
    assert {f.code for f in report.all_findings()} == {"RKV253"}


def test_many_ranges_are_told_in_linear_time():
    """Job and result of sixty thousand ranges each, none of them alike: a violation, and an end."""
    odd, even = (tuple((2 * i + k, 2 * i + k + 1) for i in range(60_000)) for k in (0, 1))
    events = [
        msgspec.structs.replace(e, pos=even)
        if isinstance(e, ev.JobCreated)
        else msgspec.structs.replace(e, ok_pos=odd)
        if isinstance(e, ev.TransferFinished)
        else e
        for e in trace(CONFORMING["success"])
    ]
    assert audit_events([events]).verdict is Verdict.VIOLATING


def test_many_claims_after_a_restart_take_linear_time():
    """Ten thousand claims that their epoch never accepted are looked up in the epoch before, not searched for."""
    *events, demoted, closed = trace("open\naccept c1\nrelease c1\nclose\n@scheduler/1\nopen\ndemote c1\nclose")
    many = [msgspec.structs.replace(demoted, claim_id=f"c{n}", outcome_claim_id=f"c{n}") for n in range(10_000)]
    earlier = [msgspec.structs.replace(e, epoch=0) for e in many]
    events = [*events[:-2], *earlier, *events[-2:], *many, closed]
    report = audit_events([renumber(events)])
    assert [c.claim_id for c in report.claims if any(f.code == "RKV221" for f in c.findings)] == ["c1"]


def test_a_predicate_with_sidecars_is_inconclusive():
    """The trace carries no sidecar state, so whether the predicate holds is unknown; and it is no violation."""
    text = CONFORMING["success"].replace("mode=offloadable", "mode=offloadable predicate=whole_object(mamba)")
    report = whole(trace(text))
    assert report.verdict is Verdict.INCONCLUSIVE
    assert {f.code for f in report.all_findings()} == {"RKV227"}


def test_the_whole_object_predicate_needs_every_position():
    """Seven of eight blocks are not the whole object."""
    text = CONFORMING["success"].replace("mode=offloadable", "mode=offloadable predicate=whole_object")
    assert whole(trace(text)).verdict is Verdict.CONFORMING
    text = text.replace("    materialize c r1\n", "    materialize c r1 0-7\n")
    assert whole(trace(text)).verdict is Verdict.VIOLATING


def test_many_bad_claims_are_told_in_bounded_space():
    """Ten thousand claims that nobody accepted, each under another owner: as many results, few words each."""
    lines = ["open"]
    for n in range(2000):
        lines += [f"init r{n} c{n}", f"materialize c{n} r{n}", f"release c{n}", f"end r{n}"]
    report = whole(trace("\n".join([*lines, "close"])))
    assert report.verdict is Verdict.VIOLATING
    assert len(report.claims) == 2000
    assert all(len(c.findings) == 1 for c in report.claims)


def test_many_gaps_are_told_a_few_times():
    """A trace full of holes: every claim is inconclusive, and the report stays short."""
    lines = ["open"]
    for n in range(300):
        lines += [f"init r{n} c{n}", f"accept c{n} r{n}", "skip", f"end r{n}"]
    report = whole(trace("\n".join([*lines, "close"])))
    assert report.verdict is Verdict.INCONCLUSIVE
    assert all(c.verdict is Verdict.INCONCLUSIVE for c in report.claims)
    assert len(report.sources[0].findings) < 60
