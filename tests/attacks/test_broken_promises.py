"""Traces in which a promise is broken quietly, and lawful ones that look like them."""

from __future__ import annotations

import pytest

from residentkv.audit import Verdict, audit_events
from tests.audit.notation import trace
from tests.audit.stories import RECOMPUTE, ROUTED, SOFT, SUCCESS, TWO_WORKERS

CYCLE = SUCCESS[SUCCESS.index("    lookup r2 c\n") : SUCCESS.index("    end r2\n")]
FROM_RESULT = SUCCESS[SUCCESS.index("    done 1\n") : SUCCESS.index("    close\n")]


def said(story: str) -> tuple[Verdict, set[str]]:
    report = audit_events([trace(story)])
    return report.verdict, {f.code for f in report.all_findings()}


def edit(story: str, old: str, new: str) -> str:
    assert story.count(old) == 1
    return story.replace(old, new)


def test_a_load_by_fewer_workers_than_stored_is_inconclusive() -> None:
    """Two workers stored; a load that one worker calls all of them left the other one's share behind."""
    story = edit(
        TWO_WORKERS, "    done 1 worker=1 workers_total=2\n    done 1 worker=0 workers_total=2\n", "    done 1\n"
    )
    assert said(TWO_WORKERS) == (Verdict.CONFORMING, set())
    assert said(story) == (Verdict.INCONCLUSIVE, {"RKV250"})


@pytest.mark.parametrize("outcome", ["demote c", "harm c lost_pos=0-8"])
def test_a_recompute_that_is_called_a_retry_is_inconclusive(outcome: str) -> None:
    """A retry is another attempt; tokens that are computed again are none."""
    story = edit(RECOMPUTE, "failed c r2 job=1 policy=recompute", "failed c r2 job=1 policy=retry")
    story = edit(story, "demote c", outcome)
    assert said(story) == (Verdict.INCONCLUSIVE, {"RKV268"})


def test_a_retry_that_fails_again_may_be_followed_by_recompute() -> None:
    """The retry that was announced came; the second failure says what follows."""
    again = """    offload c r2 jobs=0
    require c r2
    load 2 r2 c
    fail 2
    failed c r2 job=2 policy=recompute
    demote c
"""
    story = edit(RECOMPUTE, "failed c r2 job=1 policy=recompute", "failed c r2 job=1 policy=retry")
    assert said(edit(story, "    demote c\n", again)) == (Verdict.CONFORMING, set())


@pytest.mark.parametrize(("tier", "verdict"), [("gpu", Verdict.CONFORMING), ("nvme", Verdict.INCONCLUSIVE)])
def test_reuse_in_a_tier_that_nothing_was_put_into_is_inconclusive(tier: str, verdict: Verdict) -> None:
    """Without block events only the claim's own events say where it lies."""
    story = edit(SUCCESS, CYCLE, f"    reuse-here c r2 tier={tier}\n")
    assert said(story) == (verdict, set() if tier == "gpu" else {"RKV257"})


@pytest.mark.parametrize(("reused", "codes"), [(8, set()), (12, set()), (7, {"RKV296"}), (1, {"RKV296"})])
def test_a_binding_that_served_less_than_is_useful_is_inconclusive(reused: int, codes: set[str]) -> None:
    """One reused block of the eight that the predicate needs does not show that the binding held."""
    story = edit(ROUTED, "    route c r2\n", f"    route c r2 reused_blocks={reused}\n")
    assert said(story) == (Verdict.INCONCLUSIVE if codes else Verdict.CONFORMING, codes)


@pytest.mark.parametrize(
    ("worker", "verdict"),
    [
        ("worker_id=w1", Verdict.CONFORMING),
        ("worker_id=w2", Verdict.VIOLATING),
        ("worker_id=w1 worker_epoch=9", Verdict.VIOLATING),
    ],
)
def test_only_the_worker_of_the_binding_can_refuse_for_it(worker: str, verdict: Verdict) -> None:
    """A refusal elsewhere would mean that the request had left its binding, which is `moved` and has another name."""
    served = "    route c r3 worker_id=w1\n    end r3\n"
    refused = f"    route c r3 {worker} outcome=refused reused_blocks=0\n    end r3 finish_status=error\n"
    assert said(edit(ROUTED, served, refused)) == (verdict, {"RKV296"} if verdict is Verdict.VIOLATING else set())


COUNTED = SOFT.replace(" 0,1,2,3,4,5,6,7\n", "\n").replace("removed gpu a7 7", "removed gpu a7")
"""The blocks of a soft claim in events that name no places: copies can only be counted."""


