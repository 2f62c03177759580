"""What the log says of requests of claims when things cross: the engine does right, and the audit has to see that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from residentkv.audit.api import audit_file
from residentkv.audit.model import AuditReport, Verdict
from residentkv.runtimes.vllm.jobs import OpenJob
from residentkv.trace import events as ev
from tests.vllm.bench import BLOCK, Bench, claim, event_name, prompt


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def codes(report: AuditReport) -> set[str]:
    return {f.code for f in report.all_findings()}


def assert_conforming(report: AuditReport) -> AuditReport:
    assert report.verdict is Verdict.CONFORMING, [f.story for f in report.all_findings()]
    return report


def forge(bench: Bench, event: str, **changes: Any) -> AuditReport:
    """Audit the log of a bench with other words in its events of one name."""
    lines = [json.loads(line) for line in bench.path.read_text().splitlines()]
    for line in lines:
        if line["event"] == event:
            line.update(changes)
    bench.path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return audit_file(bench.path)


def load(bench: Bench, request_id: str) -> OpenJob:
    """Let a request in and return the load that is made for it."""
    job = bench.schedule(request_id)
    assert isinstance(job, OpenJob)
    return job


SHORT = claim(footprint_blocks=3, predicate="leading_prefix_at_least(3)")


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize("terms", ["refuse", "recompute"])
def test_a_load_beyond_the_claimed_object_that_fails_is_told_for_the_object(
    bench: Bench, damaged: bool, terms: str
) -> None:
    """Failed positions and invalid blocks are those of the claim, however much more was to be loaded."""
    short = SHORT | {"on_restore_failure": terms}
    bench.serve("r1", prompt(blocks=8), short)
    bench.reset_primary()
    outcome = bench.serve("r2", prompt(blocks=8), short, fail=range(8), damaged=damaged)
    assert outcome == ("refused" if terms == "refuse" else "served")
    assert_conforming(bench.stop())
    (failed,) = bench.events("scheduler_resident_claim_restoration_failed")
    assert isinstance(failed, ev.SchedulerRestorationFailed)
    assert failed.failed_pos == ((0, 3),)
    assert failed.invalid_block_ids == (100, 101, 102)


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize("terms", ["refuse", "recompute"])
def test_a_load_that_fails_only_beyond_the_claimed_object_is_tried_again_without_that(
    bench: Bench, damaged: bool, terms: str
) -> None:
    """The claim's own bytes can be given back, so it is neither refused nor ended; what failed leaves the tier."""
    short = SHORT | {"on_restore_failure": terms}
    bench.serve("r1", prompt(blocks=8), short)
    bench.reset_primary()
    bench.arrive("r2", prompt(blocks=8), short)
    assert not bench.finish_job(load(bench, "r2"), (5, 6), damaged=damaged)
    again = load(bench, "r2")
    assert again.positions == (0, 1, 2, 3, 4)
    bench.finish_job(again)
    bench.compute("r2")
    report = assert_conforming(bench.stop())
    assert report.claims[0].state == "released"
    assert report.claims[0].counts["retried"] == 1


def test_a_failure_that_leaves_out_positions_of_the_claimed_object_is_violating(bench: Bench) -> None:
    """Only what is beyond the object may be left out."""
    bench.serve("r1", prompt(blocks=8), SHORT)
    bench.reset_primary()
    bench.serve("r2", prompt(blocks=8), SHORT, fail=range(8))
    bench.stop()
    report = forge(bench, "scheduler_resident_claim_restoration_failed", failed_pos=[[0, 2]])
    assert report.verdict is Verdict.VIOLATING
    assert "RKV267" in codes(report)


RELEASE = {"claim_id": "c", "owner_scope": "tenant"}


@pytest.mark.parametrize("tokens", [prompt(), prompt(2)])
def test_a_request_that_releases_a_claim_and_claims_anew_on_other_terms_is_joined_to_the_new_one(
    bench: Bench, tokens: list[int]
) -> None:
    """Releases come first, so the request is from its first event on one of the claim that it brings."""
    bench.serve("r1", prompt(), claim(mode="hard_protected"))
    bench.serve("r2", tokens, claim(mode="hard_protected", priority=1), resident_claim_release=RELEASE)
    reply = bench.replies["r2"]
    assert reply is not None
    assert reply["resident_claim"]["decision"] == "accepted"
    assert [c.state for c in assert_conforming(bench.stop()).claims] == ["released", "released"]


