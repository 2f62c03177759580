"""The lifecycle against an independent table: every state times every step."""

from __future__ import annotations

import itertools

import pytest

from residentkv.claims import lifecycle
from residentkv.claims.lifecycle import OPEN, OUTCOMES, TERMINAL, UNDECIDED, IllegalTransition, State, Step, advance
from residentkv.errors import ResidentKVError

# Written from the spec, not from the code: "from step -> to" in words, a state a line or two.
LEGAL = """
submitted: accept>accepted clip>accepted defer>deferred reject>rejected
deferred: accept>accepted clip>accepted reject>rejected
accepted: materialize>materialized release>released expire>expired demote>demoted
materialized: offload>offloaded release>released expire>expired demote>demoted harm>harmed
offloaded: offload>offloaded require_restore>restore_required release>released expire>expired demote>demoted harm>harmed
restore_required: restore>restored fail_restore>restoration_failed release>released expire>expired
restore_required: demote>demoted harm>harmed
restored: offload>offloaded release>released expire>expired demote>demoted harm>harmed
restoration_failed: offload>offloaded release>released expire>expired demote>demoted harm>harmed
rejected:
released:
expired:
demoted:
harmed:
"""

# The kind of every mistake, likewise from the spec: state -> step -> error.
MISTAKES = {
    "submitted": {"*": "NotAccepted"},
    "deferred": {"*": "NotAccepted", "defer": "AlreadyDeferred"},
    "accepted": {"accept clip defer reject": "AlreadyDecided", "*": "NotMaterialized"},
    "materialized": {
        "accept clip defer reject": "AlreadyDecided",
        "materialize": "AlreadyMaterialized",
        "require_restore": "NotOffloaded",
        "restore fail_restore": "NoRestorePending",
    },
    "offloaded": {
        "accept clip defer reject": "AlreadyDecided",
        "materialize": "AlreadyMaterialized",
        "restore fail_restore": "NoRestorePending",
    },
    "restore_required": {
        "accept clip defer reject": "AlreadyDecided",
        "materialize": "AlreadyMaterialized",
        "offload require_restore": "RestorePending",
    },
    "rejected": {"*": "AlreadyEnded"},
    "released": {"*": "AlreadyEnded"},
    "expired": {"*": "AlreadyEnded"},
    "demoted": {"*": "AlreadyEnded"},
    "harmed": {"*": "AlreadyEnded"},
}
MISTAKES["restored"] = MISTAKES["restoration_failed"] = MISTAKES["materialized"]


def legal_table() -> dict[tuple[str, str], str]:
    table = {}
    for line in LEGAL.strip().splitlines():
        state, _, moves = line.partition(":")
        for move in moves.split():
            step, _, after = move.partition(">")
            table[state, step] = after
    return table


def mistake(state: str, step: str) -> str:
    for steps, name in MISTAKES[state].items():
        if step in steps.split():
            return name
    return MISTAKES[state]["*"]


@pytest.mark.parametrize(("state", "step"), list(itertools.product(State, Step)), ids=lambda x: x.value)
def test_every_state_and_step_is_either_the_spec_transition_or_a_named_error(state: State, step: Step) -> None:
    """A step goes where the spec says, or raises the one error class that names the mistake and what is allowed."""
    after = legal_table().get((state.value, step.value))
    if after is not None:
        assert advance(state, step) is State(after)
        return
    with pytest.raises(IllegalTransition) as caught:
        advance(state, step)
    assert type(caught.value) is getattr(lifecycle, mistake(state.value, step.value))
    assert caught.value.state is state and caught.value.step is step
    assert caught.value.slug in str(caught.value) and state.value in str(caught.value)


def test_the_table_covers_every_state() -> None:
    """No state can be added without a line in the spec table."""
    assert {line.partition(":")[0] for line in LEGAL.strip().splitlines()} == {s.value for s in State}
    assert set(lifecycle.TRANSITIONS) == set(State)


def test_error_classes_have_distinct_slugs_and_one_root() -> None:
    """Every mistake can be told by its slug, and all are ResidentKVErrors."""
    classes = IllegalTransition.__subclasses__()
    slugs = [c.slug for c in classes]
    assert len(set(slugs)) == len(slugs) == 9
    assert "illegal-transition" not in slugs
    assert issubclass(IllegalTransition, ResidentKVError)


def test_every_walk_ends_in_at_most_one_terminal_state() -> None:
    """Whatever the order of steps, a claim gets one decision and one outcome, and nothing follows the outcome."""
    seen = {State.SUBMITTED}
    edge = [State.SUBMITTED]
    while edge:
        state = edge.pop()
        for after in lifecycle.TRANSITIONS[state].values():
            if after not in seen:
                seen.add(after)
                edge.append(after)
    assert seen == set(State), "every state can be reached"
    assert all(not lifecycle.TRANSITIONS[s] for s in TERMINAL)
    assert OUTCOMES < TERMINAL and not OPEN & (TERMINAL | UNDECIDED) and set(State) == OPEN | TERMINAL | UNDECIDED


def test_a_claim_that_never_materialized_cannot_be_harmed() -> None:
    """Before the predicate held there is nothing to lose: it can be let go, not harmed."""
    with pytest.raises(lifecycle.NotMaterialized, match="allowed from there: demote, expire, materialize, release"):
        advance(State.ACCEPTED, Step.HARM)


def test_error_of_an_ended_claim_says_that_nothing_is_allowed() -> None:
    """The message does not list an empty set of steps."""
    with pytest.raises(lifecycle.AlreadyEnded, match="nothing: it has its outcome"):
        advance(State.RELEASED, Step.EXPIRE)
