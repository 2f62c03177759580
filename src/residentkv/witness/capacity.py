"""The capacity litmus on real vLLM: cells are measured in one process with vLLM, one engine after another."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from residentkv.environments import run_in_runtime
from residentkv.errors import ResidentKVError
from residentkv.files import replace_file
from residentkv.runtimes.litmus import CapacityCase, CapacityCell, LitmusPolicy

PROGRAM = "residentkv.runtimes.vllm.capacity"
BLOCK_TOKENS = 32
"""vLLM's CPU attention takes multiples of 32."""

TINY_MODEL = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": 40_960,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "torch_dtype": "bfloat16",
    "hidden_act": "silu",
}
"""A model whose weights are made up at start: the litmus counts blocks, whatever is in them."""

STANDS_IN = "two layers of random weights for a trained model"


class VllmLitmus:
    """Measures the installed vLLM.

    Args:
        out: folder for what the engines leave (traces, answers, logs); None keeps nothing.
        options: settings of the plugin on top of its defaults.
    """

    def __init__(self, out: Path | None = None, options: dict[str, Any] | None = None) -> None:
        self._out = out
        self._options = options or {}
        self._version = "(not started)"

    @property
    def name(self) -> str:
        """Runtime and version."""
        return f"vllm {self._version}"

    def measure_capacity(self, cases: Sequence[CapacityCase]) -> list[CapacityCell]:
        """Serve the resident prompt, the active one, and the resident one again with one token more.

        Raises:
            NoInputError: there is no environment with vLLM.
            RuntimeFailed: an engine ended with an error.
        """
        if self._out is not None:
            return self._measure(cases, self._out)
        with tempfile.TemporaryDirectory(prefix="residentkv-litmus-") as folder:
            return self._measure(cases, Path(folder))

    def measure_materialization(self) -> None:
        """1,104 tokens are 34 and a half blocks here."""
        return

    def _measure(self, cases: Sequence[CapacityCase], out: Path) -> list[CapacityCell]:
        model = out / "model"
        model.mkdir(parents=True, exist_ok=True)
        replace_file(model / "config.json", json.dumps(TINY_MODEL).encode())
        names = [f"{c.policy.value}-{c.resident_blocks}-{c.active_blocks}-{c.usable_blocks}" for c in cases]
        job = {
            "model_dir": str(model),
            "cases": [msgspec.to_builtins(c) | {"name": name} for name, c in zip(names, cases, strict=True)],
            "stands_in": [STANDS_IN],
            "options": self._options,
        }
        for name in names:
            (out / f"{name}.jsonl").unlink(missing_ok=True)  # A log goes on where it ended; this is another run.
        replace_file(out / "job.json", msgspec.json.encode(job))
        run_in_runtime(
            "vllm",
            ["-m", PROGRAM, str(out / "job.json"), str(out)],
            log=out / "log.txt",
            what="the capacity litmus",
            environment={
                "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
                "VLLM_LOGGING_LEVEL": "WARNING",
                "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            },
        )
        self._version = json.loads(next(out.glob("meta-*.json")).read_bytes())["vllm"]
        left = {cell["name"]: cell["requests"] for cell in json.loads((out / "cells.json").read_bytes())}
        return [read_cell(case, left[name]) for name, case in zip(names, cases, strict=True)]


def read_cell(case: CapacityCase, requests: list[dict[str, Any]]) -> CapacityCell:
    """Make a cell of what vLLM answered.

    Raises:
        ResidentKVError: the resident prompt or its repetition was not served, or its claim was not accepted.
    """
    resident, active, again = requests
    claim = (resident["kv_transfer_params"] or {}).get("resident_claim") or {}
    protected = case.policy is LitmusPolicy.HARD_PROTECTED
    if {resident["finish_reason"], again["finish_reason"]} != {"length"} or (
        protected and claim.get("decision") != "accepted"
    ):
        raise ResidentKVError(
            f"{case.policy.value} at {case.usable_blocks}: the resident prompt ended as {resident['finish_reason']} "
            f"with {claim or 'no claim'}, and as {again['finish_reason']} when it came again, expected 'length' twice"
        )
    refusal = (active["kv_transfer_params"] or {}).get("resident_claim_refusal") or {}
    return CapacityCell(
        policy=case.policy,
        usable_blocks=case.usable_blocks,
        served=active["finish_reason"] == "length",
        lost_blocks=case.resident_blocks - again["reported_cached_tokens"] // BLOCK_TOKENS,
        shortfall_blocks=refusal.get("shortfall_blocks") or 0,
    )
