"""The codes of what the suite can find."""

from __future__ import annotations

from typing import Final, NamedTuple


class SuiteRule(NamedTuple):
    """One way in which the suite fails."""

    code: str
    slug: str
    title: str
    checks: str
    why: str
    next_step: str


NOT_REFUSED: Final = SuiteRule(
    "RKV301",
    "bad-lowering-not-refused",
    "A bad lowering is not refused for its own reason, or its repaired twin is refused",
    "verdict, reason and open obligations of the case, and that its twin passes",
    "a checker that accepts what is known to be wrong cannot be believed elsewhere",
    "see all of it with 'residentkv suite --case SLUG'",
)
SURVIVED: Final = SuiteRule(
    "RKV302",
    "mutant-survived",
    "A changed input that should be worse is judged as before",
    "every small change of everything positive",
    "what nothing notices is not checked",
    "file it: the survivor names the input and the change",
)

SUITE_RULES: Final = (NOT_REFUSED, SURVIVED)
