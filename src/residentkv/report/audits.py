"""Audit reports as plain data, `residentkv.audit/1`, versioned apart from the types inside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from residentkv.audit.model import AuditReport, ClaimResult, Finding
from residentkv.report.shapes import AuditDocument, ClaimDocument, FindingDocument, TraceDocument
from residentkv.report.text import CAVEAT

JSON_SCHEMA: Final = "residentkv.audit/1"


def audit_document(reports: Sequence[AuditReport], exit_code: int) -> AuditDocument:
    """Return reports as plain data."""
    return {
        "schema": JSON_SCHEMA,
        "exit_code": exit_code,
        "traces": [_report(r) for r in reports],
        "caveat": CAVEAT,
    }


def _report(report: AuditReport) -> TraceDocument:
    return {
        "path": report.path,
        "sha256": report.sha256,
        "profile": report.profile.value,
        "verdict": report.verdict.value,
        "events": report.events,
        "findings": [_finding(f) for f in report.findings],
        "sources": [
            {
                "source": s.source,
                "epoch": s.epoch,
                "run_id": s.run_id,
                "events": s.events,
                "closed": s.closed,
                "runtime": s.runtime,
                "runtime_version": s.runtime_version,
                "primitive": s.primitive,
                "adapter": s.adapter,
                "adapter_version": s.adapter_version,
                "depth": s.depth,
                "stands_in": list(s.stands_in),
                "findings": [_finding(f) for f in s.findings],
                "findings_dropped": s.findings_dropped,
            }
            for s in report.sources
        ],
        "claims": [_claim(c) for c in report.claims],
        "gates": [
            {"name": g.name, "passed": g.passed, "claims": list(g.claims), "missing_event": g.missing_event}
            for g in report.gates
        ],
    }


def _claim(claim: ClaimResult) -> ClaimDocument:
    return {
        "owner_scope": claim.owner_scope,
        "claim_id": claim.claim_id,
        "instance": claim.instance,
        "source": claim.source,
        "epoch": claim.epoch,
        "mode": claim.mode,
        "state": claim.state,
        "verdict": claim.verdict.value,
        "first_seq": claim.first_seq,
        "last_seq": claim.last_seq,
        "counts": dict(sorted(claim.counts.items())),
        "observed": {name: list(seqs) for name, seqs in sorted(claim.observed.items())},
        "findings": [_finding(f) for f in claim.findings],
        "findings_dropped": claim.findings_dropped,
    }


def _finding(finding: Finding) -> FindingDocument:
    return {
        "code": finding.code,
        "slug": finding.slug,
        "verdict": finding.verdict.value,
        "source": finding.source,
        "epoch": finding.epoch,
        "seqs": list(finding.seqs),
        "owner_scope": finding.owner_scope,
        "claim_id": finding.claim_id,
        "story": list(finding.story),
        "required_order": list(finding.required_order),
        "missing_event": finding.missing_event,
        "contradicts": list(finding.contradicts),
    }
