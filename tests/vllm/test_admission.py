"""The door: who may come in beside the claims, who is refused by name, who waits, and with which numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from residentkv.audit.model import AuditReport, Verdict
from residentkv.runtimes.vllm.active import Refusal
from residentkv.runtimes.vllm.options import ConflictAction
from residentkv.trace.events import ClaimAccepted, RequestAdmitted, RequestDeferred, RequestRefused
from tests.vllm.bench import Bench, claim, event_name, prompt


def hard(name: str = "h", blocks: int = 4, **changes: Any) -> dict[str, Any]:
    return claim(name, predicate=f"leading_prefix_at_least({blocks})", mode="hard_protected") | changes


def small(tmp_path: Path, **options: Any) -> Bench:
    return Bench(tmp_path, usable=8, **options)


def conforming(report: AuditReport) -> AuditReport:
    assert report.verdict is Verdict.CONFORMING, [f.story for f in report.all_findings()]
    return report


def refusals(bench: Bench) -> list[RequestRefused]:
    return [e for e in bench.events("active_request_refused") if isinstance(e, RequestRefused)]


def test_a_request_that_does_not_fit_beside_a_hard_claim_is_refused_by_its_name(tmp_path: Path) -> None:
    """4 protected and 5 needed blocks of 8: one is missing, the claim is named, and it keeps what it has."""
    bench = small(tmp_path)
    assert bench.serve("r1", prompt(), hard()) == "served"
    assert bench.serve("r2", prompt(2, blocks=5)) == "refused"
    (told,) = refusals(bench)
    assert (told.need_blocks, told.protected_blocks, told.active_blocks, told.usable_blocks) == (6, 4, 0, 8)
    assert (told.shortfall_blocks, told.blocking_claim_ids, told.reason) == (2, ("h",), "claims_hold")
    assert bench.serve("r3", prompt(), hard()) == "served"
    assert bench.tiers.pinned_blocks() == 4
    report = conforming(bench.stop())
    assert {"feasibility_check", "conflict_outcome", "scoped_outcome"} <= set(report.claims[0].observed)
    assert bench.tiers.pinned_blocks() == 0


def test_release_makes_the_room_that_was_refused(tmp_path: Path) -> None:
    """A refusal ends with the claim that caused it: the same prompt is served after the release."""
    bench = small(tmp_path)
    bench.serve("r1", prompt(), hard())
    assert bench.serve("r2", prompt(2, blocks=5)) == "refused"
    bench.serve("r3", [1], resident_claim_release={"claim_id": "h", "owner_scope": "tenant"})
    assert bench.tiers.pinned_blocks() == 0
    assert bench.serve("r4", prompt(2, blocks=5)) == "served"
    conforming(bench.stop())


def test_a_request_is_not_charged_for_what_its_own_claim_reserved(tmp_path: Path) -> None:
    """The reservation is there from acceptance on; the request adds only its last block."""
    bench = small(tmp_path)
    bench.serve("r1", prompt(), hard())
    (told,) = [e for e in bench.events() if isinstance(e, RequestAdmitted)]
    assert (told.need_blocks, told.protected_blocks) == (1, 4)


def test_without_claims_the_door_asks_for_no_more_than_vllm(tmp_path: Path) -> None:
    """Room for the prompt is enough, whatever the request may generate; the next one waits, nobody is refused."""
    bench = small(tmp_path)
    bench.arrive("r1", prompt(blocks=5), max_tokens=400)
    bench.arrive("r2", prompt(2, blocks=5))
    assert bench.open_door() == {"r1": "in"}
    assert bench.open_door() == {}
    bench.schedule("r1")
    bench.compute("r1")
    assert bench.open_door() == {"r2": "in"}
    bench.schedule("r2")
    bench.compute("r2")
    assert refusals(bench) == []


def test_a_door_that_stands_open_weighs_nobody(tmp_path: Path) -> None:
    """Where no claim can be accepted, a prompt larger than the cache is vLLM's business, and the log says no number."""
    bench = small(tmp_path)
    bench.residency.book.refuses_all = ("layout_unsupported", "sliding windows")
    bench.residency.door.stands_open = True
    reply = bench.arrive("r1", prompt(blocks=12), hard())
    assert reply is not None and reply["resident_claim"]["reason"] == "layout_unsupported"
    assert not bench.residency.door.holds("r1")
    assert bench.events("active_request_admitted") == []


