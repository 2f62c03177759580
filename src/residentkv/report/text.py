"""Audit reports as text for people: the verdict first, then each finding as a short story."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator

from residentkv.audit.model import AuditReport, ClaimResult, Finding, Profile, Verdict
from residentkv.report.plain import escape_controls

WIDTH = 79
MAX_CLAIMS = 12
CAVEAT = (
    "A conforming audit says that these events keep the contract. It does not say that the events are true, that "
    "events of another run would keep it, or that anything is fast."
)


def render_audit(report: AuditReport) -> Iterator[str]:
    """Yield the lines of one report, without line ends."""
    total = f"{report.events} event{'s' if report.events != 1 else ''}"
    if report.profile is Profile.PUBLISHED:
        yield from _gates(report, total)
        return
    if not report.events and report.findings:
        # Nothing was read: the one line that says why is the whole report.
        yield escape_controls(f"{report.verdict.value}: {' '.join(report.findings[0].story)}")
        return
    told: set[tuple[str, ...]] = set()
    conforming = Counter(c.verdict for c in report.claims)
    yield f"{escape_controls(report.path)}: {report.verdict.value} ({total}, {_claims(report, conforming)})"
    for source in report.sources:
        if source.runtime is not None:
            adapter = f" with {source.adapter} {source.adapter_version or ''}".rstrip() if source.adapter else ""
            stands_in = f"; {', '.join(source.stands_in)} stands in" if source.stands_in else ""
            yield from _wrapped(
                f"  {source.source}/{source.epoch}: {source.runtime} {source.runtime_version}{adapter}, primitive "
                f"{source.primitive}, depth {source.depth}{stands_in}"
            )
    for finding in report.findings:
        yield from _finding(finding, "  ", told)
    for source in report.sources:
        for finding in source.findings:
            yield from _finding(finding, "  ", told)
        if source.findings_dropped:
            yield from _wrapped(
                f"  {source.findings_dropped} more findings like these in {source.source}/{source.epoch}"
            )
    bad = [c for c in report.claims if c.verdict is not Verdict.CONFORMING]
    good = [c for c in report.claims if c.verdict is Verdict.CONFORMING]
    for claim in (*bad, *good)[:MAX_CLAIMS]:
        yield from _claim(claim, told)
    if len(report.claims) > MAX_CLAIMS:
        rest = Counter(c.verdict.value for c in (*bad, *good)[MAX_CLAIMS:])
        yield f"  and {', '.join(f'{n} {verdict}' for verdict, n in sorted(rest.items()))} claims more"


def render_caveat() -> Iterator[str]:
    """Yield the lines that say what no report says."""
    yield from _wrapped(CAVEAT)


def _claims(report: AuditReport, by_verdict: Counter[Verdict]) -> str:
    if not report.claims:
        return "no claim"
    parts = [f"{by_verdict[v]} {v.value}" for v in Verdict if by_verdict[v]]
    return f"{len(report.claims)} claim{'s' if len(report.claims) > 1 else ''}: {', '.join(parts)}"


def _claim(claim: ClaimResult, told: set[tuple[str, ...]]) -> Iterator[str]:
    mode = claim.mode or "no mode"
    again = f", submission {claim.instance + 1}" if claim.instance else ""
    yield from _wrapped(
        f"  claim {claim.claim_id} of {claim.owner_scope} ({mode}{again}): {claim.verdict.value}, {claim.state}, "
        f"seq {claim.first_seq}-{claim.last_seq} of {claim.source}/{claim.epoch}"
    )
    if claim.counts:
        yield from _wrapped("    " + ", ".join(f"{name} {n}" for name, n in sorted(claim.counts.items())))
    if claim.observed:
        yield from _wrapped(f"    shown: {', '.join(sorted(claim.observed))}")
    for finding in claim.findings:
        yield from _finding(finding, "    ", told)
    if claim.findings_dropped:
        yield f"    {claim.findings_dropped} more findings like these"


def _finding(finding: Finding, indent: str, told: set[tuple[str, ...]]) -> Iterator[str]:
    """Yield one finding; an order that several findings of a report require is told once."""
    word = "violated" if finding.verdict is Verdict.VIOLATING else "inconclusive"
    yield f"{indent}{finding.code} {finding.slug}: {word}"
    for sentence in finding.story:
        yield from _wrapped(f"{indent}  {sentence}")
    if finding.missing_event:
        yield from _wrapped(f"{indent}  missing: {finding.missing_event}")
    if finding.required_order and finding.verdict is Verdict.VIOLATING and finding.required_order not in told:
        told.add(finding.required_order)
        yield from _wrapped(f"{indent}  order: {' -> '.join(finding.required_order)}")


def _gates(report: AuditReport, total: str) -> Iterator[str]:
    passed = [g.name for g in report.gates if g.passed and g.name != "sequence"]
    word = f"passes {' and '.join(passed)}" if passed else "passes no gate"
    yield f"{escape_controls(report.path)}: {word} ({total}; published gates, never evidence)"
    for gate in report.gates:
        told = "pass" if gate.passed else f"no; missing: {gate.missing_event}"
        named = f" for {', '.join(gate.claims[:5])}" if gate.claims else ""
        yield from _wrapped(f"  {gate.name}: {told}{named}")


def _wrapped(line: str) -> Iterator[str]:
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    yield from textwrap.wrap(
        escape_controls(line), width=WIDTH, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    )
