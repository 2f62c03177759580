"""A trace as one HTML file: a canvas to look at, a table to read, and the story of every finding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from residentkv.audit.model import AuditReport, Finding, Verdict
from residentkv.report.html import render_page, script_data
from residentkv.report.text import CAVEAT
from residentkv.report.timeline import timeline_data
from residentkv.trace.events import AnyEvent

MAX_STORIES = 200
"""Findings that are told in full; the others are marks on their lanes."""


def render_timeline(chunks: Iterable[Sequence[AnyEvent]], report: AuditReport) -> str:
    """Return the page of one trace.

    Args:
        chunks: the events that were audited, in the order of the file.
        report: what the audit said about them.
    """
    data = timeline_data(chunks, report)
    findings = report.all_findings()
    numbered = list(zip(findings, data["findings"], strict=True))
    numbered.sort(key=lambda pair: pair[0].verdict is not Verdict.VIOLATING)
    data["findings"] = [plain for _, plain in numbered]
    verdicts = Counter(claim.verdict for claim in report.claims)
    return render_page(
        "timeline.html.j2",
        styles=("base.css", "timeline.css"),
        scripts=("timeline_model.js", "timeline_draw.js", "timeline.js"),
        title=f"Timeline of {report.path}",
        report=report,
        stories=[(n, finding, plain["events"]) for n, (finding, plain) in enumerate(numbered[:MAX_STORIES])],
        untold=max(len(numbered) - MAX_STORIES, 0) + _dropped(report),
        claims=[(v, verdicts[v]) for v in Verdict if verdicts[v]],
        data=script_data(data),
        caveat=CAVEAT,
        missed=_missed,
    )


def _dropped(report: AuditReport) -> int:
    return sum(s.findings_dropped for s in report.sources) + sum(c.findings_dropped for c in report.claims)


def _missed(finding: Finding) -> bool:
    """Return whether the order that a finding requires is worth showing beside its story."""
    return bool(finding.required_order) and finding.verdict is Verdict.VIOLATING
