"""Scenarios of memory pressure: one for each mode that keeps the primary tier, and one with its mechanism turned off.

The cache has room for 24 blocks and the second tier for one, so that what is lost in the cache is lost.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from residentkv.witness.scenario import BLOCK_TOKENS, EngineSettings, Scenario, Step, ask, batch, claim

USABLE_BLOCKS = 24
CLAIM_BLOCKS = 8
TRIALS = 5
"""Trials of either assignment that an experiment on preference needs."""

TERM_S = 4.0


def _settings(off: str | None = None, **options: Any) -> EngineSettings:
    return EngineSettings(
        usable_blocks=USABLE_BLOCKS,
        max_model_len=USABLE_BLOCKS * BLOCK_TOKENS,
        tier_bytes=737_280,
        options=((("off", (off,)),) if off is not None else ()) + tuple(options.items()),
    )


def _fill(label: str, run_id: str, blocks: int, **params: Any) -> Step:
    """Serve a prompt of so many full blocks that nobody claims."""
    return batch(ask(label, f"{run_id}/{label}", tokens=blocks * BLOCK_TOKENS, max_tokens=1, **params))


def _claimed(label: str, seed: str, terms: dict[str, Any], blocks: int, *, suffix: int = 0, **params: Any) -> Step:
    return batch(ask(label, seed, claim=terms, tokens=blocks * BLOCK_TOKENS, suffix=suffix, max_tokens=1, **params))


def _terms(run_id: str, mode: str, *, name: str = "claim", blocks: int = CLAIM_BLOCKS, **more: Any) -> dict[str, Any]:
    return claim(
        run_id,
        name=name,
        mode=mode,
        predicate=f"leading_prefix_at_least({blocks})",
        footprint_blocks=blocks,
        **more,
    )


def _release(terms: dict[str, Any]) -> dict[str, Any]:
    return {"resident_claim_release": {"claim_id": terms["claim_id"], "owner_scope": terms["owner_scope"]}}


def hard(run_id: str) -> list[Step]:
    """Turn the cache over beside the claim, ask for one block too many, reuse, release, and let the blocks go."""
    terms = _terms(run_id, "hard_protected")
    return [
        _claimed("resident", run_id, terms, CLAIM_BLOCKS),
        _fill("first", run_id, 12),
        _fill("second", run_id, 16),
        _fill("large", run_id, 17),
        _claimed("reuse", run_id, terms, CLAIM_BLOCKS, suffix=1),
        _fill("after", run_id, 23, **_release(terms)),
        _fill("last", run_id, 23),
    ]


def unpinned(run_id: str) -> list[Step]:
    """Turn the cache over beside a claim that nothing pins."""
    terms = _terms(run_id, "hard_protected")
    return [
        _claimed("resident", run_id, terms, CLAIM_BLOCKS),
        _fill("first", run_id, 12),
        _fill("second", run_id, 16),
    ]


def expiring(run_id: str) -> list[Step]:
    """Let the term end, then need the room."""
    terms = _terms(run_id, "expiring", ttl_s=TERM_S)
    return [
        _claimed("resident", run_id, terms, CLAIM_BLOCKS),
        _fill("beside", run_id, 12),
        {"sleep_s": TERM_S + 0.1},
        _fill("after", run_id, 23),
        _fill("last", run_id, 23),
    ]


def overdue(run_id: str) -> list[Step]:
    """Let the term end where nobody enforces it, then read the claim."""
    terms = _terms(run_id, "expiring", ttl_s=TERM_S)
    return [
        _claimed("resident", run_id, terms, CLAIM_BLOCKS),
        {"sleep_s": TERM_S + 0.1},
        _claimed("reuse", run_id, terms, CLAIM_BLOCKS, suffix=1),
    ]


def demotable(run_id: str) -> list[Step]:
    """Two claims, and need the room of one of them; then use up what was given."""
    important = _terms(run_id, "demotable", name="important", blocks=6, priority=2)
    other = _terms(run_id, "demotable", name="other", blocks=6, priority=1)
    return [
        _claimed("resident-important", f"{run_id}/important", important, 6),
        _claimed("resident-other", f"{run_id}/other", other, 6),
        _fill("beside", run_id, 12),
        _fill("after", run_id, 18),
        _fill("last", run_id, 18),
        _claimed("reuse", f"{run_id}/important", important, 6, suffix=1),
    ]


def soft(run_id: str) -> list[Step]:
    """Five times the less important claim is the older one, five times the newer one; each time one has to go."""
    steps: list[Step] = []
    more: dict[str, Any] = {}
    for trial in range(2 * TRIALS):
        low = _terms(run_id, "soft_priority", name=f"low-{trial}", blocks=3, priority=1)
        high = _terms(run_id, "soft_priority", name=f"high-{trial}", blocks=3, priority=2)
        order = [("low", low), ("high", high)]
        for word, terms in order if trial < TRIALS else reversed(order):
            steps.append(_claimed(f"{word}-{trial}", f"{run_id}/{word}/{trial}", terms, 3, **more))
            more = {}
        steps.append(_fill(f"pressure-{trial}", run_id, USABLE_BLOCKS - 5 + trial % 2))
        more = _release(high)
    return steps


def deferred(run_id: str, *, release: bool) -> list[Step]:
    """Ask for one block too many beside a request that fits; release the claim meanwhile, or let the time run out."""
    terms = _terms(run_id, "hard_protected")
    large = ask("large", f"{run_id}/large", tokens=17 * BLOCK_TOKENS, max_tokens=1)
    beside = ask("beside", f"{run_id}/beside", tokens=BLOCK_TOKENS, max_tokens=1)
    last = ask("release", f"{run_id}/release", tokens=8, max_tokens=1, after_steps=6, **_release(terms))
    return [
        _claimed("resident", run_id, terms, CLAIM_BLOCKS),
        batch(large, beside, *([last] if release else [])),
    ]


_DEFER = ("expire", "offload", "demote", "defer", "refuse")

_SERVED_SOFT = tuple(f"{word}-{trial}" for trial in range(2 * TRIALS) for word in ("low", "high", "pressure"))

PRESSURE = (
    Scenario(
        name="hard_protected_pressure",
        title="the cache is turned over beside a hard claim; one block too many is refused by its name",
        steps=hard,
        observes=False,
        refuses=False,
        repeat=10,
        engine=_settings(),
        served=("resident", "first", "second", "reuse", "after", "last"),
        refused=("large",),
        same=("resident", "reuse"),
        outcomes=(("claim", "released"),),
    ),
    Scenario(
        name="hard_protected_unpinned",
        title="the same with victim exclusion off: the claim is lost, and the audit says so",
        steps=unpinned,
        observes=False,
        refuses=False,
        repeat=5,
        engine=_settings("victim_exclusion"),
        verdict="violating",
        served=("resident", "first", "second"),
        outcomes=(("claim", "harmed"),),
    ),
    Scenario(
        name="deferred_until_release",
        title="a request waits for a hard claim, is overtaken by one that fits, and comes in after its release",
        steps=partial(deferred, release=True),
        observes=False,
        refuses=False,
        repeat=5,
        engine=_settings(actions=_DEFER, defer_s=600.0),
        served=("resident", "beside", "release", "large"),
        outcomes=(("claim", "released"),),
    ),
    Scenario(
        name="deferred_past_deadline",
        title="the same without a release: the request is refused at its deadline, and the claim is kept",
        steps=partial(deferred, release=False),
        observes=False,
        refuses=False,
        repeat=5,
        engine=_settings(actions=_DEFER, defer_s=0.5),
        served=("resident", "beside"),
        refused=("large",),
        outcomes=(("claim", "released"),),
    ),
    Scenario(
        name="expiring_pressure",
        title="the claim ends at its deadline, told before its blocks go",
        steps=expiring,
        observes=False,
        refuses=False,
        repeat=5,
        engine=_settings(),
        served=("resident", "beside", "after", "last"),
        outcomes=(("claim", "expired"),),
    ),
    Scenario(
        name="expiring_overdue",
        title="the same with enforcement off: the claim is read after its term, and the audit says so",
        steps=overdue,
        observes=False,
        refuses=False,
        repeat=3,
        engine=_settings("expiry_enforcement"),
        verdict="violating",
        served=("resident", "reuse"),
    ),
    Scenario(
        name="demotable_pressure",
        title="the less important of two claims is demoted by name, and no more than that",
        steps=demotable,
        observes=False,
        refuses=False,
        repeat=10,
        engine=_settings(),
        served=("resident-important", "resident-other", "beside", "after", "last", "reuse"),
        outcomes=(("important", "released"), ("other", "demoted")),
    ),
    Scenario(
        name="demotable_loss_first",
        title="the same with the order turned round: the blocks go before the word, and the audit says so",
        steps=demotable,
        observes=False,
        refuses=False,
        repeat=5,
        engine=_settings("release_before_loss"),
        verdict="violating",
        served=("resident-important", "resident-other", "beside", "after"),
    ),
    Scenario(
        name="soft_priority_pressure",
        title="ten trials: the less important claim goes first, whether it is older or newer",
        steps=soft,
        observes=False,
        refuses=False,
        repeat=3,
        engine=_settings(),
        served=_SERVED_SOFT,
        outcomes=tuple((f"low-{n}", "harmed") for n in range(2 * TRIALS))
        + tuple((f"high-{n}", "released") for n in range(2 * TRIALS)),
    ),
    Scenario(
        name="soft_priority_unranked",
        title="the same with preference off: recency decides, and half of the trials go wrong",
        steps=soft,
        observes=False,
        refuses=False,
        repeat=2,
        engine=_settings("eviction_preference"),
        served=_SERVED_SOFT,
        outcomes=tuple((f"high-{n}", "harmed") for n in range(TRIALS, 2 * TRIALS)),
    ),
)
