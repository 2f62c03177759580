"""The lifecycle as tables of small integers, computed from `claims.lifecycle.advance`, for the hot path.

`advance` stays the one definition; a step that a table refuses is asked again there, for the mistake by name.
"""

from __future__ import annotations

from residentkv.claims.lifecycle import OPEN, IllegalTransition, State, Step, advance

STATES: tuple[State, ...] = tuple(State)
INDEX: dict[State, int] = {state: i for i, state in enumerate(STATES)}

SUBMITTED = INDEX[State.SUBMITTED]
DEFERRED = INDEX[State.DEFERRED]
REJECTED = INDEX[State.REJECTED]
ACCEPTED = INDEX[State.ACCEPTED]
MATERIALIZED = INDEX[State.MATERIALIZED]
OFFLOADED = INDEX[State.OFFLOADED]
RESTORE_REQUIRED = INDEX[State.RESTORE_REQUIRED]
RESTORED = INDEX[State.RESTORED]
RESTORATION_FAILED = INDEX[State.RESTORATION_FAILED]
RELEASED = INDEX[State.RELEASED]
EXPIRED = INDEX[State.EXPIRED]
DEMOTED = INDEX[State.DEMOTED]
HARMED = INDEX[State.HARMED]

IS_OPEN: tuple[bool, ...] = tuple(state in OPEN for state in STATES)


class Move:
    """One step: `table[state]` is the state after it, or -1; `target` is where it leads when it is legal at all."""

    __slots__ = ("step", "table", "target")

    def __init__(self, step: Step) -> None:
        self.step = step
        row = []
        for state in STATES:
            try:
                row.append(INDEX[advance(state, step)])
            except IllegalTransition:
                row.append(-1)
        self.table = tuple(row)
        self.target = max(self.table)


DEFER = Move(Step.DEFER)
REJECT = Move(Step.REJECT)
MATERIALIZE = Move(Step.MATERIALIZE)
OFFLOAD = Move(Step.OFFLOAD)
REQUIRE_RESTORE = Move(Step.REQUIRE_RESTORE)
RESTORE = Move(Step.RESTORE)
FAIL_RESTORE = Move(Step.FAIL_RESTORE)
RELEASE = Move(Step.RELEASE)
EXPIRE = Move(Step.EXPIRE)
DEMOTE = Move(Step.DEMOTE)
HARM = Move(Step.HARM)


def mistake(state: int, move: Move) -> IllegalTransition:
    """Return the named mistake that `advance` makes of this step.

    Raises:
        ValueError: the step is legal.
    """
    try:
        advance(STATES[state], move.step)
    except IllegalTransition as e:
        return e
    raise ValueError(f"{move.step.value} from {STATES[state].value} is legal")
