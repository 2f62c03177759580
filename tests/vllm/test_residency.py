"""The plugin's conduct, from what the engine tells it to the events; every log is audited."""

from __future__ import annotations

from pathlib import Path

import pytest

from residentkv.audit.model import AuditReport, Verdict
from residentkv.trace import events as ev
from tests.vllm.bench import BLOCK, Bench, claim, event_name, prompt


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def assert_conforming(report: AuditReport) -> AuditReport:
    assert report.verdict is Verdict.CONFORMING, [f.story for f in report.all_findings()]
    return report


def states(report: AuditReport) -> dict[str, str]:
    return {c.claim_id: c.state for c in report.claims}


def test_a_claim_is_offloaded_restored_and_reused_in_order(bench: Bench) -> None:
    """The witness of the spec, success branch, from the plugin's own logic."""
    assert bench.serve("r1", prompt(), claim()) == "served"
    bench.reset_primary()
    assert bench.serve("r2", prompt(), claim()) == "served"
    report = assert_conforming(bench.stop())
    assert bench.names() == [
        "trace_opened",
        "request_initialized",
        "resident_claim_accepted",
        "active_request_admitted",
        "offload_lookup_result",
        "offload_job_created",
        "resident_claim_materialized",
        "offload_worker_transfer_finished",
        "resident_claim_offloaded",
        "active_request_terminated",
        "runtime_event",
        "request_initialized",
        "active_request_admitted",
        "offload_lookup_result",
        "resident_claim_restore_required",
        "offload_job_created",
        "offload_worker_transfer_finished",
        "resident_claim_restored",
        "resident_claim_reuse_after_restore",
        "active_request_terminated",
        "resident_claim_released",
        "trace_closed",
    ]
    assert {"restore_before_reuse", "offload_identity"} <= set(report.claims[0].observed)


def test_a_failed_load_refuses_the_request_and_names_the_claim(bench: Bench) -> None:
    """The witness of the spec, failure branch; the claim stays open and is restored once the fault is gone."""
    bench.serve("r1", prompt(), claim())
    bench.reset_primary()
    assert bench.serve("r2", prompt(), claim(), fail=(2,)) == "refused"
    assert bench.serve("r3", prompt(), claim()) == "served"
    report = assert_conforming(bench.stop())
    assert report.claims[0].counts["restored"] == 1
    assert {"restoration_failure_outcome", "scoped_outcome"} <= set(report.claims[0].observed)
    tail = bench.names()
    chain = [
        "resident_claim_restoration_failed",
        "scheduler_resident_claim_restoration_failed",
        "scheduler_active_request_refused",
        "active_request_terminated",
    ]
    at = tail.index(chain[0])
    assert tail[at : at + 4] == chain
    (failed,) = bench.events("scheduler_resident_claim_restoration_failed")
    assert isinstance(failed, ev.SchedulerRestorationFailed)
    assert failed.invalid_block_ids == (102,)
    assert failed.failed_pos == ((2, 3),)


def test_the_client_of_a_refused_request_learns_which_of_its_claims_failed(bench: Bench) -> None:
    """The answer names the claim that the request itself named, and nothing of anybody else."""
    bench.serve("r1", prompt(), claim())
    bench.reset_primary()
    bench.serve("r2", prompt(), claim(), fail=(0,))
    reply = bench.replies["r2"]
    assert reply is not None
    assert reply["resident_claim_refusal"] == {
        "reason": "restoration_failed",
        "claim_id": "c",
        "owner_scope": "tenant",
        "restoration": True,
    }
    assert reply["resident_claim"]["state"] == "restoration_failed"


def test_a_recompute_claim_is_demoted_before_its_tokens_are_computed_again(bench: Bench) -> None:
    """Recompute is never silent and never a restoration; what failed leaves the tier and can be stored again."""
    bench.serve("r1", prompt(), claim(on_restore_failure="recompute"))
    bench.reset_primary()
    assert bench.serve("r2", prompt(), claim(on_restore_failure="recompute"), fail=(1, 2)) == "served"
    report = assert_conforming(bench.stop())
    assert states(report) == {"c": "demoted"}
    names = bench.names()
    assert names.index("resident_claim_demoted") < names.index("active_request_recomputed")
    (again,) = bench.events("active_request_recomputed")
    assert isinstance(again, ev.RequestRecomputed)
    assert again.recomputed_pos == ((1, 4),)
    assert "resident_claim_restored" not in names


