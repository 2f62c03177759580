"""Offload and restore on the live engine: bytes come back before they are reused, or the claim has its outcome."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from residentkv.claims.lifecycle import State
from tests.reference.stages import Bench, claim_of, prompt_of, tag

KEPT = prompt_of(1, 6)


def offloaded(tmp_path: Path, *, reset: bool = True, claim: dict[str, Any] | None = None, **config: Any) -> Bench:
    """An engine with one offloaded claim whose primary blocks are gone."""
    b = Bench(tmp_path, **{"usable_blocks": 20, "offload_blocks": 12, **config})
    b.serve(KEPT, claim=claim or claim_of("c", "offloadable", 6))
    if reset:
        assert b.engine.reset_prefix_cache() == 6
    return b


def test_bytes_come_back_from_the_tier_and_the_output_is_right(tmp_path: Path) -> None:
    """After the primary blocks went, the request is served from loaded bytes, as a run without a cache would."""
    b = offloaded(tmp_path)
    result = b.serve((*KEPT, 1, 2), reuse="c", max_tokens=4)
    assert (result.hit_blocks, result.loaded_blocks, result.computed_blocks) == (0, 6, 0)
    assert result.output == b.alone((*KEPT, 1, 2), 4)


def test_negative_control_zeroed_tier_changes_the_output(tmp_path: Path) -> None:
    """When zeros are loaded as if they were good the output differs: so the right output came from the tier's bytes."""
    b = offloaded(tmp_path)
    assert b.faults.zero(undetectably=True) == 6
    result = b.serve((*KEPT, 1), reuse="c")
    assert result.loaded_blocks == 6 and result.output != b.alone((*KEPT, 1))


