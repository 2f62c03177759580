"""The relation: verdicts, classes, reasons, and the three laws that it must keep."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from residentkv.claims.modes import Mode
from residentkv.lowering.depth import Depth
from residentkv.lowering.format import EvidenceKind, Polarity
from residentkv.lowering.obligations import BEHAVIOURAL, BUNDLES, Obligation, allowed_depths
from residentkv.lowering.relation import EvidenceClass, Exhibit, Standing, Status, Verdict, judge_row

VERIFIED = Standing("a", True, False, "verified", "pool.py Pool.evict is unchanged")
CHANGED = Standing("b", False, True, "changed", "pool.py Pool.evict changed")
UNREADABLE = Standing("c", False, False, "unreadable", "no copy of somertime was found")


def exhibit(
    obligation: Obligation,
    polarity: Polarity = Polarity.SUPPORTS,
    kind: EvidenceKind = EvidenceKind.TRACE,
    depth: Depth = Depth.NATIVE,
    standing: Standing = VERIFIED,
) -> Exhibit:
    source = "native" if depth is Depth.NATIVE else "adapter"
    return Exhibit(obligation, polarity, kind, depth, standing, source, "note", "d.yaml:1:1")


def full(mode: Mode, depth: Depth = Depth.NATIVE) -> list[Exhibit]:
    """Everything that a mode asks for, at a depth where it is allowed and else natively."""
    return [exhibit(o, depth=depth if depth in allowed_depths(o, mode) else Depth.NATIVE) for o in BUNDLES[mode]]


@pytest.mark.parametrize("mode", list(Mode))
def test_all_native_and_dynamic_is_native_sound(mode):
    """The checker can say yes."""
    verdict = judge_row(mode, Depth.NATIVE, full(mode))
    assert verdict.verdict is Verdict.NATIVE_SOUND
    assert verdict.evidence_class is EvidenceClass.NATIVE_CONFORMANCE
    assert verdict.first_open is None


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("dropped", range(4))
def test_no_core_obligation_can_be_left_out(mode, dropped):
    """Each of the four is needed in every mode."""
    evidence = full(mode)
    del evidence[dropped]
    verdict = judge_row(mode, Depth.NATIVE, evidence)
    assert verdict.verdict is Verdict.UNKNOWN
    assert verdict.first_open is not None
    assert verdict.first_open.obligation is BUNDLES[mode][dropped]
    assert verdict.first_open.status is Status.MISSING


def test_observational_support_is_adapter_observational():
    """The class follows the deepest support that was used."""
    verdict = judge_row(Mode.BEST_EFFORT, Depth.OBSERVE, full(Mode.BEST_EFFORT, Depth.OBSERVE))
    assert (verdict.verdict, verdict.evidence_class) == (
        Verdict.SOUND_WITH_ADAPTER,
        EvidenceClass.ADAPTER_OBSERVATIONAL,
    )


@pytest.mark.parametrize("depth", [Depth.POLICY, Depth.PLUGIN, Depth.PATCH])
def test_deeper_support_is_adapter_policy(depth):
    """Anything that acts on the runtime is deeper than observing."""
    verdict = judge_row(Mode.SOFT_PRIORITY, depth, full(Mode.SOFT_PRIORITY, depth))
    assert (verdict.verdict, verdict.evidence_class) == (Verdict.SOUND_WITH_ADAPTER, EvidenceClass.ADAPTER_POLICY)


def test_a_native_support_is_preferred_so_that_more_evidence_never_hurts():
    """A plugin that also shows what the runtime shows by itself does not take native_sound away."""
    evidence = [*full(Mode.OFFLOADABLE), *full(Mode.OFFLOADABLE, Depth.PLUGIN)]
    assert judge_row(Mode.OFFLOADABLE, Depth.PLUGIN, evidence).verdict is Verdict.NATIVE_SOUND


def test_an_observer_cannot_accept_for_the_runtime():
    """Bad lowering: everything is shown natively, only acceptance comes from telemetry."""
    for mode in (m for m in Mode if Obligation.ACCEPTANCE in BUNDLES[m]):
        evidence = [e for e in full(mode) if e.obligation is not Obligation.ACCEPTANCE]
        evidence.append(exhibit(Obligation.ACCEPTANCE, depth=Depth.OBSERVE))
        verdict = judge_row(mode, Depth.PATCH, evidence)
        assert not verdict.verdict.is_positive
        assert verdict.first_open is not None
        assert "whoever accepts must be able to enforce" in verdict.first_open.sentence


def test_a_policy_cannot_supply_what_needs_code_inside_the_runtime():
    """Hints and knobs enforce no restoration."""
    evidence = full(Mode.OFFLOADABLE, Depth.PLUGIN)
    turned = [
        dataclasses.replace(e, depth=Depth.POLICY) if e.obligation is Obligation.RESTORE_BEFORE_REUSE else e
        for e in evidence
    ]
    verdict = judge_row(Mode.OFFLOADABLE, Depth.PLUGIN, turned)
    assert verdict.verdict is Verdict.UNKNOWN
    assert "depth policy may not supply restore_before_reuse" in verdict.sentence


@pytest.mark.parametrize("kind", [EvidenceKind.SOURCE, EvidenceKind.DOC, EvidenceKind.TEST])
@pytest.mark.parametrize("obligation", sorted(BEHAVIOURAL))
def test_what_is_written_shows_no_behaviour(kind, obligation):
    """Bad lowering: source, documents and tests leave a behavioural obligation missing, however well verified."""
    mode = next(m for m in Mode if obligation in BUNDLES[m])
    evidence = [dataclasses.replace(e, kind=kind) if e.obligation is obligation else e for e in full(mode)]
    verdict = judge_row(mode, Depth.NATIVE, evidence)
    result = next(r for r in verdict.obligations if r.obligation is obligation)
    assert result.status is Status.MISSING
    assert f"cannot be shown by {kind}" in result.sentence
    assert not verdict.verdict.is_positive


def test_evidence_deeper_than_the_row_does_not_count():
    """A plugin's trace does not make the row of a policy."""
    evidence = full(Mode.SOFT_PRIORITY, Depth.PLUGIN)
    verdict = judge_row(Mode.SOFT_PRIORITY, Depth.POLICY, evidence)
    assert verdict.verdict is Verdict.UNKNOWN
    assert {r.status for r in verdict.obligations} == {Status.MISSING}
    assert "at depth plugin and the row is judged at depth policy" in verdict.sentence


