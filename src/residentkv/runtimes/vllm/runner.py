"""Run witness scenarios on a real vLLM engine: `python -m residentkv.runtimes.vllm.runner JOB.json OUT_DIR`.

Runs in the environment that has vLLM. The job is data; this program makes requests, resets caches and hands fault
plans to the tier, and writes what vLLM answered. It reads no trace and judges nothing.

Files in OUT_DIR: `meta.json` (versions, model, engine settings), and for the n-th run `run-<n>.json` (what was
answered) and `trace-<n>.jsonl` (what the plugin wrote).
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import random
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from residentkv.files import replace_file
from residentkv.runtimes.vllm import model, plugin, versions
from residentkv.runtimes.vllm.control import PARAM
from residentkv.runtimes.vllm.faults import FaultPlan, write_plan
from residentkv.trace.events import GenericCounter, TraceOpened
from residentkv.trace.writer import TraceWriter

VOCABULARY = (1000, 40_000)
"""Range of token ids that prompts are drawn from; plain words in the vocabulary of SmolLM2."""

SETTLE_REQUESTS = 200


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One request: `tokens` ids drawn from `prompt_seed`, then `suffix_tokens` drawn from the label.

    It arrives after the engine made `after_steps` steps of the batch.
    """

    label: str
    prompt_seed: str
    tokens: int
    suffix_tokens: int = 0
    max_tokens: int = 16
    after_steps: int = 0
    cache_salt: str | None = None
    kv_transfer_params: dict[str, Any] | None = None


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One step of a run; exactly one field is set.

    `batch`: requests that are in the engine together. `faults`: a fault plan for the tier, {} to clear it.
    `reset_primary`: empty vLLM's own prefix cache, the tier stays. `sleep_s`: let time pass. `counters`: write vLLM's
    own counters as a trace, for a run in which the plugin writes none.
    """

    batch: list[Request] | None = None
    faults: dict[str, Any] | None = None
    reset_primary: bool = False
    settle: bool = False
    sleep_s: float = 0.0
    counters: bool = False


class Run(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One repetition of one scenario."""

    run_id: str
    steps: list[Step]


class Engine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Engine settings; sizes in blocks of `block_size` tokens. `plugin` off is vLLM without any connector.

    `tier_bytes` is the size of the second tier, `options` are `PluginOptions`; without `log` nothing is written.
    `counters` keeps vLLM's own statistics. `random_weights` needs no more of a model than its configuration.
    """

    plugin: bool = True
    log: bool = True
    counters: bool = False
    usable_blocks: int = 63
    block_size: int = 32
    max_model_len: int = 1024
    tier_bytes: int = 1 << 27
    failure_policy: str = "fail"
    options: dict[str, Any] = {}
    random_weights: bool = False


class Job(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one engine process does."""

    engine: Engine
    model_dir: str
    runs: list[Run]


def draw_tokens(seed: str, count: int) -> list[int]:
    """Return `count` token ids that only `seed` decides."""
    rng = random.Random(hashlib.sha256(seed.encode()).digest())
    return [rng.randrange(*VOCABULARY) for _ in range(count)]