def test_restore_events_come_in_the_order_of_the_spec(tmp_path: Path) -> None:
    """accepted, materialized, store ok, offloaded, lookup hit, restore_required, load ok, restored, reuse."""
    b = offloaded(tmp_path)
    b.serve((*KEPT, 1), reuse="c")
    b.engine.shutdown()
    wanted = [
        "request_initialized",
        "resident_claim_accepted",
        "resident_claim_materialized",
        "offload_job_created",
        "offload_worker_transfer_finished",
        "resident_claim_offloaded",
        "active_request_terminated",
        "request_initialized",
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
    rest = iter(b.tags())
    assert all(t in rest for t in wanted)


def test_reuse_in_place_needs_no_restoration(tmp_path: Path) -> None:
    """While the primary copy is there the tier is not asked to load."""
    b = offloaded(tmp_path, reset=False)
    result = b.serve((*KEPT, 1), reuse="c")
    assert result.hit_blocks == 6 and "resident_claim_restore_required" not in b.tags()
    assert "resident_claim_reused" in b.tags()


def test_partly_evicted_claim_loads_only_what_is_missing(tmp_path: Path) -> None:
    """The required positions are those that the primary tier cannot serve."""
    b = offloaded(tmp_path, reset=False)
    b.serve(prompt_of(2, 18))
    assert b.engine.resident_spans(KEPT) == ((0, 2),)
    result = b.serve((*KEPT, 1), reuse="c")
    assert (result.hit_blocks, result.loaded_blocks) == (2, 4) and result.output == b.alone((*KEPT, 1))
    required = next(e for e in b.events() if tag(e) == "resident_claim_restore_required")
    assert required.required_pos == ((2, 6),)


def test_second_cycle_is_a_new_generation(tmp_path: Path) -> None:
    """Every restoration is preceded by the tier's word of what it has, numbered."""
    b = offloaded(tmp_path)
    for n in (1, 2, 3):
        result = b.serve((*KEPT, n), reuse="c")
        assert result.loaded_blocks == 6 and result.output == b.alone((*KEPT, n))
        b.engine.reset_prefix_cache()
    generations = [e.generation for e in b.events() if tag(e) == "resident_claim_restored"]
    assert generations == [1, 2, 3]


def test_failed_load_refuses_the_request_in_the_name_of_the_claim(tmp_path: Path) -> None:
    """Failure, refusal, termination in that order, naming this claim; the next request is served from the tier."""
    b = offloaded(tmp_path)
    b.faults.fail_loads()
    failed = b.serve((*KEPT, 1), reuse="c")
    assert (failed.status, failed.reason, failed.output) == ("failed", "restoration_failed", ())
    assert failed.outcome_claim_id == "c" and failed.blocking_claim_ids == ("c",)
    assert b.tags()[-3:] == [
        "scheduler_resident_claim_restoration_failed",
        "scheduler_active_request_refused",
        "active_request_terminated",
    ]
    assert b.engine.claims("a")[0].state is State.RESTORATION_FAILED
    again = b.serve((*KEPT, 1), reuse="c")
    assert again.loaded_blocks == 6 and again.output == b.alone((*KEPT, 1))


def test_wrong_bytes_of_a_failed_load_are_never_cached(tmp_path: Path) -> None:
    """After a failure the blocks of the refused request hold nothing that another request could hit."""
    b = offloaded(tmp_path)
    b.faults.corrupt([b.engine.desk.kept["a", "c"].names[3]])
    assert b.serve((*KEPT, 1), reuse="c").status == "failed"
    assert b.engine.count_resident(KEPT) == (0, 0)
    unclaimed = b.serve((*KEPT, 1))
    assert unclaimed.output == b.alone((*KEPT, 1))


@pytest.mark.parametrize("damage", ["corrupt", "zero", "drop"])
def test_lost_tier_copy_is_refused_and_then_harmed_by_name(tmp_path: Path, damage: str) -> None:
    """A copy that is damaged for good cannot be tried again: the request is refused first, then the claim is harmed."""
    b = offloaded(tmp_path)
    getattr(b.faults, damage)()
    assert b.serve((*KEPT, 1), reuse="c").status == "failed"
    tags = b.tags()
    order = ["scheduler_active_request_refused", "active_request_terminated", "resident_claim_harmed"]
    assert [t for t in tags if t in order][-3:] == order
    assert b.engine.claims("a") == []
    harmed = next(e for e in b.events() if tag(e) == "resident_claim_harmed")
    assert (harmed.outcome_claim_id, harmed.lost_pos) == ("c", ((0, 6),))


def test_retry_is_one_failure_and_one_restoration(tmp_path: Path) -> None:
    """Both are told; the bytes of the second attempt come from the tier, so it is no recompute."""
    b = offloaded(tmp_path, load_retries=2)
    b.faults.fail_loads(2)
    result = b.serve((*KEPT, 1), reuse="c")
    assert result.status == "finished" and result.loaded_blocks == 6 and result.output == b.alone((*KEPT, 1))
    tags = b.tags()
    assert tags.count("scheduler_resident_claim_restoration_failed") == 2
    assert tags.count("resident_claim_restored") == 1 and "active_request_recomputed" not in tags
    policies = [e.failure_policy for e in b.events() if tag(e) == "scheduler_resident_claim_restoration_failed"]
    assert policies == ["retry", "retry"]


def test_damaged_copy_is_not_retried(tmp_path: Path) -> None:
    """Trying again cannot help, so the claim answers at once."""
    b = offloaded(tmp_path, load_retries=5)
    b.faults.corrupt()
    assert b.serve((*KEPT, 1), reuse="c").status == "failed"
    assert b.tags().count("scheduler_resident_claim_restoration_failed") == 1


@pytest.mark.parametrize(("damage", "outcome"), [("fail_loads", "demoted"), ("corrupt", "harmed")])
def test_recompute_only_after_the_claim_has_its_own_outcome(tmp_path: Path, damage: str, outcome: str) -> None:
    """The owner who chose recompute is told first, then served from computed tokens, which count as no restoration."""
    b = offloaded(tmp_path, claim=claim_of("c", "offloadable", 6, on_restore_failure="recompute"))
    getattr(b.faults, damage)()
    result = b.serve((*KEPT, 1), reuse="c")
    assert result.status == "finished" and result.output == b.alone((*KEPT, 1))
    assert (result.loaded_blocks, result.computed_blocks) == (0, 6)
    order = ["scheduler_resident_claim_restoration_failed", f"resident_claim_{outcome}", "active_request_recomputed"]
    assert [t for t in b.tags() if t in order] == order
    assert "resident_claim_restored" not in b.tags()


def test_one_failure_names_one_claim_of_several(tmp_path: Path) -> None:
    """Two claims are offloaded, the load of one fails: the other is untouched and restored."""
    b = Bench(tmp_path, usable_blocks=20, offload_blocks=12)
    other = prompt_of(2, 6)
    b.serve(KEPT, claim=claim_of("target", "offloadable", 6))
    b.serve(other, claim=claim_of("bystander", "offloadable", 6))
    b.engine.reset_prefix_cache()
    b.faults.fail_loads()
    assert b.serve((*KEPT, 1), reuse="target").outcome_claim_id == "target"
    assert b.serve((*other, 1), reuse="bystander").loaded_blocks == 6
    failures = [e for e in b.events() if tag(e) == "scheduler_resident_claim_restoration_failed"]
    assert [(e.claim_id, e.outcome_claim_id, e.blocking_claim_ids) for e in failures] == [
        ("target", "target", ("target",))
    ]


def test_request_running_beside_a_refused_one_is_served(tmp_path: Path) -> None:
    """A refusal ends its own request only."""
    b = offloaded(tmp_path)
    beside = b.request(prompt_of(3, 4), max_tokens=6)
    b.engine.submit(beside)
    b.engine.step()
    b.faults.fail_loads()
    b.engine.submit(b.request((*KEPT, 1), reuse="c"))
    b.engine.run()
    assert b.engine.results[beside.request_id].output == b.alone(prompt_of(3, 4), 6)


def test_unclaimed_load_failure_is_computed_again_without_blaming_a_claim(tmp_path: Path) -> None:
    """Nobody was promised anything: the request gets its right answer and no claim gets an outcome."""
    b = offloaded(tmp_path)
    b.faults.fail_loads()
    result = b.serve((*KEPT, 1))
    assert result.output == b.alone((*KEPT, 1)) and result.computed_blocks == 6
    recomputed = next(e for e in b.events() if tag(e) == "active_request_recomputed")
    assert recomputed.claim_id is None
    assert not b.tags(about="restoration_failed") and b.engine.claims("a")[0].state is State.OFFLOADED


def test_partly_damaged_unclaimed_load_keeps_the_good_beginning(tmp_path: Path) -> None:
    """What came before the damage is used, the rest computed, and the output is right."""
    b = offloaded(tmp_path)
    b.faults.corrupt([b.engine.desk.kept["a", "c"].names[4]])
    result = b.serve((*KEPT, 1))
    assert (result.loaded_blocks, result.computed_blocks) == (4, 2) and result.output == b.alone((*KEPT, 1))


def test_claim_stays_protected_while_its_store_fails(tmp_path: Path) -> None:
    """Nothing is called offloaded before the bytes are in the tier; the store is tried again."""
    b = Bench(tmp_path, usable_blocks=20, offload_blocks=12)
    b.faults.fail_stores(2)
    b.serve(KEPT, claim=claim_of("c", "offloadable", 6))
    assert b.engine.claims("a")[0].state is State.MATERIALIZED and b.engine.parts.ledger.protected_blocks == 6
    b.serve(prompt_of(2, 2))
    assert b.engine.claims("a")[0].state is State.OFFLOADED and b.engine.parts.ledger.protected_blocks == 0
    stores = [e for e in b.events() if tag(e) == "offload_worker_transfer_finished"]
    assert [e.success for e in stores] == [False, False, True]


def test_lazy_claim_is_offloaded_when_its_room_is_needed(tmp_path: Path) -> None:
    """Under pressure the copy is made first, then the request comes in, told what made room."""
    b = offloaded(tmp_path, reset=False, eager_offload=False)
    assert b.engine.claims("a")[0].state is State.MATERIALIZED
    assert b.serve(prompt_of(2, 18)).status == "finished"
    admitted = [e for e in b.events() if tag(e) == "active_request_admitted"][-1]
    assert admitted.actions == ("offload:c",)
    result = b.serve((*KEPT, 1), reuse="c")
    assert result.output == b.alone((*KEPT, 1)) and result.loaded_blocks > 0


def test_request_is_refused_when_the_relief_fails(tmp_path: Path) -> None:
    """A claim that could not be copied keeps its blocks, and the request that needed them is refused by its name."""
    b = offloaded(tmp_path, reset=False, eager_offload=False)
    b.faults.fail_stores(9)
    refused = b.serve(prompt_of(2, 18))
    assert (refused.status, refused.blocking_claim_ids) == ("refused", ("c",))
    assert b.engine.count_resident(KEPT) == (6, 6)


def test_tier_room_is_promised_once(tmp_path: Path) -> None:
    """A claim whose copy would not fit beside the promised ones is rejected at once."""
    b = Bench(tmp_path, usable_blocks=30, offload_blocks=10)
    b.serve(KEPT, claim=claim_of("c", "offloadable", 6))
    second = b.serve(prompt_of(2, 6), claim=claim_of("d", "offloadable", 6))
    assert second.decision.reason == "offload_tier_full"
    b.engine.release("a", "c")
    third = b.serve(prompt_of(3, 6), claim=claim_of("d", "offloadable", 6))
    assert third.decision.verdict.value == "accepted"


def test_loss_of_one_copy_is_no_loss_while_another_lives(tmp_path: Path) -> None:
    """Primary blocks of an offloaded claim are removed and nobody is harmed."""
    b = offloaded(tmp_path)
    b.serve(prompt_of(2, 20))
    assert "block_removed" in b.tags() and "resident_claim_harmed" not in b.tags()


def test_claim_whose_middle_was_evicted_is_restored_in_place(tmp_path: Path) -> None:
    """A contiguous range away from the beginning is loaded to its positions; the rest is computed."""
    b = Bench(tmp_path, usable_blocks=20, offload_blocks=12)
    claim = {**claim_of("c", "offloadable", 6), "predicate": "contiguous_range(2, 3)"}
    b.serve(KEPT, claim=claim)
    b.engine.reset_prefix_cache()
    result = b.serve((*KEPT, 1), reuse="c")
    assert (result.loaded_blocks, result.computed_blocks) == (3, 3) and result.output == b.alone((*KEPT, 1))
