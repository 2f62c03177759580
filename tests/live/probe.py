"""Runs in the environment that has vLLM: `python probe.py NAME OUT_DIR MODEL_DIR`.

What it saw goes to OUT_DIR/seen.json. It only looks; the tests beside it judge.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from residentkv.runtimes.vllm.faults import Fault, FaultPlan, write_plan
from residentkv.runtimes.vllm.plugin import engine_settings

PAGE_TOKENS = 32
ROW_BYTES = 737_280
"""Bytes of one block of SmolLM2-135M in bfloat16."""


TINY: dict[str, Any] = {"load_format": "dummy", "skip_tokenizer_init": True, "blocks": 65, "rows": 1}
"""Settings for a tiny model of random weights."""


class Engine:
    """One in-process engine; `ask` serves one request after another and returns what was answered."""

    def __init__(self, out: Path, model: str, *, scheduler: Any = "of the plugin", **more: Any) -> None:
        from vllm import LLM

        self.out = out
        self.plan = out / "faults.json"
        self.serial = 0
        options = {"trace_path": str(out / "trace.jsonl"), "run_id": out.name, "faults_path": str(self.plan)}
        settings = engine_settings(
            tier_bytes=more.pop("rows", 64) * ROW_BYTES,
            load_failure_policy=more.pop("policy", "fail"),
            options=options | {"control": True, "tier_dir": str(out)} | more.pop("options", {}),
        )
        if scheduler == "of stock vLLM":
            settings = {}
        elif scheduler is None:
            del settings["scheduler_cls"]
        elif scheduler != "of the plugin":
            settings["scheduler_cls"] = scheduler
        self.llm = LLM(
            model,
            block_size=PAGE_TOKENS,
            num_gpu_blocks_override=more.pop("blocks", 97),
            max_model_len=more.pop("max_model_len", 1024),
            gpu_memory_utilization=0.2,
            enforce_eager=True,
            seed=0,
            **settings,
            **more,
        )

    def ask(self, *requests: tuple[list[int], dict[str, Any] | None]) -> list[dict[str, Any]]:
        """Serve requests together."""
        from vllm import SamplingParams

        params = [
            SamplingParams(
                temperature=0,
                max_tokens=8,
                ignore_eos=True,
                detokenize=False,
                extra_args={"kv_transfer_params": extra} if extra else None,
            )
            for _, extra in requests
        ]
        prompts = [{"prompt_token_ids": tokens} for tokens, _ in requests]
        return [
            {
                "tokens": list(o.outputs[0].token_ids),
                "finish": o.outputs[0].finish_reason,
                "cached": o.num_cached_tokens,
                "answer": o.kv_transfer_params,
            }
            for o in self.llm.generate(prompts, params, use_tqdm=False)
        ]

    def settle(self) -> None:
        """Step until no transfer is under way."""
        for _ in range(200):
            (record,) = self.ask(([5, 6, 7], {"residentkv_control": {"op": "status"}}))
            if record["answer"]["residentkv_control"]["open_jobs"] == 0:
                return
        raise RuntimeError("transfers are still under way")

    def rotate(self, name: str) -> None:
        """Release every claim and go on in another log."""
        ask = {"op": "rotate", "trace_path": str(self.out / name), "run_id": self.out.name}
        self.ask(([5, 6, 7], {"residentkv_control": ask}))

    def reset(self, *, everything: bool = False) -> None:
        """Empty vLLM's own prefix cache, and the second tier with it if asked."""
        if not self.llm.reset_prefix_cache(reset_connector=everything):
            raise RuntimeError("the prefix cache was not reset")

    def faults(self, *faults: Fault) -> None:
        """Replace the fault plan."""
        self.serial += 1
        write_plan(self.plan, FaultPlan(faults=faults, serial=self.serial))

    def stop(self) -> None:
        """End the engine in order."""
        self.llm.llm_engine.engine_core.shutdown(timeout=60)


