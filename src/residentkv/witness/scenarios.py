"""The witness scenarios as data: what is asked of a real vLLM engine, and what has to be seen afterwards.

A scenario is a list of steps for the runner (`residentkv.runtimes.vllm.runner`) and two expectations: whether the
observation gate and whether the failure-outcome gate has to pass. Nothing here looks at a trace.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

BLOCK_TOKENS = 32
PREFIX_TOKENS = 480
PREFIX_BLOCKS = PREFIX_TOKENS // BLOCK_TOKENS

Step = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """Settings of the engine process a scenario needs; runs with equal settings share a process."""

    usable_blocks: int = 63
    max_model_len: int = 1024
    tier_bytes: int = 1 << 27
    failure_policy: str = "fail"
    log: bool = True
    options: tuple[tuple[str, Any], ...] = ()

    def as_job(self, *, plugin: bool) -> dict[str, Any]:
        """Return the engine part of a runner job."""
        return {
            "plugin": plugin,
            "usable_blocks": self.usable_blocks,
            "block_size": BLOCK_TOKENS,
            "max_model_len": self.max_model_len,
            "tier_bytes": self.tier_bytes,
            "failure_policy": self.failure_policy,
            "log": self.log,
            "options": dict(self.options),
        }


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One scenario; `steps` builds the steps of one repetition from its run id.

    `observes`: the claim is seen through to reuse of restored bytes. `refuses`: the failure of its restoration is
    seen as an ordered, claim-scoped outcome; None leaves a gate open. `same` and `differ` are labels whose output
    must equal that of vLLM without a connector, or must differ from it (the negative control). `served` and
    `refused` are labels that must be answered, or must end in an error.
    """

    name: str
    title: str
    steps: Callable[[str], list[Step]]
    observes: bool | None
    refuses: bool | None
    repeat: int = 30
    engine: EngineSettings = field(default_factory=EngineSettings)
    same: tuple[str, ...] = ()
    differ: tuple[str, ...] = ()
    verdict: str | None = "conforming"
    refused: tuple[str, ...] = ()
    served: tuple[str, ...] = ()


def claim(run_id: str, *, name: str = "claim", owner: str = "tenant-a", **changes: Any) -> dict[str, Any]:
    """Return the wire form of a claim on the leading prefix."""
    return {
        "claim_id": f"{run_id}:{name}",
        "owner_scope": owner,
        "predicate": f"leading_prefix_at_least({PREFIX_BLOCKS})",
        "mode": "offloadable",
        "footprint_blocks": PREFIX_BLOCKS,
        **changes,
    }


def ask(
    label: str,
    seed: str,
    *,
    claim: dict[str, Any] | None = None,
    tokens: int = PREFIX_TOKENS,
    suffix: int = 0,
    max_tokens: int = 16,
    **params: Any,
) -> dict[str, Any]:
    """Return one request; `claim` and `params` travel in kv_transfer_params."""
    transfer = {**({"resident_claim": claim} if claim else {}), **params}
    return {
        "label": label,
        "prompt_seed": seed,
        "tokens": tokens,
        "suffix_tokens": suffix,
        "max_tokens": max_tokens,
        "kv_transfer_params": transfer or None,
    }


def batch(*requests: dict[str, Any]) -> Step:
    """Return a step with these requests in the engine together."""
    return {"batch": list(requests)}


SETTLE: Step = {"settle": True}
RESET: Step = {"reset_primary": True}


def faults(*rules: dict[str, Any]) -> Step:
    """Return a step that hands the tier a fault plan."""
    return {"faults": {"faults": list(rules)}}


def _success(run_id: str) -> list[Step]:
    c = claim(run_id)
    return [
        batch(ask("resident", run_id, claim=c)),
        SETTLE,
        RESET,
        batch(ask("reuse", run_id, claim=c, suffix=1)),
        SETTLE,
    ]


def _zeroed(run_id: str) -> list[Step]:
    steps = _success(run_id)
    steps.insert(3, faults({"action": "zero", "times": 1}))
    return steps


def _load_failure(run_id: str) -> list[Step]:
    c = claim(run_id)
    return [
        batch(ask("resident", run_id, claim=c)),
        SETTLE,
        RESET,
        faults({"action": "fail_load", "claim_id": c["claim_id"], "times": 1}),
        batch(ask("reuse", run_id, claim=c, suffix=1), ask("beside", f"{run_id}/beside", tokens=96)),
        {"faults": {}},
        batch(ask("next", f"{run_id}/next", tokens=64)),
        SETTLE,
    ]


SCENARIOS: dict[str, Scenario] = {
    s.name: s
    for s in (
        Scenario(
            name="success_path",
            title="offload, local reset, restore, reuse of the same claim",
            steps=_success,
            observes=True,
            refuses=False,
            same=("resident", "reuse"),
            served=("resident", "reuse"),
        ),
        Scenario(
            name="zeroed_tier_control",
            title="the same, the tier zeroed before reuse, checksums to match: the output must change",
            steps=_zeroed,
            observes=None,
            refuses=None,
            repeat=3,
            same=("resident",),
            differ=("reuse",),
            served=("resident", "reuse"),
        ),
        Scenario(
            name="claimed_load_failure",
            title="the load of the claim fails: ordered, claim-scoped refusal; neighbours are served",
            steps=_load_failure,
            observes=False,
            refuses=True,
            same=("resident", "next"),
            refused=("reuse",),
            served=("resident", "beside", "next"),
        ),
    )
}
