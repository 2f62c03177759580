"""The scenarios: nine of the published artifact, and what it left out."""

from __future__ import annotations

from functools import partial
from typing import Any

from residentkv.witness.scenario import (
    PREFIX_BLOCKS,
    RESET,
    SETTLE,
    EngineSettings,
    Scenario,
    Step,
    ask,
    batch,
    claim,
    faults,
)

LONG_BLOCKS = 60
NO_FAULTS: Step = {"faults": {}}


def _fail(**more: Any) -> Step:
    return faults({"action": "fail_load", **more})


def _success(run_id: str, *, between: tuple[Step, ...] = (), **terms: Any) -> list[Step]:
    """Offload, reset the primary tier, then whatever happens in between, then reuse."""
    c = claim(run_id, **terms)
    return [
        batch(ask("resident", run_id, claim=c)),
        SETTLE,
        RESET,
        *between,
        batch(ask("reuse", run_id, claim=c, suffix=1)),
    ]


def _unclaimed(run_id: str, *between: Step) -> list[Step]:
    return [
        batch(ask("resident", run_id)),
        SETTLE,
        RESET,
        *between,
        batch(ask("reuse", run_id, suffix=1)),
    ]


def _load_failure(run_id: str) -> list[Step]:
    c = claim(run_id)
    return [
        batch(ask("resident", run_id, claim=c)),
        SETTLE,
        RESET,
        _fail(claim_id=c["claim_id"], times=1),
        batch(ask("reuse", run_id, claim=c, suffix=1), ask("beside", f"{run_id}/beside", tokens=96)),
        NO_FAULTS,
        batch(ask("next", f"{run_id}/next", tokens=64)),
        RESET,
        batch(ask("again", run_id, suffix=1)),
    ]


def _failed(run_id: str, **rule: Any) -> list[Step]:
    return _success(run_id, between=(faults({"action": "fail_load", "times": 1, **rule}),))


def _counters(run_id: str) -> list[Step]:
    return [*_unclaimed(run_id, _fail(times=1)), {"counters": True}]


def _several(run_id: str, names: tuple[str, ...], *between: Step) -> list[Step]:
    claims = {n: claim(run_id, name=n, predicate="leading_prefix_at_least(4)", footprint_blocks=4) for n in names}
    residents = [ask(f"resident-{n}", f"{run_id}/{n}", claim=c, tokens=128) for n, c in claims.items()]
    reuses = [ask(f"reuse-{n}", f"{run_id}/{n}", claim=c, tokens=128, suffix=1) for n, c in claims.items()]
    return [batch(*residents), SETTLE, RESET, *between, batch(*reuses)]


def _targeted(run_id: str) -> list[Step]:
    return _several(run_id, ("a", "b", "c"), _fail(claim_id=f"{run_id}:b", times=1))


def _tier_full(run_id: str) -> list[Step]:
    other = claim(run_id, name="other")
    return [
        batch(ask("resident", run_id, claim=claim(run_id))),
        SETTLE,
        batch(ask("second", f"{run_id}/other", claim=other)),
        SETTLE,
        RESET,
        batch(ask("reuse", run_id, claim=claim(run_id), suffix=1)),
    ]


def _store_failure(run_id: str) -> list[Step]:
    return [
        faults({"action": "fail_store", "times": 1}),
        batch(ask("resident", run_id, claim=claim(run_id))),
        SETTLE,
        NO_FAULTS,
        RESET,
        batch(ask("reuse", run_id, suffix=1)),
    ]


def _rejected(run_id: str) -> list[Step]:
    c = claim(run_id, predicate=f"leading_prefix_at_least({PREFIX_BLOCKS + 1})")
    return [batch(ask("resident", run_id, claim=c)), SETTLE]


def _expired(run_id: str) -> list[Step]:
    return [
        batch(ask("resident", run_id, claim=claim(run_id, ttl_s=1.5))),
        SETTLE,
        RESET,
        {"sleep_s": 1.6},
        batch(ask("reuse", run_id, suffix=1)),
    ]


