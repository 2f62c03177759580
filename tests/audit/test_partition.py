"""Parts are audited on their own and merge in any order; a claim is judged by its own events only."""

from __future__ import annotations

import random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from residentkv.audit import AuditReport, Verdict, audit_events
from residentkv.audit.api import audit_part
from residentkv.audit.merge import Partial, merge_partials, report_of
from residentkv.audit.partition import partition
from residentkv.audit.step import Stepper
from residentkv.trace import events as ev
from tests.audit.notation import trace
from tests.audit.stories import CONFORMING, FAILURE, RETRY, SUCCESS, SUCCESS_THEN_FAILURE, WORKER_LOG

PLAYS = (SUCCESS, FAILURE, RETRY, SUCCESS_THEN_FAILURE)


def retold(story: str, n: int, place: str) -> list[ev.Event]:
    """The same story in another source, with claims, requests and jobs of its own."""
    out = []
    for e in trace(f"@{place}\n" + story):
        changes: dict[str, object] = {}
        for name in ("claim_id", "outcome_claim_id", "request_id"):
            if getattr(e, name, None) is not None:
                changes[name] = f"{getattr(e, name)}:{n}"
        if getattr(e, "job_id", None) is not None:
            changes["job_id"] = e.job_id + 10 * n
        if getattr(e, "job_ids", None):
            changes["job_ids"] = tuple(j + 10 * n for j in e.job_ids)
        if getattr(e, "blocking_claim_ids", None):
            changes["blocking_claim_ids"] = tuple(f"{c}:{n}" for c in e.blocking_claim_ids)
        out.append(msgspec.structs.replace(e, **changes))
    return out


def shuffle(parts: list[list[ev.Event]], seed: int) -> list[ev.Event]:
    """Interleave lists at random; each keeps its own order."""
    rng = random.Random(seed)
    queues = [list(p) for p in parts]
    out = []
    while any(queues):
        queue = rng.choice([q for q in queues if q])
        out.append(queue.pop(0))
    return out


def one_source(parts: list[list[ev.Event]], seed: int) -> list[ev.Event]:
    """Interleave stories within one source: one trace_opened, one trace_closed, numbers given anew."""
    bodies = [p[1:-1] for p in parts]
    events = [parts[0][0], *shuffle(bodies, seed), parts[0][-1]]
    return [msgspec.structs.replace(e, seq=i, mono_ns=1000 * i) for i, e in enumerate(events)]


def encoded(report: AuditReport) -> bytes:
    return msgspec.json.encode(report)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, len(PLAYS) - 1), min_size=1, max_size=4),
    st.integers(0, 1 << 30),
    st.randoms(use_true_random=False),
    st.integers(1, 7),
)
def test_any_partition_and_merge_order_gives_the_same_report(plays, seed, rng, chunk):
    """Sources interleaved in a file, cut into chunks; or audited one by one and merged in any order: one report."""
    parts = [retold(PLAYS[p], n, f"engine{n}") for n, p in enumerate(plays)]
    events = shuffle(parts, seed)
    whole = audit_events([events[i : i + chunk] for i in range(0, len(events), chunk)])
    partials = [audit_part([part]) for part in partition(events).values()]
    rng.shuffle(partials)
    merged = Partial()
    for partial in partials:
        merged = merge_partials(merged, partial) if rng.random() < 0.5 else merge_partials(partial, merged)
    assert encoded(report_of(merged, path="", sha256="")) == encoded(whole)
    assert whole.verdict is Verdict.CONFORMING


@settings(max_examples=40, deadline=None)
@given(st.permutations(range(4)), st.integers(0, 3))
def test_merging_is_associative(order, cut):
    """(a + b) + c is a + (b + c), also with a broken part among them."""
    stories = [SUCCESS, FAILURE.replace("    refused r2 c\n", ""), WORKER_LOG, "open run_id=other\nskip\nclose"]
    partials = [audit_part([retold(stories[i], i, f"engine{i}")]) for i in order]
    left = Partial()
    for partial in partials:
        left = merge_partials(left, partial)
    first, second = Partial(), Partial()
    for i, partial in enumerate(partials):
        if i < cut:
            first = merge_partials(first, partial)
        else:
            second = merge_partials(second, partial)
    split = merge_partials(first, second)
    assert encoded(report_of(left, path="", sha256="")) == encoded(report_of(split, path="", sha256=""))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, len(PLAYS) - 1), min_size=2, max_size=4), st.integers(0, 1 << 30))
def test_a_claim_is_judged_by_its_own_events(plays, seed):
    """Stories of different claims woven into one source: each claim gets what it gets alone, but for the numbers."""
    parts = [retold(PLAYS[p], n, "engine") for n, p in enumerate(plays)]
    report = audit_events([one_source(parts, seed)])
    alone = {c.claim_id: c for part in parts for c in audit_events([part]).claims}
    assert report.verdict is Verdict.CONFORMING
    assert {c.claim_id for c in report.claims} == set(alone)
    for claim in report.claims:
        other = alone[claim.claim_id]
        assert (claim.verdict, claim.state, claim.counts) == (other.verdict, other.state, other.counts)
        assert {k: len(v) for k, v in claim.observed.items()} == {k: len(v) for k, v in other.observed.items()}


def test_the_same_source_in_two_parts_is_inconclusive():
    """Two parts that both hold (scheduler, 0) cannot be put in order, so nothing is proven."""
    part = audit_part([trace(SUCCESS)])
    report = report_of(merge_partials(part, part), path="", sha256="")
    assert report.verdict is Verdict.INCONCLUSIVE
    assert [f.code for f in report.findings] == ["RKV207"]


def test_nothing_merged_is_an_empty_trace():
    """The neutral element is inconclusive, not a pass."""
    report = report_of(Partial(), path="", sha256="")
    assert report.verdict is Verdict.INCONCLUSIVE
    assert [f.code for f in report.findings] == ["RKV200"]


def test_memory_follows_open_claims_not_events():
    """After many whole stories nothing is left in the state but one result a claim."""
    stepper = Stepper()
    stepper.feed(trace("open"))
    seq = 1
    for n in range(200):
        story = [
            msgspec.structs.replace(e, seq=seq + i, mono_ns=10**9 + seq + i)
            for i, e in enumerate(retold(SUCCESS_THEN_FAILURE, n, "scheduler")[1:-1])
        ]
        seq += len(story)
        stepper.feed(story)
        state = stepper.states["scheduler", 0]
        assert not state.claims
        assert not state.requests
        assert not state.jobs
        assert not state.holders
        assert state.protected_blocks == 0
    assert len(state.results) == len(state.ended) == 200


def test_findings_are_bounded_and_counted():
    """A trace that breaks the same rule a thousand times is told a few times and counted."""
    body = "open\n" + "done 7\n" * 1000 + "init r1\nend r1\nclose"
    report = audit_events([trace("@worker\nopen\ninit r0\nend r0\n" + body.removeprefix("open\n"))])
    source = report.sources[0]
    assert report.verdict is Verdict.VIOLATING
    assert len(source.findings) < 40
    assert source.findings_dropped > 900


def test_every_story_conforms():
    """The stories that the tests start from are what they say."""
    for name, story in CONFORMING.items():
        assert audit_events([trace(story)]).verdict is Verdict.CONFORMING, name