def test_those_who_come_together_are_weighed_beside_what_was_promised_to_each(tmp_path: Path) -> None:
    """Prompts that need 4 of 8 blocks: each is told what those before it need, and the third one waits."""
    bench = small(tmp_path)
    for number in range(3):
        bench.arrive(f"r{number}", prompt(number, blocks=3))
    assert bench.open_door() == {"r0": "in", "r1": "in"}
    bench.schedule("r0")
    assert bench.open_door() == {}
    bench.end("r0", "length", 1)
    assert bench.open_door() == {"r2": "in"}
    told = [e for e in bench.events("active_request_admitted") if isinstance(e, RequestAdmitted)]
    assert [(e.request_id, e.active_blocks) for e in told] == [("r0", 0), ("r1", 4), ("r2", 4)]


def test_beside_claims_all_that_a_request_may_need_is_weighed(tmp_path: Path) -> None:
    """A prompt that fits and an answer that does not would end in an eviction or a hang; it is refused before."""
    bench = small(tmp_path)
    bench.serve("r1", prompt(), hard())
    assert bench.serve("r2", prompt(2, blocks=2), max_tokens=3) == "served"
    bench.arrive("r3", prompt(3, blocks=2), max_tokens=10)
    assert bench.open_door() == {"r3": "refused"}
    conforming(bench.stop())


def test_who_waits_for_active_work_is_not_overtaken_and_whom_claims_turn_away_is_told_at_once(tmp_path: Path) -> None:
    """First come, first served among those who fit later; one that can never fit beside the claim does not queue."""
    bench = small(tmp_path)
    bench.serve("r1", prompt(blocks=2)[:-1], hard(blocks=2), max_tokens=1)
    bench.arrive("r2", prompt(2, blocks=5)[:-1], max_tokens=1)
    assert bench.open_door() == {"r2": "in"}
    bench.schedule("r2")
    for name, blocks in (("r3", 4), ("r4", 1), ("r5", 7)):
        bench.arrive(name, prompt(int(name[1:]), blocks=blocks)[:-1], max_tokens=1)
    assert bench.open_door() == {"r5": "refused"}
    bench.compute("r2")
    assert bench.open_door() == {"r3": "in", "r4": "in"}


def test_an_expiring_claim_gives_way_at_its_deadline_and_not_before(tmp_path: Path) -> None:
    """Refused while the term runs, with the time until it ends; admitted after, and the end is told first."""
    bench = small(tmp_path)
    terms = hard("e", mode="expiring", ttl_s=5.0)
    bench.serve("r1", prompt(), terms)
    assert bench.serve("r2", prompt(2, blocks=5)) == "refused"
    reply = bench.replies["r2"]
    assert reply is not None and 4.9 < reply["resident_claim_refusal"]["retry_after_s"] <= 5.0
    bench.now_ns += 5_000_000_000
    assert bench.serve("r3", prompt(2, blocks=5)) == "served"
    names = bench.names()
    assert names.index("resident_claim_expired") < len(names) - 1 - names[::-1].index("active_request_admitted")
    assert "expiry_enforcement" in conforming(bench.stop()).claims[0].observed


def test_a_demotable_claim_is_demoted_by_name_and_no_more_of_them_than_needed(tmp_path: Path) -> None:
    """The least important one goes, before the request is let in; the other one stays pinned."""
    bench = small(tmp_path)
    for name, seed, priority in (("d1", 1, 5), ("d2", 2, 1)):
        terms = claim(name, predicate="leading_prefix_at_least(3)", mode="demotable", priority=priority)
        assert bench.serve(f"r-{name}", prompt(seed, blocks=3), terms) == "served"
    assert bench.serve("r3", prompt(3, blocks=3)) == "served"
    (told,) = bench.events("resident_claim_demoted")
    assert (getattr(told, "claim_id", ""), getattr(told, "reason", "")) == ("d2", "capacity")
    admitted = [e for e in bench.events() if isinstance(e, RequestAdmitted)][-1]
    assert admitted.actions == ("demote:d2",)
    assert bench.tiers.pinned_blocks() == 3
    conforming(bench.stop())