def prompt(seed: int, blocks: int = 8) -> list[int]:
    """Return a prompt of so many full blocks and one token more."""
    return [1000 + (seed * 7919 + i * 104_729) % 30_000 for i in range(blocks * PAGE_TOKENS + 1)]


def tiny_prompt(seed: int = 3, blocks: int = 8) -> list[int]:
    """Return a prompt of full blocks and one token more, in the vocabulary of the tiny model."""
    return [seed + (i * 37) % 900 for i in range(blocks * PAGE_TOKENS + 1)]


def claim(name: str, blocks: int = 8, **changes: Any) -> dict[str, Any]:
    """Return kv_transfer_params with a claim on the leading blocks."""
    wire = {"claim_id": name, "owner_scope": "tenant", "predicate": f"leading_prefix_at_least({blocks})"}
    return {"resident_claim": wire | {"mode": "offloadable"} | changes}


def look_at_manager() -> dict[str, Any]:
    """The manager of the second tier by itself, in the order of calls that vLLM's connector makes."""
    from vllm.v1.kv_offload.base import LookupResult, ReqContext

    from residentkv.runtimes.vllm.private import TierManager

    seen: dict[str, Any] = {}
    manager = TierManager(num_chunks=4, enable_events=True)
    dropped: list[bytes] = []
    manager.on_dropped = dropped.extend

    def request(name: str) -> ReqContext:
        context = ReqContext(req_id=name)
        manager.on_new_request(context)
        return context

    def store(name: str, *keys: bytes, fail: bool = False) -> bool:
        context = request(name)
        output = manager.prepare_store(list(keys), context)
        if output is None:
            return False
        stored = manager.take_store(name) if output.keys_to_store else []
        if fail:
            manager.mark_failed(stored)
        manager.complete_store(stored, context)
        manager.on_request_finished(context)
        return True

    def hit(key: bytes) -> bool:
        return manager.lookup(key, request("looker")) is LookupResult.HIT

    a, b, c, d, e, f = (bytes([i]) * 36 for i in range(6))
    store("r1", a, b)
    context = request("r2")
    manager.prepare_load([a, b], context)
    manager.hold([a, b])
    seen["load_order_is_kept"] = manager.take_load("r2") == [a, b]
    manager.mark_failed([b])
    manager.complete_load([a, b], context)
    seen["failed_key_is_a_miss"] = [hit(a), hit(b)] == [True, False]
    seen["failed_key_can_be_stored_again"] = store("r3", b) and hit(b)
    seen["drop_of_a_held_key_is_told"] = dropped == [b]
    manager.let_go([a, b])

    first, second = request("r4"), request("r5")
    manager.prepare_load([a], first)
    manager.prepare_load([a], second)
    manager.mark_failed([a])
    manager.complete_load([a], first)
    seen["a_key_being_read_is_a_miss_at_once"] = not hit(a)
    seen["and_stays_until_the_other_read_ends"] = manager._policy.get(a) is not None
    manager.complete_load([a], second)
    seen["then_it_is_gone"] = manager._policy.get(a) is None

    store("r6", c, fail=True)
    seen["a_failed_store_leaves_nothing"] = not hit(c)
    store("r7", a, c, d)
    seen["full"] = [hit(k) for k in (a, b, c, d)] == [True] * 4
    manager.hold([a, b])
    seen["a_store_evicts_what_nobody_holds"] = store("r8", e, f) and hit(a) and hit(b) and not hit(c)
    manager.hold([e, f])
    seen["a_store_is_refused_when_everything_is_held"] = not store("r9", c) and hit(a)
    manager.let_go([a, b])
    seen["what_was_let_go_can_be_evicted"] = store("r10", c) and not (hit(a) and hit(b))
    manager.hold([e])
    manager.let_go([e])
    seen["two_claims_hold_a_block_until_both_let_go"] = manager.held_with([]) == 2

    manager.needs_own_store = lambda request_id, key: request_id == "own" and key == e
    manager.prepare_store([e], request("own"))
    seen["a_claim_stores_once_more_in_its_own_name"] = manager.take_store("own") == [e]
    context = request("reader")
    manager.complete_store([e], context)
    manager.prepare_load([e], context)
    manager.prepare_store([e], request("own"))
    manager.complete_load([e], context)
    seen["but_not_while_the_block_is_being_read"] = hit(e)

    manager = TierManager(num_chunks=4, enable_events=True)
    manager.needs_own_store = lambda request_id, key: request_id == "own" and key == a
    store("r11", a)
    manager.hold([a])
    writer, own = request("writer"), request("own")
    manager.prepare_store([b, c, d], writer)
    seen["a_store_without_room_costs_nobody_a_copy"] = manager.prepare_store([a, e], own) is None and hit(a)
    manager.complete_store(manager.take_store("writer"), writer)
    output = manager.prepare_store([a, e], own)
    rows = [int(manager._policy.get(k).chunk_id) for k in (a, e)]
    seen["with_room_it_is_one_store_in_order"] = (
        output is not None
        and manager.take_store("own") == output.keys_to_store == [a, e]
        and [int(row) for row in output.store_spec.block_ids] == rows
        and len(set(rows)) == 2
    )

    manager = TierManager(num_chunks=4, enable_events=True)
    manager.rank_last(lambda: (b, a))
    store("r12", a)
    store("r13", b)
    store("r14", c, d)
    seen["what_soft_claims_need_goes_last"] = store("r15", e) and store("r16", f) and hit(a) and hit(b)
    seen["and_then_in_its_order"] = store("r17", c, d, e) and hit(a) and not hit(b)
    manager.rank_last(tuple)
    seen["without_claims_the_oldest_goes_first"] = store("r18", b) and not hit(a)
    return seen