def test_a_lasting_fault_under_recompute_ends_after_one_failure(bench: Bench) -> None:
    """The trap of stock vLLM: a failed key that stays a hit is loaded again for ever."""
    bench.serve("r1", prompt(), claim(on_restore_failure="recompute"))
    bench.reset_primary()
    bench.serve("r2", prompt(), claim(on_restore_failure="recompute"), fail=(0, 1, 2, 3))
    assert len(bench.events("resident_claim_restoration_failed")) == 1
    assert bench.tiers.in_tier(bench.prompts["r2"].keys[0])  # Stored again by the recomputing request.
    assert_conforming(bench.stop())


def test_a_retry_is_one_failure_and_one_restoration(tmp_path: Path) -> None:
    """With two attempts a transient fault is told and then repaired by bytes that do come from the tier."""
    bench = Bench(tmp_path, attempts=2)
    bench.serve("r1", prompt(), claim())
    bench.reset_primary()
    assert bench.serve("r2", prompt(), claim(), fail=(3,)) == "served"
    report = assert_conforming(bench.stop())
    counts = report.claims[0].counts
    assert (counts["restoration_failed"], counts["restored"], counts["offloaded"]) == (1, 1, 2)
    (failed,) = bench.events("scheduler_resident_claim_restoration_failed")
    assert isinstance(failed, ev.SchedulerRestorationFailed)
    assert failed.failure_policy == "retry"


def test_damaged_bytes_are_never_tried_again(tmp_path: Path) -> None:
    """A checksum mismatch is no transient fault: refusal, then harm, and the copy leaves the tier."""
    bench = Bench(tmp_path, attempts=5)
    bench.serve("r1", prompt(), claim())
    bench.reset_primary()
    assert bench.serve("r2", prompt(), claim(), fail=(1,), damaged=True) == "refused"
    assert not bench.tiers.in_tier(bench.prompts["r2"].keys[1])
    report = assert_conforming(bench.stop())
    assert states(report) == {"c": "harmed"}


def test_one_failing_claim_of_three_is_the_only_one_named(bench: Bench) -> None:
    """Attribution is by the job's claim; the others are restored in the same log."""
    for i in (1, 2, 3):
        bench.serve(f"seed{i}", prompt(i), claim(f"c{i}"))
    bench.reset_primary()
    outcomes = [bench.serve(f"use{i}", prompt(i), claim(f"c{i}"), fail=(0,) if i == 2 else ()) for i in (1, 2, 3)]
    assert outcomes == ["served", "refused", "served"]
    assert_conforming(bench.stop())
    named = {e.outcome_claim_id for e in bench.events("scheduler_active_request_refused")}  # type: ignore[attr-defined]
    assert named == {"c2"}


def test_the_failed_load_of_an_unclaimed_request_names_no_claim(bench: Bench) -> None:
    """Nobody was promised anything: a counter, and no outcome of any claim."""
    bench.serve("r1", prompt())
    bench.reset_primary()
    bench.serve("r2", prompt(), fail=(0,))
    bench.stop()
    assert bench.events("generic_counter")
    assert not [n for n in bench.names() if "claim" in n or "refused" in n]


@pytest.mark.parametrize("mode", ["offloadable", "hard_protected", "best_effort"])
@pytest.mark.parametrize("terms", ["recompute", "refuse"])
def test_a_load_that_is_no_restoration_does_not_end_a_request_of_a_claim(bench: Bench, terms: str, mode: str) -> None:
    """A new claim whose first load fails: nothing was promised yet, so there is nothing to refuse for."""
    bench.serve("r1", prompt())
    bench.reset_primary()
    bench.arrive("r2", prompt(), claim(mode=mode, on_restore_failure=terms))
    job = bench.schedule("r2")
    assert job is not None
    assert not isinstance(job, str)
    bench.finish_job(job, job.positions)
    assert job.recompute
    bench.schedule("r2")
    bench.compute("r2")
    assert states(assert_conforming(bench.stop())) == {"c": "released"}


