"""Requests and claims on the live engine: what is served, what is refused, and what is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from residentkv.claims.arbiter import Answer
from residentkv.claims.ledger import ClaimKeyInUse, StaleRevision
from residentkv.claims.lifecycle import State
from residentkv.claims.modes import Mode
from residentkv.errors import InputError, UsageError
from residentkv.runtimes.reference.engine import ClaimNotFound, EngineStopped
from tests.reference.stages import Bench, claim_of, prompt_of, tag


def test_cached_blocks_change_the_work_and_not_the_output(tmp_path: Path) -> None:
    """A hit is read instead of computed, and the answer is the one of a run without any cache."""
    b = Bench(tmp_path)
    prompt = prompt_of(1, 6, tail=2)
    first = b.serve(prompt, max_tokens=5)
    second = b.serve(prompt, max_tokens=5)
    assert first.output == second.output == b.alone(prompt, 5)
    assert (first.hit_blocks, first.computed_blocks) == (0, 6)
    assert (second.hit_blocks, second.computed_blocks) == (6, 0)


def test_another_salt_shares_no_block(tmp_path: Path) -> None:
    """A cache salt separates tenants: the same tokens under another salt are computed anew."""
    b = Bench(tmp_path)
    prompt = prompt_of(1, 4)
    b.serve(prompt, cache_salt="one")
    assert b.serve(prompt, cache_salt="two").hit_blocks == 0
    assert b.serve(prompt, cache_salt="one").hit_blocks == 4


def test_requests_are_served_side_by_side(tmp_path: Path) -> None:
    """Several requests run at once, a token a step, and each gets its own right output."""
    b = Bench(tmp_path, usable_blocks=30)
    prompts = [prompt_of(n, 4, tail=n) for n in range(1, 4)]
    for n, prompt in enumerate(prompts):
        b.engine.submit(b.request(prompt, max_tokens=3 + n))
    b.engine.run()
    for n, prompt in enumerate(prompts):
        assert b.engine.results[f"r{n + 1}"].output == b.alone(prompt, 3 + n)


def test_full_engine_without_claims_queues_as_ever(tmp_path: Path) -> None:
    """Nobody is refused when only active work is in the way."""
    b = Bench(tmp_path, usable_blocks=10)
    for n in range(1, 4):
        b.engine.submit(b.request(prompt_of(n, 8), max_tokens=4))
    b.engine.run()
    assert [b.engine.results[f"r{n}"].status for n in range(1, 4)] == ["finished"] * 3
    assert not b.tags(about="refused") and not b.tags(about="deferred")


def test_request_larger_than_the_tier_is_a_usage_error(tmp_path: Path) -> None:
    """It is turned down at once and leaves no event."""
    b = Bench(tmp_path, usable_blocks=10)
    with pytest.raises(UsageError, match="found 11 blocks, expected 1 to 10"):
        b.serve(prompt_of(1, 11))
    with pytest.raises(UsageError):
        b.serve(())
    assert b.tags() == ["trace_opened"]


def test_request_id_is_used_once(tmp_path: Path) -> None:
    """Two requests of one name could not be told apart in the trace."""
    b = Bench(tmp_path)
    b.serve(prompt_of(1, 1))
    with pytest.raises(UsageError, match="submitted before"):
        b.engine.submit(b.request(prompt_of(1, 1), request_id="r1"))


def test_protected_claim_survives_pressure_and_the_loser_is_told(tmp_path: Path) -> None:
    """What fits beside the claim is served, what does not is refused with the shortfall and the claim's name."""
    b = Bench(tmp_path, usable_blocks=20)
    kept = prompt_of(1, 12)
    b.serve(kept, claim=claim_of("c", "hard_protected", 12))
    assert b.serve(prompt_of(2, 8)).status == "finished"
    refused = b.serve(prompt_of(3, 11))
    assert (refused.status, refused.shortfall_blocks, refused.blocking_claim_ids) == ("refused", 3, ("c",))
    again = b.serve((*kept, 1), reuse="c")
    assert again.hit_blocks == 12 and again.output == b.alone((*kept, 1))


def test_claim_covers_the_part_of_the_object_that_its_predicate_needs(tmp_path: Path) -> None:
    """The rest of the prompt is evicted like anything else."""
    b = Bench(tmp_path, usable_blocks=12)
    prompt = prompt_of(1, 10)
    b.serve(prompt, claim=claim_of("c", "hard_protected", 4))
    b.serve(prompt_of(2, 8))
    assert b.engine.resident_spans(prompt) == ((0, 4),)