def look_at_tier(out: Path) -> dict[str, Any]:
    """The memory-mapped tier by itself."""
    import torch

    from residentkv.runtimes.vllm.tier import MmapTier

    cache = [torch.randint(-128, 127, (6, 64), dtype=torch.int8) for _ in range(3)]
    before = [t.clone() for t in cache]
    tier = MmapTier(cache, 4, str(out), "probe")
    seen: dict[str, Any] = {"bytes": tier.store([1, 2], [3, 0]), "file": tier.path.stat().st_size}
    for t in cache:
        t.zero_()
    tier.load([3, 0], [4, 5])
    seen["bytes_come_back"] = all(
        torch.equal(t[4], b[1]) and torch.equal(t[5], b[2]) for t, b in zip(cache, before, strict=True)
    )
    seen["intact"] = [tier.intact(r) for r in range(4)]
    tier.corrupt(3)
    seen["corruption_is_found"] = not tier.intact(3)
    tier.zero([0])
    tier.load([0], [1])
    seen["zeros_look_intact"] = tier.intact(0) and not any(bool(t[1].any()) for t in cache)
    raw = tier.path.read_bytes()
    seen["the_file_holds_the_bytes"] = raw[: tier.row_bytes] == bytes(tier.row_bytes)
    tier.close()
    seen["closed"] = not tier.path.exists()
    return seen


def look_at_schedulers() -> dict[str, Any]:
    """Both scheduler classes put the plugin before the stock code."""
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler
    from vllm.v1.core.sched.scheduler import Scheduler

    from residentkv.runtimes.vllm.scheduler import ResidentAsyncScheduler, ResidentScheduler, ResidentSchedulerMixin

    def order(kind: type) -> list[str]:
        return [c.__name__ for c in kind.__mro__ if c in (ResidentSchedulerMixin, AsyncScheduler, Scheduler)]

    return {"plain": order(ResidentScheduler), "overlapping": order(ResidentAsyncScheduler)}


def probe_parts(out: Path, model: str) -> dict[str, Any]:
    """Everything that needs vLLM's classes and no engine."""
    return {"manager": look_at_manager(), "tier": look_at_tier(out), "schedulers": look_at_schedulers()}