def test_a_load_of_a_request_without_a_claim_follows_the_policy_of_the_engine(bench: Bench) -> None:
    """What the operator set holds where nobody named a claim."""
    for recomputes in (False, True):
        bench.residency.adopt_engine_policy(recomputes=recomputes)
        bench.serve(f"r{recomputes}", prompt(recomputes))
        bench.tiers.primary.clear()
        bench.arrive(f"s{recomputes}", prompt(recomputes))
        job = bench.schedule(f"s{recomputes}")
        assert job is not None
        assert not isinstance(job, str)
        bench.finish_job(job, job.positions)
        assert job.recompute is recomputes
        bench.end(f"s{recomputes}", "error", 0)
    assert bench.stop().verdict is not Verdict.VIOLATING


def test_a_foreign_failure_that_costs_a_claim_its_copy_is_told_as_harm(bench: Bench) -> None:
    """An unclaimed load finds the claim's bytes bad and drops them: the loss is reported, on the claim's own name."""
    bench.serve("r1", prompt(), claim())
    bench.reset_primary()
    bench.serve("r2", prompt(), fail=(0,))
    report = bench.stop()
    assert states(report) == {"c": "harmed"}
    assert report.verdict is Verdict.VIOLATING  # The promise was broken, and the log says so.
    assert {f.slug for f in report.all_findings()} == {"promise-broken"}


def test_block_zero_lost_is_harm_and_refusal_however_many_blocks_are_left(bench: Bench) -> None:
    """59 of 60 blocks left are worth nothing under a leading-prefix predicate."""
    many = claim(predicate="leading_prefix_at_least(60)")
    bench.serve("r1", prompt(blocks=60), many)
    bench.reset_primary()
    bench.tiers.tier.discard(bench.prompts["r1"].keys[0])
    assert bench.serve("r2", prompt(blocks=60), many) == "refused"
    report = bench.stop()
    assert states(report) == {"c": "harmed"}
    (refused,) = bench.events("active_request_refused")
    assert isinstance(refused, ev.RequestRefused)
    assert refused.blocking_claim_ids == ("c",)


def test_a_store_that_fails_ends_the_claim_before_anything_is_lost(bench: Bench) -> None:
    """What could not be offloaded is not promised any longer; stock vLLM calls every store a success."""
    bench.serve("r1", prompt(), claim(), fail_store=True)
    names = bench.names()
    assert "resident_claim_offloaded" not in names
    assert names[-1] == "resident_claim_demoted" or names[-2] == "resident_claim_demoted"
    bench.reset_primary()
    report = assert_conforming(bench.stop())
    assert states(report) == {"c": "demoted"}


def test_a_claim_that_is_never_materialized_does_not_stay_open(bench: Bench) -> None:
    """An aborted first request leaves no reservation behind."""
    bench.arrive("r1", prompt(), claim())
    bench.end("r1", "aborted", 0)
    assert not list(bench.book)
    assert bench.book.ledger.protected_blocks == 0
    assert states(assert_conforming(bench.stop())) == {"c": "demoted"}


def test_a_claim_expires_before_it_is_read(bench: Bench) -> None:
    """The term is checked on every read, and its end is told before anything is done about it."""
    bench.serve("r1", prompt(), claim(ttl_s=1.0))
    bench.reset_primary()
    bench.now_ns += 2_000_000_000
    reply = bench.arrive("r2", prompt(), claim(ttl_s=1.0))
    assert reply["resident_claim"]["decision"] == "accepted"  # A new submission, not a reuse.
    bench.end("r2", "aborted", 0)
    report = assert_conforming(bench.stop())
    assert [c.state for c in report.claims] == ["expired", "demoted"]