def test_deferred_request_is_served_when_the_claim_ends(tmp_path: Path) -> None:
    """It waits without blocking others, is told once, and comes in as soon as there is room."""
    b = Bench(tmp_path, usable_blocks=20, defer_s=60.0)
    b.serve(prompt_of(1, 12), claim=claim_of("c", "expiring", 12, ttl_s=30.0))
    b.engine.submit(b.request(prompt_of(2, 10)))
    assert b.engine.step() is False
    assert b.serve(prompt_of(3, 4)).status == "finished", "no head-of-line blocking"
    b.engine.run()
    assert b.engine.results["r2"].status == "finished" and b.clock.now_ns >= 30 * 10**9
    assert b.tags(about="deferred") == ["active_request_deferred"]
    order = [t for t in b.tags() if t in ("active_request_deferred", "resident_claim_expired")]
    assert order == ["active_request_deferred", "resident_claim_expired"]


def test_deferral_ends_at_its_deadline_with_a_refusal(tmp_path: Path) -> None:
    """Nobody waits for ever for a claim that stays."""
    b = Bench(tmp_path, usable_blocks=20, defer_s=5.0)
    b.serve(prompt_of(1, 12), claim=claim_of("c", "hard_protected", 12))
    refused = b.serve(prompt_of(2, 10))
    assert (refused.status, refused.reason) == ("refused", "deferral_deadline")
    assert refused.blocking_claim_ids == ("c",) and b.clock.now_ns >= 5 * 10**9


def test_expired_claim_ends_before_its_blocks_are_used(tmp_path: Path) -> None:
    """The event comes first, then the blocks may go; a read after the deadline is not a read of the claim."""
    b = Bench(tmp_path, usable_blocks=12)
    kept = prompt_of(1, 8)
    b.serve(kept, claim=claim_of("c", "expiring", 8, ttl_s=1.0))
    b.clock.advance_s(1)
    late = b.serve((*kept, 1), reuse="c")
    b.serve(prompt_of(2, 12))
    assert late.status == "finished" and late.hit_blocks == 8
    tags = b.tags()
    assert "resident_claim_reused" not in tags
    assert tags.index("resident_claim_expired") < tags.index("block_removed")


def test_deadline_between_two_ticks_is_not_overrun(tmp_path: Path) -> None:
    """A claim that would be over when the next event is written is over now."""
    b = Bench(tmp_path)
    kept = prompt_of(1, 2)
    b.serve(kept, claim=claim_of("c", "expiring", 2, ttl_s=1.0))
    record = b.engine.claims("a")[0]
    assert record.deadline_ns is not None
    b.clock.advance_to(record.deadline_ns - 1)
    b.serve((*kept, 1), reuse="c")
    ended = next(e for e in b.events() if tag(e) == "resident_claim_expired")
    assert ended.mono_ns >= record.deadline_ns
    assert "resident_claim_reused" not in b.tags()


def test_renewal_moves_the_deadline(tmp_path: Path) -> None:
    """A renewed claim outlives its first term; an old revision or a late renewal is refused."""
    b = Bench(tmp_path)
    b.serve(prompt_of(1, 4), claim=claim_of("c", "expiring", 4, ttl_s=10.0))
    b.clock.advance_s(9)
    b.engine.renew("a", "c", revision=1, ttl_s=10.0)
    with pytest.raises(StaleRevision):
        b.engine.renew("a", "c", revision=1, ttl_s=99.0)
    b.clock.advance_s(9)
    assert b.engine.claims("a")[0].state is State.MATERIALIZED
    b.clock.advance_s(2)
    with pytest.raises(ClaimNotFound):
        b.engine.renew("a", "c", revision=2, ttl_s=10.0)


def test_demotable_claim_gives_way_before_its_loss(tmp_path: Path) -> None:
    """Only the claim that is needed is demoted, lowest priority first, and the request is told what made room."""
    b = Bench(tmp_path, usable_blocks=20)
    b.serve(prompt_of(1, 6), claim=claim_of("low", "demotable", 6))
    b.serve(prompt_of(2, 6), claim=claim_of("high", "demotable", 6, priority=5))
    assert b.serve(prompt_of(3, 13)).status == "finished"
    assert [r.claim.claim_id for r in b.engine.claims("a")] == ["high"]
    admitted = [e for e in b.events() if tag(e) == "active_request_admitted"][-1]
    assert admitted.actions == ("demote:low",)
    assert admitted.protected_blocks + admitted.active_blocks + admitted.need_blocks <= admitted.usable_blocks
    tags = b.tags()
    assert tags.index("resident_claim_demoted") < tags.index("block_removed")