def test_a_claim_on_room_that_active_work_uses_is_rejected(tmp_path: Path) -> None:
    """Whoever was let in may need its blocks until it ends; a claim accepted on top of them would starve it."""
    bench = small(tmp_path)
    bench.arrive("r1", prompt(blocks=5))
    bench.schedule("r1")
    reply = bench.arrive("r2", prompt(2), hard())
    assert (reply["resident_claim"]["decision"], reply["resident_claim"]["reason"]) == ("rejected", "active_work")


@pytest.mark.parametrize(("blocks", "reason"), [(8, "never_fits"), (5, "insufficient_capacity")])
def test_a_claim_that_would_starve_active_work_is_turned_down(tmp_path: Path, blocks: int, reason: str) -> None:
    """What is kept free for active work cannot be claimed, neither at once nor bit by bit."""
    bench = small(tmp_path, min_active_blocks=2)
    bench.serve("r1", prompt(blocks=2), hard("first", 2))
    reply = bench.arrive("r2", prompt(2, blocks=blocks), hard("second", blocks))
    assert (reply["resident_claim"]["decision"], reply["resident_claim"]["reason"]) == ("rejected", reason)


@pytest.mark.parametrize("mode", ["hard_protected", "demotable", "soft_priority", "best_effort"])
def test_a_claim_whose_request_never_computed_it_is_let_go(tmp_path: Path, mode: str) -> None:
    """A reservation without an object would be a pin that nobody asked for, and any claim counts for its owner."""
    bench = small(tmp_path)
    bench.arrive("r1", prompt(), hard(mode=mode))
    bench.schedule("r1")
    bench.end("r1", "aborted", 0)
    (told,) = bench.events("resident_claim_released")
    assert (getattr(told, "released_by", ""), getattr(told, "reason", "")) == ("engine:request", "never_materialized")
    assert bench.book.ledger.protected_blocks == 0
    conforming(bench.stop())


def test_a_refused_request_leaves_no_claim_behind_that_its_client_does_not_know_of(tmp_path: Path) -> None:
    """The answer was the refusal; a claim that stayed would fill the owner's quota, one refusal at a time."""
    bench = small(tmp_path)
    bench.serve("r1", prompt(), hard())
    for i in range(3):
        assert bench.serve(f"s{i}", prompt(2, blocks=5), claim(f"c{i}", mode="best_effort")) == "refused"
    assert bench.book.ledger.open_claims == 1
    conforming(bench.stop())


def test_a_refusal_shows_an_owner_only_its_own_claims(tmp_path: Path) -> None:
    """Claims of others are counted and not named; the log names all of them."""
    bench = small(tmp_path)
    bench.serve("r1", prompt(blocks=2), hard("mine", 2))
    bench.serve("r2", prompt(2, blocks=2), hard("theirs", 2, owner_scope="other"))
    bench.arrive("r3", prompt(3, blocks=6), {"claim_id": "new", "owner_scope": "tenant", "mode": "best_effort"})
    bench.open_door()
    reply = bench.replies["r3"]
    assert reply is not None
    told = reply["resident_claim_refusal"]
    assert (told["blocking_claim_ids"], told["claims_of_others"]) == (["mine"], 1)
    assert "theirs" not in str(reply)
    assert refusals(bench)[0].blocking_claim_ids == ("mine", "theirs")


def test_a_refusal_for_a_claim_of_the_request_names_that_claim_only() -> None:
    """What a failed restoration is told with has no numbers of room in it."""
    told = Refusal(reason="copy_lost", claim_id="c", owner_scope="tenant").seen_by(None)
    assert told == {"reason": "copy_lost", "claim_id": "c", "owner_scope": "tenant", "restoration": False}


def test_a_waiting_request_does_not_fight_copies_under_way_to_the_second_tier(tmp_path: Path) -> None:
    """Blocks of an offloadable claim are protected only until its copy is complete: who needs them waits for that."""
    bench = small(tmp_path)
    bench.arrive("r1", prompt(), claim("o"))
    bench.schedule("r1")
    bench.tiers.primary.update(bench.prompts["r1"].hashes)
    store = bench.make_job("r1", False, range(4))
    bench.residency.step_done("r1", 0, len(prompt()))
    bench.end("r1", "length", 2)
    bench.arrive("r2", prompt(2, blocks=5))
    assert bench.open_door() == {}
    bench.finish_job(store)
    assert bench.open_door() == {"r2": "in"}
    bench.schedule("r2")
    bench.compute("r2")
    conforming(bench.stop())