class Session:
    """One engine and the requests made on it."""

    def __init__(self, job: Job, out: Path) -> None:
        self.job = job
        self.out = out
        self.fault_plan = out / "faults.json"
        self.llm = self._start()
        self.counter = 0

    def _start(self) -> Any:
        from vllm import LLM

        engine = self.job.engine
        more: dict[str, Any] = {}
        if engine.plugin:
            more = plugin.engine_settings(
                tier_bytes=engine.tier_bytes,
                load_failure_policy=engine.failure_policy,
                options={
                    "faults_path": str(self.fault_plan),
                    "tier_dir": str(self.out),
                    "control": True,
                    "model_revision": model.model_revision(Path(self.job.model_dir)),
                    **engine.options,
                },
            )
        if engine.random_weights:
            more |= {"load_format": "dummy", "skip_tokenizer_init": True}
        return LLM(
            self.job.model_dir,
            block_size=engine.block_size,
            num_gpu_blocks_override=engine.usable_blocks + 1,
            max_model_len=engine.max_model_len,
            gpu_memory_utilization=0.3,
            enforce_eager=True,
            seed=0,
            disable_log_stats=not engine.counters,
            **more,
        )

    def stop(self) -> None:
        """End the engine in order, so that another one can be started in this process."""
        self.llm.llm_engine.engine_core.shutdown()
        del self.llm

    def run(self, run: Run, trace: Path) -> list[dict[str, Any]]:
        """Do the steps of one run, its events in a trace of its own; the caches are empty before and after it."""
        if self.job.engine.plugin and self.job.engine.log:
            self._control({"op": "rotate", "trace_path": str(trace), "run_id": run.run_id})
        records: list[dict[str, Any]] = []
        for number, step in enumerate(run.steps):
            if step.faults is not None:
                self._set_faults(step.faults)
            if step.sleep_s:
                time.sleep(step.sleep_s)
            if step.reset_primary and not self.llm.reset_prefix_cache():
                raise RuntimeError(f"{run.run_id}: step {number}: vLLM did not reset its prefix cache")
            if step.settle:
                self._settle()
            if step.batch is not None:
                records += self._serve(run, step.batch)
            if step.counters:
                self._write_counters(run, trace)
        self._set_faults({})
        self._settle()
        if self.job.engine.plugin:
            self._control({"op": "rotate"})
        if not self.llm.reset_prefix_cache(reset_connector=self.job.engine.plugin):
            raise RuntimeError(f"{run.run_id}: vLLM did not reset its caches at the end of the run")
        return records

    def _control(self, ask: dict[str, Any]) -> dict[str, Any]:
        """Ask the plugin something through a tiny request and return its answer."""
        self.counter += 1
        request = Request(
            label=f"control{self.counter}",
            prompt_seed="control",
            tokens=4,
            max_tokens=1,
            kv_transfer_params={PARAM: ask},
        )
        (record,) = self._serve(None, [request])
        answer: dict[str, Any] = (record["kv_transfer_params"] or {}).get(PARAM, {})
        if answer.get("log_failure"):
            raise RuntimeError(f"the event log is broken: {answer['log_failure']}")
        return answer

    def _write_counters(self, run: Run, trace: Path) -> None:
        """Write what vLLM itself counts, as an observer could scrape it."""
        writer = TraceWriter(trace, source="vllm-metrics", run_id=run.run_id)
        writer.emit(
            TraceOpened,
            runtime="vllm",
            runtime_version=versions.release_of(versions.installed_version()),
            primitive="offloading_connector",
            adapter="counters",
            adapter_version=None,
            depth="observe",
            stands_in=(),
        )
        for metric in self.llm.get_metrics():
            if isinstance(getattr(metric, "value", None), int) and metric.value > 0:
                writer.emit(GenericCounter, name=metric.name, value=metric.value)
        writer.close()

    def _set_faults(self, plan: dict[str, Any]) -> None:
        write_plan(self.fault_plan, msgspec.convert(plan, FaultPlan))

    def _settle(self) -> None:
        """Keep the engine stepping until no transfer is under way; a plugin that declines to work has none."""
        if not self.job.engine.plugin:
            return
        for _ in range(SETTLE_REQUESTS):
            if not self._control({"op": "status"}).get("open_jobs"):
                return
        raise RuntimeError(f"transfers are still under way after {SETTLE_REQUESTS} requests")

    def _serve(self, run: Run | None, batch: list[Request]) -> list[dict[str, Any]]:
        """Have the batch answered; a record an answer."""
        engine = self.llm.llm_engine
        records: dict[str, dict[str, Any]] = {}
        waiting = list(batch)
        steps = 0
        while waiting or engine.has_unfinished_requests():
            due = [r for r in waiting if r.after_steps <= steps]
            if not due and not engine.has_unfinished_requests():
                due = waiting[:1]  # There is nothing to step for, so the next one need not wait for steps.
            for request in due:
                waiting.remove(request)
                self._add(run, request, records)
            steps += 1
            for output in engine.step():
                record = records[output.request_id]
                now_ns = time.monotonic_ns()
                completion = output.outputs[0]
                record["output_token_ids"] = list(completion.token_ids)
                if completion.token_ids and record["first_token_ns"] is None:
                    record["first_token_ns"] = now_ns
                if output.finished:
                    record["finished_ns"] = now_ns
                    record["finish_reason"] = completion.finish_reason
                    record["reported_cached_tokens"] = output.num_cached_tokens
                    record["kv_transfer_params"] = output.kv_transfer_params
        return list(records.values())

    def _add(self, run: Run | None, request: Request, records: dict[str, dict[str, Any]]) -> None:
        from vllm import SamplingParams

        self.counter += 1
        request_id = f"{request.label}.{self.counter}"
        tokens = draw_tokens(request.prompt_seed, request.tokens)
        tokens += draw_tokens(f"{run.run_id if run else ''}/{request.label}", request.suffix_tokens)
        extra = {"kv_transfer_params": request.kv_transfer_params} if request.kv_transfer_params else None
        params = SamplingParams(
            temperature=0, max_tokens=request.max_tokens, ignore_eos=True, detokenize=False, extra_args=extra
        )
        prompt: dict[str, Any] = {"prompt_token_ids": tokens}
        if request.cache_salt is not None:
            prompt["cache_salt"] = request.cache_salt
        records[request_id] = {
            "label": request.label,
            "request_id": request_id,
            "prompt_tokens": len(tokens),
            "started_ns": time.monotonic_ns(),
            "first_token_ns": None,
            "finished_ns": None,
            "finish_reason": None,
            "output_token_ids": [],
            "reported_cached_tokens": None,
            "kv_transfer_params": None,
        }
        self.llm.llm_engine.add_request(request_id, prompt, params)


def describe(job: Job) -> dict[str, Any]:
    """Return what a reader needs to repeat the runs."""
    return {
        "vllm": versions.installed_version(),
        "torch": version("torch"),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "model": model.model_revision(Path(job.model_dir)),
        "engine": msgspec.to_builtins(job.engine),
        "multiprocessing": os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING", "1"),
    }


def main(argv: list[str]) -> int:
    """Run the job; a run that is done has its `run-<n>.json`."""
    job_path, out = Path(argv[1]), Path(argv[2])
    job = msgspec.json.decode(job_path.read_bytes(), type=Job)
    out.mkdir(parents=True, exist_ok=True)
    replace_file(out / "meta.json", json.dumps(describe(job), indent=1).encode())
    session = Session(job, out)
    for number, run in enumerate(job.runs):
        records = session.run(run, out / f"trace-{number}.jsonl")
        replace_file(
            out / f"run-{number}.json", json.dumps({"run_id": run.run_id, "requests": records}, indent=1).encode()
        )
        print(f"run {number + 1}/{len(job.runs)} {run.run_id}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