def probe_scheduler_missing(out: Path, model: str) -> dict[str, Any]:
    """The connector without the scheduler class: outcomes could not be enforced."""
    engine = Engine(out, model, scheduler=None, **TINY)
    asked = engine.ask((tiny_prompt(), claim("a")))[0]
    engine.stop()
    return {"asked": asked}


def probe_traps(out: Path, model: str) -> dict[str, Any]:
    """What stock vLLM does wrong after a failed load, on an engine with policy recompute."""
    engine = Engine(out, model, policy="recompute", max_num_batched_tokens=128)
    seen: dict[str, Any] = {"baseline": engine.ask((prompt(1), None))[0]}
    engine.settle()
    engine.reset()
    engine.faults(Fault(action="fail_load", claimed=False))
    seen["unclaimed_lasting"] = engine.ask((prompt(1), None))[0]
    engine.settle()
    engine.faults()
    engine.reset()
    seen["stored_again"] = engine.ask((prompt(1), None))[0]

    recompute = claim("r", on_restore_failure="recompute")
    seen["claimed_baseline"] = engine.ask((prompt(2), recompute))[0]
    engine.settle()
    engine.reset()
    engine.faults(Fault(action="fail_load", claim_id="r", last_blocks=4), Fault(action="fail_load", claimed=False))
    seen["claimed_lasting"] = engine.ask((prompt(2), recompute))[0]
    engine.settle()

    engine.faults()
    refuse = claim("m")
    long = prompt(3, blocks=16)
    seen["prefill_baseline"] = engine.ask((long, claim("m", 16)))[0]
    engine.settle()
    engine.reset()
    engine.faults(Fault(action="fail_load", claim_id="m", last_blocks=1))
    refuse = claim("m", 16)
    seen["refused_beside_prefills"] = engine.ask((prompt(4, 16), None), (long, refuse), (prompt(5, 16), None))
    engine.settle()
    engine.faults()
    engine.reset()
    seen["after_refusal"] = engine.ask((long, None))[0]
    engine.settle()
    engine.stop()
    return seen


def probe_processes(out: Path, model: str) -> dict[str, Any]:
    """Engine, scheduler and tier in a process of their own, and the client in another one."""
    engine = Engine(out, model)
    seen: dict[str, Any] = {"resident": engine.ask((prompt(1), claim("a")))[0]}
    engine.settle()
    engine.reset()
    seen["reuse"] = engine.ask((prompt(1), claim("a")))[0]
    engine.settle()
    engine.reset()
    engine.faults(Fault(action="fail_load", claim_id="a"))
    seen["failed"] = engine.ask((prompt(1), claim("a")), (prompt(2), None))
    engine.faults()
    engine.settle()
    engine.stop()
    return seen


def probe_ranks(out: Path, model: str) -> dict[str, Any]:
    """Two workers, a tiny model of random weights; once the load of one rank fails.

    Afterwards the same failure with the rule broken: the scheduler side takes the first rank's word for all.
    """
    from residentkv.runtimes.vllm.jobs import OpenJob

    engine = Engine(out, model, tensor_parallel_size=2, **TINY)
    tokens = tiny_prompt()
    seen: dict[str, Any] = {"resident": engine.ask((tokens, claim("a")))[0]}
    engine.settle()
    engine.reset()
    seen["reuse"] = engine.ask((tokens, claim("a")))[0]
    engine.settle()
    engine.reset()
    engine.faults(Fault(action="fail_load", worker=1, last_blocks=2))
    seen["failed"] = engine.ask((tokens, claim("a")), (tiny_prompt(5), None))
    engine.faults()
    engine.settle()
    engine.reset()
    seen["later"] = engine.ask((tokens, claim("a")))[0]
    engine.settle()

    engine.rotate("pressure.jsonl")
    engine.reset(everything=True)
    hard = [tiny_prompt(20 + i) for i in range(5)]
    seen["hard"] = [engine.ask((p, claim(f"h{i}", mode="hard_protected")))[0] for i, p in enumerate(hard)]
    seen["too_much"] = engine.ask(([9, *range(3, 962)], None))[0]
    seen["flood"] = [engine.ask((tiny_prompt(40 + i), None))[0]["finish"] for i in range(8)]
    seen["kept"] = [engine.ask((p, None))[0]["cached"] for p in hard]

    engine.rotate("trusting.jsonl")
    engine.reset(everything=True)
    engine.ask((tokens, claim("b")))
    engine.settle()
    engine.reset()
    engine.faults(Fault(action="fail_load", worker=1, last_blocks=2))
    OpenJob.over = property(lambda job: bool(job.workers))  # type: ignore[assignment, method-assign]
    seen["trusting"] = engine.ask((tokens, claim("b")))[0]
    engine.faults()
    engine.settle()
    engine.rotate("rest.jsonl")
    engine.stop()
    return seen


