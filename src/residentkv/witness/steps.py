"""The steps of the scenarios: one function a course of events, from the id of the run."""

from __future__ import annotations

from typing import Any

from residentkv.witness.scenario import PREFIX_BLOCKS, RESET, SETTLE, Step, ask, batch, claim, faults

LONG_BLOCKS = 60
NO_FAULTS: Step = {"faults": {}}


def fail(**more: Any) -> Step:
    """Return a step after which loads fail."""
    return faults({"action": "fail_load", **more})


def success(run_id: str, *, between: tuple[Step, ...] = (), **terms: Any) -> list[Step]:
    """Offload, reset the primary tier, then whatever happens in between, then reuse."""
    c = claim(run_id, **terms)
    return [
        batch(ask("resident", run_id, claim=c)),
        SETTLE,
        RESET,
        *between,
        batch(ask("reuse", run_id, claim=c, suffix=1)),
    ]


def unclaimed(run_id: str, *between: Step) -> list[Step]:
    """Offload and reuse without a claim."""
    return [
        batch(ask("resident", run_id)),
        SETTLE,
        RESET,
        *between,
        batch(ask("reuse", run_id, suffix=1)),
    ]


def load_failure(run_id: str) -> list[Step]:
    """Let the claim's load fail beside another request; then a next one, then the same prefix unclaimed."""
    c = claim(run_id)
    return [
        batch(ask("resident", run_id, claim=c)),
        SETTLE,
        RESET,
        fail(claim_id=c["claim_id"], times=1),
        batch(ask("reuse", run_id, claim=c, suffix=1), ask("beside", f"{run_id}/beside", tokens=96)),
        NO_FAULTS,
        batch(ask("next", f"{run_id}/next", tokens=64)),
        RESET,
        batch(ask("again", run_id, suffix=1)),
    ]


def failed(run_id: str, **rule: Any) -> list[Step]:
    """Let loads fail once before the reuse."""
    return success(run_id, between=(faults({"action": "fail_load", "times": 1, **rule}),))


def counters(run_id: str) -> list[Step]:
    """Let an unclaimed load fail, and write what vLLM counts."""
    return [*unclaimed(run_id, fail(times=1)), {"counters": True}]


def several(run_id: str, names: tuple[str, ...], *between: Step) -> list[Step]:
    """Offload several claims, then reuse all of them together."""
    claims = {n: claim(run_id, name=n, predicate="leading_prefix_at_least(4)", footprint_blocks=4) for n in names}
    residents = [ask(f"resident-{n}", f"{run_id}/{n}", claim=c, tokens=128) for n, c in claims.items()]
    reuses = [ask(f"reuse-{n}", f"{run_id}/{n}", claim=c, tokens=128, suffix=1) for n, c in claims.items()]
    return [batch(*residents), SETTLE, RESET, *between, batch(*reuses)]


def targeted(run_id: str) -> list[Step]:
    """Let one load of three claims fail."""
    return several(run_id, ("a", "b", "c"), fail(claim_id=f"{run_id}:b", times=1))


def tier_full(run_id: str) -> list[Step]:
    """Claim twice what the tier can hold once."""
    other = claim(run_id, name="other")
    return [
        batch(ask("resident", run_id, claim=claim(run_id))),
        SETTLE,
        batch(ask("second", f"{run_id}/other", claim=other)),
        SETTLE,
        RESET,
        batch(ask("reuse", run_id, claim=claim(run_id), suffix=1)),
    ]


def store_failure(run_id: str) -> list[Step]:
    """Let the store fail, then ask for the prefix again, unclaimed."""
    return [
        faults({"action": "fail_store", "times": 1}),
        batch(ask("resident", run_id, claim=claim(run_id))),
        SETTLE,
        NO_FAULTS,
        RESET,
        batch(ask("reuse", run_id, suffix=1)),
    ]


def rejected(run_id: str) -> list[Step]:
    """Claim more than the object has."""
    c = claim(run_id, predicate=f"leading_prefix_at_least({PREFIX_BLOCKS + 1})")
    return [batch(ask("resident", run_id, claim=c)), SETTLE]


def expired(run_id: str) -> list[Step]:
    """Let the term end before the reuse."""
    return [
        batch(ask("resident", run_id, claim=claim(run_id, ttl_s=1.5))),
        SETTLE,
        RESET,
        {"sleep_s": 1.6},
        batch(ask("reuse", run_id, suffix=1)),
    ]


def released(run_id: str) -> list[Step]:
    """Release while the load is under way."""
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


def then_success(run_id: str) -> list[Step]:
    """Fail once, then be restored."""
    return [*failed(run_id), NO_FAULTS, RESET, batch(ask("later", run_id, claim=claim(run_id), suffix=1))]


def persistent(run_id: str) -> list[Step]:
    """Every load fails; each time the claim is demoted, taken anew by the next request and stored again."""
    c = claim(run_id, on_restore_failure="recompute")

    def use(label: str) -> tuple[Step, ...]:
        return (batch(ask(label, run_id, claim=c, suffix=1)), SETTLE, RESET)

    return [
        batch(ask("resident", run_id, claim=c)),
        SETTLE,
        RESET,
        fail(),
        *use("fails"),
        *use("takes-anew"),
        *use("fails-again"),
        NO_FAULTS,
        *use("takes-anew-again"),
        batch(ask("reuse", run_id, claim=c, suffix=1)),
    ]


def timed(run_id: str, tokens: int) -> list[Step]:
    """Offload and reuse a prefix of `tokens`, with a short answer."""
    blocks = tokens // 32
    c = claim(run_id, predicate=f"leading_prefix_at_least({blocks})", footprint_blocks=blocks)
    return [
        batch(ask("resident", run_id, claim=c, tokens=tokens, max_tokens=4)),
        SETTLE,
        RESET,
        batch(ask("reuse", run_id, claim=c, tokens=tokens, suffix=1, max_tokens=4)),
    ]


def broken(run_id: str) -> list[Step]:
    """Lose block 0 of 60 in the tier."""
    c = claim(run_id, predicate=f"leading_prefix_at_least({LONG_BLOCKS})", footprint_blocks=LONG_BLOCKS)
    tokens = LONG_BLOCKS * 32
    return [
        batch(ask("resident", run_id, claim=c, tokens=tokens)),
        SETTLE,
        RESET,
        faults({"action": "lose", "positions": [[0, 1]], "times": 1}),
        batch(ask("reuse", run_id, claim=c, tokens=tokens, suffix=1)),
    ]