def test_a_term_that_ends_during_the_restoration_restores_nothing(bench: Bench) -> None:
    """The load still serves the request, and no word about the ended claim follows."""
    bench.serve("r1", prompt(), claim(ttl_s=1.0))
    bench.reset_primary()
    bench.arrive("r2", prompt(), claim(ttl_s=1.0))
    job = bench.schedule("r2")
    assert job is not None
    assert not isinstance(job, str)
    bench.now_ns += 2_000_000_000
    bench.finish_job(job)
    bench.compute("r2")
    report = assert_conforming(bench.stop())
    assert report.claims[0].state == "expired"
    assert "resident_claim_restored" not in bench.names()


def test_a_release_during_the_restoration_ends_the_claim_and_the_request_is_served(bench: Bench) -> None:
    """Whoever releases is told so; the load that is under way becomes an ordinary one."""
    bench.serve("r1", prompt(), claim())
    bench.reset_primary()
    bench.arrive("r2", prompt(), claim())
    job = bench.schedule("r2")
    assert job is not None
    assert not isinstance(job, str)
    reply = bench.arrive("r3", prompt(9), resident_claim_release={"claim_id": "c", "owner_scope": "tenant"})
    assert reply["resident_claim_release"][0]["released"] is True
    bench.finish_job(job)
    bench.compute("r2")
    bench.compute("r3")
    assert states(assert_conforming(bench.stop())) == {"c": "released"}


def test_a_client_that_leaves_during_the_load_leaves_a_restored_claim(bench: Bench) -> None:
    """The end of the request is told when its blocks are free; the bytes did come back."""
    bench.serve("r1", prompt(), claim())
    bench.reset_primary()
    bench.arrive("r2", prompt(), claim())
    job = bench.schedule("r2")
    assert job is not None
    assert not isinstance(job, str)
    bench.end("r2", "aborted", 0)
    bench.finish_job(job)
    assert bench.residency.open_jobs() == 0
    assert bench.serve("r3", prompt(), claim()) == "served"
    assert_conforming(bench.stop())


def test_reuse_from_the_primary_tier_needs_no_restoration(bench: Bench) -> None:
    """Blocks that never left are read where they lie, and the log says so."""
    bench.serve("r1", prompt(), claim())
    assert bench.serve("r2", prompt(), claim()) == "served"
    assert_conforming(bench.stop())
    (reused,) = bench.events("resident_claim_reused")
    assert isinstance(reused, ev.ClaimReused)
    assert reused.tier == "primary"


def test_a_longer_prompt_reuses_the_claimed_prefix(bench: Bench) -> None:
    """The claim is about its blocks, not about the prompt that carries them today."""
    short = prompt()
    bench.serve("r1", short, claim(footprint_blocks=4))
    bench.reset_primary()
    longer = short[: 4 * BLOCK] + [7] * (3 * BLOCK)
    assert bench.serve("r2", longer, claim(footprint_blocks=4)) == "served"
    report = assert_conforming(bench.stop())
    assert report.claims[0].counts["reused_after_restore"] == 1


def test_a_partial_prefix_in_the_primary_tier_is_completed_from_the_other(bench: Bench) -> None:
    """Only what is missing is required and loaded."""
    bench.serve("r1", prompt(), claim())
    bench.reset_primary()
    bench.tiers.primary.update(bench.prompts["r1"].hashes[:2])
    assert bench.serve("r2", prompt(), claim()) == "served"
    assert_conforming(bench.stop())
    (required,) = bench.events("resident_claim_restore_required")
    assert isinstance(required, ev.ClaimRestoreRequired)
    assert required.required_pos == ((2, 4),)


def test_bytes_that_others_stored_are_stored_again_in_the_name_of_the_claim(bench: Bench) -> None:
    """A promise to give blocks back rests on a transfer made for it, not on somebody else's."""
    bench.serve("r1", prompt())
    bench.serve("r2", prompt(), claim())
    report = assert_conforming(bench.stop())
    assert report.claims[0].counts["offloaded"] == 1
    jobs = [e for e in bench.events("offload_job_created") if isinstance(e, ev.JobCreated)]
    assert [(j.direction, j.claim_id) for j in jobs] == [("store", None), ("store", "c")]


