"""The plugin on the real, unmodified vLLM: its parts, its limits, and the traps of stock code after a failed load.

Each test reads what a probe saw in a process of its own; without the vLLM environment they fail.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from residentkv.audit.api import audit_file
from residentkv.audit.model import AuditReport, Verdict
from residentkv.environments import run_in_runtime
from residentkv.trace.events import ClaimRestored, Event, JobCreated, SchedulerRequestRefused, TransferFinished
from residentkv.trace.reader import read_trace
from residentkv.witness.driver import prepare_model

PROBE = Path(__file__).parent / "probe.py"

TINY_MODEL = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": 1024,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "torch_dtype": "bfloat16",
    "hidden_act": "silu",
}


class Seen:
    """What one probe left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records: dict[str, Any] = json.loads((folder / "seen.json").read_text())
        self.trace = folder / "trace.jsonl"

    def __getitem__(self, name: str) -> Any:
        return self.records[name]

    def audit(self) -> AuditReport:
        return audit_file(self.trace)

    def events(self) -> list[Event]:
        return [event for chunk in read_trace(self.trace) for event in chunk]

    def names(self) -> list[str]:
        return [str(event.__struct_config__.tag) for event in self.events()]


Probe = Callable[..., Seen]


@pytest.fixture(scope="session")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Probe:
    """Run a probe once and keep what it saw."""
    kept: dict[str, Seen] = {}

    def run(name: str, model: str | None = None, **environment: str) -> Seen:
        if name not in kept:
            folder = tmp_path_factory.mktemp(name)
            run_in_runtime(
                "vllm",
                [str(PROBE), name, str(folder), model or str(prepare_model())],
                log=folder / "log.txt",
                what=f"probe {name}",
                environment={
                    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
                    "VLLM_LOGGING_LEVEL": "WARNING",
                    **environment,
                },
            )
            kept[name] = Seen(folder)
        return kept[name]

    return run


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with the configuration of a model whose weights are made up at start."""
    folder = tmp_path_factory.mktemp("tiny-model")
    (folder / "config.json").write_text(json.dumps(TINY_MODEL))
    return str(folder)


def conforming(seen: Seen) -> None:
    report = seen.audit()
    assert report.verdict is Verdict.CONFORMING, [f.story for f in report.all_findings()]


def test_the_manager_drops_holds_and_stores_again(probe: Probe) -> None:
    """Failed keys are a miss and can be stored again, held keys are never evicted, failed stores leave nothing."""
    seen = probe("parts")["manager"]
    assert [name for name, held in seen.items() if held is not True] == []


def test_the_tier_gives_bytes_back_and_finds_damage(probe: Probe) -> None:
    """A real file holds the bytes, a checksum a block tells damage, and the file goes with the engine."""
    seen = probe("parts")["tier"]
    assert seen["bytes"] == 2 * 3 * 64
    assert seen["file"] == 4 * 3 * 64
    assert seen["intact"] == [True, False, False, True]
    rest = set(seen) - {"bytes", "file", "intact"}
    assert {name: seen[name] for name in rest} == dict.fromkeys(rest, True)


def test_the_mixin_precedes_both_stock_schedulers(probe: Probe) -> None:
    """Steps that overlap need the other stock class; the order is the same."""
    seen = probe("parts")["schedulers"]
    assert seen["plain"] == ["ResidentSchedulerMixin", "Scheduler"]
    assert seen["overlapping"] == ["ResidentSchedulerMixin", "AsyncScheduler", "Scheduler"]


def test_without_the_scheduler_class_nothing_is_accepted(probe: Probe, tiny_model: str) -> None:
    """Whoever accepts must be able to enforce, and the connector alone cannot refuse a request."""
    answer = probe("scheduler_missing", tiny_model)["asked"]
    assert answer["answer"]["resident_claim"]["reason"] == "scheduler_missing"
    assert answer["finish"] == "length"


def test_a_lasting_fault_under_recompute_does_not_livelock(probe: Probe) -> None:
    """Stock code loads the failed blocks again for ever (209 failures in 3 s); here each block fails once."""
    seen = probe("traps")
    assert seen["unclaimed_lasting"]["tokens"] == seen["baseline"]["tokens"]
    assert seen["claimed_lasting"]["tokens"] == seen["claimed_baseline"]["tokens"]
    failures = [e for e in seen.events() if isinstance(e, TransferFinished) and not e.success and e.claim_id is None]
    assert len([e for e in failures if e.reason == "injected"]) <= 3


def test_blocks_whose_load_failed_are_stored_again_and_found_later(probe: Probe) -> None:
    """A failed key that stayed in the index could never be stored again (vllm-project/vllm#53498)."""
    seen = probe("traps")
    assert seen["stored_again"]["tokens"] == seen["baseline"]["tokens"]
    load = next(e for e in seen.events() if isinstance(e, TransferFinished) and e.direction == "load" and e.success)
    assert (load.claim_id, load.ok_pos) == (None, ((0, 8),))


def test_the_reported_cached_tokens_say_nothing_about_a_partial_failure(probe: Probe) -> None:
    """vLLM reports the hit it planned; the log names what came back, and no restoration is claimed."""
    seen = probe("traps")
    claimed = [e for e in seen.events() if isinstance(e, TransferFinished) and e.claim_id == "r" and not e.success]
    assert claimed[0].ok_pos == ((0, 4),)
    assert claimed[0].failed_pos == ((4, 8),)
    told = [e for e in seen.events() if getattr(e, "claim_id", None) == "r"]
    assert "resident_claim_restored" not in [str(e.__struct_config__.tag) for e in told]
    assert "active_request_recomputed" in [str(e.__struct_config__.tag) for e in told]


def test_a_refusal_beside_chunked_prefills_stores_no_partial_block(probe: Probe) -> None:
    """Ending a request as an error in mid-prefill makes stock code store half a block under its full hash.

    The refused request holds loaded and unloaded blocks while its neighbours prefill; afterwards the same tokens,
    unclaimed, give the same answer.
    """
    seen = probe("traps")
    before, refused, after = seen["refused_beside_prefills"]
    assert refused["finish"] == "error"
    assert refused["answer"]["resident_claim_refusal"]["claim_id"] == "m"
    assert {before["finish"], after["finish"]} == {"length"}
    assert seen["after_refusal"]["tokens"] == seen["prefill_baseline"]["tokens"]
    refused_id = refused["answer"]["request_id"]
    stores = [e for e in seen.events() if isinstance(e, JobCreated) and e.request_id == refused_id]
    assert [e.direction for e in stores] == ["load"]


def test_the_log_of_the_traps_conforms(probe: Probe) -> None:
    """All of the above happened in one log, and the audit has nothing to say against it."""
    conforming(probe("traps"))


def test_claims_work_when_the_engine_has_a_process_of_its_own(probe: Probe) -> None:
    """Client and engine in two processes: the same order of events, the answers travel back."""
    seen = probe("processes", VLLM_ENABLE_V1_MULTIPROCESSING="1")
    assert seen["reuse"]["tokens"] == seen["resident"]["tokens"]
    refused, beside = seen["failed"]
    assert (refused["finish"], beside["finish"]) == ("error", "length")
    assert refused["answer"]["resident_claim_refusal"]["claim_id"] == "a"
    names = seen.names()
    order = [
        "resident_claim_accepted",
        "resident_claim_materialized",
        "resident_claim_offloaded",
        "resident_claim_restored",
        "resident_claim_reuse_after_restore",
        "scheduler_resident_claim_restoration_failed",
        "scheduler_active_request_refused",
        "resident_claim_released",
        "trace_closed",
    ]
    assert [names.index(name) for name in order] == sorted(names.index(name) for name in order)
    conforming(seen)


RANKS = {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}


def test_a_claim_is_restored_only_when_every_rank_restored_it(probe: Probe, tiny_model: str) -> None:
    """Two workers: their parts are joined by job id, and the claim is restored after the last of them."""
    seen = probe("ranks", tiny_model, **RANKS)
    assert seen["reuse"]["tokens"] == seen["later"]["tokens"] == seen["resident"]["tokens"]
    events = seen.events()
    jobs = {e.job_id for e in events if isinstance(e, JobCreated)}
    parts: dict[int, list[TransferFinished]] = {}
    for e in events:
        if isinstance(e, TransferFinished):
            parts.setdefault(e.job_id, []).append(e)
    assert set(parts) == jobs
    assert all(sorted((e.worker, e.workers_total) for e in of) == [(0, 2), (1, 2)] for of in parts.values())
    restored = [e for e in events if isinstance(e, ClaimRestored)]
    assert len(restored) == 2
    for e in restored:
        assert e.job_id is not None
        assert [(p.success, p.seq < e.seq) for p in parts[e.job_id]] == [(True, True)] * 2
    conforming(seen)


def test_one_rank_that_fails_is_a_refusal_in_order_that_names_the_claim(probe: Probe, tiny_model: str) -> None:
    """The other rank has its bytes and counts for nothing; the request beside it is served."""
    seen = probe("ranks", tiny_model, **RANKS)
    refused, beside = seen["failed"]
    assert (refused["finish"], beside["finish"]) == ("error", "length")
    request_id = refused["answer"]["request_id"]
    told = [e for e in seen.events() if getattr(e, "request_id", None) == request_id]
    parts = [e for e in told if isinstance(e, TransferFinished)]
    assert sorted((e.worker, e.success, e.failed_pos) for e in parts) == [(0, True, ()), (1, False, ((6, 8),))]
    assert [str(e.__struct_config__.tag) for e in told][-6:] == [
        "offload_worker_transfer_finished",
        "offload_worker_transfer_finished",
        "resident_claim_restoration_failed",
        "scheduler_resident_claim_restoration_failed",
        "scheduler_active_request_refused",
        "active_request_terminated",
    ]
    assert {getattr(e, "job_id", None) for e in told[-6:-2]} == {parts[0].job_id}
    (refusal,) = (e for e in told if isinstance(e, SchedulerRequestRefused))
    assert (refusal.outcome_claim_id, refusal.blocking_claim_ids) == ("a", ("a",))


def test_hard_claims_are_kept_on_two_ranks_and_what_does_not_fit_is_refused(probe: Probe, tiny_model: str) -> None:
    """Blocks are handed out once for all ranks: 40 of 64 are protected, 30 more do not fit, and others evict none."""
    seen = probe("ranks", tiny_model, **RANKS)
    assert [h["answer"]["resident_claim"]["decision"] for h in seen["hard"]] == ["accepted"] * 5
    assert seen["too_much"]["finish"] == "error"
    refusal = seen["too_much"]["answer"]["resident_claim_refusal"]
    assert (refusal["reason"], refusal["shortfall_blocks"]) == ("claims_hold", 7)
    assert seen["flood"] == ["length"] * 8
    assert seen["kept"] == [256] * 5
    report = audit_file(seen.folder / "pressure.jsonl")
    assert report.verdict is Verdict.CONFORMING, [f.story for f in report.all_findings()]


def test_a_scheduler_that_trusts_one_rank_is_found_out(probe: Probe, tiny_model: str) -> None:
    """The negative control, live: the same failure with the rule broken makes the audit red, for this reason."""
    seen = probe("ranks", tiny_model, **RANKS)
    assert seen["trusting"]["finish"] == "error"
    report = audit_file(seen.folder / "trusting.jsonl")
    assert report.verdict is Verdict.VIOLATING
    assert "RKV255" in {f.code for f in report.all_findings()}


def test_the_mixin_over_the_overlapping_scheduler_tells_what_was_computed(probe: Probe, tiny_model: str) -> None:
    """Scheduling runs one step ahead of the model; claims are told by what the model has done.

    The answers equal those of steps that do not overlap, and a failed load is refused by name.
    """
    seen = probe("overlapping", tiny_model)
    assert seen["ahead"] == 2
    early = {state for tokens, state in seen["progress"] if tokens < 256}
    late = {state for tokens, state in seen["progress"] if tokens > 256}
    assert early == {"accepted"}
    assert late <= {"materialized", "offloaded"} and late
    for name in ("resident", "later"):
        assert seen[name]["tokens"] == seen["plain"]["tokens"], name
    assert seen["reuse"][0]["tokens"] == seen["plain"]["tokens"]
    refused, beside = seen["failed"]
    assert (refused["finish"], beside["finish"]) == ("error", "length")
    assert refused["answer"]["resident_claim_refusal"]["claim_id"] == "a"
    names = seen.names()
    assert names.count("resident_claim_restored") == names.count("resident_claim_reuse_after_restore") == 2
    conforming(seen)


def test_two_engines_never_write_one_log(probe: Probe, tiny_model: str) -> None:
    """The second one is refused at start, by name; the first one goes on and its log is whole."""
    seen = probe("engines", tiny_model, VLLM_ENABLE_V1_MULTIPROCESSING="1")
    assert seen["second"] is not None
    assert f"trace_path: another engine is writing {seen.trace}" in (seen.folder / "log.txt").read_text()
    conforming(seen)


def test_a_broken_fault_plan_is_one_error_and_nothing_passes_by_it(probe: Probe, tiny_model: str) -> None:
    """The engine lives; until the plan is mended, loads fail, claims are refused for it, and none is accepted."""
    seen = probe("engines", tiny_model, VLLM_ENABLE_V1_MULTIPROCESSING="1")
    assert seen["broken_plan"]["finish"] == "error"
    assert seen["broken_plan"]["answer"]["resident_claim_refusal"]["reason"] == "restoration_failed"
    assert seen["new_claim"]["finish"] == "length"
    assert seen["new_claim"]["answer"]["resident_claim"]["reason"] == "fault_plan_unreadable"
    assert seen["mended"]["tokens"] == seen["resident"]["tokens"]
    lines = [line for line in (seen.folder / "log.txt").read_text().splitlines() if "not a fault plan" in line]
    assert len(lines) == 2, "one line of the scheduler's side, one of the worker's"


def test_a_layout_that_no_claim_is_kept_on_is_served_as_by_stock_vllm(probe: Probe) -> None:
    """A full and a sliding group: keys of both are in one job, bytes of both come back, and a claim is told no."""
    seen = probe("layouts")
    assert seen["groups"] == seen["stock"] and len({tuple(tokens) for tokens in seen["stock"]}) == 2
    loads = [e for e in seen.events() if isinstance(e, TransferFinished) and e.direction == "load"]
    assert [(e.success, e.claim_id) for e in loads] == [(True, None)] * len(loads) and loads
    answer = seen["groups_claim"]
    assert (answer["finish"], answer["answer"]["resident_claim"]["reason"]) == ("length", "layout_unsupported")
    conforming(seen)


def test_a_prompt_larger_than_the_cache_is_served_when_every_window_slides(probe: Probe) -> None:
    """The door weighs nobody where no claim can be: what a request needs there is vLLM's to know."""
    seen = probe("layouts")
    assert seen["sliding"]["finish"] == "length"
    answer = seen["sliding_claim"]["answer"]["resident_claim"]
    assert (answer["decision"], answer["reason"]) == ("rejected", "layout_unsupported")
    report = audit_file(seen.folder / "sliding" / "trace.jsonl")
    assert report.verdict is Verdict.CONFORMING, [f.story for f in report.all_findings()]


def test_requests_that_a_reset_preempts_are_served_from_the_second_tier(probe: Probe, tiny_model: str) -> None:
    """Their blocks lie there, and a load in the step of the reset would end the engine (stock code asserts)."""
    seen = probe("steps", tiny_model)
    assert seen["reset_of_running"] is True
    assert seen["preempted"]["tokens"] == seen["plain"]["tokens"]


def test_a_reset_that_vllm_refuses_costs_no_claim_even_when_running_requests_may_be_preempted(
    probe: Probe, tiny_model: str
) -> None:
    """A load is under way into blocks that no preemption frees: vLLM says so, and the hard claim is as before."""
    seen = probe("steps", tiny_model)
    assert seen["status"] == "WAITING_FOR_REMOTE_KVS"
    assert "waiting for remote KV transfer" in seen["refused_reset"]
    assert seen["after_refused_reset"] == ["materialized"]
    assert seen["loaded"]["tokens"] == seen["plain"]["tokens"]


def test_a_request_whose_load_failed_does_not_wait_for_itself(probe: Probe, tiny_model: str) -> None:
    """It needs more than half of the cache and loads a second time; stock vLLM keeps its own blocks free from it."""
    seen = probe("steps", tiny_model)
    assert seen["loaded_again"]["tokens"] == seen["long"]["tokens"]


def test_a_session_is_weighed_as_if_it_went_on_to_the_longest_context(probe: Probe, tiny_model: str) -> None:
    """4 of 40 blocks are held and 32 may be needed: it is served, no claim takes its room, beside more it is refused.

    Weighed by its first chunk it would wait for ever for blocks that a claim holds.
    """
    seen = probe("steps", tiny_model)
    finished = seen["finished"]
    assert [end["finish"] for end in finished["session"]] == ["length"] * 3
    assert seen["waits"]
    beside, after = (finished[name][0]["answer"]["resident_claim"] for name in ("beside", "after"))
    assert (beside["decision"], beside["reason"]) == ("rejected", "active_work")
    assert after["decision"] == "accepted"
    (refused,) = finished["refused"]
    refusal = refused["answer"]["resident_claim_refusal"]
    assert (refused["finish"], refusal["reason"]) == ("error", "claims_hold")
    assert (refusal["claims_of_others"], refusal["shortfall_blocks"]) == (2, 4)
    conforming(seen)
