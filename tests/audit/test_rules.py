"""Every rule with a trace that keeps it, one that breaks it, one that leaves it open; and what rules must declare."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from residentkv.audit import AuditReport, Rule, Verdict, audit_events
from residentkv.audit.rules import BY_CODE, FAMILIES, RULES
from residentkv.errors import InputError
from residentkv.lowering.obligations import Obligation
from residentkv.trace import events as ev
from tests.audit.fixtures import CASES, VIOLATED_ELSEWHERE, broken_text, undecided_text
from tests.audit.notation import trace

ONLY_INCONCLUSIVE = [r for r in RULES if r.verdict is Verdict.INCONCLUSIVE]
CAN_VIOLATE = [r for r in RULES if r.verdict is Verdict.VIOLATING]


def chunks_of(text: str) -> Iterator[list[ev.Event]]:
    """One event a chunk; the line `torn` ends the text as a reader does that finds a torn line."""
    before, torn, _ = text.partition("torn")
    for event in trace(before):
        yield [event]
    if torn:
        raise InputError("torn last line", path="t.jsonl", line=9, code="RKV108")


def audit(text: str) -> AuditReport:
    return audit_events(chunks_of(text))


def found(report: AuditReport, code: str, verdict: Verdict) -> bool:
    return any(f.code == code and f.verdict is verdict for f in report.all_findings())


def told(report: AuditReport) -> str:
    return "\n".join(f"{f.code} {f.verdict} {f.story}" for f in report.all_findings())


def by_slug(rules: list[Rule]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("rule", rules, ids=lambda r: r.slug)


def test_every_rule_has_its_three_traces():
    """A rule without fixtures fails here, and so does a fixture without a rule."""
    assert set(CASES) == set(BY_CODE)


@by_slug(list(RULES))
def test_the_conforming_trace_of_a_rule_conforms(rule):
    """The story that the rule is about, told as it should be."""
    report = audit(CASES[rule.code].conforming)
    assert report.verdict is Verdict.CONFORMING, told(report)


@by_slug(CAN_VIOLATE)
def test_breaking_a_rule_is_a_violation(rule):
    """One edit of the conforming story breaks the rule; the finding is of this rule."""
    report = audit(broken_text(CASES[rule.code]))
    assert report.verdict is Verdict.VIOLATING, told(report)
    assert found(report, rule.code, Verdict.VIOLATING), told(report)


@by_slug(CAN_VIOLATE)
def test_a_broken_rule_behind_a_gap_is_inconclusive(rule):
    """The same trace with events missing before the place: what is missing may be the excuse."""
    report = audit(undecided_text(CASES[rule.code]))
    assert report.verdict is Verdict.INCONCLUSIVE, told(report)
    assert found(report, rule.code, Verdict.INCONCLUSIVE), told(report)


@by_slug(ONLY_INCONCLUSIVE)
def test_what_cannot_be_judged_is_inconclusive(rule):
    """Rules about what a trace leaves open never violate and never pass."""
    report = audit(broken_text(CASES[rule.code]))
    assert report.verdict is Verdict.INCONCLUSIVE, told(report)
    assert found(report, rule.code, Verdict.INCONCLUSIVE), told(report)


@by_slug([r for r in ONLY_INCONCLUSIVE if r.code not in ("RKV200", "RKV210", "RKV211", "RKV212", "RKV213")])
def test_what_cannot_be_judged_hides_no_violation(rule):
    """Another source of the same trace breaks a promise: the trace is violating, and the open question stays open."""
    broken = broken_text(CASES[rule.code])
    report = audit(VIOLATED_ELSEWHERE + "@scheduler\n" + broken)
    assert report.verdict is Verdict.VIOLATING, told(report)
    assert found(report, rule.code, Verdict.INCONCLUSIVE), told(report)


@by_slug([BY_CODE[c] for c in ("RKV210", "RKV211", "RKV212", "RKV213")])
def test_a_trace_without_claims_gets_its_reason_only_while_it_has_none(rule):
    """With a broken claim in another source the trace is violating, and it is no longer a trace without claims."""
    report = audit(VIOLATED_ELSEWHERE + "@scheduler\n" + broken_text(CASES[rule.code]))
    assert report.verdict is Verdict.VIOLATING, told(report)
    assert not any(f.code == rule.code for f in report.all_findings()), told(report)


def test_a_violation_before_a_gap_stays_a_violation():
    """What the events before a break show does not become doubtful by what is missing later."""
    report = audit(broken_text(CASES["RKV244"]).replace("    end r2\n", "    end r2\n    skip\n"))
    assert report.verdict is Verdict.VIOLATING, told(report)


def test_codes_and_slugs_are_unique():
    """A code or slug names one rule for ever."""
    assert len({r.code for r in RULES}) == len(RULES) == len({r.slug for r in RULES})
    assert sum(len(rules) for _, rules in FAMILIES) == len(RULES)


@by_slug(list(RULES))
def test_a_rule_declares_what_a_reader_needs(rule):
    """Title, what it checks, why, when it is inconclusive, where it comes from; and only real obligations."""
    assert rule.code.startswith("RKV2") and len(rule.code) == 6
    for text in (rule.title, rule.checks, rule.why, rule.inconclusive_when, rule.source):
        assert len(text) > 10
    assert set(rule.contradicts) <= {o.value for o in Obligation}
    assert bool(rule.contradicts) is (rule.verdict is Verdict.VIOLATING)


@by_slug(list(RULES))
def test_a_finding_points_at_events(rule):
    """A finding without a place cannot be looked up; only findings about whole files have none."""
    report = audit(broken_text(CASES[rule.code]))
    for finding in report.all_findings():
        assert finding.story
        if finding.code not in ("RKV200", "RKV201", "RKV209", "RKV210", "RKV211", "RKV213"):
            assert finding.seqs, finding
