"""The lowering relation: evidence to the verdict of a row (spec section 5). Pure; the order of evidence is irrelevant.

A verified contradiction rejects. A contradiction that could not be verified leaves the obligation unknown, so losing
sight of bad news never helps. A supporting statement that is taken away never improves a verdict; see
`Verdict.rank` for what improving means.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass

from residentkv.claims.modes import Mode, NamedChoice
from residentkv.lowering.depth import Depth
from residentkv.lowering.format import DYNAMIC, EvidenceKind, Polarity
from residentkv.lowering.obligations import BEHAVIOURAL, BUNDLES, Obligation, allowed_depths


class Verdict(NamedChoice):
    """What a row is worth."""

    NATIVE_SOUND = "native_sound"
    SOUND_WITH_ADAPTER = "sound_with_adapter"
    APPROXIMATE = "approximate"
    REJECTED = "rejected"
    UNKNOWN = "unknown"

    @property
    def rank(self) -> int:
        """2 for native_sound, 1 for sound_with_adapter, 0 for the three ways of saying no.

        `approximate`, `unknown` and `rejected` describe why not; none of them is better than another.
        """
        return {Verdict.NATIVE_SOUND: 2, Verdict.SOUND_WITH_ADAPTER: 1}.get(self, 0)

    @property
    def is_positive(self) -> bool:
        """Whether the primitive may be counted as keeping the claim."""
        return self.rank > 0


class EvidenceClass(NamedChoice):
    """What kind of result a verdict is."""

    NATIVE_CONFORMANCE = "native_conformance"
    ADAPTER_OBSERVATIONAL = "adapter_observational"
    ADAPTER_POLICY = "adapter_policy"
    APPROXIMATION_SUBSTRATE = "approximation_substrate"
    REJECTED_MAPPING = "rejected_mapping"
    UNKNOWN_EVIDENCE = "unknown_evidence"


class Status(NamedChoice):
    """What became of one obligation."""

    SATISFIED = "satisfied"
    CONTRADICTED = "contradicted"
    UNKNOWN = "unknown"
    MISSING = "missing"


@dataclass(frozen=True, slots=True, order=True)
class Standing:
    """What is known in this run about the thing that a statement leans on.

    Args:
        label: name of the anchor or trace.
        is_verified: its target was read in this run and says what it has to say.
        is_refuted: its target was read in this run and says something else, or is gone.
        state: the word for it.
        sentence: the same for a reader, with file and symbol.
    """

    label: str
    is_verified: bool
    is_refuted: bool
    state: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Exhibit:
    """One statement about one obligation, with the standing of what it leans on.

    `source` is `native` or an adapter; `place` is where the statement is written; `stands_in` names what stood in for
    something else in the run that shows it.
    """

    obligation: Obligation
    polarity: Polarity
    kind: EvidenceKind
    depth: Depth
    standing: Standing
    source: str
    note: str
    place: str
    stands_in: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """A statement that did not count, and why, in a sentence."""

    exhibit: Exhibit
    why: str


@dataclass(frozen=True, slots=True)
class ObligationResult:
    """What became of one obligation: the support that satisfied it, what contradicts it, what did not count."""

    obligation: Obligation
    status: Status
    used: Exhibit | None
    contradictions: tuple[Exhibit, ...]
    refused: tuple[Refusal, ...]
    sentence: str


@dataclass(frozen=True, slots=True)
class Summary:
    """All that the verdict of a row takes from its obligations; the sum of two is that of both together.

    `deepest` is the depth of the deepest support that was used, None when none was.
    """

    is_contradicted: bool = False
    is_unknown: bool = False
    is_missing: bool = False
    deepest: Depth | None = None

    def __add__(self, other: Summary) -> Summary:
        depths = [d for d in (self.deepest, other.deepest) if d is not None]
        return Summary(
            self.is_contradicted or other.is_contradicted,
            self.is_unknown or other.is_unknown,
            self.is_missing or other.is_missing,
            max(depths, key=lambda d: d.rank, default=None),
        )


@dataclass(frozen=True, slots=True)
class RowVerdict:
    """The verdict of one row with everything that led to it.

    `basis_problems` are standings of anchors that show where the primitive lives and could not be verified;
    `related` are the verified anchors that make a row approximate.
    """

    mode: Mode
    depth: Depth
    verdict: Verdict
    evidence_class: EvidenceClass
    obligations: tuple[ObligationResult, ...]
    basis_problems: tuple[Standing, ...]
    related_problems: tuple[Standing, ...]
    related: tuple[str, ...]
    sentence: str

    @property
    def first_open(self) -> ObligationResult | None:
        """The first obligation of the bundle that is not satisfied."""
        return next((o for o in self.obligations if o.status is not Status.SATISFIED), None)

    @property
    def stands_in(self) -> tuple[str, ...]:
        """What stood in for something else in the runs that the obligations rest on; it limits what they show."""
        return stood_in_for(self.obligations)


def judge_row(
    mode: Mode,
    depth: Depth,
    exhibits: Iterable[Exhibit],
    *,
    basis: Iterable[Standing] = (),
    related: Iterable[Standing] = (),
) -> RowVerdict:
    """Judge one row.

    Args:
        mode: the mode that the primitive is taken for.
        depth: how deep the help may reach.
        exhibits: statements about this row, in any order, repeated or not; deeper ones are told and not counted.
        basis: anchors that show where the primitive and its adapters live; all must be verified.
        related: anchors that show something like the promise.
    """
    by_obligation: dict[Obligation, list[Exhibit]] = {}
    for exhibit in sorted(set(exhibits), key=_order):
        by_obligation.setdefault(exhibit.obligation, []).append(exhibit)
    results = tuple(judge_obligation(o, mode, depth, by_obligation.get(o, ())) for o in BUNDLES[mode])
    basis_problems = tuple(sorted({s for s in basis if not s.is_verified}))
    all_related = set(related)
    related_problems = tuple(sorted(s for s in all_related if s.is_refuted))
    verified = tuple(sorted(s.label for s in all_related if s.is_verified))
    summary = functools.reduce(Summary.__add__, map(summarise, results))
    is_related = bool(verified) and not related_problems
    verdict, evidence_class = conclude(summary, basis_is_seen=not basis_problems, is_related=is_related)
    first = {r.status: r for r in reversed(results)}
    if verdict is Verdict.REJECTED:
        named = first[Status.CONTRADICTED]
        sentence = f"{named.obligation} is contradicted: {named.sentence}"
    elif basis_problems:
        sentence = f"what was judged could not be seen here: {basis_problems[0].sentence}"
    elif Status.UNKNOWN in first:
        named = first[Status.UNKNOWN]
        sentence = f"{named.obligation} is unknown: {named.sentence}"
    elif Status.MISSING in first:
        missing = [r.obligation.value for r in results if r.status is Status.MISSING]
        named = first[Status.MISSING]
        sentence = f"{', '.join(missing)} missing; {named.obligation}: {named.sentence}"
        if related_problems:
            sentence += f"; and what it resembles has changed: {related_problems[0].sentence}"
    else:
        sentence = "every obligation is satisfied"
        used = [r.used for r in results if r.used is not None and r.used.depth is not Depth.NATIVE]
        if used:
            helpers = sorted({f"{e.source} at depth {e.depth}" for e in used})
            sentence += f", with help from {', '.join(helpers)}"
        stood_in = stood_in_for(results)
        if stood_in:
            sentence += f"; in the runs that show it stood in: {', '.join(stood_in)}"
    return RowVerdict(
        mode=mode,
        depth=depth,
        verdict=verdict,
        evidence_class=evidence_class,
        obligations=results,
        basis_problems=basis_problems,
        related_problems=related_problems,
        related=verified,
        sentence=sentence,
    )


def stood_in_for(results: Iterable[ObligationResult]) -> tuple[str, ...]:
    """Return what stood in for something else in the runs that were used, sorted."""
    return tuple(sorted({part for r in results if r.used is not None for part in r.used.stands_in}))


def summarise(result: ObligationResult) -> Summary:
    """Return what the verdict of a row takes from one obligation."""
    return Summary(
        is_contradicted=result.status is Status.CONTRADICTED,
        is_unknown=result.status is Status.UNKNOWN,
        is_missing=result.status is Status.MISSING,
        deepest=None if result.used is None else result.used.depth,
    )


def conclude(summary: Summary, *, basis_is_seen: bool, is_related: bool) -> tuple[Verdict, EvidenceClass]:
    """Return the verdict of a row and its class: a function of these three and of nothing else (spec section 5).

    Args:
        summary: of all obligations of the mode.
        basis_is_seen: every anchor that shows where the primitive and its adapters live was verified.
        is_related: something like the promise was verified, and nothing like it has changed or gone.
    """
    if summary.is_contradicted:
        return Verdict.REJECTED, EvidenceClass.REJECTED_MAPPING
    if not basis_is_seen or summary.is_unknown or (not summary.is_missing and summary.deepest is None):
        return Verdict.UNKNOWN, EvidenceClass.UNKNOWN_EVIDENCE
    if summary.is_missing:
        if is_related:
            return Verdict.APPROXIMATE, EvidenceClass.APPROXIMATION_SUBSTRATE
        return Verdict.UNKNOWN, EvidenceClass.UNKNOWN_EVIDENCE
    if summary.deepest is Depth.NATIVE:
        return Verdict.NATIVE_SOUND, EvidenceClass.NATIVE_CONFORMANCE
    if summary.deepest is Depth.OBSERVE:
        return Verdict.SOUND_WITH_ADAPTER, EvidenceClass.ADAPTER_OBSERVATIONAL
    return Verdict.SOUND_WITH_ADAPTER, EvidenceClass.ADAPTER_POLICY


def judge_obligation(obligation: Obligation, mode: Mode, depth: Depth, exhibits: Iterable[Exhibit]) -> ObligationResult:
    """Judge one obligation of a row from the statements about it."""
    usable: list[Exhibit] = []
    contradictions: list[Exhibit] = []
    unverified: list[Exhibit] = []
    doubts: list[Exhibit] = []
    refused: list[Refusal] = []
    for exhibit in sorted(set(exhibits), key=_order):
        why = why_not_counted(exhibit, mode, depth)
        in_scope = exhibit.depth.within(depth)
        if in_scope and not exhibit.standing.is_verified:
            unverified.append(exhibit)
            if exhibit.polarity is Polarity.CONTRADICTS:
                doubts.append(exhibit)
        if why:
            refused.append(Refusal(exhibit, why))
        elif exhibit.polarity is Polarity.CONTRADICTS:
            contradictions.append(exhibit)
        else:
            usable.append(exhibit)
    used = min(usable, key=lambda e: (e.depth.rank, _order(e)), default=None)
    if contradictions:
        status, sentence = Status.CONTRADICTED, _told(contradictions[0])
    elif doubts:
        status = Status.UNKNOWN
        sentence = f"evidence against it could not be verified: {doubts[0].standing.sentence}"
    elif used is not None:
        status, sentence = Status.SATISFIED, _told(used)
    elif unverified:
        status, sentence = Status.UNKNOWN, unverified[0].standing.sentence
    else:
        status = Status.MISSING
        sentence = refused[0].why if refused else "no evidence"
    return ObligationResult(
        obligation=obligation,
        status=status,
        used=used if status is Status.SATISFIED else None,
        contradictions=tuple(contradictions),
        refused=tuple(refused),
        sentence=sentence,
    )


def why_not_counted(exhibit: Exhibit, mode: Mode, depth: Depth) -> str:
    """Return in a sentence why a statement does not count for this row, or nothing when it counts."""
    if not exhibit.depth.within(depth):
        return f"it is at depth {exhibit.depth} and the row is judged at depth {depth}"
    if not exhibit.standing.is_verified:
        return f"it is not verified ({exhibit.standing.state}): {exhibit.standing.sentence}"
    if exhibit.polarity is Polarity.CONTRADICTS:
        return ""
    allowed = allowed_depths(exhibit.obligation, mode)
    if exhibit.depth not in allowed:
        words = ", ".join(d.value for d in Depth if d in allowed)
        reason = f"depth {exhibit.depth} may not supply {exhibit.obligation} for {mode}, only {words}"
        if exhibit.obligation is Obligation.ACCEPTANCE:
            reason += "; whoever accepts must be able to enforce"
        return reason
    if exhibit.obligation in BEHAVIOURAL and exhibit.kind not in DYNAMIC:
        return f"what happens cannot be shown by {exhibit.kind}, only by an audited trace or an experiment"
    return ""


def _told(exhibit: Exhibit) -> str:
    return f"{exhibit.note} ({exhibit.kind}, {exhibit.source}, {exhibit.standing.label})"


def _order(exhibit: Exhibit) -> tuple[str, ...]:
    """A total order over what can be seen of a statement, so that results do not depend on the order of input."""
    return (
        exhibit.obligation,
        exhibit.polarity,
        exhibit.kind,
        exhibit.depth,
        exhibit.source,
        exhibit.standing.label,
        exhibit.standing.state,
        exhibit.standing.sentence,
        str(exhibit.standing.is_verified),
        exhibit.note,
        exhibit.place,
        *exhibit.stands_in,
    )