def probe_overlapping(out: Path, model: str) -> dict[str, Any]:
    """The scheduler class for overlapping steps, in vLLM's own loop for them: each step is scheduled one ahead.

    vLLM turns that loop off on a CPU. Here it is turned on; the model is run at once, so that only the scheduler's
    view runs ahead, which is what the mixin has to stand.
    """
    from collections import deque

    from residentkv.runtimes.vllm.scheduler import ResidentAsyncScheduler

    engine = Engine(out, model, scheduler=ResidentAsyncScheduler, max_num_batched_tokens=128, **TINY)
    tokens = tiny_prompt()
    seen: dict[str, Any] = {"plain": engine.ask((tokens, None))[0]}
    engine.settle()
    engine.reset(everything=True)

    core = engine.llm.llm_engine.engine_core.engine_core
    core.batch_queue_size, core.batch_queue = 2, deque(maxlen=2)
    core.step_fn = core.step_with_batch_queue
    scheduler = core.scheduler
    ahead: list[int] = []
    progress: list[tuple[int, str]] = []
    done: dict[str, int] = {}
    take_in = scheduler.update_from_output

    def update_from_output(scheduler_output: Any, output: Any) -> Any:
        ahead.append(1 + len(core.batch_queue))
        result = take_in(scheduler_output, output)
        for request_id, scheduled in scheduler_output.num_scheduled_tokens.items():
            done[request_id] = done.get(request_id, 0) + scheduled
            for state in scheduler.connector.residency.states():
                progress.append((done[request_id], state["state"]))
        return result

    scheduler.update_from_output = update_from_output
    seen["resident"] = engine.ask((tokens, claim("a")))[0]
    scheduler.update_from_output = take_in
    seen["ahead"], seen["progress"] = max(ahead), progress
    engine.settle()
    engine.reset()
    seen["reuse"] = engine.ask((tokens, claim("a")), (tiny_prompt(5), None))
    engine.settle()
    engine.reset()
    engine.faults(Fault(action="fail_load", claim_id="a"))
    seen["failed"] = engine.ask((tokens, claim("a")), (tiny_prompt(7), None))
    engine.faults()
    engine.settle()
    engine.reset()
    seen["later"] = engine.ask((tokens, claim("a")))[0]
    engine.settle()
    engine.stop()
    return seen


def probe_engines(out: Path, model: str) -> dict[str, Any]:
    """A second engine with the log of the first one; and a fault plan that is none."""
    engine = Engine(out, model, **TINY)
    seen: dict[str, Any] = {"second": None}
    try:
        Engine(out, model, **TINY)
    except Exception as e:
        seen["second"] = f"{type(e).__name__}: {e}"
    tokens = tiny_prompt()
    seen["resident"] = engine.ask((tokens, claim("a")))[0]
    engine.settle()
    engine.reset()
    engine.plan.write_text('{"faults": [{"action": "explode"}]}')
    seen["broken_plan"] = engine.ask((tokens, claim("a")))[0]
    seen["new_claim"] = engine.ask((tiny_prompt(5), claim("n")))[0]
    engine.faults()
    engine.settle()
    seen["mended"] = engine.ask((tokens, claim("a")))[0]
    engine.settle()
    engine.stop()
    return seen