def test_claims_in_use_are_not_demoted_in_vain(tmp_path: Path) -> None:
    """Demoting a claim whose blocks a running request reads would free nothing: the newcomer is refused instead."""
    b = Bench(tmp_path, usable_blocks=20)
    kept = prompt_of(1, 10)
    b.serve(kept, claim=claim_of("c", "demotable", 10))
    b.engine.submit(b.request((*kept, 1), reuse="c", max_tokens=9))
    b.engine.step()
    newcomer = b.serve(prompt_of(2, 12))
    assert newcomer.status == "refused" and newcomer.blocking_claim_ids == ("c",)
    assert [r.claim.claim_id for r in b.engine.claims("a")] == ["c"]


def test_soft_claims_go_last_and_are_told(tmp_path: Path) -> None:
    """Unclaimed blocks go first although they were used last, then the less important claim, harmed by name."""
    b = Bench(tmp_path, usable_blocks=20)
    b.serve(prompt_of(1, 6), claim=claim_of("high", "soft_priority", 6, priority=9))
    b.serve(prompt_of(2, 6), claim=claim_of("low", "soft_priority", 6, priority=1))
    b.serve(prompt_of(3, 8))
    b.serve(prompt_of(4, 8))
    assert len(b.engine.claims("a")) == 2
    b.serve(prompt_of(5, 10))
    assert [r.claim.claim_id for r in b.engine.claims("a")] == ["high"]
    harmed = next(e for e in b.events() if tag(e) == "resident_claim_harmed")
    assert (harmed.claim_id, harmed.outcome_claim_id, harmed.reason) == ("low", "low", "evicted")
    assert harmed.lost_pos == ((4, 6),), "the blocks at the end went first"


def test_best_effort_goes_without_a_word(tmp_path: Path) -> None:
    """Nothing was promised beyond trying, so nothing is reported as harm."""
    b = Bench(tmp_path, usable_blocks=10)
    b.serve(prompt_of(1, 6), claim=claim_of("hint", "best_effort", 6))
    b.serve(prompt_of(2, 10))
    b.engine.shutdown()
    assert b.tags(about="resident_claim")[-1] == "resident_claim_released"
    assert "resident_claim_harmed" not in b.tags()


REJECTED: list[tuple[dict[str, Any], str]] = [
    (claim_of("c", "offloadable", 4), "mode_unsupported"),
    (claim_of("c", "routed_reuse", 4), "mode_unsupported"),
    (claim_of("c", "hard_protected", 7), "predicate_unsatisfiable"),
    (claim_of("c", "expiring", 4), "ttl_missing"),
    ({**claim_of("c", "best_effort", 4), "predicate": "whole_object(conv)"}, "sidecars_unsupported"),
]


@pytest.mark.parametrize(("claim", "reason"), REJECTED, ids=[r for _, r in REJECTED])
def test_rejected_claim_leaves_the_request_served_unclaimed(tmp_path: Path, claim: dict[str, Any], reason: str) -> None:
    """A claim is declined with its reason before anything else happens, and the request goes on without it."""
    b = Bench(tmp_path)
    result = b.serve(prompt_of(1, 6), claim=claim)
    assert result.status == "finished" and result.decision.verdict is Answer.REJECTED
    assert result.decision.reason == reason
    assert b.tags()[:3] == ["trace_opened", "request_initialized", "resident_claim_rejected"]
    assert b.engine.claims("a") == []


def test_claim_that_does_not_fit_is_clipped_when_the_policy_says_so(tmp_path: Path) -> None:
    """The weaker terms are named, and so is what was asked for."""
    b = Bench(tmp_path, usable_blocks=10, clip_to=Mode.SOFT_PRIORITY, min_active_blocks=5)
    result = b.serve(prompt_of(1, 8), claim=claim_of("c", "hard_protected", 8))
    assert (result.decision.verdict, result.decision.mode) == (Answer.CLIPPED, Mode.SOFT_PRIORITY)
    accepted = next(e for e in b.events() if tag(e) == "resident_claim_accepted")
    assert (accepted.decision, accepted.mode, accepted.clipped_from) == (
        "clipped",
        "soft_priority",
        ("hard_protected",),
    )
    assert b.serve(prompt_of(2, 10)).status == "finished", "a clipped claim blocks nobody"


