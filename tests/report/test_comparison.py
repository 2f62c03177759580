"""Two judgements side by side: what is better, worse, different, new or gone."""

from __future__ import annotations

from residentkv.claims.modes import Mode
from residentkv.lowering.depth import Depth
from residentkv.lowering.obligations import Obligation
from residentkv.lowering.relation import EvidenceClass, Status, Verdict
from residentkv.report.comparison import Change, PastObligation, PastRow, change_of


def row(verdict: Verdict, status: Status = Status.MISSING) -> PastRow:
    return PastRow(
        "somertime",
        "1.4",
        "lru",
        Mode.EXPIRING,
        Depth.NATIVE,
        verdict,
        EvidenceClass.UNKNOWN_EVIDENCE,
        (PastObligation(Obligation.ACCEPTANCE, status),),
    )


def test_only_positive_verdicts_are_ranked() -> None:
    """Losing a positive verdict is worse, gaining one is better, and moving between ways of saying no is neither."""
    sound, helped = row(Verdict.NATIVE_SOUND), row(Verdict.SOUND_WITH_ADAPTER)
    rejected, unknown, approximate = row(Verdict.REJECTED), row(Verdict.UNKNOWN), row(Verdict.APPROXIMATE)
    for no in (rejected, unknown, approximate):
        assert change_of(sound, no) is change_of(helped, no) is Change.WORSE
        assert change_of(no, sound) is change_of(no, helped) is Change.BETTER
    assert change_of(sound, helped) is Change.WORSE
    assert change_of(rejected, approximate) is change_of(unknown, rejected) is Change.DIFFERENT


def test_the_same_verdict_for_another_reason_is_different() -> None:
    """An obligation that moved is told although the verdict stayed; nothing moved is no change."""
    assert change_of(row(Verdict.UNKNOWN), row(Verdict.UNKNOWN)) is None
    assert change_of(row(Verdict.UNKNOWN), row(Verdict.UNKNOWN, Status.UNKNOWN)) is Change.DIFFERENT


def test_a_positive_row_that_is_gone_is_worse() -> None:
    """Taking a row away must not look like no loss; a row that nobody could count on is only gone."""
    assert change_of(row(Verdict.SOUND_WITH_ADAPTER), None) is Change.WORSE
    assert change_of(row(Verdict.REJECTED), None) is Change.GONE
    assert change_of(None, row(Verdict.NATIVE_SOUND)) is Change.ADDED
