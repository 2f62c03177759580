"""Obligations, the bundle of each mode, and the depths at which each may be supplied (spec section 4), as data."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from residentkv.claims.modes import Mode, NamedChoice
from residentkv.lowering.depth import ANY_DEPTH, ENFORCING, NOT_OBSERVE, Depth


class Obligation(NamedChoice):
    """One thing that somebody has to do for a claim to mean something."""

    CLAIM_IDENTITY = "claim_identity"
    CACHE_IDENTITY = "cache_identity"
    OBJECT_IDENTITY = "object_identity"
    JOINABILITY = "joinability"
    ACCEPTANCE = "acceptance"
    PREDICATE = "predicate"
    ORDERED_LIFECYCLE = "ordered_lifecycle"
    EVICTION_PREFERENCE = "eviction_preference"
    LOSS_REPORTING = "loss_reporting"
    EXPIRY_ENFORCEMENT = "expiry_enforcement"
    RELEASE_BEFORE_LOSS = "release_before_loss"
    OFFLOAD_IDENTITY = "offload_identity"
    RESTORE_BEFORE_REUSE = "restore_before_reuse"
    RESTORATION_FAILURE_OUTCOME = "restoration_failure_outcome"
    SCOPED_OUTCOME = "scoped_outcome"
    FEASIBILITY_CHECK = "feasibility_check"
    VICTIM_EXCLUSION = "victim_exclusion"
    CONFLICT_OUTCOME = "conflict_outcome"
    ROUTE_BINDING = "route_binding"
    ROUTE_OUTCOME = "route_outcome"


O = Obligation  # noqa: E741 - the table below is read more easily with a short name

MEANING: Mapping[Obligation, str] = MappingProxyType(
    {
        O.CLAIM_IDENTITY: "every event about a claim names the claim and its owner",
        O.CACHE_IDENTITY: "model, revision, weights, tokenizer, KV layout, block size, salt and adapter are bound",
        O.OBJECT_IDENTITY: "the KV object and the exact tokens that it stands for are named",
        O.JOINABILITY: "the claim can be joined to the runtime's events before there is pressure",
        O.ACCEPTANCE: "somebody who can enforce it says yes, with terms, before anything else happens",
        O.PREDICATE: "what is useful is stated over logical positions and evaluated over what can be retrieved",
        O.ORDERED_LIFECYCLE: "the events of a claim come in an order that one authority vouches for",
        O.EVICTION_PREFERENCE: "under pressure the less important goes first",
        O.LOSS_REPORTING: "a loss is told, naming the claim",
        O.EXPIRY_ENFORCEMENT: "the claim is kept until its deadline and ends at it",
        O.RELEASE_BEFORE_LOSS: "release, expiry or demotion comes before the loss that it excuses",
        O.OFFLOAD_IDENTITY: "what was offloaded is named as the bytes of this claim",
        O.RESTORE_BEFORE_REUSE: "reuse happens only after the bytes came back",
        O.RESTORATION_FAILURE_OUTCOME: "a failed restoration becomes an outcome of this claim, not a silent recompute",
        O.SCOPED_OUTCOME: "an outcome names exactly the claims that it concerns",
        O.FEASIBILITY_CHECK: "protected and active blocks are weighed against capacity before admission",
        O.VICTIM_EXCLUSION: "protected blocks are not chosen as victims",
        O.CONFLICT_OUTCOME: "who loses to a claim is told which claims were in the way",
        O.ROUTE_BINDING: "the claim is bound to the worker that holds its blocks",
        O.ROUTE_OUTCOME: "the response says where it was served and whether the binding held",
    }
)

CORE: tuple[Obligation, ...] = (O.CLAIM_IDENTITY, O.CACHE_IDENTITY, O.OBJECT_IDENTITY, O.JOINABILITY)

_COMMON = (O.ACCEPTANCE, O.PREDICATE, O.ORDERED_LIFECYCLE)

BUNDLES: Mapping[Mode, tuple[Obligation, ...]] = MappingProxyType(
    {
        Mode.BEST_EFFORT: CORE,
        Mode.SOFT_PRIORITY: (*CORE, O.PREDICATE, O.ORDERED_LIFECYCLE, O.EVICTION_PREFERENCE, O.LOSS_REPORTING),
        Mode.EXPIRING: (*CORE, *_COMMON, O.EXPIRY_ENFORCEMENT, O.RELEASE_BEFORE_LOSS),
        Mode.DEMOTABLE: (*CORE, *_COMMON, O.RELEASE_BEFORE_LOSS, O.SCOPED_OUTCOME),
        Mode.OFFLOADABLE: (
            *CORE,
            *_COMMON,
            O.OFFLOAD_IDENTITY,
            O.RESTORE_BEFORE_REUSE,
            O.RESTORATION_FAILURE_OUTCOME,
            O.SCOPED_OUTCOME,
        ),
        Mode.HARD_PROTECTED: (
            *CORE,
            *_COMMON,
            O.FEASIBILITY_CHECK,
            O.VICTIM_EXCLUSION,
            O.CONFLICT_OUTCOME,
            O.RELEASE_BEFORE_LOSS,
            O.SCOPED_OUTCOME,
        ),
        Mode.ROUTED_REUSE: (*CORE, *_COMMON, O.ROUTE_BINDING, O.ROUTE_OUTCOME, O.SCOPED_OUTCOME),
    }
)
"""What each mode asks for, in the order in which a report names the first one that is missing."""

_LIMITS: Mapping[Mode, Mapping[Obligation, frozenset[Depth]]] = MappingProxyType(
    {
        Mode.BEST_EFFORT: {},
        Mode.SOFT_PRIORITY: {O.EVICTION_PREFERENCE: NOT_OBSERVE},
        Mode.EXPIRING: {O.ACCEPTANCE: ENFORCING, O.EXPIRY_ENFORCEMENT: ENFORCING},
        Mode.DEMOTABLE: {O.ACCEPTANCE: ENFORCING},
        # The table limits the last five; acceptance follows, because whoever accepts must be able to enforce.
        Mode.OFFLOADABLE: {
            O.ACCEPTANCE: ENFORCING,
            O.ORDERED_LIFECYCLE: ENFORCING,
            O.OFFLOAD_IDENTITY: ENFORCING,
            O.RESTORE_BEFORE_REUSE: ENFORCING,
            O.RESTORATION_FAILURE_OUTCOME: ENFORCING,
            O.SCOPED_OUTCOME: ENFORCING,
        },
        Mode.HARD_PROTECTED: {
            O.ACCEPTANCE: ENFORCING,
            O.FEASIBILITY_CHECK: ENFORCING,
            O.VICTIM_EXCLUSION: ENFORCING,
            O.CONFLICT_OUTCOME: ENFORCING,
            O.RELEASE_BEFORE_LOSS: ENFORCING,
            O.SCOPED_OUTCOME: ENFORCING,
        },
        # A router is where the route is enforced, so a policy in the router may also accept; an observer may not.
        Mode.ROUTED_REUSE: {O.ACCEPTANCE: NOT_OBSERVE, O.ROUTE_BINDING: NOT_OBSERVE, O.ROUTE_OUTCOME: NOT_OBSERVE},
    }
)

BEHAVIOURAL: frozenset[Obligation] = frozenset(Obligation) - frozenset(CORE) - {O.ACCEPTANCE, O.PREDICATE}
"""Obligations about what happens; only an audited trace or an experiment can show them (spec section 5)."""


def allowed_depths(obligation: Obligation, mode: Mode) -> frozenset[Depth]:
    """Return the depths at which `obligation` may be supplied for `mode`; empty when the mode does not ask for it.

    Source: spec section 4, last column of the table.
    """
    if obligation not in BUNDLES[mode]:
        return frozenset()
    return _LIMITS[mode].get(obligation, ANY_DEPTH)