def test_deferred_claim_is_accepted_when_room_is_there(tmp_path: Path) -> None:
    """The decision stays open, then it is accepted and materialized over what is still resident."""
    b = Bench(tmp_path, usable_blocks=20, defer_claims=True, defer_s=60.0)
    b.serve(prompt_of(1, 12), claim=claim_of("first", "expiring", 12, ttl_s=30.0))
    second = b.serve(prompt_of(2, 8), claim=claim_of("second", "hard_protected", 8))
    assert second.decision.verdict is Answer.DEFERRED and second.status == "finished"
    assert [r.state for r in b.engine.claims("a")] == [State.MATERIALIZED, State.DEFERRED]
    b.clock.advance_s(31)
    b.serve(prompt_of(3, 2))
    assert [(r.claim.claim_id, r.state) for r in b.engine.claims("a")] == [("second", State.MATERIALIZED)]


@pytest.mark.parametrize("gone", [False, True], ids=["deadline", "object-gone"])
def test_deferred_claim_is_rejected_in_the_end(tmp_path: Path, gone: bool) -> None:
    """When its time is over, or room comes too late for its object, the open decision is closed by name."""
    b = Bench(tmp_path, usable_blocks=20, defer_claims=True, defer_s=10.0)
    b.serve(prompt_of(1, 12), claim=claim_of("first", "hard_protected", 12))
    b.serve(prompt_of(2, 8), claim=claim_of("second", "hard_protected", 8))
    if gone:
        b.serve(prompt_of(3, 8))
        b.engine.release("a", "first")
    else:
        b.clock.advance_s(11)
    b.engine.step()
    rejected = next(e for e in b.events() if tag(e) == "resident_claim_rejected")
    assert rejected.reason == ("object_not_resident" if gone else "deferral_deadline")
    assert "second" not in [r.claim.claim_id for r in b.engine.claims("a")]


def test_claim_of_a_refused_request_is_released(tmp_path: Path) -> None:
    """A reservation does not outlive the request that was to fill it."""
    b = Bench(tmp_path, usable_blocks=20)
    b.serve(prompt_of(1, 8), claim=claim_of("there", "hard_protected", 8))
    refused = b.serve(prompt_of(2, 14), claim=claim_of("new", "hard_protected", 4))
    assert refused.status == "refused" and refused.blocking_claim_ids == ("there",)
    assert [r.claim.claim_id for r in b.engine.claims("a")] == ["there"]
    released = next(e for e in b.events() if tag(e) == "resident_claim_released")
    assert (released.claim_id, released.reason) == ("new", "request_refused")


def test_claim_on_what_is_resident_already(tmp_path: Path) -> None:
    """A claim can come without new work: it is accepted only if its predicate holds now."""
    b = Bench(tmp_path, usable_blocks=20)
    prompt = prompt_of(1, 6)
    b.serve(prompt)
    yes = b.serve(prompt, claim=claim_of("yes", "hard_protected", 6), max_tokens=0)
    no = b.serve(prompt_of(2, 6), claim=claim_of("no", "hard_protected", 6), max_tokens=0)
    assert yes.decision.verdict is Answer.ACCEPTED
    assert (no.decision.verdict, no.decision.reason) == (Answer.REJECTED, "object_not_resident")


def test_owner_cannot_touch_claims_of_another(tmp_path: Path) -> None:
    """For a stranger the claim does not exist: not to show, release, renew or reuse."""
    b = Bench(tmp_path)
    kept = prompt_of(1, 4)
    b.serve(kept, claim=claim_of("c", "hard_protected", 4))
    assert b.engine.claims("b") == []
    with pytest.raises(ClaimNotFound):
        b.engine.release("b", "c")
    with pytest.raises(ClaimNotFound):
        b.engine.renew("b", "c", revision=9, ttl_s=1.0)
    b.serve((*kept, 1), owner_scope="b", reuse="c")
    initialized = [e for e in b.events() if tag(e) == "request_initialized"][-1]
    assert initialized.claim_id is None and "resident_claim_reused" not in b.tags()


def test_claim_in_the_name_of_another_owner_is_refused(tmp_path: Path) -> None:
    """Who sends the request is who owns the claim."""
    b = Bench(tmp_path)
    with pytest.raises(InputError, match="owner_scope"):
        b.serve(prompt_of(1, 4), owner_scope="b", claim=claim_of("c", "hard_protected", 4))
    assert b.tags() == ["trace_opened"]