def test_a_verified_contradiction_rejects_whatever_supports_there_are():
    """One verified contradiction outweighs a complete bundle."""
    evidence = [
        *full(Mode.HARD_PROTECTED),
        exhibit(Obligation.VICTIM_EXCLUSION, Polarity.CONTRADICTS, EvidenceKind.SOURCE),
    ]
    verdict = judge_row(Mode.HARD_PROTECTED, Depth.NATIVE, evidence)
    assert (verdict.verdict, verdict.evidence_class) == (Verdict.REJECTED, EvidenceClass.REJECTED_MAPPING)


@pytest.mark.parametrize("standing", [CHANGED, UNREADABLE])
def test_a_contradiction_that_cannot_be_verified_leaves_unknown(standing):
    """Losing sight of bad news is not good news."""
    bad = exhibit(Obligation.VICTIM_EXCLUSION, Polarity.CONTRADICTS, EvidenceKind.SOURCE, standing=standing)
    verdict = judge_row(Mode.HARD_PROTECTED, Depth.NATIVE, [*full(Mode.HARD_PROTECTED), bad])
    assert (verdict.verdict, verdict.evidence_class) == (Verdict.UNKNOWN, EvidenceClass.UNKNOWN_EVIDENCE)
    assert standing.sentence in verdict.sentence


def test_a_contradiction_deeper_than_the_row_does_not_reject_it():
    """What a plugin breaks is not the fault of the runtime as shipped."""
    bad = exhibit(Obligation.PREDICATE, Polarity.CONTRADICTS, depth=Depth.PLUGIN)
    assert judge_row(Mode.OFFLOADABLE, Depth.NATIVE, [*full(Mode.OFFLOADABLE), bad]).verdict is Verdict.NATIVE_SOUND
    assert judge_row(Mode.OFFLOADABLE, Depth.PLUGIN, [*full(Mode.OFFLOADABLE), bad]).verdict is Verdict.REJECTED


@pytest.mark.parametrize("standing", [CHANGED, UNREADABLE])
def test_unverified_support_leaves_unknown_and_says_why(standing):
    """Unverified evidence never supports."""
    evidence = [
        dataclasses.replace(e, standing=standing) if e.obligation is Obligation.PREDICATE else e
        for e in full(Mode.OFFLOADABLE)
    ]
    verdict = judge_row(Mode.OFFLOADABLE, Depth.NATIVE, evidence)
    assert verdict.verdict is Verdict.UNKNOWN
    assert verdict.first_open is not None
    assert verdict.first_open.status is Status.UNKNOWN
    assert standing.sentence in verdict.sentence


def test_missing_obligations_with_something_like_it_are_approximate():
    """A verified resemblance describes; it does not promise."""
    verdict = judge_row(Mode.OFFLOADABLE, Depth.NATIVE, (), related=[VERIFIED, UNREADABLE])
    assert (verdict.verdict, verdict.evidence_class) == (Verdict.APPROXIMATE, EvidenceClass.APPROXIMATION_SUBSTRATE)
    assert not verdict.verdict.is_positive
    assert judge_row(Mode.OFFLOADABLE, Depth.NATIVE, ()).verdict is Verdict.UNKNOWN
    assert judge_row(Mode.OFFLOADABLE, Depth.NATIVE, (), related=[UNREADABLE]).verdict is Verdict.UNKNOWN