def test_with_the_check_off_the_audit_sees_it(tmp_path: Path) -> None:
    """Negative control: everybody is let in, and the numbers that are told show that it does not fit."""
    bench = small(tmp_path, off=frozenset({"feasibility_check"}))
    bench.serve("r1", prompt(), hard())
    assert bench.serve("r2", prompt(2, blocks=5)) == "served"
    report = bench.stop()
    assert report.verdict is Verdict.VIOLATING
    assert "admission-infeasible" in {f.slug for f in report.all_findings()}


def test_what_was_accepted_is_told_with_the_needed_blocks(tmp_path: Path) -> None:
    """A claim that holds the primary tier reserves what its predicate needs, not all that its prompt fills."""
    bench = small(tmp_path)
    bench.serve("r1", prompt(blocks=6), hard("h", 2))
    (told,) = [e for e in bench.events() if isinstance(e, ClaimAccepted)]
    assert told.footprint_blocks == 2
    assert bench.tiers.pinned_blocks() == 2
    assert event_name(told) == "resident_claim_accepted"


DEFER = ("expire", "offload", "demote", "defer", "refuse")


def deferring(tmp_path: Path, **more: Any) -> Bench:
    return small(tmp_path, actions=tuple(ConflictAction(word) for word in DEFER), defer_s=5.0, **more)


def test_a_deferred_request_comes_in_when_the_claim_ends_and_holds_nobody_up(tmp_path: Path) -> None:
    """It is told once that it waits, for whom and until when; one that fits is served meanwhile."""
    bench = deferring(tmp_path)
    bench.serve("r1", prompt(), hard())
    bench.arrive("r2", prompt(2, blocks=5))
    assert bench.open_door() == {}
    assert bench.serve("r3", prompt(3, blocks=2)) == "served"
    (told,) = [e for e in bench.events() if isinstance(e, RequestDeferred)]
    assert (told.shortfall_blocks, told.blocking_claim_ids) == (2, ("h",))
    assert 4.9e9 < told.deadline_ns - told.mono_ns <= 5e9
    bench.serve("r4", [1], resident_claim_release={"claim_id": "h", "owner_scope": "tenant"})
    assert bench.schedule("r2") is None
    bench.compute("r2")
    conforming(bench.stop())


def test_a_deferral_ends_at_its_deadline_with_a_refusal(tmp_path: Path) -> None:
    """Nobody waits for ever: the refusal says so, with the numbers of that moment."""
    bench = deferring(tmp_path)
    bench.serve("r1", prompt(), hard())
    bench.arrive("r2", prompt(2, blocks=5))
    assert bench.open_door() == {}
    assert bench.open_door() == {}
    bench.now_ns += 5_000_000_000
    assert bench.open_door() == {"r2": "refused"}
    (told,) = refusals(bench)
    assert (told.reason, told.blocking_claim_ids) == ("deferral_deadline", ("h",))
    conforming(bench.stop())


def test_a_deferred_request_that_its_client_takes_back_is_forgotten(tmp_path: Path) -> None:
    """An abort before the door leaves nothing behind."""
    bench = deferring(tmp_path)
    bench.serve("r1", prompt(), hard())
    bench.arrive("r2", prompt(2, blocks=5))
    bench.open_door()
    bench.end("r2", "aborted", 0)
    assert not bench.door.holds("r2")
    conforming(bench.stop())


def test_without_demote_in_the_policy_a_demotable_claim_is_not_given_up(tmp_path: Path) -> None:
    """The operator decides what may be done; what is left is the refusal, which names the claim."""
    bench = small(tmp_path, actions=(ConflictAction.EXPIRE, ConflictAction.REFUSE))
    bench.serve("r1", prompt(), hard("d", mode="demotable"))
    assert bench.serve("r2", prompt(2, blocks=5)) == "refused"
    assert refusals(bench)[0].blocking_claim_ids == ("d",)
