"""Every rule that has a code, from where it is declared, in one form: for `rules`, `explain`, SARIF and the docs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from residentkv.audit.evidence import NOT_EVIDENCE
from residentkv.audit.model import Rule, Verdict
from residentkv.audit.rules import FAMILIES
from residentkv.claims.codes import CLAIM_RULES
from residentkv.errors import UsageError, near
from residentkv.lowering.codes import ROW_RULES, RowRule
from residentkv.report.codes import STATEMENT_RULES
from residentkv.suite.codes import SUITE_RULES
from residentkv.trace.codes import INPUT_RULES


@dataclass(frozen=True, slots=True)
class CataloguedRule:
    """One rule as a reader meets it; what does not apply to its kind is empty.

    `worst` is `violated` when a finding of it can be a violation, else `unknown`.
    """

    code: str
    slug: str
    family: str
    title: str
    checks: str
    why: str
    worst: str
    required_order: tuple[str, ...] = ()
    contradicts: tuple[str, ...] = ()
    inconclusive_when: str = ""
    next_step: str = ""
    source: str = ""

    def facts(self) -> Iterator[tuple[str, str]]:
        """Yield what is known of the rule, as label and sentence, in the order in which a reader wants it."""
        yield "checks", self.checks
        yield "why", self.why
        if self.required_order:
            yield "order", " -> ".join(self.required_order)
        if self.contradicts and self.worst == "violated":
            yield "a violation contradicts", ", ".join(self.contradicts)
        if self.inconclusive_when:
            yield "inconclusive", self.inconclusive_when
        if self.next_step:
            yield "next", self.next_step
        if self.source:
            yield "source", self.source


@cache
def all_rules() -> tuple[CataloguedRule, ...]:
    """Return every rule, by code."""
    found: list[CataloguedRule] = []
    for claim_rule in CLAIM_RULES:
        found.append(
            CataloguedRule(
                claim_rule.code,
                claim_rule.slug,
                "Claims as they are submitted",
                claim_rule.title,
                claim_rule.checks,
                claim_rule.why,
                "unknown",
                next_step=claim_rule.next_step,
                source="spec section 2",
            )
        )
    for input_rule in (*INPUT_RULES, NOT_EVIDENCE):
        found.append(
            CataloguedRule(
                input_rule.code,
                input_rule.slug,
                "Traces and evidence as input",
                _sentence(input_rule.meaning),
                "the whole file, before anything else",
                "what cannot be read might have been the broken promise",
                "unknown",
                inconclusive_when="always when it is found; what the lines before show stays",
                source="spec section 6",
            )
        )
    found.extend(_row_rule(rule) for rule in ROW_RULES)
    for family, rules in FAMILIES:
        found.extend(_audit_rule(family, rule) for rule in rules)
    for suite_rule in SUITE_RULES:
        found.append(
            CataloguedRule(
                suite_rule.code,
                suite_rule.slug,
                "The suite",
                suite_rule.title,
                suite_rule.checks,
                suite_rule.why,
                "violated",
                next_step=suite_rule.next_step,
                source="spec section 7",
            )
        )
    for rule in STATEMENT_RULES:
        found.append(
            CataloguedRule(
                rule.code,
                rule.slug,
                "Statements",
                rule.title,
                rule.checks,
                rule.why,
                "violated" if rule.is_violation else "unknown",
                next_step=rule.next_step,
                source="in-toto Statement v1; DSSE",
            )
        )
    return tuple(sorted(found, key=lambda r: r.code))


def find_rule(word: str) -> CataloguedRule:
    """Return the rule with a code or slug.

    Raises:
        UsageError: there is none; the message names the nearest.
    """
    rules = all_rules()
    for rule in rules:
        if word.upper() == rule.code or word.lower() == rule.slug:
            return rule
    hint = near(word.lower(), [r.slug for r in rules])  # a code that differs in a digit is another rule, not a near one
    raise UsageError(f"unknown rule {word[:60]!r}, expected a code or a name of 'residentkv rules'{hint}")


def _row_rule(rule: RowRule) -> CataloguedRule:
    return CataloguedRule(
        rule.code,
        rule.slug,
        "Descriptors, anchors and rows",
        rule.title,
        rule.checks,
        rule.why,
        "violated" if rule.is_violation else "unknown",
        next_step=rule.next_step,
        source="spec section 5",
    )


def _audit_rule(family: str, rule: Rule) -> CataloguedRule:
    return CataloguedRule(
        rule.code,
        rule.slug,
        family,
        rule.title,
        rule.checks,
        rule.why,
        "violated" if rule.verdict is Verdict.VIOLATING else "unknown",
        required_order=rule.required_order,
        contradicts=rule.contradicts,
        inconclusive_when=rule.inconclusive_when,
        source=rule.source,
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
