"""The plan of a load: which prompts there are, who claims which prefix, and in which order requests are made."""

from __future__ import annotations

import random
from enum import StrEnum
from typing import Any

import msgspec

from residentkv.claims.modes import Mode


class Kind(StrEnum):
    """What a prefix is to its owner."""

    HARD = "hard"
    SOFT = "soft"
    UNCLAIMED = "unclaimed"


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes of a load. Prefixes are in blocks of `block_tokens`; every prompt is a prefix and `suffix_tokens` more.

    `deadline_s` is how long a client waits before it calls a request hung. `churn_every`: so often a request lets its
    claim go and claims anew. `short_every`: each so-manieth soft claim has a term of `short_term_s`.
    """

    seed: int = 1
    clients: int = 20
    owners: int = 2
    hard: int = 50
    soft: int = 200
    unclaimed: int = 250
    hard_mode: str = Mode.HARD_PROTECTED.value
    soft_mode: str = Mode.SOFT_PRIORITY.value
    block_tokens: int = 32
    prefix_blocks: int = 2
    suffix_tokens: int = 9
    variants: int = 2
    max_tokens: int = 4
    usable_blocks: int = 400
    tier_blocks: int = 700
    deadline_s: float = 60.0
    churn_every: int = 40
    short_every: int = 10
    short_term_s: float = 5.0


VOCABULARY = (3, 1000)


class Item(msgspec.Struct, frozen=True, array_like=True):
    """One request: the number of its prompt, whether it lets its claim go first, whether it is a first claim."""

    prompt: int
    anew: bool = False
    first: bool = False


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Prompts as token ids, the kind and the claim of each, and the order of requests.

    Prompt `p` has prefix `p // variants`. `claims[p]` is what the request says in `kv_transfer_params`.
    """

    shape: Shape
    prompts: list[list[int]]
    kinds: list[Kind]
    claims: list[dict[str, Any] | None]
    sequence: list[Item]


def make_plan(shape: Shape, requests: int) -> Plan:
    """Return the plan that `shape` and its seed decide: first every claim once, then a mix of all prefixes."""
    rng = random.Random(shape.seed)
    kinds = [Kind.HARD] * shape.hard + [Kind.SOFT] * shape.soft + [Kind.UNCLAIMED] * shape.unclaimed
    prompts: list[list[int]] = []
    claims: list[dict[str, Any] | None] = []
    for number, kind in enumerate(kinds):
        prefix = [rng.randrange(*VOCABULARY) for _ in range(shape.prefix_blocks * shape.block_tokens)]
        for _ in range(shape.variants):
            prompts.append(prefix + [rng.randrange(*VOCABULARY) for _ in range(shape.suffix_tokens)])
            claims.append(_claim(shape, kind, number))
    of = {kind: [n for n, k in enumerate(kinds) if k is kind] for kind in Kind}
    announced = [n for n, kind in enumerate(kinds) if kind is not Kind.UNCLAIMED]
    rng.shuffle(announced)
    sequence = [Item(n * shape.variants, first=True) for n in announced]
    present = [kind for kind in Kind if of[kind]]
    weights = [{Kind.HARD: 2, Kind.SOFT: 3, Kind.UNCLAIMED: 5}[kind] for kind in present]
    for turn in range(len(sequence), requests):
        (kind,) = rng.choices(present, weights)
        prompt = rng.choice(of[kind]) * shape.variants + rng.randrange(shape.variants)
        sequence.append(Item(prompt, anew=kind is not Kind.UNCLAIMED and turn % shape.churn_every == 0))
    return Plan(
        shape=shape,
        prompts=prompts,
        kinds=[kind for kind in kinds for _ in range(shape.variants)],
        claims=claims,
        sequence=sequence,
    )


def _claim(shape: Shape, kind: Kind, number: int) -> dict[str, Any] | None:
    if kind is Kind.UNCLAIMED:
        return None
    wire: dict[str, Any] = {
        "claim_id": f"{kind.value}-{number}",
        "owner_scope": f"owner-{number % shape.owners}",
        "mode": shape.hard_mode if kind is Kind.HARD else shape.soft_mode,
        "predicate": f"leading_prefix_at_least({shape.prefix_blocks})",
        "footprint_blocks": shape.prefix_blocks,
        "priority": number % 5,
    }
    if kind is Kind.SOFT and number % shape.short_every == 0:
        wire["ttl_s"] = shape.short_term_s
    return wire
