"""One engine that serves a batch each time it is told to: `python overhead_engine.py JOB.json`, where vLLM is.

For each line on standard input it serves the batch of that number and answers with a line: wall and CPU nanoseconds.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path
from typing import Any

from residentkv.runtimes.vllm.plugin import engine_settings


def start(job: dict[str, Any]) -> Any:
    """Start the engine."""
    from vllm import LLM

    more = {}
    if job["kind"] != "stock":
        more = engine_settings(tier_bytes=job["tier_bytes"], options=job["options"])
    if job["kind"] == "offloading":
        del more["scheduler_cls"]
        more["kv_transfer_config"]["kv_connector"] = "OffloadingConnector"
        del more["kv_transfer_config"]["kv_connector_module_path"]
    return LLM(
        job["model"],
        block_size=32,
        num_gpu_blocks_override=job["blocks"],
        max_model_len=512,
        gpu_memory_utilization=0.2,
        enforce_eager=True,
        seed=0,
        **more,
    )


def serve(llm: Any, prompts: list[list[int]], max_tokens: int, claims: list[dict[str, Any]] | None = None) -> list[Any]:
    """Serve prompts together."""
    from vllm import SamplingParams

    params = [
        SamplingParams(
            temperature=0,
            max_tokens=max_tokens,
            ignore_eos=True,
            detokenize=False,
            extra_args={"kv_transfer_params": {"resident_claim": claims[n]}} if claims else None,
        )
        for n in range(len(prompts))
    ]
    answers: list[Any] = llm.generate([{"prompt_token_ids": p} for p in prompts], params, use_tqdm=False)
    return answers


def draw(seed: str, count: int, tokens: int, vocabulary: list[int]) -> list[list[int]]:
    """Return prompts that only the seed decides."""
    rng = random.Random(seed)
    return [[rng.randrange(*vocabulary) for _ in range(tokens)] for _ in range(count)]


def claim(number: int) -> dict[str, Any]:
    """Return a claim on one block."""
    return {
        "claim_id": f"c{number}",
        "owner_scope": f"owner-{number % 2}",
        "mode": "offloadable",
        "predicate": "leading_prefix_at_least(1)",
    }


def main(path: str) -> None:
    """Serve as told until the input ends."""
    job = json.loads(Path(path).read_text())
    llm = start(job)
    count = job["claims"]
    if count:
        answers = serve(llm, draw("claims", count, 33, job["vocabulary"]), 1, [claim(n) for n in range(count)])
        accepted = sum(a.kv_transfer_params["resident_claim"]["decision"] == "accepted" for a in answers)
        if accepted != count:
            raise RuntimeError(f"{accepted} of {count} claims accepted")
    print("ready", flush=True)
    for line in sys.stdin:
        prompts = draw(f"batch-{line.strip()}", job["requests"], job["prompt_tokens"], job["vocabulary"])
        wall, cpu = time.perf_counter_ns(), time.process_time_ns()
        answers = serve(llm, prompts, job["max_tokens"])
        wall, cpu = time.perf_counter_ns() - wall, time.process_time_ns() - cpu
        tokens = [list(a.outputs[0].token_ids) for a in answers]
        print(json.dumps({"wall_ns": wall, "cpu_ns": cpu, "tokens": tokens}), flush=True)
    llm.llm_engine.engine_core.shutdown(timeout=60)


if __name__ == "__main__":
    main(sys.argv[1])