def test_malformed_claim_stops_its_request_before_any_event(tmp_path: Path) -> None:
    """A bad field is named, and nothing was served."""
    b = Bench(tmp_path)
    with pytest.raises(InputError, match="predicate"):
        b.serve(prompt_of(1, 4), claim={**claim_of("c", "hard_protected", 4), "predicate": "blocks(4)"})
    with pytest.raises(InputError, match="token_map_id"):
        b.serve(prompt_of(1, 4), claim=claim_of("c", "hard_protected", 4, token_map_id="tokens:other"))
    assert b.tags() == ["trace_opened"]


def test_name_of_an_open_claim_is_not_given_twice(tmp_path: Path) -> None:
    """The second claim of the name is an error; after the release the name is free."""
    b = Bench(tmp_path)
    b.serve(prompt_of(1, 4), claim=claim_of("c", "hard_protected", 4))
    with pytest.raises(ClaimKeyInUse):
        b.serve(prompt_of(2, 4), claim=claim_of("c", "hard_protected", 4))
    b.engine.release("a", "c")
    assert b.serve(prompt_of(3, 4), claim=claim_of("c", "hard_protected", 4)).decision.verdict is Answer.ACCEPTED


def test_shutdown_gives_everything_its_outcome(tmp_path: Path) -> None:
    """Running and waiting requests are aborted, claims released, open decisions rejected, and the trace is closed."""
    b = Bench(tmp_path, usable_blocks=20, defer_claims=True, defer_s=50.0)
    b.serve(prompt_of(1, 12), claim=claim_of("open", "hard_protected", 12))
    b.engine.submit(b.request(prompt_of(2, 6), max_tokens=3))
    b.engine.submit(b.request(prompt_of(3, 8), claim=claim_of("undecided", "hard_protected", 8)))
    b.engine.step()
    b.engine.shutdown()
    b.engine.shutdown()
    tags = b.tags()
    assert tags.count("request_initialized") == tags.count("active_request_terminated") == 3
    ends = {e.claim_id: tag(e) for e in b.events() if tag(e) in ("resident_claim_released", "resident_claim_rejected")}
    assert ends == {"open": "resident_claim_released", "undecided": "resident_claim_rejected"}
    assert tags[-1] == "trace_closed"
    with pytest.raises(EngineStopped):
        b.serve(prompt_of(4, 1))


def test_crash_leaves_no_last_word_and_restart_begins_a_new_epoch(tmp_path: Path) -> None:
    """Claims of the dead engine do not exist in the new one, which numbers its events from 0 in the next epoch."""
    b = Bench(tmp_path)
    b.serve(prompt_of(1, 4), claim=claim_of("c", "hard_protected", 4))
    b.engine.crash()
    assert b.tags()[-1] != "trace_closed"
    again = Bench(tmp_path, epoch=1)
    assert again.engine.claims("a") == []
    again.engine.shutdown()
    events = again.events()
    assert [(e.epoch, e.seq) for e in events if tag(e) == "trace_opened"] == [(0, 0), (1, 0)]


def test_reset_keeps_what_claims_hold(tmp_path: Path) -> None:
    """A reset of the prefix cache drops everything but protected and used blocks."""
    b = Bench(tmp_path, usable_blocks=20)
    b.serve(prompt_of(1, 4), claim=claim_of("c", "hard_protected", 4))
    b.serve(prompt_of(2, 4))
    assert b.engine.reset_prefix_cache() == 4
    assert b.engine.count_resident(prompt_of(1, 4)) == (4, 4)
    assert b.engine.count_resident(prompt_of(2, 4)) == (0, 0)


def test_request_that_names_a_claim_of_other_tokens_is_not_joined_to_it(tmp_path: Path) -> None:
    """Naming a claim is not enough: the prompt must contain what the claim is about."""
    b = Bench(tmp_path)
    b.serve(prompt_of(1, 4), claim=claim_of("c", "hard_protected", 3))
    b.serve(prompt_of(2, 4), reuse="c")
    b.serve(prompt_of(1, 4), reuse="c", cache_salt="other")
    b.serve(prompt_of(1, 3), reuse="c")
    named = [e.claim_id for e in b.events() if tag(e) == "request_initialized"]
    assert named == ["c", None, None, "c"] and b.tags().count("resident_claim_reused") == 1
