"""Running cases: the real reader, audit, loader, anchors and relation, and whether they refuse for the right reason."""

from __future__ import annotations

from functools import reduce
from pathlib import Path

import msgspec

from residentkv.audit import AuditReport, Verdict, audit_file
from residentkv.audit.confirm import items_of
from residentkv.audit.model import worse
from residentkv.errors import ResidentKVError
from residentkv.lowering.anchors import AnchorVerifier
from residentkv.lowering.checking import CheckedRow, Selection, check_row, scope_of
from residentkv.lowering.exhibits import Findings, TraceItem
from residentkv.lowering.format import DYNAMIC, Polarity
from residentkv.lowering.obligations import BEHAVIOURAL, allowed_depths
from residentkv.lowering.relation import Exhibit, ObligationResult, RowVerdict, Status
from residentkv.sources.git import Checkouts
from residentkv.sources.library import load_descriptor
from residentkv.sources.machine import MachineSources
from residentkv.suite.case import CASES, Case, DescriptorPart, TracePart


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was expected of a case, and what was found."""

    what: str
    expected: str
    found: str

    @property
    def passed(self) -> bool:
        """Whether it is as expected."""
        return self.expected == self.found


class CaseResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a case; `told` is why it was refused, in the words of the audit or the relation."""

    slug: str
    kind: str
    title: str
    verdict: str
    reason: str
    checks: tuple[Check, ...]
    told: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether it was refused for its own reason and its twin passed."""
        return all(check.passed for check in self.checks)


def run_case(slug: str, case: Case, folder: Path = CASES) -> CaseResult:
    """Run one case in a folder of cases."""
    checks: list[Check] = []
    told: list[str] = []
    try:
        if case.trace is not None:
            _run_trace(folder / slug, case.trace, checks, told)
        if case.descriptor is not None:
            _run_descriptor(folder / slug, case.descriptor, checks, told)
    except ResidentKVError as e:
        checks.append(Check(what="the case can be run", expected="yes", found=str(e)))
    verdicts = [p.verdict for p in (case.trace, case.descriptor) if p is not None]
    reasons = [case.trace.rule] if case.trace is not None else []
    if case.descriptor is not None:
        reasons.append(case.descriptor.open[0].obligation)
    return CaseResult(
        slug=slug,
        kind=case.kind,
        title=case.title,
        verdict="+".join(verdicts),
        reason="+".join(reasons),
        checks=tuple(checks),
        told=tuple(told),
    )


def _run_trace(folder: Path, part: TracePart, checks: list[Check], told: list[str]) -> None:
    report = audit_file(folder / part.file)
    findings = report.all_findings()
    codes = {f.code for f in findings}
    own = [f for f in findings if f.code == part.rule]
    stories = [sentence for f in own for sentence in f.story]
    checks.append(Check(what="audit of the trace", expected=part.verdict, found=report.verdict.value))
    checks.append(Check(what="rules broken", expected=_join({part.rule, *part.also}), found=_join(codes)))
    worst = reduce(worse, (f.verdict for f in own), Verdict.CONFORMING)
    checks.append(Check(what=f"verdict of {part.rule}", expected=part.verdict, found=worst.value))
    if part.says:
        told_so = any(part.says in sentence for sentence in stories)
        checks.append(Check(what="story", expected=part.says, found=part.says if told_so else " ".join(stories)))
    told.extend(f"{part.rule} {sentence}".replace(f"{folder}/", "") for sentence in stories[:2])
    twin = audit_file(folder / part.twin)
    checks.append(Check(what="audit of the twin", expected="conforming", found=_verdict_and_codes(twin)))


def _verdict_and_codes(report: AuditReport) -> str:
    return " ".join([report.verdict.value, *sorted({f.code for f in report.all_findings()})])


def _run_descriptor(folder: Path, part: DescriptorPart, checks: list[Check], told: list[str]) -> None:
    verdict = check_judged(judged_of(folder, part)).verdict
    checks.append(Check(what="verdict of the row", expected=part.verdict, found=verdict.verdict))
    still_open = {f"{r.obligation}: {reason_of(r, verdict)}" for r in verdict.obligations if not _satisfied(r)}
    expected = {f"{o.obligation}: {o.reason}" for o in part.open}
    checks.append(Check(what="open obligations", expected=_join(expected), found=_join(still_open)))
    told.append(verdict.sentence)
    twin = check_judged(judged_of(folder, part, twin=True)).verdict
    checks.append(Check(what="verdict of the twin", expected=part.twin_verdict, found=twin.verdict))


def _satisfied(result: ObligationResult) -> bool:
    return result.status is Status.SATISFIED


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """What a descriptor case, or its twin, judges: the file, which row, and where its anchors and evidence are."""

    path: Path
    selection: Selection
    sources: MachineSources
    traces: tuple[Path, ...]

    def items(self) -> tuple[TraceItem, ...]:
        """Audit the traces and return what they show."""
        return tuple(item for trace in self.traces for item in items_of(audit_file(trace), trace.name))


def judged_of(folder: Path, part: DescriptorPart, *, twin: bool = False) -> Judged:
    """Return what a descriptor case judges, or its twin.

    Anchors are looked up in the case folder only: no cache folder, no checkouts of this machine.
    """
    site = folder / (part.twin_site if twin and part.twin_site is not None else part.site)
    traces = part.twin_traces if twin and part.twin_traces is not None else part.traces
    depth = part.twin_depth if twin and part.twin_depth is not None else part.depth
    return Judged(
        path=folder / (part.twin if twin else part.file),
        selection=Selection(part.primitive, part.mode, depth),
        sources=MachineSources(
            site_packages=[site],
            archives=[],
            archive_folder=None,
            checkouts=Checkouts({}, site / "no-checkouts"),
            documents={url: folder / file for url, file in part.documents.items()},
        ),
        traces=tuple(folder / trace for trace in traces),
    )


def check_judged(judged: Judged) -> CheckedRow:
    """Judge the one row that is selected.

    Raises:
        ResidentKVError: the descriptor cannot be read, or the selection is not one row.
    """
    descriptor = load_descriptor(judged.path)
    rows = list(judged.selection.rows(descriptor))
    if len(rows) != 1:
        raise ResidentKVError(f"{judged.path}: found {len(rows)} rows of the case, expected one")
    scope = scope_of(descriptor)
    findings = Findings(
        anchors=AnchorVerifier(judged.sources).verify_all(descriptor.anchors, scope),
        audited={},
        traces=judged.items(),
    )
    return check_row(rows[0], descriptor, findings)


def reason_of(result: ObligationResult, row: RowVerdict) -> str:
    """Return in fixed words why an obligation is not satisfied; see `residentkv.suite.case.Reason`."""
    if result.status is Status.CONTRADICTED:
        return "contradicted"
    exhibits = [refusal.exhibit for refusal in result.refused]
    if result.status is Status.UNKNOWN:
        doubted = [e for e in exhibits if not e.standing.is_verified]
        against = [e for e in doubted if e.polarity is Polarity.CONTRADICTS]
        return (against or doubted)[0].standing.state.replace("_", " ")
    if result.status is Status.MISSING:
        return _why_missing(exhibits[0], row) if exhibits else "no evidence"
    return "satisfied"


def _why_missing(exhibit: Exhibit, row: RowVerdict) -> str:
    if not exhibit.depth.within(row.depth):
        return "deeper than the row"
    if exhibit.depth not in allowed_depths(exhibit.obligation, row.mode):
        return "depth not allowed"
    if exhibit.obligation in BEHAVIOURAL and exhibit.kind not in DYNAMIC:
        return "static kind"
    return "no evidence"


def _join(words: set[str]) -> str:
    return ", ".join(sorted(words)) or "none"