def test_a_resemblance_that_has_changed_is_unknown():
    """What the descriptor says about it was said about another text."""
    verdict = judge_row(Mode.OFFLOADABLE, Depth.NATIVE, (), related=[VERIFIED, CHANGED])
    assert verdict.verdict is Verdict.UNKNOWN
    assert CHANGED.sentence in verdict.sentence


@pytest.mark.parametrize("standing", [CHANGED, UNREADABLE])
def test_a_primitive_that_cannot_be_seen_is_unknown_even_with_all_evidence(standing):
    """The row is about what the anchors show; if that is not here, the verdict is not about this machine."""
    verdict = judge_row(Mode.OFFLOADABLE, Depth.NATIVE, full(Mode.OFFLOADABLE), basis=[VERIFIED, standing])
    assert verdict.verdict is Verdict.UNKNOWN
    assert standing.sentence in verdict.sentence


OBLIGATIONS = st.sampled_from(list(Obligation))
STANDINGS = st.sampled_from([VERIFIED, CHANGED, UNREADABLE])
EXHIBITS = st.builds(
    exhibit,
    OBLIGATIONS,
    st.sampled_from([Polarity.SUPPORTS] * 4 + [Polarity.CONTRADICTS]),
    st.sampled_from([EvidenceKind.TRACE, EvidenceKind.SOURCE, EvidenceKind.DOC]),
    st.sampled_from(list(Depth)),
    STANDINGS,
)


@st.composite
def cases(draw):
    """A row that often is positive: a complete bundle, thinned out, and some of everything on top."""
    mode = draw(st.sampled_from(list(Mode)))
    depth = draw(st.sampled_from(list(Depth)))
    bundle = full(mode, draw(st.sampled_from(list(Depth))))
    dropped = draw(st.sets(st.integers(0, len(bundle) - 1), max_size=2))
    kept = [e for n, e in enumerate(bundle) if n not in dropped]
    return mode, depth, kept + draw(st.lists(EXHIBITS, max_size=8)), draw(st.lists(STANDINGS, max_size=2))


@given(cases(), st.data())
def test_taking_supporting_evidence_away_never_improves_a_verdict(case, data):
    """For every subset of the supporting statements."""
    mode, depth, evidence, related = case
    before = judge_row(mode, depth, evidence, related=related).verdict
    supports = [n for n, e in enumerate(evidence) if e.polarity is Polarity.SUPPORTS]
    gone = data.draw(st.sets(st.sampled_from(supports))) if supports else set()
    rest = [e for n, e in enumerate(evidence) if n not in gone]
    assert judge_row(mode, depth, rest, related=related).verdict.rank <= before.rank


@given(cases(), st.data(), STANDINGS.filter(lambda s: not s.is_verified))
def test_losing_sight_of_any_anchor_never_improves_a_verdict(case, data, lost):
    """Also of one that a contradiction leans on: deleting the package does not make a row positive."""
    mode, depth, evidence, related = case
    before = judge_row(mode, depth, evidence, related=related).verdict
    gone = data.draw(st.sets(st.integers(0, len(evidence) - 1))) if evidence else set()
    rest = [dataclasses.replace(e, standing=lost) if n in gone else e for n, e in enumerate(evidence)]
    assert judge_row(mode, depth, rest, related=related).verdict.rank <= before.rank


@given(cases(), st.data())
def test_order_and_repetition_of_evidence_change_nothing(case, data):
    """The whole result is equal, not only the verdict."""
    mode, depth, evidence, related = case
    shuffled = data.draw(st.permutations(evidence)) + data.draw(
        st.lists(st.sampled_from(evidence)) if evidence else st.just([])
    )
    again = data.draw(st.permutations(related))
    assert judge_row(mode, depth, evidence, related=related) == judge_row(mode, depth, shuffled, related=again)


@given(cases())
def test_a_positive_verdict_rests_on_verified_allowed_dynamic_support_alone(case):
    """What the relation says yes to is exactly the formula of spec section 5."""
    mode, depth, evidence, related = case
    verdict = judge_row(mode, depth, evidence, related=related)
    scope = [e for e in evidence if e.depth.within(depth)]
    sound = all(
        any(
            e.obligation is o
            and e.polarity is Polarity.SUPPORTS
            and e.standing.is_verified
            and e.depth in allowed_depths(o, mode)
            and (o not in BEHAVIOURAL or e.kind in (EvidenceKind.TRACE, EvidenceKind.EXPERIMENT))
            for e in scope
        )
        and not any(e.obligation is o and e.polarity is Polarity.CONTRADICTS for e in scope)
        for o in BUNDLES[mode]
    )
    assert verdict.verdict.is_positive == sound
    contradicted = any(
        e.obligation in BUNDLES[mode] and e.polarity is Polarity.CONTRADICTS and e.standing.is_verified for e in scope
    )
    assert (verdict.verdict is Verdict.REJECTED) == contradicted