def test_emptying_the_prefix_cache_demotes_a_claim_that_lies_nowhere_else(bench: Bench) -> None:
    """A reset by the operator comes with notice: demoted, then emptied."""
    bench.arrive("r1", prompt(), claim())
    bench.schedule("r1")
    facts = bench.prompts["r1"]
    bench.tiers.primary.update(facts.hashes)
    bench.residency.step_done("r1", 0, facts.prompt_tokens)
    bench.reset_primary()
    bench.end("r1", "length", 1)
    assert states(assert_conforming(bench.stop())) == {"c": "demoted"}


def test_emptying_the_tier_demotes_every_claim_that_rests_on_it(bench: Bench) -> None:
    """A copy in the primary tier alone cannot be restored, so the promise does not stand."""
    bench.serve("r1", prompt(), claim())
    bench.residency.before_reset(primary=False, tier=True)
    bench.tiers.tier.clear()
    assert states(assert_conforming(bench.stop())) == {"c": "demoted"}


def test_a_best_effort_claim_promises_no_restoration(bench: Bench) -> None:
    """Its blocks are not held in the tier, and losing them is not told as harm."""
    soft = claim(mode="best_effort")
    bench.serve("r1", prompt(), soft)
    assert not bench.tiers.holds
    bench.serve("r2", prompt(), soft)
    assert_conforming(bench.stop())
    assert "resident_claim_offloaded" not in bench.names()


@pytest.mark.parametrize(
    ("left", "fail", "told"),
    [
        ("nothing", (), "active_request_recomputed"),
        ("the tier", (), "resident_claim_reused"),
        ("the tier", (1,), "active_request_recomputed"),
    ],
)
def test_what_a_request_of_a_best_effort_claim_was_computed_on_is_told(
    bench: Bench, left: str, fail: tuple[int, ...], told: str
) -> None:
    """No promise is no reason for silence: computed again, or read after an ordinary load, and the log says which."""
    soft = claim(mode="best_effort")
    bench.residency.adopt_engine_policy(recomputes=True)
    bench.serve("r1", prompt(), soft)
    bench.tiers.primary.clear()
    if left == "nothing":
        bench.tiers.tier.clear()
    bench.serve("r2", prompt(), soft, fail=fail)
    bench.serve("r3", prompt(), soft)
    report = assert_conforming(bench.stop())
    names = bench.names()
    assert told in names[: names.index("request_initialized", names.index(told))]
    assert names.count("active_request_recomputed") == (told == "active_request_recomputed")
    assert states(report) == {"c": "released"}


def test_memory_follows_what_is_open(bench: Bench) -> None:
    """A hundred requests of claims that ended leave nothing behind."""
    for i in range(100):
        name = f"c{i}"
        bench.serve(f"r{i}", prompt(i), claim(name))
        bench.arrive(f"x{i}", prompt(i + 500), resident_claim_release={"claim_id": name, "owner_scope": "tenant"})
        bench.end(f"x{i}", "aborted", 0)
    assert not bench.residency._requests
    assert not bench.residency._jobs
    assert not bench.residency._ending
    assert not list(bench.book)
    assert not bench.tiers.holds
    assert_conforming(bench.stop())


def test_every_event_name_of_the_plugin_is_of_the_vocabulary(bench: Bench) -> None:
    """The log decodes strictly; a made-up field or name would not."""
    bench.serve("r1", prompt(), claim())
    bench.stop()
    assert all(event_name(e) for e in bench.events())


def test_requests_without_a_claim_are_not_watched(bench: Bench) -> None:
    """What a step computed says something about claims only; a request that joins one is watched until it is over."""
    bench.arrive("r1", prompt())
    assert not bench.residency.watched
    for request_id in ("r2", "r3"):
        bench.arrive(request_id, prompt(), claim())
    assert set(bench.residency.watched) == {"r2", "r3"}
    for request_id in ("r1", "r2", "r3"):
        bench.end(request_id, "abort", 0)
    assert not bench.residency.watched
    assert_conforming(bench.stop())
