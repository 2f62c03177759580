"""The ordered lifecycle of a claim as a pure transition function (spec section 2).

    submitted -> accepted | clipped | deferred | rejected
    accepted -> materialized -> (offloaded -> restore_required -> restored | restoration_failed)*
             -> exactly one of released | expired | demoted | harmed

Every restore cycle begins with `offloaded`, which says again what the tier can give back; after a failed
restoration that sentence has to be said anew, since the failure put the copy in doubt. See docs/adr/0002.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from residentkv.errors import ResidentKVError


class State(StrEnum):
    """Where a claim stands."""

    SUBMITTED = "submitted"
    DEFERRED = "deferred"
    REJECTED = "rejected"
    ACCEPTED = "accepted"
    MATERIALIZED = "materialized"
    OFFLOADED = "offloaded"
    RESTORE_REQUIRED = "restore_required"
    RESTORED = "restored"
    RESTORATION_FAILED = "restoration_failed"
    RELEASED = "released"
    EXPIRED = "expired"
    DEMOTED = "demoted"
    HARMED = "harmed"


class Step(StrEnum):
    """What can happen to a claim."""

    ACCEPT = "accept"
    CLIP = "clip"
    DEFER = "defer"
    REJECT = "reject"
    MATERIALIZE = "materialize"
    OFFLOAD = "offload"
    REQUIRE_RESTORE = "require_restore"
    RESTORE = "restore"
    FAIL_RESTORE = "fail_restore"
    RELEASE = "release"
    EXPIRE = "expire"
    DEMOTE = "demote"
    HARM = "harm"


OUTCOMES = frozenset({State.RELEASED, State.EXPIRED, State.DEMOTED, State.HARMED})
TERMINAL = OUTCOMES | {State.REJECTED}
UNDECIDED = frozenset({State.SUBMITTED, State.DEFERRED})
OPEN = frozenset(State) - TERMINAL - UNDECIDED

_DECIDE = {
    Step.ACCEPT: State.ACCEPTED,
    Step.CLIP: State.ACCEPTED,
    Step.REJECT: State.REJECTED,
}
_EXCUSE = {Step.RELEASE: State.RELEASED, Step.EXPIRE: State.EXPIRED, Step.DEMOTE: State.DEMOTED}
_END = {**_EXCUSE, Step.HARM: State.HARMED}

TRANSITIONS: dict[State, dict[Step, State]] = {
    State.SUBMITTED: {**_DECIDE, Step.DEFER: State.DEFERRED},
    State.DEFERRED: dict(_DECIDE),
    State.ACCEPTED: {**_EXCUSE, Step.MATERIALIZE: State.MATERIALIZED},
    State.MATERIALIZED: {**_END, Step.OFFLOAD: State.OFFLOADED},
    State.OFFLOADED: {**_END, Step.OFFLOAD: State.OFFLOADED, Step.REQUIRE_RESTORE: State.RESTORE_REQUIRED},
    State.RESTORE_REQUIRED: {
        **_END,
        Step.RESTORE: State.RESTORED,
        Step.FAIL_RESTORE: State.RESTORATION_FAILED,
    },
    State.RESTORED: {**_END, Step.OFFLOAD: State.OFFLOADED},
    State.RESTORATION_FAILED: {**_END, Step.OFFLOAD: State.OFFLOADED},
    **{state: {} for state in TERMINAL},
}


class IllegalTransition(ResidentKVError):
    """A step that the lifecycle does not allow; subclasses name the kind of mistake."""

    slug = "illegal-transition"

    def __init__(self, state: State, step: Step | Literal["renew"]) -> None:
        self.state = state
        self.step = step
        allowed = ", ".join(sorted(TRANSITIONS[state])) or "nothing: it has its outcome"
        super().__init__(f"{self.slug}: {step} from {state.value}; allowed from there: {allowed}")


class NotAccepted(IllegalTransition):
    """The step needs an accepted claim and this one was never accepted."""

    slug = "not-accepted"


class AlreadyDecided(IllegalTransition):
    """The claim was decided before; a decision is given once."""

    slug = "already-decided"


class AlreadyDeferred(IllegalTransition):
    """The decision is already open; it can only be closed."""

    slug = "already-deferred"


class AlreadyEnded(IllegalTransition):
    """The claim has its one terminal outcome; nothing may follow it."""

    slug = "already-ended"


class NotMaterialized(IllegalTransition):
    """The claim was accepted but its predicate never held, so there is nothing to offload or to lose."""

    slug = "not-materialized"


class AlreadyMaterialized(IllegalTransition):
    """Materialization is said once; later growth is not a new promise."""

    slug = "already-materialized"


class NotOffloaded(IllegalTransition):
    """A restoration was required although no copy was said to be in the offload tier in this cycle."""

    slug = "not-offloaded"


class NoRestorePending(IllegalTransition):
    """A restoration ended that was never required, or that had ended before."""

    slug = "no-restore-pending"


class RestorePending(IllegalTransition):
    """A new cycle began while the restoration of the last one was still open."""

    slug = "restore-pending"


def _classify(state: State, step: Step) -> type[IllegalTransition]:
    if state in TERMINAL:
        return AlreadyEnded
    if state in UNDECIDED:
        return AlreadyDeferred if step is Step.DEFER else NotAccepted
    if step in (Step.ACCEPT, Step.CLIP, Step.REJECT, Step.DEFER):
        return AlreadyDecided
    if step is Step.MATERIALIZE:
        return AlreadyMaterialized
    if state is State.ACCEPTED:
        return NotMaterialized
    if state is State.RESTORE_REQUIRED:
        return RestorePending
    if step is Step.REQUIRE_RESTORE:
        return NotOffloaded
    return NoRestorePending


def advance(state: State, step: Step) -> State:
    """Return the state after `step`.

    Raises:
        IllegalTransition: the subclass names the mistake; the state is unchanged.
    """
    after = TRANSITIONS[state].get(step)
    if after is None:
        raise _classify(state, step)(state, step)
    return after
