"""The table of spec section 4, written out a second time."""

from __future__ import annotations

import pytest

from residentkv.claims.modes import Mode
from residentkv.errors import UsageError
from residentkv.lowering.depth import Depth
from residentkv.lowering.obligations import BEHAVIOURAL, BUNDLES, CORE, MEANING, Obligation, allowed_depths

ANY = set(Depth)
ENFORCING = {Depth.NATIVE, Depth.PLUGIN, Depth.PATCH}
NOT_OBSERVE = {Depth.NATIVE, Depth.POLICY, Depth.PLUGIN, Depth.PATCH}

TABLE = {
    "best_effort": "",
    "soft_priority": "predicate ordered_lifecycle eviction_preference loss_reporting",
    "expiring": "acceptance predicate ordered_lifecycle expiry_enforcement release_before_loss",
    "demotable": "acceptance predicate ordered_lifecycle release_before_loss scoped_outcome",
    "offloadable": "acceptance predicate ordered_lifecycle offload_identity restore_before_reuse"
    " restoration_failure_outcome scoped_outcome",
    "hard_protected": "acceptance predicate ordered_lifecycle feasibility_check victim_exclusion conflict_outcome"
    " release_before_loss scoped_outcome",
    "routed_reuse": "acceptance predicate ordered_lifecycle route_binding route_outcome scoped_outcome",
}

LIMITED = {
    "best_effort": {},
    "soft_priority": {"eviction_preference": NOT_OBSERVE},
    "expiring": {"acceptance": ENFORCING, "expiry_enforcement": ENFORCING},
    "demotable": {"acceptance": ENFORCING},
    "offloadable": {
        "acceptance": ENFORCING,
        "ordered_lifecycle": ENFORCING,
        "offload_identity": ENFORCING,
        "restore_before_reuse": ENFORCING,
        "restoration_failure_outcome": ENFORCING,
        "scoped_outcome": ENFORCING,
    },
    "hard_protected": {
        "acceptance": ENFORCING,
        "feasibility_check": ENFORCING,
        "victim_exclusion": ENFORCING,
        "conflict_outcome": ENFORCING,
        "release_before_loss": ENFORCING,
        "scoped_outcome": ENFORCING,
    },
    "routed_reuse": {"acceptance": NOT_OBSERVE, "route_binding": NOT_OBSERVE, "route_outcome": NOT_OBSERVE},
}


@pytest.mark.parametrize("mode", list(Mode))
def test_bundle_is_the_core_and_what_the_table_adds(mode):
    """Every bundle begins with the four core obligations."""
    assert tuple(o.value for o in BUNDLES[mode]) == (*(o.value for o in CORE), *TABLE[mode].split())
    assert [o.value for o in CORE] == ["claim_identity", "cache_identity", "object_identity", "joinability"]


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("obligation", list(Obligation))
def test_allowed_depths_are_those_of_the_table(mode, obligation):
    """What the table does not limit may be supplied at any depth; what a mode does not ask for, at none."""
    if obligation in BUNDLES[mode]:
        assert allowed_depths(obligation, mode) == LIMITED[mode].get(obligation.value, ANY)
    else:
        assert allowed_depths(obligation, mode) == set()


@pytest.mark.parametrize("mode", [m for m in Mode if Obligation.ACCEPTANCE in BUNDLES[m]])
def test_an_observer_accepts_in_no_mode(mode):
    """Whoever accepts must be able to enforce."""
    assert Depth.OBSERVE not in allowed_depths(Obligation.ACCEPTANCE, mode)


def test_behavioural_is_everything_but_core_acceptance_and_predicate():
    """Spec section 5."""
    static = {*CORE, Obligation.ACCEPTANCE, Obligation.PREDICATE}
    assert static.isdisjoint(BEHAVIOURAL)
    assert static | BEHAVIOURAL == set(Obligation)
    assert set(MEANING) == set(Obligation)


def test_depths_are_ordered_from_native_to_patch():
    """Order is by reach, not by spelling."""
    assert sorted(Depth, key=lambda d: d.rank) == list(Depth)
    assert [d.value for d in Depth] == ["native", "observe", "policy", "plugin", "patch"]
    assert Depth.POLICY.within(Depth.PLUGIN)
    assert not Depth.PLUGIN.within(Depth.POLICY)


def test_an_unknown_obligation_names_the_nearest():
    """Errors help."""
    with pytest.raises(UsageError, match="did you mean 'victim_exclusion'"):
        Obligation.parse("victim_exlusion")
