"""What a witness scenario is: what is asked of a real vLLM engine, and what has to be seen afterwards.

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
    """Settings of the engine a scenario needs; runs with equal settings share an engine.

    `processes`: API, engine core and worker in processes of their own.
    """

    usable_blocks: int = 63
    max_model_len: int = 1024
    tier_bytes: int = 1 << 27
    failure_policy: str = "fail"
    log: bool = True
    counters: bool = False
    processes: bool = False
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
            "counters": self.counters,
            "options": dict(self.options),
        }


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One scenario; `steps` builds the steps of one repetition from its run id.

    `observes`: the claim is seen through to reuse of restored bytes. `refuses`: the failure of its restoration is
    seen as an ordered, claim-scoped outcome; None leaves a gate open. `verdict` is what the audit has to say, None for
    no trace. `same` and `differ` are labels whose output must equal that of vLLM without a connector, or must differ
    from it (the negative control). `served` and `refused` are labels that must be answered, or must end in an error;
    `names` pairs a refused label with the claim that its refusal must name, and no other. `decisions` pairs a label
    with the answer its claim must get, `outcomes` a claim with the states it must end in, in order.
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
    names: tuple[tuple[str, str], ...] = ()
    decisions: tuple[tuple[str, str], ...] = ()
    outcomes: tuple[tuple[str, str], ...] = ()


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
    max_tokens: int = 8,
    after_steps: int = 0,
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
        "after_steps": after_steps,
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