def probe_hints(out: Path, model: str) -> dict[str, Any]:
    """A claim in vLLM's own hint envelope, as its Python API carries it; then its release in another."""
    from vllm.v1.kv_hints import KvHintAction, KvHintsEnvelope

    from vllm import SamplingParams

    engine = Engine(out, model, **TINY)
    core, names = engine.llm.llm_engine, {"claim_id": "a", "owner_scope": "tenant"}
    seen: dict[str, Any] = {}
    for name, payload in (("claim", claim("a", 1, mode="best_effort")["resident_claim"]), ("release", names)):
        action = KvHintAction(action_id="1", action_type=f"residentkv.{name}", action_version="1", payload=payload)
        core.add_request(
            name,
            {"prompt_token_ids": tiny_prompt()},
            SamplingParams(temperature=0, max_tokens=2, ignore_eos=True, detokenize=False),
            kv_hints=KvHintsEnvelope(protocol_version="1", message_id=name, actions=[action]),
        )
        while core.has_unfinished_requests():
            for output in core.step():
                if output.finished:
                    seen[name] = output.kv_transfer_params
    engine.stop()
    return seen


def probe_layouts(out: Path, model: str) -> dict[str, Any]:
    """Layouts on which no claim is accepted: a full and a sliding group, and sliding windows only.

    The prompt for the second one is larger than the whole cache, as only sliding windows allow.
    """
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig, MistralConfig

    sizes = {
        "vocab_size": 1024,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 2048,
        "sliding_window": 64,
    }
    kinds = ["sliding_attention", "full_attention"]
    config = Gemma3TextConfig(**sizes, layer_types=kinds, initializer_range=0.3, tie_word_embeddings=False)
    Gemma3ForCausalLM(config).save_pretrained(out / "groups")
    MistralConfig(**sizes, architectures=["MistralForCausalLM"]).save_pretrained(out / "sliding")
    tokens = tiny_prompt()
    full = TINY | {"load_format": "auto", "dtype": "float32", "max_model_len": 512}

    def twice(engine: Engine) -> list[list[int]]:
        """Ask for the same tokens again when only the second tier, if there is one, has their blocks."""
        records = engine.ask((tokens, None), (tiny_prompt(5), None))
        engine.ask(([5, 6, 7], None))
        engine.reset()
        return [record["tokens"] for record in (*records, *engine.ask((tokens, None)))]

    engine = Engine(out, str(out / "groups"), scheduler="of stock vLLM", **full)
    seen: dict[str, Any] = {"stock": twice(engine)}
    engine.stop()
    engine = Engine(out, str(out / "groups"), **full)
    seen["groups"] = twice(engine)
    seen["groups_claim"] = engine.ask((tokens, claim("a")))[0]
    engine.stop()
    engine = Engine(out / "sliding", str(out / "sliding"), max_num_batched_tokens=64, **TINY | {"blocks": 13})
    seen["sliding"], seen["sliding_claim"] = engine.ask(([*range(3, 700)], None), (tokens, claim("a")))
    engine.stop()
    return seen


