"""From what a client sends to a decision: strict, before anything else, and always answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from residentkv.audit.model import Verdict
from residentkv.claims.model import token_map_digest
from residentkv.trace import events as ev
from tests.vllm.bench import BLOCK, Bench, claim, prompt


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def decision(reply: dict[str, Any]) -> tuple[str, str]:
    answer = reply["resident_claim"]
    return answer["decision"], answer.get("reason", "")


def finish(bench: Bench, request_id: str) -> None:
    bench.schedule(request_id)
    bench.compute(request_id)


def test_the_decision_comes_before_any_other_event_of_the_request(bench: Bench) -> None:
    """Only the announcement of the request precedes it, because the claim is joined to it."""
    bench.serve("r1", prompt(), claim())
    assert bench.names()[1:3] == ["request_initialized", "resident_claim_accepted"]


def test_the_answer_carries_the_identity_that_the_runtime_computed(bench: Bench) -> None:
    """A client that states nothing learns what was claimed."""
    tokens = prompt()
    answer = bench.arrive("r1", tokens, claim())["resident_claim"]
    assert answer["token_map_id"] == token_map_digest(tokens[: 4 * BLOCK])
    assert answer["cache_identity"] == "cache:none"
    assert answer["object_id"].startswith("kv:")


def test_a_stated_token_map_that_differs_is_rejected_and_served_unclaimed(bench: Bench) -> None:
    """The plugin computes the map from the exact tokens; it does not believe the client."""
    reply = bench.arrive("r1", prompt(), claim(token_map_id=token_map_digest([1, 2, 3])))
    assert decision(reply) == ("rejected", "identity_differs")
    finish(bench, "r1")
    report = bench.stop()
    assert report.verdict is not Verdict.VIOLATING
    assert report.claims[0].state == "rejected"
    assert "resident_claim_accepted" not in bench.names()


def test_the_right_token_map_is_accepted(bench: Bench) -> None:
    """Stating what the runtime would compute is no obstacle."""
    reply = bench.arrive("r1", prompt(), claim(token_map_id=token_map_digest(prompt()[: 4 * BLOCK])))
    assert decision(reply)[0] == "accepted"


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"mode": "eternal"}, "eternal"),
        ({"predicate": "four blocks"}, "predicate"),
        ({"predicate": 4}, "predicate"),
        ({"surprise": 1}, "surprise"),
        ({"ttl_s": -1}, "ttl_s"),
        ({"on_restore_failure": "shrug"}, "shrug"),
        ({"claim_id": ""}, "claim_id"),
        ({"claim_id": 7}, "claim_id"),
    ],
)
def test_an_unreadable_claim_is_rejected_with_the_field_named(bench: Bench, changes: dict[str, Any], word: str) -> None:
    """Nothing is guessed and nothing is repaired; the request is served unclaimed."""
    reply = bench.arrive("r1", prompt(), claim() | changes)
    assert decision(reply) == ("rejected", "claim_invalid")
    assert word in reply["resident_claim"]["detail"]
    finish(bench, "r1")
    assert bench.replies["r1"] is not None


@pytest.mark.parametrize("raw", ["a claim", 3, [], None, {"claim_id": "c"}])
def test_a_claim_that_is_no_object_never_stops_the_request(bench: Bench, raw: Any) -> None:
    """Whatever the client sent, the request goes on and the log stays whole."""
    bench.serve("r1", prompt(), raw)
    assert bench.stop().verdict is not Verdict.VIOLATING


def test_a_mode_that_the_plugin_does_not_keep_is_rejected(bench: Bench) -> None:
    """Whoever accepts must be able to enforce."""
    reply = bench.arrive("r1", prompt(), claim(mode="routed_reuse"))
    assert decision(reply) == ("rejected", "mode_unsupported")


def test_a_predicate_that_the_object_cannot_satisfy_is_rejected(bench: Bench) -> None:
    """Five blocks of four can never be retrievable."""
    assert decision(bench.arrive("r1", prompt(), claim(predicate="leading_prefix_at_least(5)"))) == (
        "rejected",
        "predicate_unsatisfiable",
    )


def test_a_prompt_without_a_full_block_has_no_object(bench: Bench) -> None:
    """There is nothing that could be kept."""
    assert decision(bench.arrive("r1", [1, 2], claim()))[0] == "rejected"


def test_a_prompt_that_is_not_only_tokens_cannot_be_claimed(bench: Bench) -> None:
    """The object is named by token ids."""
    assert decision(bench.arrive("r1", prompt(), claim(), text=False)) == ("rejected", "prompt_not_tokens")


def test_a_claim_on_side_state_is_rejected(bench: Bench) -> None:
    """The plugin keeps KV blocks and nothing beside them."""
    assert decision(bench.arrive("r1", prompt(), claim(predicate="whole_object(ssm_state)"))) == (
        "rejected",
        "sidecars_unsupported",
    )


def test_a_claim_larger_than_the_tier_is_rejected(tmp_path: Path) -> None:
    """What could not be offloaded is not promised."""
    bench = Bench(tmp_path, rows=3)
    assert decision(bench.arrive("r1", prompt(), claim())) == ("rejected", "tier_capacity")


def test_two_claims_that_do_not_fit_the_tier_together_are_not_both_accepted(tmp_path: Path) -> None:
    """Blocks that are held for one claim are not promised to another; shared blocks count once."""
    bench = Bench(tmp_path, rows=6)
    assert decision(bench.arrive("r1", prompt(1), claim("a")))[0] == "accepted"
    assert decision(bench.arrive("r2", prompt(2), claim("b"))) == ("rejected", "tier_capacity")
    assert decision(bench.arrive("r3", prompt(1), claim("c")))[0] == "accepted"


def test_a_claim_that_does_not_fit_is_clipped_when_the_operator_says_so(tmp_path: Path) -> None:
    """Accepted on weaker terms, and the terms asked for are named."""
    bench = Bench(tmp_path, rows=3, clip_to_best_effort=True)
    answer = bench.arrive("r1", prompt(), claim())["resident_claim"]
    assert (answer["decision"], answer["mode"], answer["clipped_from"]) == ("clipped", "best_effort", "offloadable")
    finish(bench, "r1")
    report = bench.stop()
    assert report.claims[0].mode == "best_effort"
    assert report.verdict is Verdict.CONFORMING


def test_a_claim_larger_than_the_primary_tier_is_rejected(tmp_path: Path) -> None:
    """Its footprint is reserved until it is offloaded."""
    bench = Bench(tmp_path, usable=4, rows=64)
    assert decision(bench.arrive("r1", prompt(), claim())) == ("rejected", "never_fits")


def test_the_same_name_of_another_owner_is_another_claim(bench: Bench) -> None:
    """A name is unique within its owner; nobody acts for a claim of somebody else by guessing its id."""
    bench.serve("r1", prompt(1), claim("same", "tenant-a"))
    bench.serve("r2", prompt(2), claim("same", "tenant-b"))
    report = bench.stop()
    assert report.verdict is Verdict.CONFORMING
    assert {(c.owner_scope, c.claim_id) for c in report.claims} == {("tenant-a", "same"), ("tenant-b", "same")}


def test_an_owner_cannot_release_the_claim_of_another(bench: Bench) -> None:
    """To others it does not exist."""
    bench.serve("r1", prompt(), claim("c", "tenant-a"))
    reply = bench.arrive("r2", prompt(2), resident_claim_release={"claim_id": "c", "owner_scope": "tenant-b"})
    assert reply["resident_claim_release"] == [
        {"owner_scope": "tenant-b", "claim_id": "c", "released": False, "reason": "not_found"}
    ]
    assert bench.book.find("tenant-a", "c") is not None


def test_an_open_name_with_other_tokens_is_a_conflict_and_changes_nothing(bench: Bench) -> None:
    """The open claim keeps its object; the request is served unclaimed and does not touch its log."""
    bench.serve("r1", prompt(1), claim())
    assert decision(bench.arrive("r2", prompt(2), claim())) == ("rejected", "claim_id_in_use")
    finish(bench, "r2")
    bench.reset_primary()
    bench.serve("r3", prompt(1), claim())
    report = bench.stop()
    assert report.verdict is Verdict.CONFORMING, [f.story for f in report.all_findings()]
    assert report.claims[0].counts["restored"] == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"predicate": "leading_prefix_at_least(2)"},
        {"mode": "best_effort"},
        {"on_restore_failure": "recompute"},
        {"ttl_s": 60.0},
        {"revision": 1},
        {"priority": 7},
    ],
)
def test_a_promise_is_not_changed_by_reusing_it(bench: Bench, changes: dict[str, Any]) -> None:
    """Other terms under an open name are a conflict."""
    bench.serve("r1", prompt(), claim())
    assert decision(bench.arrive("r2", prompt(), claim() | changes)) == ("rejected", "claim_id_in_use")


def test_another_cache_salt_is_another_object(bench: Bench) -> None:
    """The same tokens under another salt are not the claimed blocks."""
    bench.serve("r1", prompt(), claim(), salt="a")
    assert decision(bench.arrive("r2", prompt(), claim(), salt="b")) == ("rejected", "claim_id_in_use")


def test_a_request_that_reads_no_cache_is_not_counted_as_a_reuse(bench: Bench) -> None:
    """It computes everything by its own wish, so it says nothing about the claim."""
    bench.serve("r1", prompt(), claim())
    reply = bench.arrive("r2", prompt(), claim(), unreadable="prompt log probabilities")
    assert decision(reply) == ("rejected", "claim_id_in_use")
    finish(bench, "r2")
    assert bench.stop().verdict is Verdict.CONFORMING


def test_after_a_release_the_name_is_free(bench: Bench) -> None:
    """The next submission under the name is a new claim."""
    bench.serve("r1", prompt(), claim())
    bench.serve("r2", prompt(3), resident_claim_release=[{"claim_id": "c", "owner_scope": "tenant"}])
    assert decision(bench.arrive("r3", prompt(2), claim()))[0] == "accepted"
    finish(bench, "r3")
    report = bench.stop()
    assert [(c.state, c.instance) for c in report.claims] == [("released", 0), ("released", 1)]


@pytest.mark.parametrize("raw", ["c", {"claim_id": "c"}, {"claim_id": 1, "owner_scope": "t"}, [[]]])
def test_a_release_that_cannot_be_read_releases_nothing(bench: Bench, raw: Any) -> None:
    """The answer says what was expected."""
    bench.serve("r1", prompt(), claim())
    reply = bench.arrive("r2", prompt(2), resident_claim_release=raw)
    assert reply["resident_claim_release"][0]["released"] is False
    assert bench.book.find("tenant", "c") is not None


@pytest.mark.parametrize("what", ["resident_claim_release", "resident_claim_renew"])
def test_a_request_asks_for_a_bounded_number_of_things(bench: Bench, what: str) -> None:
    """They are carried out while everybody else waits; beyond the bound none is."""
    bench.serve("r1", prompt(), claim())
    item = {"claim_id": "c", "owner_scope": "tenant"}
    item |= {} if what.endswith("release") else {"revision": 1, "ttl_s": 9.0}
    reply = bench.arrive("r2", prompt(2), **{what: [item] * 300})
    assert len(reply[what]) == 1 and "at most 256" in reply[what][0]["reason"]
    track = bench.book.find("tenant", "c")
    assert track is not None and track.record.revision == 0


def test_a_broken_log_accepts_nothing_more_and_never_looks_whole(bench: Bench) -> None:
    """Without a log no outcome could be told; serving goes on."""
    bench.serve("r1", prompt(), claim())
    bench.log.emit(ev.GenericCounter, name="n", value=-1)
    assert bench.log.failure is not None
    assert decision(bench.arrive("r2", prompt(2), claim("d"))) == ("rejected", "event_log_failed")
    finish(bench, "r2")
    bench.residency.release_all("engine:shutdown", "shutdown")
    bench.log.close("shutdown")
    assert "trace_closed" not in bench.names()


def test_an_engine_that_can_accept_nothing_says_why(bench: Bench) -> None:
    """The reason is the same for every claim and reaches the client."""
    bench.book.refuses_all = ("scheduler_missing", "no scheduler class")
    assert decision(bench.arrive("r1", prompt(), claim())) == ("rejected", "scheduler_missing")


@pytest.mark.parametrize(
    "raw",
    [
        claim("\ud800"),
        claim(owner="\udfff"),
        claim(predicate="\ud800"),
        claim(mode="\ud800"),
        claim() | {"\ud800": 1},
        claim() | {"x" * (1 << 25): 1},
    ],
    ids=["name", "owner", "predicate", "mode", "field", "long_field"],
)
def test_client_cannot_break_the_event_log_or_the_engine(tmp_path: Path, raw: dict[str, Any]) -> None:
    """Text that no line can carry is rejected as `claim_invalid`; the claims of others are decided as before."""
    bench = Bench(tmp_path)
    answer = bench.arrive("r1", prompt(), raw)["resident_claim"]
    assert (answer["decision"], answer["reason"]) == ("rejected", "claim_invalid")
    assert len(answer["detail"]) < 1000
    assert bench.log.failure is None
    assert bench.arrive("r2", prompt(), claim("other"))["resident_claim"]["decision"] == "accepted"
