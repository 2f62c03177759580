"""Mutants judged and counted: refused, weaker, equivalent with the reason, or survived, which is a hole."""

from __future__ import annotations

from collections import Counter

import msgspec

from residentkv.audit import AuditReport, Verdict, audit_events
from residentkv.audit.evidence import experiments_of
from residentkv.claims.modes import Mode
from residentkv.lowering.obligations import BUNDLES
from residentkv.suite.context import Context
from residentkv.suite.equivalent import equivalence_of
from residentkv.suite.mutate import Trace, mutate_trace

Support = frozenset[tuple[str, ...]]


class Score(msgspec.Struct, kw_only=True):
    """Counts of one operator. `refused` and `weaker` mutants are killed."""

    made: int = 0
    refused: int = 0
    weaker: int = 0
    equivalent: int = 0
    survived: int = 0

    @property
    def killed(self) -> int:
        """Mutants that are no longer positive, or no longer support what the original supports."""
        return self.refused + self.weaker


class Tally(msgspec.Struct, kw_only=True):
    """Counts by operator and by kind of equivalence, and every survivor in a sentence."""

    scores: dict[str, Score] = msgspec.field(default_factory=dict)
    equivalent: Counter[str] = msgspec.field(default_factory=Counter)
    survivors: list[str] = msgspec.field(default_factory=list)

    def score(self, operator: str) -> Score:
        """Return the counts of an operator."""
        return self.scores.setdefault(operator, Score())

    def total(self) -> Score:
        """Return the sums over all operators."""
        scores = self.scores.values()
        return Score(
            made=sum(s.made for s in scores),
            refused=sum(s.refused for s in scores),
            weaker=sum(s.weaker for s in scores),
            equivalent=sum(s.equivalent for s in scores),
            survived=sum(s.survived for s in scores),
        )

    def add(self, operator: str, outcome: str, *, reason: str = "", sentence: str = "") -> None:
        """Enter one mutant: `refused`, `weaker`, `equivalent` for a reason, or `survived`."""
        score = self.score(operator)
        score.made += 1
        setattr(score, outcome, getattr(score, outcome) + 1)
        if outcome == "equivalent":
            self.equivalent[reason] += 1
        elif outcome == "survived":
            self.survivors.append(sentence)


class NotPositive(ValueError):
    """The original is not positive itself, so its mutants say nothing."""


def tally_trace(name: str, trace: Trace, tally: Tally) -> None:
    """Judge every mutant of a conforming trace.

    A mutant is refused when it does not conform, and weaker when a claim of it no longer supports, in its mode, an
    obligation of the bundle that it supported before, or when its experiment lost a trial or turned round. One that
    supports more than the original, or is contradicted less, is never equivalent.

    Raises:
        NotPositive: the trace does not conform.
    """
    report = audit_events([trace])
    if report.verdict is not Verdict.CONFORMING:
        raise NotPositive(f"{name}: {report.verdict.value}")
    base = support_of(report)
    context = Context(trace)
    for mutant in mutate_trace(trace):
        after = audit_events([mutant.events])
        if after.verdict is not Verdict.CONFORMING:
            tally.add(mutant.operator, "refused")
        elif not base <= support_of(after):
            tally.add(mutant.operator, "weaker")
        elif support_of(after) <= base and (equivalence := equivalence_of(mutant, context)) is not None:
            tally.add(mutant.operator, "equivalent", reason=equivalence.name)
        else:
            tally.add(mutant.operator, "survived", sentence=f"{name}: {mutant.sentence()}")


def support_of(report: AuditReport) -> Support:
    """Return which obligations of its bundle each conforming claim supports, and what each source's experiment shows.

    An experiment shows each of its trials, or that nothing speaks against the preference: what takes a contradiction
    away adds to the support.
    """
    claims = (
        (c.source, str(c.epoch), c.owner_scope, c.claim_id, str(c.instance), c.mode, obligation)
        for c in report.claims
        if c.verdict is Verdict.CONFORMING and c.mode is not None
        for obligation in c.observed
        if obligation in _BUNDLE_NAMES[c.mode]
    )
    items = {(i.events[0].source, i.events[0].epoch): i for i in experiments_of(report)}
    shown: list[tuple[str, ...]] = []
    for s in report.sources:
        item = items.get((s.source, s.epoch))
        if item is None or item.polarity == "supports":
            trials = item.claims if item is not None else 0
            shown += [(s.source, str(s.epoch), "eviction_preference", str(n)) for n in range(trials + 1)]
    return frozenset((*claims, *shown))


_BUNDLE_NAMES: dict[str, frozenset[str]] = {mode.value: frozenset(o.value for o in BUNDLES[mode]) for mode in Mode}