def probe_steps(out: Path, model: str) -> dict[str, Any]:
    """What happens between two steps of an engine: an operator's resets, and the next chunk of a session.

    A client in another process has no other way to do them at a time of its choosing.
    """
    from vllm import SamplingParams

    engine = Engine(out, model, **TINY | {"blocks": 41})
    core, scheduler = engine.llm.llm_engine, engine.llm.llm_engine.engine_core.engine_core.scheduler
    words: dict[str, Any] = {"temperature": 0, "max_tokens": 8, "ignore_eos": True, "detokenize": False}
    params = SamplingParams(**words)
    ends: dict[str, dict[str, Any]] = {}

    def step(times: int = 1) -> None:
        for _ in range(times):
            for output in core.step():
                one = output.outputs[0]
                ends[output.request_id] = {"tokens": list(one.token_ids), "finish": one.finish_reason}

    def drain() -> None:
        for _ in range(500):
            if not core.has_unfinished_requests():
                return
            step()
        raise RuntimeError(f"still unfinished: {list(scheduler.requests)}")

    tokens, hard = tiny_prompt(), claim("h", 4, mode="hard_protected")
    seen: dict[str, Any] = {"plain": engine.ask((tokens, None))[0]}
    engine.settle()
    engine.reset()
    core.add_request("running", {"prompt_token_ids": tokens}, params)
    while not scheduler.running:
        step()
    step(2)
    seen["reset_of_running"] = core.reset_prefix_cache(reset_running_requests=True)
    drain()
    seen["preempted"] = ends["running"]
    engine.settle()

    long = tiny_prompt(31, 24)
    seen["long"] = engine.ask((long, None))[0]
    engine.settle()
    engine.reset()
    engine.faults(Fault(action="fail_load", times=1, last_blocks=1))
    extra = {"kv_transfer_params": claim("l", mode="best_effort")}
    core.add_request("again", {"prompt_token_ids": long}, SamplingParams(**words, extra_args=extra))
    drain()
    seen["loaded_again"] = ends["again"]
    engine.faults()
    engine.settle()

    engine.reset()
    engine.ask((tiny_prompt(5), hard))
    engine.faults(Fault(action="delay_load", delay_s=0.5))
    core.add_request("loading", {"prompt_token_ids": tokens}, params)
    step(2)
    seen["status"] = str(scheduler.requests[next(iter(scheduler.requests))].status.name)
    try:
        core.reset_prefix_cache(reset_running_requests=True)
    except RuntimeError as e:
        seen["refused_reset"] = str(e)
    seen["after_refused_reset"] = [
        one["state"] for one in scheduler.connector.residency.states() if one["claim_id"] == "h"
    ]
    drain()
    seen["loaded"] = ends["loading"]
    engine.faults()
    engine.settle()

    finished: dict[str, list[Any]] = {}

    def send(request_id: str, tokens: list[int], extra: dict[str, Any] | None = None, *, more: bool = False) -> None:
        """Send a request, or with `more` a chunk of a session, as `AsyncLLM.generate` does; then step a while."""
        request = core.input_processor.process_inputs(
            request_id,
            {"prompt_token_ids": tokens},
            SamplingParams(temperature=0, max_tokens=8, ignore_eos=True, extra_args={"kv_transfer_params": extra}),
            core.get_supported_tasks(),
            resumable=more,
        )
        core.engine_core.add_request(request)
        for _ in range(16):
            for output in core.engine_core.get_output().outputs:
                if output.finish_reason is not None:
                    finished.setdefault(output.request_id, []).append(
                        {"finish": str(output.finish_reason), "answer": output.kv_transfer_params}
                    )

    second = claim("h2", mode="hard_protected")
    send("session", tiny_prompt(21)[:128], more=True)
    send("session", tiny_prompt(22)[:128], more=True)
    send("beside", tiny_prompt(7), second)
    seen["waits"] = "beside" not in finished
    send("session", tiny_prompt(23)[:128], more=True)
    send("session", [0])
    send("after", tiny_prompt(7), second)
    send("refused", tiny_prompt(24)[:128], more=True)
    seen["finished"] = finished
    engine.settle()
    engine.stop()
    return seen


def main(argv: list[str]) -> int:
    """Run one probe."""
    out = Path(argv[2])
    seen = globals()[f"probe_{argv[1]}"](out, argv[3])
    (out / "seen.json").write_text(json.dumps(seen, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