def _released(run_id: str) -> list[Step]:
    c = claim(run_id)
    name = {"claim_id": c["claim_id"], "owner_scope": c["owner_scope"]}
    return [
        batch(ask("resident", run_id, claim=c)),
        SETTLE,
        RESET,
        faults({"action": "delay_load", "delay_s": 0.3, "times": 1}),
        batch(
            ask("reuse", run_id, claim=c, suffix=1),
            ask("release", f"{run_id}/release", tokens=8, max_tokens=1, after_steps=3, resident_claim_release=name),
        ),
    ]


def _then_success(run_id: str) -> list[Step]:
    return [*_failed(run_id), NO_FAULTS, RESET, batch(ask("later", run_id, claim=claim(run_id), suffix=1))]


def _persistent(run_id: str) -> list[Step]:
    """Every load fails; each time the claim is demoted, taken anew by the next request and stored again."""
    c = claim(run_id, on_restore_failure="recompute")

    def use(label: str) -> tuple[Step, ...]:
        return (batch(ask(label, run_id, claim=c, suffix=1)), SETTLE, RESET)

    return [
        batch(ask("resident", run_id, claim=c)),
        SETTLE,
        RESET,
        _fail(),
        *use("fails"),
        *use("takes-anew"),
        *use("fails-again"),
        NO_FAULTS,
        *use("takes-anew-again"),
        batch(ask("reuse", run_id, claim=c, suffix=1)),
    ]


def _timed(run_id: str, tokens: int) -> list[Step]:
    blocks = tokens // 32
    c = claim(run_id, predicate=f"leading_prefix_at_least({blocks})", footprint_blocks=blocks)
    return [
        batch(ask("resident", run_id, claim=c, tokens=tokens, max_tokens=4)),
        SETTLE,
        RESET,
        batch(ask("reuse", run_id, claim=c, tokens=tokens, suffix=1, max_tokens=4)),
    ]


def _broken(run_id: str) -> list[Step]:
    c = claim(run_id, predicate=f"leading_prefix_at_least({LONG_BLOCKS})", footprint_blocks=LONG_BLOCKS)
    tokens = LONG_BLOCKS * 32
    return [
        batch(ask("resident", run_id, claim=c, tokens=tokens)),
        SETTLE,
        RESET,
        faults({"action": "lose", "positions": [[0, 1]], "times": 1}),
        batch(ask("reuse", run_id, claim=c, tokens=tokens, suffix=1)),
    ]


BOTH = ("resident", "reuse")
REUSE = ("reuse",)
REUSE_NAMES = (("reuse", "claim"),)
QUIET = EngineSettings(log=False, counters=True)
PROCESSES = EngineSettings(processes=True)
SMALL_TIER = EngineSettings(tier_bytes=20 * 737_280)
RETRY = EngineSettings(options=(("restore_attempts", 2),))
WIDE = EngineSettings(usable_blocks=300, max_model_len=4200, tier_bytes=1 << 28)
LONG = EngineSettings(usable_blocks=160, max_model_len=2400)