@pytest.mark.parametrize(
    ("again", "reason"),
    [({"predicate": "leading_prefix_at_least(9)"}, "predicate_unsatisfiable"), ({"mode": "no_mode"}, "claim_invalid")],
)
def test_a_request_that_releases_a_claim_and_is_declined_another_is_audited_as_both(
    bench: Bench, again: dict[str, Any], reason: str
) -> None:
    """The claim is gone either way, and the log says who let it go."""
    bench.serve("r1", prompt(), claim(mode="hard_protected"))
    reply = bench.arrive("r2", prompt(), claim(mode="hard_protected") | again, resident_claim_release=RELEASE)
    assert reply["resident_claim"]["reason"] == reason
    bench.schedule("r2")
    bench.compute("r2")
    assert bench.stop().verdict is not Verdict.VIOLATING


def test_other_terms_without_a_release_stay_a_conflict(bench: Bench) -> None:
    """A promise is not changed by reusing its name, nor by releasing another claim."""
    bench.serve("r1", prompt(), claim(mode="hard_protected"))
    other = {"claim_id": "d", "owner_scope": "tenant"}
    reply = bench.arrive("r2", prompt(), claim(mode="hard_protected", priority=1), resident_claim_release=other)
    assert reply["resident_claim"]["reason"] == "claim_id_in_use"
    bench.schedule("r2")
    bench.compute("r2")
    assert_conforming(bench.stop())


def test_blocks_that_were_loaded_while_the_claim_materialized_are_not_told_as_computed_again(bench: Bench) -> None:
    """Where a request reads from is settled once a lookup; the engine tells of its blocks again after the load."""
    kept = claim(mode="hard_protected")
    bench.serve("r1", prompt())
    bench.tiers.primary.clear()
    bench.arrive("a", prompt(), kept)
    bench.arrive("b", prompt(), kept)
    first, second = load(bench, "a"), load(bench, "b")
    bench.finish_job(first)
    bench.residency.admitted("a", 0)
    bench.compute("a")
    bench.finish_job(second)
    bench.residency.admitted("b", 0)
    bench.compute("b")
    assert "active_request_recomputed" not in bench.names()
    assert_conforming(bench.stop())


@pytest.mark.parametrize("mode", ["soft_priority", "best_effort", "hard_protected", "offloadable"])
def test_a_request_that_is_preempted_tells_its_reuse_once(bench: Bench, mode: str) -> None:
    """It reads the same blocks again, which is no second reuse of the claim."""
    kept = claim(mode=mode)
    bench.serve("r1", prompt(), kept)
    bench.arrive("r2", prompt(), kept)
    for _ in range(2):
        assert bench.schedule("r2") is None
        bench.residency.step_done("r2", 4 * BLOCK, 4 * BLOCK + 1)
    bench.end("r2", "length", 2)
    assert bench.names().count("resident_claim_reused") == 1
    assert_conforming(bench.stop())


def test_what_was_computed_again_is_not_told_as_reused_after_a_preemption(bench: Bench) -> None:
    """A preempted request finds the blocks that it has computed itself; to its claim they were lost."""
    kept = claim(mode="best_effort")
    bench.serve("r1", prompt(), kept, store=False)
    bench.tiers.primary.clear()
    bench.arrive("r2", prompt(), kept)
    assert bench.schedule("r2") is None
    bench.residency.step_done("r2", 0, 4 * BLOCK + 1)
    bench.tiers.primary.update(bench.prompts["r2"].hashes)
    assert bench.schedule("r2") is None
    bench.residency.step_done("r2", 4 * BLOCK, 4 * BLOCK + 1)
    bench.end("r2", "length", 2)
    assert [n for n in bench.names() if n in ("resident_claim_reused", "active_request_recomputed")] == [
        "active_request_recomputed"
    ]
    assert_conforming(bench.stop())


