"""The codes of what can be wrong with a claim as it is submitted, or with evidence that names no claim."""

from __future__ import annotations

from typing import Final, NamedTuple


class ClaimRule(NamedTuple):
    """One reason for which a claim is not understood."""

    code: str
    slug: str
    title: str
    checks: str
    why: str
    next_step: str


SHAPE: Final = ClaimRule(
    "RKV001",
    "claim-not-understood",
    "A claim has a field that is unknown, missing or of the wrong type",
    "every field of a submitted claim",
    "a promise about something that was not understood binds nobody",
    "see docs/contract.md for the fields",
)
IDENTITY: Final = ClaimRule(
    "RKV002",
    "identity-differs",
    "The client states another identity or footprint than the runtime computes",
    "cache identity, token map and footprint, where the client states them, against what the runtime computed",
    "the claim would be kept for something else than the client means",
    "leave the field out: the runtime computes it",
)
PREDICATE: Final = ClaimRule(
    "RKV003",
    "predicate-not-understood",
    "The predicate is not one of the three forms",
    "the canonical text of leading_prefix_at_least(n), contiguous_range(start, n) and whole_object",
    "a predicate that two readers evaluate differently protects nothing",
    "write it as docs/contract.md shows",
)

CLAIM_RULES: Final = (SHAPE, IDENTITY, PREDICATE)