_ALL = (
    Scenario(
        name="success_no_event_path",
        title="the same success with the event log off: nothing can be shown",
        steps=_success,
        observes=False,
        refuses=False,
        verdict=None,
        engine=QUIET,
        served=BOTH,
        same=BOTH,
    ),
    Scenario(
        name="success_path",
        title="offload, local reset, restore, reuse of the same claim",
        steps=_success,
        observes=True,
        refuses=False,
        served=BOTH,
        same=BOTH,
        outcomes=(("claim", "released"),),
    ),
    Scenario(
        name="zeroed_tier_control",
        title="the same, tier zeroed before reuse, checksums to match: the output must change",
        steps=lambda run_id: _success(run_id, between=(faults({"action": "zero", "times": 1}),)),
        observes=None,
        refuses=None,
        repeat=10,
        served=BOTH,
        same=("resident",),
        differ=("reuse",),
    ),
    Scenario(
        name="ordinary_offload_no_claim",
        title="offload and load without a claim",
        steps=_unclaimed,
        observes=False,
        refuses=False,
        verdict="inconclusive",
        served=BOTH,
        same=BOTH,
    ),
    Scenario(
        name="claimed_load_failure",
        title="the load of the claim fails: ordered refusal by name; neighbours are served",
        steps=_load_failure,
        observes=False,
        refuses=True,
        served=("resident", "beside", "next", "again"),
        same=("resident", "next", "again"),
        refused=REUSE,
        names=REUSE_NAMES,
    ),
    Scenario(
        name="claimed_load_failure_alone",
        title="the same with nothing else in the engine: the time to refusal is the plugin's own",
        steps=lambda run_id: _failed(run_id, claim_id=f"{run_id}:claim"),
        observes=False,
        refuses=True,
        served=("resident",),
        refused=REUSE,
        names=REUSE_NAMES,
    ),
    Scenario(
        name="wrong_claim_failure",
        title="the fault aims at another claim: this one is restored, nobody is refused",
        steps=lambda run_id: _success(run_id, between=(_fail(claim_id=f"{run_id}:another"),)),
        observes=True,
        refuses=False,
        repeat=10,
        served=BOTH,
        same=BOTH,
    ),
    Scenario(
        name="unclaimed_load_failure",
        title="a load without a claim fails: an error, and no claim is named",
        steps=lambda run_id: _unclaimed(run_id, _fail(times=1)),
        observes=False,
        refuses=False,
        verdict="inconclusive",
        served=("resident",),
        refused=("reuse",),
    ),
    Scenario(
        name="fallback_recompute",
        title="the load fails, the claim is demoted by name, the tokens are computed again",
        steps=lambda run_id: _success(run_id, between=(_fail(times=1),), on_restore_failure="recompute"),
        observes=False,
        refuses=True,
        repeat=10,
        served=BOTH,
        outcomes=(("claim", "demoted"),),
    ),
    Scenario(
        name="retry_restored",
        title="the first load fails, the second brings the bytes: a retry, not a recompute",
        steps=_failed,
        observes=True,
        refuses=False,
        repeat=10,
        engine=RETRY,
        served=BOTH,
        same=BOTH,
    ),
    Scenario(
        name="generic_counter_only",
        title="a failed load, and only vLLM's own counters to see it by",
        steps=_counters,
        observes=False,
        refuses=False,
        verdict="inconclusive",
        repeat=10,
        engine=QUIET,
        served=("resident",),
        refused=("reuse",),
    ),
    Scenario(
        name="multi_claim_targeted_failure",
        title="three live claims, one load fails: only its claim is named",
        steps=_targeted,
        observes=True,
        refuses=True,
        served=("reuse-a", "reuse-c"),
        refused=("reuse-b",),
        names=(("reuse-b", "b"),),
    ),
    Scenario(
        name="partial_load_failure",
        title="only the last four blocks fail: no part of it counts as restored",
        steps=lambda run_id: _failed(run_id, last_blocks=4),
        observes=False,
        refuses=True,
        repeat=10,
        served=("resident",),
        refused=REUSE,
        names=REUSE_NAMES,
    ),
    Scenario(
        name="store_failure",
        title="the store fails: the claim is demoted before its blocks go",
        steps=_store_failure,
        observes=False,
        refuses=False,
        repeat=20,
        served=BOTH,
        outcomes=(("claim", "demoted"),),
    ),
    Scenario(
        name="corrupt_tier_bytes",
        title="bytes rot in the tier: the checksum makes it a failed restoration, then the claim is harmed",
        steps=lambda run_id: _success(run_id, between=(faults({"action": "corrupt", "times": 1}),)),
        observes=False,
        refuses=True,
        repeat=10,
        served=("resident",),
        outcomes=(("claim", "harmed"),),
        refused=REUSE,
        names=REUSE_NAMES,
    ),
    Scenario(
        name="tier_full",
        title="the tier cannot hold a second claim: it is rejected, the first is restored",
        steps=_tier_full,
        observes=True,
        refuses=False,
        repeat=10,
        engine=SMALL_TIER,
        served=("resident", "second", "reuse"),
        decisions=(("second", "rejected"),),
    ),
    Scenario(
        name="claim_rejected",
        title="the engine says no and serves unclaimed",
        steps=_rejected,
        observes=False,
        refuses=False,
        served=("resident",),
        decisions=(("resident", "rejected"),),
    ),
    Scenario(
        name="claim_expired_before_reuse",
        title="the term ends before reuse, with its event",
        steps=_expired,
        observes=False,
        refuses=False,
        repeat=10,
        served=BOTH,
        outcomes=(("claim", "expired"),),
    ),
    Scenario(
        name="release_during_restore",
        title="the owner releases while the load is under way",
        steps=_released,
        observes=False,
        refuses=False,
        repeat=10,
        served=("resident", "reuse", "release"),
        outcomes=(("claim", "released"),),
    ),
    Scenario(
        name="two_failures_in_one_step",
        title="two claims fail together: each has its own outcome",
        steps=lambda run_id: _several(run_id, ("a", "b"), _fail(claimed=True, times=2)),
        observes=False,
        refuses=True,
        repeat=10,
        refused=("reuse-a", "reuse-b"),
        names=(("reuse-a", "a"), ("reuse-b", "b")),
    ),
    Scenario(
        name="failure_then_success",
        title="refused once, restored later, when the fault is gone",
        steps=_then_success,
        observes=True,
        refuses=True,
        repeat=10,
        served=("resident", "later"),
        same=("later",),
        refused=REUSE,
        names=REUSE_NAMES,
    ),
    Scenario(
        name="persistent_fault_recompute",
        title="every load fails, under recompute: no livelock, and stored again afterwards",
        steps=_persistent,
        observes=True,
        refuses=True,
        repeat=10,
        served=("resident", "fails", "takes-anew", "fails-again", "takes-anew-again", "reuse"),
        same=("reuse",),
        outcomes=(("claim", "demoted"), ("claim", "demoted"), ("claim", "released")),
    ),
    Scenario(
        name="success_path_processes",
        title="success with API, engine core and worker in processes of their own",
        steps=_success,
        observes=True,
        refuses=False,
        repeat=10,
        engine=PROCESSES,
        served=BOTH,
        same=BOTH,
    ),
    Scenario(
        name="claimed_load_failure_processes",
        title="failure of the claim's load with processes of their own",
        steps=_load_failure,
        observes=False,
        refuses=True,
        repeat=10,
        engine=PROCESSES,
        served=("resident", "beside", "next", "again"),
        same=("resident", "next", "again"),
        refused=REUSE,
        names=REUSE_NAMES,
    ),
    Scenario(
        name="predicate_broken",
        title="block 0 is lost, 59 of 60 are kept: worth nothing, and said so",
        steps=_broken,
        observes=False,
        refuses=False,
        verdict="violating",
        repeat=10,
        engine=LONG,
        served=("resident",),
        outcomes=(("claim", "harmed"),),
        refused=REUSE,
        names=REUSE_NAMES,
    ),
)

_TTFT = tuple(
    Scenario(
        name=f"ttft_{tokens}",
        title=f"restored reuse of {tokens} tokens beside their computation",
        steps=partial(_timed, tokens=tokens),
        observes=True,
        refuses=False,
        repeat=5,
        engine=WIDE,
        served=BOTH,
        same=BOTH,
    )
    for tokens in (256, 1024, 4096)
)

SCENARIOS: dict[str, Scenario] = {s.name: s for s in (*_ALL, *_TTFT)}
"""Every scenario by name."""