def test_a_recomputation_that_is_preempted_halfway_is_told_from_its_first_block_on(bench: Bench) -> None:
    """What it finds after the preemption it has computed again before."""
    terms = claim(on_restore_failure="recompute")
    bench.serve("r1", prompt(), terms)
    bench.reset_primary()
    bench.arrive("r2", prompt(), terms)
    bench.finish_job(load(bench, "r2"), range(4))
    assert bench.schedule("r2") is None
    bench.residency.step_done("r2", 0, 2 * BLOCK)
    bench.tiers.primary.update(bench.prompts["r2"].hashes[:2])
    assert bench.schedule("r2") is None
    bench.residency.step_done("r2", 2 * BLOCK, 4 * BLOCK + 1)
    bench.end("r2", "length", 2)
    (again,) = bench.events("active_request_recomputed")
    assert isinstance(again, ev.RequestRecomputed)
    assert again.recomputed_pos == ((0, 4),)
    assert_conforming(bench.stop())


def begin(bench: Bench, *request_ids: str) -> None:
    """Bring requests of one claim that are all being served."""
    for request_id in request_ids:
        bench.arrive(request_id, prompt(), claim())
    for request_id in request_ids:
        assert bench.schedule(request_id) is None
        bench.tiers.primary.update(bench.prompts[request_id].hashes)
        bench.residency.step_done(request_id, 0, 4 * BLOCK + 1)


@pytest.mark.parametrize("last", ["a", "b", "d"])
def test_a_claim_that_none_of_its_requests_stored_is_demoted_whichever_of_them_ends_last(
    bench: Bench, last: str
) -> None:
    """It ends because there is none left, and not on behalf of the one that was the last."""
    begin(bench, "a", "b", "d")
    for request_id in (*{"a", "b", "d"} - {last}, last):
        bench.end(request_id, "length", 2)
    report = assert_conforming(bench.stop())
    assert report.claims[0].state == "demoted"


def test_a_store_made_for_a_request_that_has_ended_since_makes_the_claim_offloaded(bench: Bench) -> None:
    """The request is named by the store that proves the copy, so it is one of the claim."""
    begin(bench, "a", "b", "d")
    job = bench.make_job("b", False, range(4))
    bench.end("b", "length", 2)
    bench.finish_job(job)
    for request_id in ("a", "d"):
        bench.end(request_id, "length", 2)
    report = assert_conforming(bench.stop())
    assert report.claims[0].counts["offloaded"] == 1


def test_an_offload_for_a_request_that_nobody_saw_stays_inconclusive(bench: Bench) -> None:
    """A name that joins nothing proves nothing."""
    bench.serve("r1", prompt(), claim())
    bench.stop()
    report = forge(bench, "resident_claim_offloaded", request_id="ghost")
    assert report.verdict is Verdict.INCONCLUSIVE
    assert codes(report) == {"RKV217"}


@pytest.mark.parametrize("mode", ["hard_protected", "demotable"])
def test_a_claim_on_a_range_needs_what_lies_before_it(bench: Bench, mode: str) -> None:
    """The engine reads leading blocks only: a range whose prefix is gone is of no use, so that is kept, too."""
    kept = claim(mode=mode, predicate="contiguous_range(2, 1)")
    bench.serve("r1", prompt(), kept, store=False)
    reply = bench.replies["r1"]
    assert reply is not None
    assert reply["resident_claim"]["footprint_blocks"] == 3
    assert len(bench.tiers.pins) == 3
    assert bench.serve("r2", prompt(), kept) == "served"
    assert bench.names().count("resident_claim_reused") == 1
    assert_conforming(bench.stop())