@pytest.mark.parametrize(("lost", "codes"), [("7-8", set()), ("6-8", {"RKV291"}), ("6-7", {"RKV291"})])
def test_lost_positions_are_compared_with_counted_copies(lost: str, codes: set[str]) -> None:
    """A block that was removed as often as it was stored is gone, and one that never was removed is not."""
    assert COUNTED != SOFT
    story = edit(COUNTED, "lost_pos=7-8", f"lost_pos={lost}")
    assert said(story) == (Verdict.INCONCLUSIVE if codes else Verdict.CONFORMING, codes)


def test_lost_positions_of_a_block_that_was_counted_twice_stay_open() -> None:
    """Stored twice and removed once: one copy may be left, or the first was only told again; both words are true."""
    twice = edit(COUNTED, "    removed gpu a7\n", "    stored gpu a7\n    removed gpu a7\n")
    assert "RKV291" not in said(twice)[1]
    gone = edit(twice, "    removed gpu a7\n", "    removed gpu a7\n    removed gpu a7\n")
    assert said(gone) == (Verdict.CONFORMING, set())
    assert said(edit(gone, "lost_pos=7-8", "lost_pos=6-8")) == (Verdict.INCONCLUSIVE, {"RKV291"})


def test_a_binding_to_an_earlier_incarnation_is_violating() -> None:
    """A worker that has restarted does not come back with the blocks that it had before."""
    story = edit(ROUTED, "    bind c w0\n", "    bind c w0 worker_epoch=3\n")
    story = edit(story, "    route c r2\n", "    route c r2 worker_epoch=3\n")
    newer = edit(story, "    bind c w1\n", "    bind c w0 worker_epoch=4\n")
    newer = edit(newer, "    route c r3 worker_id=w1\n", "    route c r3 worker_epoch=4\n")
    assert said(newer) == (Verdict.CONFORMING, set())
    assert said(newer.replace("worker_epoch=4", "worker_epoch=2")) == (Verdict.VIOLATING, {"RKV295"})


@pytest.mark.parametrize(("pos", "codes"), [("8-12", set()), ("0-8", {"RKV260"}), ("7-12", {"RKV260"})])
def test_a_load_of_a_longer_prompt_needs_no_claim_beyond_it(pos: str, codes: set[str]) -> None:
    """What a request loads behind the claim's positions is nobody's; within them it has to name the claim."""
    story = edit(SUCCESS, "    load 1 r2 c\n", f"    load 1 r2 c\n    load 9 r2 pos={pos}\n    done 9 ok_pos={pos}\n")
    assert said(story) == (Verdict.VIOLATING if codes else Verdict.CONFORMING, codes)


@pytest.mark.parametrize("named", ["r2 c", "r2"])
def test_what_is_computed_after_a_release_needs_no_claim(named: str) -> None:
    """The owner took the claim back while it was loaded; the failure of the load is nobody's."""
    story = edit(SUCCESS, FROM_RESULT, f"    release c\n    fail 1\n    recompute {named}\n    end r2\n")
    assert said(story) == (Verdict.CONFORMING, set())


def test_what_is_computed_after_a_failure_that_was_told_names_its_claim() -> None:
    """A demotion because of the failure is the claim's own outcome, and so is what follows from it."""
    assert said(edit(RECOMPUTE, "recompute r2 c", "recompute r2")) == (Verdict.VIOLATING, {"RKV224"})


@pytest.mark.parametrize(("footprint", "codes"), [(8, set()), (7, {"RKV285"}), (0, {"RKV285"})])
def test_a_footprint_below_what_the_predicate_needs_is_inconclusive(footprint: int, codes: set[str]) -> None:
    """A claim that counts for less than it needs makes room in every decision that weighs it."""
    story = f"""
    open
    init r1 c
    accept c r1 mode=hard_protected footprint={footprint} protected_blocks=0 usable_blocks=16
    materialize c r1
    end r1
    release c
    close
    """
    assert said(story) == (Verdict.INCONCLUSIVE if codes else Verdict.CONFORMING, codes)


@pytest.mark.parametrize("told", ["done 1\n    restore c r2 job=1", "fail 1\n    failed c r2 job=1"])
def test_what_became_of_the_load_of_an_aborted_request_is_no_violation(told: str) -> None:
    """The load was created and has ended; only the request that it was for is gone."""
    story = edit(SUCCESS, FROM_RESULT, f"    end r2 aborted\n    {told}\n    release c\n")
    assert said(story) == (Verdict.INCONCLUSIVE, {"RKV217"})


def test_an_aborted_request_whose_load_came_back_first_is_conforming() -> None:
    """The claim is where it was; the next request may have it restored for itself."""
    story = edit(
        SUCCESS, "    reuse c r2\n    end r2\n", "    end r2 aborted\n    init r3 c\n    reuse-here c r3\n    end r3\n"
    )
    assert said(story) == (Verdict.CONFORMING, set())