@pytest.mark.parametrize("mode", ["hard_protected", "soft_priority"])
def test_a_kept_block_that_the_engine_does_not_look_for_is_not_told_as_lost(bench: Bench, mode: str) -> None:
    """It never looks for the block of a prompt's last token: what was read is told, and the rest left open."""
    kept = claim(mode=mode)
    bench.serve("r1", prompt()[:-1], kept, store=False)
    bench.arrive("r2", prompt()[:-1], kept)
    assert bench.open_door() == {"r2": "in"}
    bench.residency.lookup("r2", 3, 0)
    bench.residency.admitted("r2", 0)
    bench.residency.step_done("r2", 3 * BLOCK, 4 * BLOCK)
    bench.end("r2", "length", 2)
    (reused,) = bench.events("resident_claim_reused")
    assert isinstance(reused, ev.ClaimReused)
    assert reused.reused_pos == ((0, 3),)
    report = bench.stop()
    assert report.verdict is Verdict.INCONCLUSIVE
    assert codes(report) == {"RKV219"}
    assert "active_request_recomputed" not in [event_name(e) for e in bench.events()]


@pytest.mark.parametrize(("evicted", "state"), [(True, "demoted"), (False, "released")])
def test_emptying_the_tier_demotes_a_soft_claim_that_lies_only_there(bench: Bench, evicted: bool, state: str) -> None:
    """A copy in the second tier counts against harm, so it may not go without a word either."""
    bench.serve("r1", prompt(), claim(mode="soft_priority"))
    if evicted:
        bench.tiers.primary.clear()
    bench.residency.before_reset(primary=False, tier=True)
    bench.tiers.tier.clear()
    assert [c.state for c in assert_conforming(bench.stop()).claims] == [state]


def test_a_claim_whose_restoration_failed_is_offloaded_anew_before_it_is_read_in_the_primary_tier(bench: Bench) -> None:
    """Somebody else brought the bytes back; the copies of the claim are there, and the log says so first."""
    bench.serve("r1", prompt(), claim())
    bench.reset_primary()
    assert bench.serve("r2", prompt(), claim(), fail=(1,)) == "refused"
    bench.serve("r3", prompt())
    bench.serve("r4", prompt(), claim())
    names = bench.names()
    assert names.index("resident_claim_reused") > names.index("scheduler_active_request_refused")
    report = assert_conforming(bench.stop())
    assert report.claims[0].counts["offloaded"] == 2


@pytest.mark.parametrize("fail", [(), (3,)])
def test_a_read_in_the_primary_tier_is_told_after_the_restoration_that_another_request_waits_for(
    bench: Bench, fail: tuple[int, ...]
) -> None:
    """A prompt that ends with the claim has its last block loaded, while a longer one reads it where it lies."""
    bench.serve("r1", prompt(), claim())
    bench.arrive("short", prompt()[:-1], claim())
    bench.arrive("long", prompt(), claim())
    bench.open_door()
    bench.residency.lookup("long", 4, 0)
    bench.residency.admitted("long", 0)
    bench.residency.lookup("short", 3, 1)
    bench.residency.admitted("short", 1)
    job = bench.make_job("short", True, (3,))
    bench.residency.step_done("long", 4 * BLOCK, 4 * BLOCK + 1)
    assert "resident_claim_reused" not in bench.names()
    if not bench.finish_job(job, fail):
        bench.residency.step_done("short", 4 * BLOCK - 1, 4 * BLOCK)
        bench.end("short", "length", 2)
    bench.residency.step_done("long", 4 * BLOCK + 1, 4 * BLOCK + 2)
    bench.end("long", "length", 2)
    assert "resident_claim_reused" in bench.names()
    assert_conforming(bench.stop())


@pytest.mark.parametrize("left_ns", range(8))
def test_a_term_does_not_end_between_the_request_and_the_decision_about_its_claim(bench: Bench, left_ns: int) -> None:
    """A claim on other terms is a conflict with an open one, or is new: it is not announced as the first."""
    kept = claim(mode="hard_protected", ttl_s=1.0)
    bench.serve("r1", prompt(), kept)
    (accepted,) = bench.events("resident_claim_accepted")
    assert isinstance(accepted, ev.ClaimAccepted)
    assert accepted.deadline_ns is not None
    bench.now_ns = accepted.deadline_ns - left_ns
    bench.serve("r2", prompt(), kept | {"priority": 1})
    assert_conforming(bench.stop())
